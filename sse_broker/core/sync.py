"""Locks and wake-ups that are right under plain threads and under gevent.

Everything this library knows of gevent is here, and nothing of it is imported:
a process that uses gevent has it in ``sys.modules``.

Under gevent's monkey patching two rules hold.  Short sections of pure memory
work are guarded by *native* locks: no greenlet can be switched away inside
them, and a native thread that meets one needs no hub.  And streams wait in
greenlets of one hub, which a native thread cannot wake by putting into a queue
(measured: seconds); such work is handed to that hub's own loop.
"""

from __future__ import annotations

import _thread
import sys
from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Loop", "NativeLock", "native_lock", "patched", "unpatched_greenlet"]


class NativeLock(Protocol):
    """What ``_thread.allocate_lock()`` returns."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Take the lock."""

    def release(self) -> None:
        """Give it back."""

    def __enter__(self) -> bool: ...

    def __exit__(self, *args: object) -> None: ...


def patched() -> bool:
    """Whether gevent has replaced ``threading`` in this process."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def native_lock() -> NativeLock:
    """Return a lock of the operating system's, also where gevent has patched ``threading``."""
    monkey = sys.modules.get("gevent.monkey")
    make: Any = _thread.allocate_lock
    if monkey is not None:
        make = monkey.get_original("_thread", "allocate_lock")
    lock: NativeLock = make()
    return lock


def unpatched_greenlet() -> bool:
    """Whether the caller is a greenlet in a process that gevent has not patched.

    There, every wait of the standard library stops the whole hub.
    """
    gevent = sys.modules.get("gevent")
    if gevent is None or patched():
        return False
    return isinstance(gevent.getcurrent(), getattr(gevent, "Greenlet", ()))


class Loop:
    """Where the streams of this process wait, and how to run something there.

    Without gevent that is any thread.  With it, it is the hub of the thread
    that made this object.
    """

    def __init__(self) -> None:
        self._hub: Any = sys.modules["gevent"].get_hub() if patched() else None

    def here(self) -> bool:
        """Whether the caller may wake streams by itself."""
        if self._hub is None:
            return True
        current: Any = sys.modules["gevent._hub_local"].get_hub_if_exists()
        return current is self._hub

    def call(self, act: Callable[[], None]) -> None:
        """Run *act*, which must not wait, where streams can be woken.  Any thread; never waits."""
        if self.here():
            act()
        else:
            self._hub.loop.run_callback_threadsafe(act)

    def on_readable(self, fd: int, act: Callable[[], None]) -> Callable[[], None] | None:
        """Call *act* on the hub whenever *fd* can be read; return the call that ends it.

        ``None`` without gevent: there a thread with a selector watches.
        """
        if self._hub is None:
            return None
        watcher = self._hub.loop.io(fd, 1)
        watcher.start(act)

        def end() -> None:
            watcher.stop()
            watcher.close()

        return end
