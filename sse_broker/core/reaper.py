"""The one thread for heartbeats, timeouts, expiry, ages and the reports of presence.

The loop only calls :meth:`Reaper.guarded_sweep` and :meth:`Reaper.guarded_report`,
which tests call by themselves.  What raises in them is logged at most once a
minute and does not end the thread.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
import weakref
from collections.abc import Callable

from sse_broker.config import BrokerConfig
from sse_broker.core.client import Client, State
from sse_broker.core.ports import Clock
from sse_broker.core.threads import is_alive, spawn
from sse_broker.errors import LogUnavailable

__all__ = ["Reaper"]

TICK = 1.0  # seconds; a sweep of 10,000 clients costs a few milliseconds
GATHER = 0.05  # seconds between a nudge and the report, so that a storm is one report
LOG_EVERY = 60.0
BEAT_BYTES = 4 * 1024 * 1024  # for anybody, after which a quiet client is told its new place
STUCK = 5.0  # seconds without a write after which a full queue is not worth its memory
STUCK_BYTES = 1024 * 1024  # that it may have all the same

_log = logging.getLogger("sse_broker.reaper")


class Reaper:
    """Looks after the clients of one process.

    *clients* returns those to look after, *delivered* the position up to which
    they have been offered everything and how many bytes that were, to whomever.
    *forget* takes a client out whose stream will not do it by itself any more.
    *tick* is called after every sweep, *report* with the time then and soon after
    every :meth:`nudge`; with *reports_apart*, where a report may wait for a file or a
    network, on a thread of its own, so that no sweep waits for it.  *settle* has a
    client know what was written to it, before it is taken for a quiet one.

    The thread holds no reference to the reaper between its turns: where the broker has
    been dropped without ``stop()``, it calls *orphaned*, which must not hold one
    either, and ends.
    """

    def __init__(
        self,
        config: BrokerConfig,
        clock: Clock,
        clients: Callable[[], tuple[Client, ...]],
        delivered: Callable[[], tuple[int, int]],
        forget: Callable[[Client, str], None],
        tick: Callable[[], None] = lambda: None,
        report: Callable[[float], None] = lambda _: None,
        settle: Callable[[Client], None] = lambda _: None,
        orphaned: Callable[[], None] = lambda: None,
        *,
        reports_apart: bool = False,
    ) -> None:
        self._config = config
        self._clock = clock
        self._clients = clients
        self._delivered = delivered
        self._forget = forget
        self._tick = tick
        self._report = report
        self._settle = settle
        self._orphaned = orphaned
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._apart = reports_apart
        self._reports: threading.Thread | None = None
        self._bytes_then, self._told_at = 0, clock.monotonic()
        self._last_error = self._last_away = -LOG_EVERY
        self.last_tick = clock.monotonic()

    @property
    def is_healthy(self) -> bool:
        """Whether the thread lives and its last good sweep is not long ago."""
        return self.is_alive and self._clock.monotonic() - self.last_tick <= 3 * TICK + 2

    @property
    def is_alive(self) -> bool:
        """Whether the thread lives."""
        return is_alive(self._thread)

    def start(self) -> None:
        """Start the thread, or start it again if it died.  Idempotent."""
        if self.is_alive:
            return
        if self._thread is not None:
            _log.error("the reaper had died; it is started again")
        self._stop.clear()
        self._wake.clear()
        self.last_tick = self._clock.monotonic()
        wake = self._stop if self._apart else self._wake
        run = functools.partial(_run, weakref.ref(self), self._stop, wake, self._orphaned)
        self._thread = spawn("reaper", run)
        self._start_reports()

    def _start_reports(self) -> None:
        if self._apart and not self._stop.is_set() and not is_alive(self._reports):
            run = functools.partial(_run_reports, weakref.ref(self), self._stop, self._wake)
            self._reports = spawn("presence", run)

    def stop(self) -> None:
        """End the thread and wait for it, 5 s at most.  Idempotent."""
        self._stop.set()
        self._wake.set()
        threads = self._thread, self._reports
        self._thread = self._reports = None
        for thread in threads:
            if thread is not None and thread is not threading.current_thread():
                thread.join(timeout=5)

    def nudge(self) -> None:
        """Have a report made soon.  Never waits."""
        self._wake.set()

    def turn(self, nudged: bool, due: float) -> float:
        """Do what is due, and report if nudged; return when the next sweep is due."""
        if nudged and not self._apart:
            self.report_now()
        if time.monotonic() >= due:
            due = time.monotonic() + TICK
            self.guarded_sweep()
            if self._apart:
                self._start_reports()
            else:
                self.guarded_report()
        return due

    def report_now(self) -> None:
        """Make the report that a nudge asked for; one that comes meanwhile has another made."""
        self._wake.clear()
        self.guarded_report()

    def guarded_sweep(self) -> None:
        """Sweep; log what a sweep raises, at most once a minute."""
        now = self._clock.monotonic()
        try:
            self.sweep(now, self._clock.time())
            self._tick()
            self.last_tick = now
        except Exception:  # the loop must outlive whatever it meets
            self._say(now, "a sweep failed; the next one is in %g s", TICK)

    def guarded_report(self) -> None:
        """Report who is here; log what that raises, at most once a minute."""
        now = self._clock.monotonic()
        try:
            self._report(now)
        except LogUnavailable as err:
            if now - self._last_away >= LOG_EVERY:
                self._last_away = now
                _log.warning("who is online here is not known elsewhere: %s", err)
        except Exception:
            self._say(now, "a report of who is online failed")

    def _say(self, now: float, text: str, *args: object) -> None:
        if now - self._last_error >= LOG_EVERY:
            self._last_error = now
            _log.exception(text, *args)

    def sweep(self, now: float, unix_time: float) -> None:
        """Look at every client once.

        *now* is on the monotonic clock, *unix_time* in seconds since the epoch.
        """
        delivered, size = self._delivered()  # read first: it is in every queue already
        # The log keeps a number of bytes too, and others may fill it between two heartbeats.
        has_moved, told_at = size - self._bytes_then >= BEAT_BYTES, self._told_at
        if has_moved:
            self._bytes_then, self._told_at = size, now
        for client in self._clients():
            quiet = self._config.heartbeat_interval * client.spread
            if now - client.last_seen >= quiet or (has_moved and client.last_seen <= told_at):
                self._settle(client)
            reason = self._end_of(client, now, unix_time)
            if reason == "timeout":
                client.cut(reason)
                self._forget(client, reason)
            elif reason == "expired":
                client.end(reason, delivered)
            elif reason:  # again and again is fine; only the first one counts
                client.close(reason, delivered)
            elif now - client.last_seen >= quiet or (has_moved and client.last_seen <= told_at):
                client.beat(delivered)
            if now - client.last_seen >= STUCK:
                client.shed(STUCK_BYTES)

    def _end_of(self, client: Client, now: float, unix_time: float) -> str:
        config = self._config
        if client.state is State.CLOSED or now - client.last_seen > config.client_timeout:
            return "timeout"
        if client.state is State.DRAINING:
            return self._cut_of(client, now)
        if client.expires_at is not None and unix_time >= client.expires_at:
            return "expired"
        age = config.max_stream_age
        # spread is 0.75 to 1, so a stream lives 80 to 100 % of the age
        if age and now - client.connected_at >= age * (0.8 * client.spread + 0.2):
            return "max_age"
        return ""

    def _cut_of(self, client: Client, now: float) -> str:
        """Say whether a client has had its time to end, also if it takes a little now and then."""
        patience = self._config.client_timeout
        if client.ends_soon:
            patience = self._config.drain_timeout
            if client.end_by is not None:
                client.end_by = min(client.end_by, now + patience)
        if client.end_by is None:
            client.end_by = now + patience
        return "timeout" if now > client.end_by else ""


def _run(
    reference: weakref.ref[Reaper],
    stop: threading.Event,
    wake: threading.Event,
    orphaned: Callable[[], None],
) -> None:
    due = time.monotonic() + TICK
    while not stop.is_set():
        nudged = wake.wait(max(0.0, due - time.monotonic()))
        if nudged and stop.wait(GATHER):
            return
        reaper = reference()
        if reaper is None:
            orphaned()
            return
        due = reaper.turn(nudged, due)
        del reaper


def _run_reports(
    reference: weakref.ref[Reaper], stop: threading.Event, wake: threading.Event
) -> None:
    while not stop.is_set():
        if wake.wait(TICK) and stop.wait(GATHER):
            return
        reaper = reference()
        if reaper is None:
            return
        reaper.report_now()
        del reaper
