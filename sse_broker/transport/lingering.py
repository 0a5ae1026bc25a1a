"""A connection that has said everything and waits for its peer to close.

To close it at once could cost the peer what it has not read yet (RFC 9112, section 9.6).
"""

from __future__ import annotations

import socket
from typing import Any

from sse_broker.transport.sockets import close

__all__ = ["LINGER", "Lingering"]

LINGER = 2.0  # seconds that a peer has to read the rest and close


class Lingering:
    """One socket, shut down for writing; what its peer still says is dropped, and bounded."""

    __slots__ = ("fd", "heard", "sock")

    def __init__(self, sock: Any) -> None:
        self.sock, self.heard, self.fd = sock, 0, -1

    def begin(self) -> bool:
        """Tell the peer that nothing more comes; say whether it is still there.  Never waits."""
        try:
            self.sock.setblocking(False)
            self.sock.shutdown(socket.SHUT_WR)
            self.fd = self.sock.fileno()
        except (OSError, ValueError):  # gone already
            self.close()
            return False
        return True

    def close(self) -> None:
        """Close it.  Idempotent."""
        close(self.sock)
