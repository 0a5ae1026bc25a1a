"""Positions of one process over several lives of a log.

A log that was wiped, restored or lost its end begins a new epoch, and its own
numbers may begin anew or go back.  Inside a process a position is therefore
``(how many epochs it has seen) << bits | number``: it only grows, and a
cursor of an epoch before is recognised wherever it turns up.
"""

from __future__ import annotations

from sse_broker.core.ports import PositionLost
from sse_broker.core.sync import native_lock

__all__ = ["Epochs"]


class Epochs:
    """The epochs that one process has seen of one log.  Any thread may call anything."""

    def __init__(self, bits: int) -> None:
        self._lock = native_lock()  # guards the names while one is added
        self._bits = bits
        self._most = (1 << bits) - 1
        self._names: list[str] = []

    @property
    def current(self) -> str:
        """The name of the epoch; empty before the first."""
        return self._names[-1] if self._names else ""

    def enter(self, name: str) -> None:
        """Say which epoch the log is in."""
        with self._lock:
            if name != self.current:
                self._names.append(name)

    def position(self, number: int) -> int:
        """Return the position of a number of the current epoch."""
        return (len(self._names) - 1) << self._bits | number

    def number(self, position: int) -> int:
        """Return the log's number of a position.

        :raises PositionLost: it is of an epoch before this one.
        """
        if position >> self._bits != len(self._names) - 1:
            raise PositionLost("epoch")
        return position & self._most

    def id(self, position: int) -> str:
        """Return the wire id of a position, of whatever epoch."""
        return f"{self._names[position >> self._bits]}-{position & self._most}"

    def parse(self, id: str) -> int:
        """Return the number that one of our wire ids stands for in the current epoch.

        :raises PositionLost: it is not ours (``unknown``), or of another epoch.
        """
        epoch, dash, digits = id.rpartition("-")
        if not dash or not digits.isascii() or not digits.isdigit() or len(digits) > 40:
            raise PositionLost("unknown")
        if epoch != self.current:
            raise PositionLost("epoch")
        return min(int(digits), self._most)
