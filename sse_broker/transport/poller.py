"""Which sockets have something to say: epoll where there is one, else what the system has."""

from __future__ import annotations

import os
import select
import selectors
import socket
from typing import Protocol

__all__ = ["READ", "WRITE", "Poller", "make_poller"]

READ, WRITE = 1, 4  # EPOLLIN and EPOLLOUT; what else epoll says is an end, which reading finds


class Poller(Protocol):
    """One thread polls; any thread may wake it."""

    def add(self, fd: int, write: bool = False) -> None:
        """Look at a descriptor, for reading, and for writing if that is said."""

    def change(self, fd: int, write: bool) -> None:
        """Look for writing too, or no longer."""

    def remove(self, fd: int) -> None:
        """Look no more."""

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        """Wait up to *timeout* seconds; return descriptors with what they are ready for."""

    def wake(self) -> None:
        """End a wait, now or at the next poll.  Any thread; never waits."""

    def close(self) -> None:
        """Let go of what it holds open."""


class _Epoll:
    """The woken end is edge-triggered and never read: that would give up the GIL once more."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._bell, select.EPOLLIN | select.EPOLLET)

    def add(self, fd: int, write: bool = False) -> None:
        self._epoll.register(fd, self._mask(write))

    def change(self, fd: int, write: bool) -> None:
        self._epoll.modify(fd, self._mask(write))

    @staticmethod
    def _mask(write: bool) -> int:
        return select.EPOLLIN | select.EPOLLRDHUP | (select.EPOLLOUT if write else 0)

    def remove(self, fd: int) -> None:
        self._epoll.unregister(fd)

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        bell = self._bell
        return [event for event in self._epoll.poll(timeout, 1024) if event[0] != bell]

    def wake(self) -> None:
        try:
            os.eventfd_write(self._bell, 1)
        except (BlockingIOError, OSError):  # it rings already, or is closed
            pass

    def close(self) -> None:
        self._epoll.close()
        os.close(self._bell)


class _Selector:
    """For systems without epoll."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._bell, self._ear = socket.socketpair()
        self._bell.setblocking(False)
        self._ear.setblocking(False)
        self._selector.register(self._ear, selectors.EVENT_READ)

    def add(self, fd: int, write: bool = False) -> None:
        self._selector.register(fd, self._mask(write))

    def change(self, fd: int, write: bool) -> None:
        self._selector.modify(fd, self._mask(write))
        self.wake()  # a wait that has begun would not know

    @staticmethod
    def _mask(write: bool) -> int:
        return selectors.EVENT_READ | (selectors.EVENT_WRITE if write else 0)

    def remove(self, fd: int) -> None:
        self._selector.unregister(fd)

    def poll(self, timeout: float) -> list[tuple[int, int]]:
        found = []
        for key, mask in self._selector.select(timeout):
            if key.fileobj is self._ear:
                self._hear()
            else:
                read = READ if mask & selectors.EVENT_READ else 0
                found.append((key.fd, read | (WRITE if mask & selectors.EVENT_WRITE else 0)))
        return found

    def _hear(self) -> None:
        try:
            self._ear.recv(4096)
        except BlockingIOError:
            pass

    def wake(self) -> None:
        try:
            self._bell.send(b"\0")
        except OSError:  # it rings already, or is closed
            pass

    def close(self) -> None:
        self._selector.close()
        self._bell.close()
        self._ear.close()


def make_poller() -> Poller:
    """Return the best poller that this system has."""
    return _Epoll() if hasattr(select, "epoll") and hasattr(os, "eventfd") else _Selector()
