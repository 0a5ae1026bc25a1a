"""How many streams listen to a topic, over all processes, and a signal when that changes.

A topic that was asked about is watched for a minute, in a process that has streams and a
receiver of the signal: about every two seconds all processes are asked about all watched
topics in one question, on a thread of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from sse_broker.core import signals
from sse_broker.core.ports import Clock
from sse_broker.core.threads import spawn
from sse_broker.errors import LogUnavailable

__all__ = ["Listeners"]

WATCHED_FOR = 60.0  # seconds after the last question about a topic
LOOK_EVERY = 2.0  # seconds
MOST_WATCHED = 200  # topics

Ask = Callable[[str, dict[str, Any]], tuple[dict[str, Any], int]]
Key = tuple[str, Any]
"""A topic and a tenant: an id, ``None``, or ``"*"`` for every tenant."""


class Listeners:
    """The topics that are watched in one process.  *owner* is the signal's sender."""

    def __init__(self, owner: object, ask: Ask, clock: Clock) -> None:
        self._owner = owner
        self._ask = ask
        self._clock = clock
        self._counts: dict[Key, tuple[int, float]] = {}  # and when the topic was asked about
        self._is_looking = False
        self._looked_at = clock.monotonic()

    def count(self, topic: str, tenant: Any) -> int:
        """Return how many streams would get a message to *topic*.  Waits for the answers.

        :raises LogUnavailable: nobody can be asked.
        """
        count = self._ask_about([(topic, tenant)])[0]
        if len(self._counts) < MOST_WATCHED:
            self._counts[topic, tenant] = (count, self._clock.monotonic())
        return count

    def tick(self) -> None:
        """Have watched topics looked at, if that is due and a receiver would hear.  Never waits."""
        now = self._clock.monotonic()
        for key, (_, asked_at) in list(self._counts.items()):
            if now - asked_at > WATCHED_FOR:
                self._counts.pop(key, None)
        is_due = now - self._looked_at >= LOOK_EVERY and not self._is_looking
        if is_due and self._counts and signals.listeners_changed.receivers:
            self._looked_at, self._is_looking = now, True
            spawn("listeners", self._look_once)

    def _look_once(self) -> None:
        try:
            self.look()
        finally:
            self._is_looking = False

    def look(self) -> None:
        """Ask about all watched topics and fire the signal for each whose count has changed."""
        keys = list(self._counts)
        counts: list[int] = []
        with contextlib.suppress(LogUnavailable):  # the next look finds it
            counts = self._ask_about(keys)
        for key, count in zip(keys, counts, strict=False):
            before = self._counts.get(key)
            if before is not None and before[0] != count:
                self._counts[key] = (count, before[1])
                facts = {"topic": key[0], "tenant_id": key[1], "count": count}
                signals.fire(signals.listeners_changed, self._owner, **facts)

    def _ask_about(self, keys: list[Key]) -> list[int]:
        answers, _ = self._ask("listeners", {"topics": keys})
        parts = [answer for answer in answers.values() if answer]
        return [sum(int(part[index]) for part in parts) for index in range(len(keys))]
