"""Run by test_forks.py: forks at any moment of a broker that is used meanwhile.

``python -m tests.core.forking <log url> <forks>``; prints how many children did all right.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from sse_broker import Broker, Identity

CHILD_TIMEOUT = 30  # seconds


def use(broker: Broker, name: int) -> None:
    """Send, and have it read by a stream of this process."""
    reader = broker.streams.open(Identity(name), ["all"])
    sent = broker.send_to_topic("all", "e", name)
    got, end = b"", time.monotonic() + CHILD_TIMEOUT
    while b"id: %b\n" % sent.encode() not in got:
        got += reader.next(1) or b""
        assert time.monotonic() < end, got
    broker.unregister(reader.client)


def child(broker: Broker) -> None:
    signal.alarm(CHILD_TIMEOUT)  # a lock that is stuck would be waited for without end
    for name in range(3):
        use(broker, name + 1)
    assert broker.get_stats().total_clients == 0
    assert broker.health()["reaper"]
    broker.stop()


def main(url: str, forks: int) -> None:
    broker, stop = Broker(log=url), threading.Event()
    broker.start()

    def hold() -> None:
        while not stop.is_set():
            with broker.streams.here()._changing_life, broker.streams.here()._lock:
                pass

    def hammer(name: int) -> None:
        while not stop.is_set():
            use(broker, name)

    threads = [threading.Thread(target=hammer, args=(n,)) for n in (1, 2)]
    threads.append(threading.Thread(target=hold))
    for thread in threads:
        thread.start()
    well = 0
    for _ in range(forks):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                child(broker)
                code = 0
            finally:
                os._exit(code)
        if os.waitpid(pid, 0)[1]:
            break
        well += 1
    stop.set()
    for thread in threads:
        thread.join(CHILD_TIMEOUT)
    use(broker, 1)
    broker.stop()
    print(well)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
