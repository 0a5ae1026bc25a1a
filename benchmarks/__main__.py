"""Ours in every host, the naive generators and the limit.  See benchmarks/README.md."""

from benchmarks.run import main
from benchmarks.subjects import OURS

if __name__ == "__main__":
    main("benchmarks", __doc__ or "", OURS, [100, 1_000, 10_000])
