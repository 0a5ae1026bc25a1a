"""What the kernel is asked to do for a stream's socket."""

from __future__ import annotations

import _socket
import ctypes
import socket
import ssl
from typing import Any

__all__ = [
    "FLAGS",
    "GONE",
    "MOST_HEARD",
    "close",
    "hear",
    "send",
    "try_send",
    "tune",
]

FLAGS = getattr(socket, "MSG_DONTWAIT", 0) | getattr(socket, "MSG_NOSIGNAL", 0)

SEND_BUFFER = 64 * 1024  # bytes; the kernel takes 2.8 MB for a reader that stopped, if it is let
USER_TIMEOUT = 30.0  # seconds that written data may stay unacknowledged
MOST_HEARD = 16 * 1024  # bytes that a client may send up its stream before it is cut
GONE = -1
KEEPALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


def _c_send() -> Any:
    """Return the C library's ``send``, called without giving up the GIL, or ``None``.

    A socket's own gives it up, and beside a busy thread it comes back a switch
    interval (5 ms) later, for each write.  With ``FLAGS`` it never waits; -1 says
    that nothing was taken, and not why.  The length has to be a ``c_size_t``: to
    declare the arguments' types would cost as much again as the call.
    """
    try:
        send = ctypes.PyDLL(None).send
    except (OSError, AttributeError, TypeError):
        return None
    send.restype = ctypes.c_ssize_t
    return send if FLAGS else None


def _python_send(fd: int, data: bytes, size: object, flags: int) -> int:
    """Do the same where there is no such ``send``."""
    del size
    sock = _socket.socket(fileno=fd)
    try:
        return int(sock.send(data, flags))
    except OSError:
        return -1
    finally:
        sock.detach()


send: Any = _c_send() or _python_send
"""``send(descriptor, data, its length as a c_size_t, FLAGS)``: bytes taken, or -1.  Never waits."""


def try_send(sock: Any, data: bytes | memoryview) -> int:
    """Return how many bytes a non-blocking socket took, or ``GONE``."""
    try:
        return int(sock.send(data))
    except (BlockingIOError, InterruptedError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
        return 0
    except OSError:
        return GONE


def close(sock: Any) -> None:
    """Shut a connection down and close it, whatever state it is in."""
    try:
        # A forked child may hold the descriptor too; the peer is told all the same.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        pass
    try:
        sock.close()
    except OSError:
        pass


def hear(sock: Any, most: int = 32 * 1024) -> int:
    """Drop what a peer says; return how many bytes that were, or ``GONE`` if it has closed.

    A stream's client has nothing to say after its request, so what it says has no
    meaning and is bounded: at most about *most* bytes at a time, and the caller adds
    them up.  *sock* must not block.
    """
    heard = 0
    try:
        while heard < most:
            piece = sock.recv(4096)
            if not piece:
                return GONE
            heard += len(piece)
    except (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        pass
    except OSError:
        return GONE
    return heard


_OPTIONS = [
    (level, getattr(socket, name), value)
    for level, name, value in (
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.SOL_SOCKET, "SO_SNDBUF", SEND_BUFFER),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", int(USER_TIMEOUT * 1000)),
        *((socket.IPPROTO_TCP, name, value) for name, value in KEEPALIVE.items()),
    )
    if hasattr(socket, name)  # another system has others
]


def tune(sock: Any) -> None:
    """Have the kernel notice a dead or stuck peer, and keep little for a slow one."""
    for option in _OPTIONS:
        try:
            sock.setsockopt(*option)
        except (OSError, AttributeError):  # a unix socket
            pass
