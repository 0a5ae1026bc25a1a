"""What an operator watches of a process, beside the counters: gauges, and one histogram."""

from __future__ import annotations

import os
from dataclasses import dataclass

from sse_broker.core.latency import BOUNDS

__all__ = ["Measures", "open_descriptors"]


@dataclass(frozen=True)
class Measures:
    """A moment of one process.  Seconds, bytes, counts.

    ``queued_most`` is the deepest queue of a client, ``log_lag`` how many records have
    come and are not offered yet, ``bytes_waiting`` their size.  ``longest_turn`` is the
    pump's since the last look, ``latency`` the buckets of the histogram of
    :mod:`sse_broker.core.latency`.  ``descriptors`` is 0 where nobody can tell.
    """

    queued_frames: int = 0
    queued_most: int = 0
    clients_behind: int = 0
    log_lag: int = 0
    bytes_waiting: int = 0
    senders_waiting: int = 0
    longest_turn: float = 0.0
    reaper_late: float = 0.0
    calls_waiting: int = 0
    descriptors: int = 0
    latency: tuple[int, ...] = (0,) * (len(BOUNDS) + 1)
    latency_sum: float = 0.0


def open_descriptors() -> int:
    """Return how many files this process has open; 0 where the system does not say."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            return len(os.listdir(folder)) - 1  # one of them is for looking  # noqa: PTH208
        except OSError:
            continue
    return 0
