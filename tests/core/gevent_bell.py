"""Run by test_sync.py: a native thread rings between a greenlet's unlock and its wait."""

from gevent import monkey

monkey.patch_all()

import gevent  # noqa: E402

from sse_broker import Client  # noqa: E402
from sse_broker.core.client import State  # noqa: E402
from sse_broker.core.sync import native_lock  # noqa: E402


class Gate:
    """The queue's lock; once it is free, a native thread acts before its owner goes on."""

    def __init__(self, lock, act) -> None:
        self.lock, self.act, self.failed = lock, act, None

    def acquire(self) -> bool:
        return self.lock.acquire()

    def __enter__(self) -> bool:
        return self.lock.acquire()

    def __exit__(self, *args: object) -> None:
        self.lock.release()

    def release(self) -> None:
        self.lock.release()
        act, self.act = self.act, None
        if act is None:
            return
        done = native_lock()
        done.acquire()

        def run() -> None:
            try:
                act()
            except BaseException as err:
                self.failed = err
            done.release()

        monkey.get_original("_thread", "start_new_thread")(run, ())
        done.acquire()


def main() -> None:
    for waited_before in (False, True):
        client = Client(1)
        if waited_before:
            client.take(0.01)
        client.queue.mutex = gate = Gate(client.queue.mutex, lambda: client.finish("gone"))
        with gevent.Timeout(20):
            took = client.take(60)
        assert gate.failed is None, gate.failed
        assert took.state is State.CLOSED


main()
print("ok")
