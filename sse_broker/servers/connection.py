"""A stream's socket while its request's own thread or greenlet writes to it.

Any thread may cut it, also under a write that is stuck, until :meth:`Connection.end`
has returned: from then on the server closes the socket, and its descriptor may be
somebody else's.

Lock map
    _lock     guards ``_is_over``; native; held for a shutdown, which never waits
"""

from __future__ import annotations

import os
import socket
import weakref
from typing import Any

from sse_broker.core.sync import native_lock

__all__ = ["Connection"]


class Connection:
    """One socket.  *is_foreign*: another thread of the server writes to it and closes it."""

    __slots__ = ("__weakref__", "_is_over", "_lock", "is_foreign", "sock")

    def __init__(self, sock: Any, is_foreign: bool = False) -> None:
        self.sock = sock
        self.is_foreign = is_foreign
        self._lock = native_lock()
        self._is_over = False
        if not is_foreign:
            _open.add(self)

    def cut(self) -> None:
        """Shut the connection down, whatever is being written to it.  Any thread; never waits."""
        with self._lock:
            if self._is_over:
                return
            try:
                if self.is_foreign:
                    self.sock.shutdown(socket.SHUT_RDWR)
                    return
                # A second descriptor: shutdown() on a TLS socket would touch the TLS
                # state that the stuck thread is using.
                with socket.socket(fileno=os.dup(self.sock.fileno())) as twin:
                    twin.shutdown(socket.SHUT_RDWR)
            except OSError:  # closed already
                pass

    def end(self) -> None:
        """Leave the socket to its server.  Any thread; idempotent."""
        _open.discard(self)
        with self._lock:
            self._is_over = True

    def _leave_to_parent(self, dead: socket.socket) -> None:
        """In a forked child: put *dead* where this process has the parent's connection.

        Under gevent a copy of the write that the parent is in may go on here.
        """
        fd = self.sock.fileno()
        if fd >= 0:  # else it is closed already
            os.dup2(dead.fileno(), fd, inheritable=False)


_open: weakref.WeakSet[Connection] = weakref.WeakSet()


def _leave_to_parent() -> None:
    """Let go of the connections that a fork has copied, so that only the parent writes and ends."""
    connections = list(_open)
    _open.clear()
    if connections:
        dead, peer = socket.socketpair()
        peer.close()
        for connection in connections:
            connection._leave_to_parent(dead)
        dead.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_to_parent)
