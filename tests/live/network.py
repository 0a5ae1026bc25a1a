"""Packets that vanish: rules of nftables on the loopback, for single connections."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.live.conftest import need


@contextlib.contextmanager
def firewall() -> Iterator[Firewall]:
    """A table of rules of its own, taken away at the end.  Needs root: else skip, or fail in CI."""
    if os.geteuid() != 0:
        if os.environ.get("CI"):
            pytest.fail("only root can make packets vanish: run CI as root")
        pytest.skip("only root can make packets vanish")
    wall = Firewall(need("nft", "nftables"), f"sse_broker_test_{os.getpid()}")
    wall.run("add", "table", "ip", wall.table)
    try:
        hook = "{ type filter hook input priority 0 ; }"
        wall.run("add", "chain", "ip", wall.table, "input", hook)
        yield wall
    finally:
        wall.run("delete", "table", "ip", wall.table)


class Firewall:
    """Rules that are there as long as the context of :func:`firewall`."""

    def __init__(self, program: str, table: str) -> None:
        self.table, self._program = table, program

    def run(self, *words: str) -> None:
        subprocess.run([self._program, *words], check=True, capture_output=True, text=True)

    def cut(self, sock: socket.socket) -> None:
        """Drop all packets of one connection, both ways, from now on: nobody gets a FIN."""
        ours, theirs = str(sock.getsockname()[1]), str(sock.getpeername()[1])
        for source, target in ((ours, theirs), (theirs, ours)):
            match = ("iif", "lo", "tcp", "sport", source, "tcp", "dport", target)
            self.run("add", "rule", "ip", self.table, "input", *match, "drop")
