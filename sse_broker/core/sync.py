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
import collections
import queue
import sys
import weakref
from collections.abc import Callable
from typing import Any, Protocol

__all__ = [
    "Bell",
    "NativeLock",
    "StdlibQueue",
    "WakeChain",
    "in_hub",
    "let_others_run",
    "make_bell",
    "native_lock",
    "on_readable",
    "patched",
    "unpatched",
]


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


def let_others_run() -> None:
    """Give each greenlet that can run its turn; among threads the interpreter does that itself.

    For long work that waits for nothing, on a stream's own thread or greenlet,
    with no lock held.
    """
    if patched():
        gevent: Any = sys.modules["gevent"]
        hub = gevent.get_hub()
        if gevent.getcurrent() is not hub:
            turns = _turns.get(hub)
            if turns is None:
                turns = _turns[hub] = _Turns(hub)
            turns.wait()


class _Turns:
    """Lets few of many busy greenlets stand in the hub's queue at a time.

    If two thousand stood there, a new request would wait for a turn of each of them.
    Only the hub's own greenlets touch it, and no step of it is interrupted.
    """

    WIDTH = 8

    def __init__(self, hub: Any) -> None:
        self._loop, self._hub = hub.loop, weakref.ref(hub)
        self._waiting: collections.deque[Any] = collections.deque()
        self._standing = 0

    def wait(self) -> None:
        """Wait until it is the caller's turn again: each of the others has had one then."""
        waiter = sys.modules["gevent.hub"].Waiter(self._hub())
        self._waiting.append(waiter)
        self._stand()
        waiter.get()

    def _stand(self) -> None:
        if self._waiting and self._standing < self.WIDTH:
            self._standing += 1
            self._loop.run_callback(self._next)

    def _next(self) -> None:
        self._standing -= 1
        waiter = self._waiting.popleft() if self._waiting else None
        self._stand()  # first: whose turn it is may not come back
        if waiter is not None:
            waiter.switch(None)


_turns: weakref.WeakKeyDictionary[Any, _Turns] = weakref.WeakKeyDictionary()


def native_lock() -> NativeLock:
    """Return a lock of the operating system's, also where gevent has patched ``threading``."""
    monkey = sys.modules.get("gevent.monkey")
    make: Any = _thread.allocate_lock
    if monkey is not None:
        make = monkey.get_original("_thread", "allocate_lock")
    lock: NativeLock = make()
    return lock


def in_hub() -> bool:
    """Whether the caller is a hub of gevent itself, which runs callbacks and must never wait."""
    gevent = sys.modules.get("gevent")
    return gevent is not None and isinstance(gevent.getcurrent(), sys.modules["gevent.hub"].Hub)


NEEDED = ("threading", "socket")  # of the standard library, by streams and by the logs


def unpatched() -> str:
    """Return what gevent has not patched although the caller is a greenlet; empty if all is well.

    There, every wait of the standard library stops the whole hub.
    """
    gevent = sys.modules.get("gevent")
    if gevent is None or not isinstance(gevent.getcurrent(), getattr(gevent, "Greenlet", ())):
        return ""
    monkey = sys.modules.get("gevent.monkey")
    return ", ".join(n for n in NEEDED if monkey is None or not monkey.is_module_patched(n))


def on_readable(fd: int, act: Callable[[], None]) -> Callable[[], None] | None:
    """Call *act* on gevent's hub whenever *fd* can be read; return the call that ends it.

    ``None`` without gevent: there a thread with a selector watches.
    """
    if not patched():
        return None
    watcher = sys.modules["gevent"].get_hub().loop.io(fd, 1)
    watcher.start(act)

    def end() -> None:
        watcher.stop()
        watcher.close()

    return end


def _stdlib_queue() -> Any:
    """Return ``queue.Queue`` itself: gevent puts one of its own, in C, into its place."""
    monkey = sys.modules.get("gevent.monkey")
    return queue.Queue if monkey is None else monkey.get_original("queue", "Queue")


StdlibQueue: Any = _stdlib_queue()


class Bell(Protocol):
    """Wakes the one thread or greenlet that waits for it."""

    def wait(self, timeout: float) -> bool:
        """Wait until it rings, at most *timeout* seconds; say whether it rang."""

    def ring(self) -> None:
        """Wake the waiter, or the next one if there is none.  Any thread; never waits."""


class _ThreadBell:
    """A lock that is taken while the bell is silent."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._lock.acquire()

    def wait(self, timeout: float) -> bool:
        return self._lock.acquire(timeout=timeout)

    def ring(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:  # it rings already
            pass


class _HubBell:
    """Parks a greenlet in its hub: half the cost of a patched lock, a third of one with a timer.

    Long waits get no timer.  They are ended by the reaper, which rings every
    quiet client once per heartbeat, and by ``stop()``.
    """

    __slots__ = ("_early", "_hub", "_waiter")

    LONG = 30.0

    def __init__(self) -> None:
        self._hub: Any = None
        self._waiter: Any = None
        self._early = False  # it was rung before anybody had ever waited

    def wait(self, timeout: float) -> bool:
        if self._hub is None:
            self._hub = sys.modules["gevent.hub"].get_hub()
        self._waiter = waiter = sys.modules["gevent.hub"].Waiter(self._hub)
        if self._early:
            self._early = False
            return True
        if timeout >= self.LONG:
            return bool(waiter.get())
        timer = self._hub.loop.timer(timeout)
        timer.start(waiter.switch, False)
        try:
            return bool(waiter.get())
        finally:
            timer.stop()
            timer.close()

    def ring(self) -> None:
        # A waiter that was left meanwhile only stores what it is told.
        here: Any = sys.modules["gevent._hub_local"].get_hub_if_exists()
        if here is not None and here is self._hub:
            here.loop.run_callback(self._waiter.switch, True)
            return
        self._early = self._hub is None
        hub = self._hub  # read after that, or a wait that begins now may have missed it
        if hub is not None:
            # The waiter is looked up there: here it may still be the one of the wait before.
            hub.loop.run_callback_threadsafe(self._switch)

    def _switch(self) -> None:
        self._waiter.switch(True)


def make_bell() -> Bell:
    """Return a bell for the kind of thread that streams are in."""
    return _HubBell() if patched() else _ThreadBell()


class WakeChain:
    """Wakes threads a few at a time; each that wakes calls the next one.

    Every thread that waits for the GIL wakes up each switch interval (5 ms) to
    ask for it, so a thousand threads that are woken at once cost more in asking
    than in writing.  In a chain only ``WIDTH`` of them ask, and what arrives
    for the others meanwhile leaves in one write with the rest.

    ``_lock`` guards the count and is held for O(1) work.
    """

    WIDTH = 4

    def __init__(self) -> None:
        self._lock = native_lock()
        self._waiting: collections.deque[Bell] = collections.deque()
        self._awake = 0

    def call(self, bell: Bell) -> None:
        """Ring *bell*, at once or when its turn comes.  Never waits."""
        with self._lock:
            if self._awake >= self.WIDTH:
                self._waiting.append(bell)
                return
            self._awake += 1
        bell.ring()

    def woke(self) -> None:
        """Say that a thread which was rung runs now; the next one is rung."""
        with self._lock:
            if not self._waiting:
                self._awake = max(0, self._awake - 1)
                return
            bell = self._waiting.popleft()
        bell.ring()

    def restart(self) -> None:
        """Begin anew, should a link have been lost: a thread that was rung and never ran."""
        with self._lock:
            self._awake = 0
            bells, self._waiting = self._waiting, collections.deque()
        for bell in bells:
            self.call(bell)
