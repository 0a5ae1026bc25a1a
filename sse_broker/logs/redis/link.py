"""Commands to Redis with a bounded wait, and what its errors mean.

Whatever goes wrong is one of two things: Redis certainly did not do it, or
nobody knows, because the connection ended after the command was sent.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from sse_broker.errors import LogUnavailable
from sse_broker.logs.redis.server import Options, connector

__all__ = ["Link"]

PAUSE = 0.05  # seconds between tries


class Link:
    """One process's clients: a pool for short commands, one connection that waits for news."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._connect = connector(options)
        self._client: Any = None
        self._error: type[Exception] = import_module("redis.exceptions").RedisError
        self.broke = 0  # counts lost connections: each may have been to another server

    @property
    def client(self) -> Any:
        """The pooled client; it connects at its first command."""
        if self._client is None:
            self._client = self._guarded(lambda: self._connect(self._options.timeout / 2))
        return self._client

    def waiting_client(self, block: float) -> Any:
        """Return a client of its own, for commands that block up to *block* seconds."""
        return self._guarded(lambda: self._connect(block + 2 * self._options.timeout))

    def run(self, script: str, keys: Sequence[str], *values: Any) -> Any:
        """Run a script once.

        :raises LogUnavailable: it did not run, or, with ``maybe_recorded``, nobody knows.
        """
        return self._guarded(lambda: self._eval(script, keys, values))

    def insist(self, act: Callable[[bool], Any]) -> Any:
        """Call *act* until it succeeds, for half the timeout; tell it whether it was called before.

        :raises LogUnavailable: as its last call said; ``maybe_recorded`` if any call left it open.
        """
        end = time.monotonic() + self._options.timeout / 2
        unknown = False
        while True:
            try:
                return act(unknown)
            except LogUnavailable as err:
                unknown = unknown or err.maybe_recorded
                if time.monotonic() + PAUSE >= end:
                    err.maybe_recorded = unknown
                    raise
            threading.Event().wait(PAUSE)

    def call(self, act: Callable[[Any], Any]) -> Any:
        """Return what *act* does with the pooled client."""
        return self._guarded(lambda: act(self.client))

    def _eval(self, script: str, keys: Sequence[str], values: Sequence[Any]) -> Any:
        client, name = self.client, _sha1(script)
        try:
            return client.evalsha(name, len(keys), *keys, *values)
        except import_module("redis.exceptions").NoScriptError:
            return client.eval(script, len(keys), *keys, *values)

    def _guarded(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except self._error as err:
            raise self.unavailable(err) from err
        except OSError as err:
            raise self.unavailable(err) from err

    def unavailable(self, err: Exception) -> LogUnavailable:
        """Return what an error of redis-py means to us."""
        text = str(err) or type(err).__name__
        kinds = import_module("redis.exceptions")
        answers = (kinds.ResponseError, kinds.BusyLoadingError, kinds.AuthenticationError)
        if isinstance(err, kinds.ReadOnlyError):
            self.close()  # the master is none now; the next connection may find the new one
        if not isinstance(err, kinds.ResponseError) or isinstance(err, kinds.ReadOnlyError):
            self.broke += 1
        # An answer leaves nothing open, nor does a command that was never sent.
        unsent = isinstance(err, kinds.MaxConnectionsError) or "connecting to" in text
        known = isinstance(err, answers) or unsent or "Connection refused" in text
        return LogUnavailable(
            f"{self._options.shown}: {text}", retry_after=1.0, maybe_recorded=not known
        )

    def close(self) -> None:
        """Close the pooled connections; the next command opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            client.close()


_hashes: dict[str, str] = {}


def _sha1(script: str) -> str:
    found = _hashes.get(script)
    if found is None:
        found = _hashes[script] = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
    return found
