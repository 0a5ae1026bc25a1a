"""Connections to Redis, by URL: one server, Sentinel or Cluster.

redis-py is told not to try again by itself: it would hide a loss of connection
from a reader and record a message twice for a publisher.

URLs: ``redis://``, ``rediss://`` and ``unix://`` as redis-py has them;
``redis+sentinel://user:password@host:26379,host:26379/service/db`` and
``redis+cluster://user:password@host:6379,host:6379`` (``rediss+...`` with TLS).
Options of ours in the query: ``prefix`` (of all keys, ``sse_broker``), ``timeout``
(seconds that a publish waits at most, about, 1) and ``buffer`` (messages that are
kept here while Redis is away, 0).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from sse_broker.errors import InvalidConfig

__all__ = ["Options", "connector", "parse"]

POOL = 8  # connections for publishing and reading; the feed has one more
SENTINEL_PORT, PORT = 26379, 6379


@dataclass(frozen=True)
class Options:
    """What a URL says, with our own options taken out of *url*; *shown* has no password."""

    url: str
    shown: str
    kind: str
    tls: bool
    prefix: str = "sse_broker"
    timeout: float = 1.0
    buffer: int = 0

    def key(self, name: str) -> str:
        """Return a key; the braces put all of them into one slot of a cluster."""
        return f"{{{self.prefix}}}:{name}"


def parse(url: str) -> Options:
    """Return what *url* says.

    :raises InvalidConfig: an option of ours is wrong, or redis-py is missing.
    """
    _redis()
    parts = urlsplit(url)
    if "@" in parts.path or "@" in parts.fragment:  # not shown: it is part of the password
        raise InvalidConfig(
            "a password in a URL is percent-encoded: / is %2F, # is %23, @ is %40", field="log"
        )
    scheme, _, kind = parts.scheme.partition("+")
    scheme = scheme.replace("valkey", "redis")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    prefix = query.pop("prefix", "sse_broker")
    timeout, buffer = query.pop("timeout", "1"), query.pop("buffer", "0")
    if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,64}", prefix):
        raise InvalidConfig("prefix must be 1 to 64 of A-Z a-z 0-9 _ . : -", field="log")
    if not re.fullmatch(r"\d{1,4}(\.\d+)?", timeout) or not 0.05 <= float(timeout) <= 60:
        raise InvalidConfig("timeout must be 0.05 to 60 seconds", field="log")
    if not re.fullmatch(r"\d{1,9}", buffer):
        raise InvalidConfig("buffer must be a number of messages", field="log")
    plain = f"{scheme}://{parts.netloc}{parts.path}" + (f"?{urlencode(query)}" if query else "")
    if kind and (not parts.netloc or (kind == "sentinel" and not parts.path.strip("/"))):
        raise InvalidConfig(
            "a Sentinel URL is redis+sentinel://host:26379,host:26379/service, a Cluster URL"
            " redis+cluster://host:6379,host:6379",
            field="log",
        )
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    return Options(plain, shown, kind, scheme == "rediss", prefix, float(timeout), int(buffer))


def connector(options: Options) -> Callable[[float], Any]:
    """Return what makes a client whose commands take *timeout* seconds at most.

    The client connects at its first command.

    :raises InvalidConfig: redis-py does not take the URL.
    """
    make = {"": _one, "sentinel": _sentinel, "cluster": _cluster}[options.kind]

    def connect(timeout: float) -> Any:
        retry = import_module("redis.retry").Retry(import_module("redis.backoff").NoBackoff(), 0)
        common = {
            "socket_timeout": timeout,
            "socket_connect_timeout": options.timeout / 2,
            "retry": retry,
            "protocol": 2,
        }
        try:
            return make(options, common)
        except (ValueError, TypeError) as err:
            raise InvalidConfig(f"{options.shown}: {err}", field="log") from err

    return connect


def _one(options: Options, common: dict[str, Any]) -> Any:
    redis = _redis()
    pool = redis.BlockingConnectionPool.from_url(
        options.url, max_connections=POOL, timeout=options.timeout / 2, **common
    )
    try:
        pool.connection_class(**pool.connection_kwargs)  # refuses an option that there is not
    except redis.RedisError as err:
        raise ValueError(err) from err
    return redis.Redis(connection_pool=pool)


def _sentinel(options: Options, common: dict[str, Any]) -> Any:
    parts = urlsplit(options.url)
    service, _, db = parts.path.strip("/").partition("/")
    # Sentinels are asked one after another: one that hangs must not use up the time of all.
    asked = {"socket_timeout": options.timeout / 4, "socket_connect_timeout": options.timeout / 4}
    sentinel = import_module("redis.sentinel").Sentinel(
        _hosts(parts.netloc, SENTINEL_PORT),
        sentinel_kwargs=asked,
        db=int(db or 0),
        **_account(parts.netloc),
        **_tls(options),
        **common,
    )
    return sentinel.master_for(service)


def _cluster(options: Options, common: dict[str, Any]) -> Any:
    cluster = import_module("redis.cluster")
    netloc = urlsplit(options.url).netloc
    nodes = [cluster.ClusterNode(host, port) for host, port in _hosts(netloc, PORT)]
    return cluster.RedisCluster(startup_nodes=nodes, **_account(netloc), **_tls(options), **common)


def _hosts(netloc: str, port: int) -> list[tuple[str, int]]:
    found = []
    for one in netloc.rpartition("@")[2].split(","):
        parts = urlsplit(f"//{one}")
        found.append((parts.hostname or "localhost", parts.port or port))
    return found


def _account(netloc: str) -> dict[str, str]:
    account, _, _ = netloc.rpartition("@")
    user, _, password = account.partition(":")
    found = {"username": unquote(user), "password": unquote(password)}
    return {name: value for name, value in found.items() if value}


def _tls(options: Options) -> dict[str, Any]:
    named = dict(parse_qsl(urlsplit(options.url).query))
    found: dict[str, Any] = {name: value for name, value in named.items() if name[:4] == "ssl_"}
    return {**found, "ssl": True} if options.tls else {}


def _redis() -> Any:
    try:
        return import_module("redis")
    except ImportError as err:
        raise InvalidConfig(
            "redis:// needs redis-py: pip install 'sse-broker[redis]'", field="log"
        ) from err
