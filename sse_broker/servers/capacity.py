"""How many streams this process can hold, and what it keeps for other requests.

A gthread worker whose threads all hold streams accepts further requests and
lets them wait for ever; a gevent worker whose connections are all taken leaves
them in the backlog; and a process without free descriptors accepts nobody and opens
no file.  None of this is an error that a client sees, so streams have to stop
short of it by themselves.

Threads are counted over all brokers of the process, and for every body of this
library that keeps its thread, whatever the reason.  Descriptors are counted once,
when the first stream comes; connections that are only kept alive, files and
databases have to do with the reserve.
"""

from __future__ import annotations

import collections
import logging
import os
from pathlib import Path

from sse_broker.core.sync import native_lock
from sse_broker.servers.unknown import Server

try:
    import resource
except ImportError:  # another system, which has no limit
    resource = None  # type: ignore[assignment]

__all__ = ["Seats", "descriptors", "room_for_streams", "seats", "threads_for_streams"]

TENTH = 10  # of the connections; idle ones, kept alive for the next request, hold them too
SPARE = 64  # descriptors at least that are nobody's stream

_log = logging.getLogger("sse_broker.capacity")
_said: set[tuple[int, int]] = set()
_descriptors: dict[int, int] = {}


def room_for_streams(server: Server, reserve: int) -> int:
    """Return how many streams this process may hold; 0 where nobody knows.

    Of its threads *reserve* are left; of its connections as many, or a tenth of
    them if that is more; of its descriptors a tenth.  One stream is always possible.
    """
    threads, connections = server.capacity
    rooms = [descriptors(connections if server.needs_descriptors else 0)]
    if reserve and threads and not server.hands_off:
        rooms.append(max(1, threads - reserve))
    if reserve and connections:
        rooms.append(max(1, connections - max(reserve, -(-connections // TENTH))))
    room = min((room for room in rooms if room), default=0)
    _say(room, threads, connections)
    return room


def threads_for_streams(server: Server, reserve: int) -> int:
    """Return how many threads streams may keep in this process; 0 where nobody knows."""
    threads = server.capacity.threads if reserve else 0
    return max(1, threads - reserve) if threads else 0


def descriptors(wanted: int = 0) -> int:
    """Return how many descriptors streams may have in this process; 0 where there is no limit.

    Once per process, if *wanted* is known, the soft limit is raised as far as that
    needs and the hard one lets it.
    """
    pid = os.getpid()
    found = _descriptors.get(pid)
    if found is None:
        found = _descriptors[pid] = _find_descriptors(wanted)
    return found


def _find_descriptors(wanted: int) -> int:
    if resource is None:
        return 0
    used = _in_use()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return 0
    needed = wanted + used + max(SPARE, wanted // TENTH) if wanted else 0
    if needed > soft:
        raised = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
            soft = raised
        except (OSError, ValueError):  # macOS knows a lower one than it says
            pass
    return max(1, soft - used - max(SPARE, soft // TENTH))


def _in_use() -> int:
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return sum(1 for _ in Path(folder).iterdir())
        except OSError:
            pass
    return SPARE


class Seats:
    """The threads of this process that bodies of this library keep.

    Lock map
        _lock     held while a thread is counted, so that the last one is not taken twice;
                  native.  :meth:`leave` does without: a finalizer may call it anywhere
    """

    def __init__(self) -> None:
        self._lock = native_lock()
        self._taken: collections.deque[None] = collections.deque()

    @property
    def taken(self) -> int:
        """How many threads are kept."""
        return len(self._taken)

    def take(self, most: int = 0) -> bool:
        """Take a thread; say whether that was one of the first *most*, 0 for any number."""
        with self._lock:
            if 0 < most <= len(self._taken):
                return False
            self._taken.append(None)
            return True

    def leave(self) -> None:
        """Say that a thread is free again.  Never waits."""
        self._taken.pop()


_seats: dict[int, Seats] = {}


def seats() -> Seats:
    """Return the seats of this process."""
    pid = os.getpid()
    found = _seats.get(pid)
    if found is None:  # setdefault is one step; a lock could be stuck after a fork
        found = _seats.setdefault(pid, Seats())
    return found


def _say(room: int, threads: int, connections: int) -> None:
    """Say once per process what was found."""
    key = (os.getpid(), room)
    if key not in _said:
        _said.add(key)
        if room:
            _log.info("room for %d streams: %d threads, %d connections", room, threads, connections)
        else:
            _log.debug("this server does not say how many streams it can hold")
