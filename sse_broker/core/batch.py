"""What is handed out together: neighbouring records for the same clients, joined once for all."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

from sse_broker.core.ports import Record

__all__ = ["Batch", "as_chunk"]

Form = tuple[bytes, int, ctypes.c_size_t]
"""Bytes and how many they are, for Python and for C."""


class Batch:
    """Records, oldest first, and their frames as one piece of bytes in either framing."""

    __slots__ = ("_chunk", "_frames", "_plain", "count", "first", "last", "records")

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = records
        self.first, self.last, self.count = records[0].position, records[-1].position, len(records)
        if self.count == 1:
            self._frames = records[0].frame
        else:
            self._frames = b"".join([record.frame for record in records])
        self._plain: Form | None = None
        self._chunk: Form | None = None

    @property
    def plain(self) -> Form:
        """The frames as they are."""
        if self._plain is None:
            self._plain = _form(self._frames)
        return self._plain

    @property
    def chunk(self) -> Form:
        """The frames as one chunk of the chunked coding (RFC 9112, section 7.1)."""
        if self._chunk is None:
            self._chunk = _form(as_chunk(self._frames))
        return self._chunk

    def form(self, chunked: bool) -> Form:
        """Return the frames as a stream of one framing or the other is sent them."""
        return self.chunk if chunked else self.plain

    @property
    def size(self) -> int:
        """How many bytes the frames are."""
        return len(self._frames)


def _form(data: bytes) -> Form:
    return data, len(data), ctypes.c_size_t(len(data))


def as_chunk(data: bytes) -> bytes:
    """Return *data*, which is not empty, as one chunk of the chunked coding."""
    return b"%x\r\n%b\r\n" % (len(data), data)
