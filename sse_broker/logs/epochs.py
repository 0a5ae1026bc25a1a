"""Positions of one process over several lives of a log.

A log that was wiped, restored or lost its end begins a new epoch, and its own
numbers may begin anew or go back.  Inside a process a position is therefore
``(how many epochs it has seen) << bits | number``: it only grows, and a
cursor of an epoch before is recognised wherever it turns up.
"""

from __future__ import annotations

from sse_broker.core.ports import PositionLost
from sse_broker.core.sync import native_lock
from sse_broker.logs.cipher import Cipher

__all__ = ["Epochs"]


class Epochs:
    """The epochs that one process has seen of one log.  Any thread may call anything."""

    def __init__(self, bits: int) -> None:
        self._lock = native_lock()  # guards the names while one is added
        self._bits = bits
        self._most = (1 << bits) - 1
        self._names: list[str] = []
        self._ciphers: list[Cipher] = []

    @property
    def current(self) -> str:
        """The name of the epoch; empty before the first."""
        return self._names[-1] if self._names else ""

    @property
    def count(self) -> int:
        """How many there were so far."""
        return len(self._names)

    def enter(self, name: str, key: bytes, asked_in: int | None = None) -> None:
        """Say which epoch the log is in, and with which key it seals its positions.

        *asked_in* is what :attr:`count` was when the log was asked: an answer that
        another thread has overtaken does not lead back into an epoch that is over.
        """
        with self._lock:
            overtaken = asked_in is not None and asked_in < len(self._names)
            if name != self.current and not (overtaken and name in self._names):
                self._ciphers.append(Cipher(key))  # first: who sees the name finds the cipher
                self._names.append(name)

    def position(self, number: int, name: str = "") -> int:
        """Return the position of a number of the epoch of that name; else of the current one."""
        index = len(self._names) - 1
        if name and name != self._names[index]:
            index = max(i for i, one in enumerate(self._names) if one == name)
        return index << self._bits | number

    def number(self, position: int) -> int:
        """Return the log's number of a position.

        :raises PositionLost: it is of an epoch before this one.
        """
        if position >> self._bits != len(self._names) - 1:
            raise PositionLost("epoch")
        return position & self._most

    def id(self, position: int) -> str:
        """Return the wire id of a position, of whatever epoch."""
        epoch = position >> self._bits
        return f"{self._names[epoch]}-{self._ciphers[epoch].seal(position & self._most)}"

    def parse(self, id: str) -> int:
        """Return the number that one of our wire ids stands for in the current epoch.

        :raises PositionLost: it is not ours (``unknown``), or of another epoch.
        """
        epoch, dash, token = id.partition("-")
        current = self.current
        if not dash or len(epoch) != len(current):
            raise PositionLost("unknown")
        if epoch != current:
            raise PositionLost("epoch")
        number = self._ciphers[-1].open(token)
        if number is None or number > self._most:
            raise PositionLost("unknown")
        return number
