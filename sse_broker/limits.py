"""How often one may ask: rates, counted by the library ``limits``.  Needs the extra ``limits``.

A rate is counted in a sliding window, for each address or user on its own; a
request that is refused does not count.  ``memory://`` counts in each process,
``redis://`` for all of them together.

A storage that is away, or takes longer than half a second, lets everybody
through: rates protect the service and must not be what stops it.  Each request
that passed uncounted is counted as such, a warning says so once a minute, and
for a second nobody else waits for that storage.

Lock map
    _Storage._lock  held while a memory storage counts: limits loses counts of
                    threads that come at once; a greenlet's lock under gevent,
                    because that storage starts threads
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from sse_broker.core.ports import Clock
from sse_broker.core.streams import Streams
from sse_broker.errors import InvalidConfig, TooManyRequests

__all__ = ["RATES", "Rates"]

RATES = ("connect_rate", "connect_rate_per_user", "publish_rate")
TIMEOUT = 0.5  # seconds that a request waits for the storage
PAUSE = 1.0  # seconds for which a storage that was away is not asked again
SAY_EVERY = 60.0  # seconds

_log = logging.getLogger("sse_broker.limits")


class Rates:
    """The rates of one broker.  Any thread; where no rate is set nothing is imported or kept.

    :raises InvalidConfig: a rate is set and limits, or redis-py for its storage, is not installed.
    """

    def __init__(self, streams: Streams) -> None:
        self._streams = streams
        self._url = streams.config.rate_storage
        texts = {name: getattr(streams.config, name) for name in RATES}
        self._items: dict[str, Sequence[Any]] = {}
        self._storages: dict[int, _Storage] = {}
        if any(texts.values()):
            limits = _library("limits", "limits")
            if not self._url.startswith("memory:"):
                _library("redis", "limits,redis")
            self._items = {name: limits.parse_many(text) for name, text in texts.items() if text}

    def check(self, setting: str, who: Callable[[], object], cost: int = 1) -> None:
        """Count *cost* requests of *who*; *who* is called only if there is such a rate.

        May wait for the storage, for a bounded time.

        :raises TooManyRequests: the rate is reached.
        """
        items = self._items.get(setting)
        if not items or cost < 1:
            return
        wait = self._storage().hit(items, _key(setting, who()), cost)
        if wait is None:
            return
        self._streams.refused(setting, publish=setting == "publish_rate")
        raise TooManyRequests(
            f"{setting} is {getattr(self._streams.config, setting)}",
            field=setting,
            retry_after=wait,
        )

    def _storage(self) -> _Storage:
        pid = os.getpid()
        storage = self._storages.get(pid)
        if storage is None:  # setdefault is one step; a lock could be stuck after a fork
            made = _Storage(self._url, self._streams.clock, self._streams.rate_unchecked)
            storage = self._storages.setdefault(pid, made)
        return storage


class _Storage:
    """Where one process counts."""

    def __init__(self, url: str, clock: Clock, unchecked: Callable[[], None]) -> None:
        self._url = url
        self._now = clock.monotonic
        self._unchecked = unchecked
        memory = url.startswith("memory:")
        self._lock: Any = threading.Lock() if memory else contextlib.nullcontext()
        self._limiter: Any = None
        self._asked_again_at = self._said_again_at = float("-inf")
        self._passed = 0  # uncounted, since that was said last

    def hit(self, items: Sequence[Any], key: str, cost: int = 1) -> float | None:
        """Count *cost* under *key*; return ``None``, or in how many seconds to come again."""
        if self._now() < self._asked_again_at:
            self._let_through("it was away a moment ago")
            return None
        try:
            with self._lock:
                return self._hit(items, key, cost)
        except Exception as err:  # each driver has errors of its own; all mean: nobody can tell
            self._asked_again_at = self._now() + PAUSE
            self._let_through(f"{type(err).__name__}: {err}")
            return None

    def _hit(self, items: Sequence[Any], key: str, cost: int) -> float | None:
        if self._limiter is None:
            self._limiter = _limiter(self._url)
        more = {"cost": cost} if cost > 1 else {}
        for item in items:
            if not self._limiter.hit(item, "sse_broker", key, **more):
                again_at: float = self._limiter.get_window_stats(item, "sse_broker", key)[0]
                rest = max(1.0, again_at - time.time())  # limits reads this clock
                return rest * random.uniform(1.0, 1.5)
        return None

    def _let_through(self, why: str) -> None:
        self._unchecked()
        self._passed += 1
        if self._now() >= self._said_again_at:
            self._said_again_at = self._now() + SAY_EVERY
            count, self._passed = self._passed, 0
            _log.warning("%d requests passed uncounted, the rate storage failed: %s", count, why)


def _limiter(url: str) -> Any:
    options: dict[str, Any] = {}
    if not url.startswith("memory:"):
        never = import_module("redis.retry").Retry(import_module("redis.backoff").NoBackoff(), 0)
        options = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT, "retry": never}
    storage = import_module("limits.storage").storage_from_string(url, **options)
    return import_module("limits.strategies").SlidingWindowCounterRateLimiter(storage)


def _key(setting: str, who: object) -> str:
    """Return one word for a setting and an address or user.

    A digest, because limits joins the parts of its keys by a slash, which an id
    may hold too; and because neither is anybody's business in Redis.
    """
    text = json.dumps([setting, who]).encode()
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def _library(name: str, extras: str) -> Any:
    try:
        return import_module(name)
    except ImportError as err:
        raise InvalidConfig(f"rates need {name}: pip install 'sse-broker[{extras}]'") from err
