"""Ours beside other servers of streams, each as its own documentation runs it."""

from benchmarks.run import main
from benchmarks.subjects import OURS, PEER_SUBJECTS

if __name__ == "__main__":
    main("benchmarks.peers", __doc__ or "", [*OURS, *PEER_SUBJECTS], [100, 1_000, 10_000])
