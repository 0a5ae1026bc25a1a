"""How threads of the library begin, and what is said when one ends as it should not."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

__all__ = ["is_alive", "spawn"]

_log = logging.getLogger("sse_broker.threads")


def spawn(role: str, run: Callable[[], None]) -> threading.Thread:
    """Start a daemon thread ``sse-broker-<role>-<pid>``; if *run* raises, the log says so.

    Loops catch every ``Exception`` themselves.  What ends them all the same (a
    ``SystemExit`` in a function of the application, a killed greenlet) ends the
    thread, and whoever looks after it starts another.

    :raises RuntimeError: the system gives no more threads.
    """
    name = f"sse-broker-{role}-{os.getpid()}"

    def body() -> None:
        try:
            run()
        except BaseException:  # nobody else would say it: threads swallow a SystemExit
            _log.critical("%s has died", name, exc_info=True)

    thread = threading.Thread(target=body, name=name, daemon=True)
    thread.start()
    return thread


def is_alive(thread: threading.Thread | None) -> bool:
    """Whether there is a thread and it lives."""
    return thread is not None and thread.is_alive()
