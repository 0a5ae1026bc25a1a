"""Run by test_threads.py: a forked child waits, and the parent's thread goes on in the parent alone."""

from gevent import monkey

monkey.patch_all()

import os  # noqa: E402
import threading  # noqa: E402

from sse_broker.core.threads import spawn  # noqa: E402


def main() -> None:
    ours, theirs = os.pipe()
    pause, turns = threading.Event(), 0

    def run() -> None:
        nonlocal turns
        while True:
            pause.wait(0.01)
            turns += 1
            if os.getpid() != parent:
                os.write(theirs, b"x")

    def turns_on() -> None:
        before = turns
        while turns < before + 3:
            pause.wait(0.01)

    parent = os.getpid()
    spawn("test", run)
    turns_on()
    child = os.fork()
    if child == 0:
        pause.wait(0.5)
        os._exit(0)
    turns_on()
    os.waitpid(child, 0)
    os.write(theirs, b".")
    assert os.read(ours, 100) == b".", "it went on in the child"


main()
print("ok")
