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
import os
import queue
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sse_broker.core.batch import Batch

__all__ = [
    "Bell",
    "Host",
    "Loop",
    "NativeLock",
    "StdlibQueue",
    "WakeChain",
    "host",
    "install",
    "is_installed",
    "let_others_run",
    "make_bell",
    "native_lock",
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
        if gevent.getcurrent() is not gevent.get_hub():
            gevent.sleep(0)


def native_lock() -> NativeLock:
    """Return a lock of the operating system's, also where gevent has patched ``threading``."""
    monkey = sys.modules.get("gevent.monkey")
    make: Any = _thread.allocate_lock
    if monkey is not None:
        make = monkey.get_original("_thread", "allocate_lock")
    lock: NativeLock = make()
    return lock


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


class Host(Protocol):
    """Where the streams of this process are woken and their frames handed out."""

    @property
    def is_alive(self) -> bool:
        """Whether what is asked of it is done."""

    def restart(self) -> None:
        """Start again what has died of it.  The broker calls it about once a second."""

    def call(self, act: Callable[[], None]) -> None:
        """Run *act*, which must not wait, where streams can be woken.  Any thread; never waits."""

    def hand_out(self, act: Callable[[], None], clients: Callable[[], int]) -> None:
        """Run *act*, which writes to so many clients, there, or here and now if that is quick."""

    def spread(self, clients: Sequence[Any], batch: Batch) -> None:
        """Write a batch to each of some clients, or offer it.  Called there; never waits."""

    def heed(self, clients: Sequence[Any]) -> None:
        """Have what some clients were told done before anything else is written.  Called there."""

    def again(self, act: Callable[[], None]) -> None:
        """Run *act* should it have been lost that it was asked for.  Any thread; never waits."""

    def settle(self, clients: Sequence[Any]) -> None:
        """Have clients know what was written to them.  Any thread; waits for writes only."""

    def look(self, clients: Sequence[Any]) -> None:
        """As :meth:`settle`, as far as that can be had without waiting.  Any thread."""


_hosts: dict[int, Host] = {}


def install(made: Host) -> None:
    """Have all brokers that start in this process from now on use one host of streams."""
    _hosts[os.getpid()] = made


def is_installed() -> bool:
    """Whether this process has a host of streams of its own kind."""
    return os.getpid() in _hosts


def host() -> Host:
    """Return the host that was installed in this process; without one, a loop of its own."""
    return _hosts.get(os.getpid()) or Loop()


class Loop:
    """Where the streams of this process wait, and how to run something there.

    Without gevent that is any thread.  With it, it is the hub of the thread
    that made this object.
    """

    is_alive = True
    FEW = 256  # clients, about a millisecond of writing
    PAUSE = 0.0001  # seconds without a message; a loop that sends is ten times as fast

    def __init__(self) -> None:
        self._hub: Any = sys.modules["gevent"].get_hub() if patched() else None
        self._turn = self._put_off = 0
        self._has_written = False  # since the hub has run
        self._spread_at = 0.0

    def restart(self) -> None:
        """There is nothing that could die."""

    def here(self) -> bool:
        """Whether the caller may wake streams by itself."""
        if self._hub is None:
            return True
        current: Any = sys.modules["gevent._hub_local"].get_hub_if_exists()
        return current is self._hub

    def call(self, act: Callable[[], None]) -> None:
        """Run *act*, which must not wait, where streams can be woken.  Any thread; never waits."""
        if not self.here():
            self._hub.loop.run_callback_threadsafe(act)
        elif self._put_off:
            self._later(act)
        else:
            act()

    def hand_out(self, act: Callable[[], None], clients: Callable[[], int]) -> None:
        """See :class:`Host`.  To many, and what follows, the hub writes when it comes to it.

        Or a greenlet that sends and sends would write all the time, and no other had a turn.
        """
        if self._hub is None or not self.here():
            self.call(act)
        elif self._has_written or self._put_off or clients() > self.FEW:
            self._later(act)
        else:
            self._has_written = True
            self._hub.loop.run_callback(self._hub_runs)
            act()

    def _hub_runs(self) -> None:
        self._has_written = False

    def _later(self, act: Callable[[], None]) -> None:
        def run() -> None:
            self._put_off -= 1
            act()

        self._put_off += 1
        self._hub.loop.run_callback(run)

    def heed(self, clients: Sequence[Any]) -> None:
        """See :class:`Host`.  What a client was told is known to whoever writes here."""

    def again(self, act: Callable[[], None]) -> None:
        """See :class:`Host`.  Among threads whoever asks runs it, so none is lost."""
        if self._hub is not None:
            self.call(act)

    def settle(self, clients: Sequence[Any]) -> None:
        """See :class:`Host`.  They know."""

    def look(self, clients: Sequence[Any]) -> None:
        """See :class:`Host`.  They know."""

    def spread(self, clients: Sequence[Any], batch: Batch) -> None:
        """See :class:`Host`."""
        turn = self._this_turn()
        for client in clients:
            sink = client.sink
            if sink is None or not sink.write(batch, turn):
                client.offer_all(batch.records)
        self._spread_at = time.monotonic()

    def _this_turn(self) -> int:
        """Return the number of this turn: what follows without a pause leaves in one write.

        Where the hub writes, it has gathered that before.
        """
        if self._hub is not None or time.monotonic() - self._spread_at > self.PAUSE:
            self._turn += 1
        return self._turn

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
