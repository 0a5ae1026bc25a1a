"""Wakes the processes that follow a file: a datagram to each one's UNIX socket beside it.

The sockets are in a folder of their own, ``<file>-wake``.  Sending never waits:
a socket whose queue is full has been rung already.  One that nobody listens to
any more (its process died) refuses, and whoever rang it takes it away.  A lost
ring costs little, because every wait is short.  Where UNIX sockets are missing
or the folder cannot be made, the waits are all there is.

Lock map
    _lock     (a ringer's) guards its socket and its list; native; held while it
              rings, which is non-blocking system calls
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import stat
import threading
import time

from sse_broker.core.sync import native_lock
from sse_broker.logs.sqlite.files import File, folder_is_ours

__all__ = ["POLL", "Bell", "Ringer"]

POLL = 0.25  # seconds; the net under every ring
LONGEST = 100  # bytes of a socket's path; the kernel's limit is 108
FRESH = 0.05  # seconds; a folder that changed so lately is listed again


_log = logging.getLogger("sse_broker.logs")


def folder_of(path: str) -> str:
    """Return the folder of the sockets of the file at *path*."""
    return f"{path}-wake"


class Ringer:
    """Rings every process that follows a file.  Any thread."""

    def __init__(self, file: File) -> None:
        self._file = file
        self._folder = folder_of(file.path)
        self._lock = native_lock()
        self._seen = -1.0  # the folder's time of change when it was listed
        self._open: int | None = None
        self._targets: list[str] = []
        self._socket: socket.socket | None = None

    def ring(self) -> None:
        """Wake everybody.  Never waits, never raises."""
        if not hasattr(socket, "AF_UNIX"):
            return
        with self._lock:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._socket.setblocking(False)
            for target in self._listed_locked():
                try:
                    self._socket.sendto(b"\0", target)
                except BlockingIOError:  # it rings already
                    pass
                except ConnectionRefusedError:
                    _remove(target)
                except OSError:  # gone meanwhile, or not ours to ring
                    pass

    def _listed_locked(self) -> list[str]:
        try:
            changed = os.stat(self._folder).st_mtime
            if changed != self._seen or time.time() - changed < FRESH:
                ours = folder_is_ours(self._folder, self._file)
                names = os.listdir(self._folder) if ours else []
                before, (base, self._open) = self._open, _short(self._folder)
                self._targets = [f"{base}/{name}" for name in names]
                self._seen = changed
                _close(before)
        except OSError:
            self._targets = []
        return self._targets

    def close(self) -> None:
        """Let go of the socket; the next ring makes another."""
        with self._lock:
            sock, self._socket = self._socket, None
            folder, self._open = self._open, None
            self._seen = -1.0
        if sock is not None:
            sock.close()
        _close(folder)


class Bell:
    """What one process waits at.  One thread waits; any may ring it through a Ringer."""

    def __init__(self, file: File) -> None:
        self._socket: socket.socket | None = None
        self._path = ""
        self._stopped = threading.Event()
        try:
            folder = folder_of(file.path)
            _make_folder(folder, file)
            if not folder_is_ours(folder, file):
                _log.warning(
                    "%s is not used: others can put files there. Messages of other processes"
                    " arrive up to %g s late; cure: remove that folder",
                    folder,
                    POLL,
                )
                return
            bell = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._path = f"{folder}/{os.getpid()}-{secrets.token_hex(4)}"
            base, fd = _short(folder)
            bell.bind(f"{base}/{os.path.basename(self._path)}")
            _close(fd)
            if file.group is not None:
                _share(self._path, file)
            self._socket = bell
        except (OSError, AttributeError):
            pass

    def wait(self, timeout: float) -> None:
        """Wait until somebody rings, at most *timeout* seconds."""
        if self._socket is None:
            self._stopped.wait(timeout)
            return
        try:
            self._socket.settimeout(timeout)
            self._socket.recv(16)
            self._socket.settimeout(0)
            while self._socket.recv(16):
                pass
        except OSError:  # nothing, or nothing more
            pass

    def ring(self) -> None:
        """End the wait.  Any thread; never waits."""
        self._stopped.set()
        if self._socket is not None:
            try:
                # The sending socket is a new one: the bell's own has a timeout and a waiter.
                with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                    sender.setblocking(False)
                    base, fd = _short(os.path.dirname(self._path))
                    sender.sendto(b"\0", f"{base}/{os.path.basename(self._path)}")
                    _close(fd)
            except OSError:
                pass

    def close(self) -> None:
        """Take the socket away."""
        if self._socket is not None:
            self._socket.close()
            _remove(self._path)


def _make_folder(folder: str, file: File) -> None:
    """Make the folder of the sockets for who may use the file, if it is not there."""
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        return
    if file.group is not None:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            os.fchown(handle, -1, file.group)
            os.fchmod(handle, 0o770)
        finally:
            os.close(handle)


def _share(path: str, file: File) -> None:
    """Let the group ring a socket; whatever else may be there by now is left alone."""
    handle = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    try:
        if stat.S_ISSOCK(os.fstat(handle).st_mode):
            os.chmod(f"/proc/self/fd/{handle}", file.mode)
            os.chown(f"/proc/self/fd/{handle}", -1, file.group or -1)
    finally:
        os.close(handle)


def _short(folder: str) -> tuple[str, int | None]:
    """Return a name of *folder* that a socket's path has room for, and what to close afterwards."""
    if len(folder.encode()) + 30 <= LONGEST or not os.path.isdir("/proc/self/fd"):
        return folder, None
    fd = os.open(folder, os.O_RDONLY)
    return f"/proc/self/fd/{fd}", fd


def _close(fd: int | None) -> None:
    if fd is not None:
        os.close(fd)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
