"""How threads of the library begin, and what is said when one ends as it should not.

A fork copies one thread; but under gevent it copies all, because they are
greenlets: in a child that waits for anything, the parent's reaper and feed would go
on there and write what the parent writes too.  So they are ended in the child, before
they run.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

from sse_broker.core.sync import patched

__all__ = ["is_alive", "spawn"]

_log = logging.getLogger("sse_broker.threads")
_greenlets: weakref.WeakSet[Any] = weakref.WeakSet()


def spawn(role: str, run: Callable[[], None]) -> threading.Thread:
    """Start a daemon thread ``sse-broker-<role>-<pid>``; if *run* raises, the log says so.

    Loops catch every ``Exception`` themselves.  What ends them all the same (a
    ``SystemExit`` in a function of the application, a killed greenlet) ends the
    thread, and whoever looks after it starts another.

    :raises RuntimeError: the system gives no more threads.
    """
    pid = os.getpid()
    name = f"sse-broker-{role}-{pid}"

    def body() -> None:
        if patched():
            _greenlets.add(sys.modules["gevent"].getcurrent())
        try:
            run()
        except BaseException:  # nobody else would say it: threads swallow a SystemExit
            if os.getpid() == pid:
                _log.critical("%s has died", name, exc_info=True)
            elif patched():  # threading has forgotten it in the child and would complain of its end
                sys.modules["gevent"].get_hub().switch()

    thread = threading.Thread(target=body, name=name, daemon=True)
    thread.start()
    return thread


def is_alive(thread: threading.Thread | None) -> bool:
    """Whether there is a thread and it lives."""
    return thread is not None and thread.is_alive()


def _end_in_child() -> None:
    """End what a fork has copied; it happens before anything else once the child waits."""
    for greenlet in list(_greenlets):
        greenlet.kill(block=False)
    _greenlets.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_end_in_child)
