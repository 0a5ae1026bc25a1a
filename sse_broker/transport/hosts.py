"""Which host serves the streams of this process."""

from __future__ import annotations

import os

from sse_broker.core.ports import StreamHost
from sse_broker.core.sync import patched
from sse_broker.transport.hub import Hub
from sse_broker.transport.threads import Threads

__all__ = ["install", "is_installed", "stream_host"]

_hosts: dict[int, StreamHost] = {}


def install(made: StreamHost) -> None:
    """Have all brokers that start in this process from now on use one host of streams."""
    _hosts[os.getpid()] = made


def is_installed() -> bool:
    """Whether this process has a host of streams of its own kind."""
    return os.getpid() in _hosts


def stream_host() -> StreamHost:
    """Return the host that was installed in this process, or one for the threads that it has."""
    return _hosts.get(os.getpid()) or (Hub() if patched() else Threads())
