"""Looking back in a SQLite log: where its last seconds begin, and its last records.

Neither needs an index: rows are in the order of their positions, and what is kept,
and what is young, is always the newer part of them.
"""

from __future__ import annotations

from collections.abc import Callable

from sse_broker.logs.sqlite.database import Row

__all__ = ["READ_BACK", "boundary"]

READ_BACK = (
    "SELECT position, entry FROM {message} WHERE position <= ? ORDER BY position DESC LIMIT ?"
)


def boundary(
    next_row: Callable[[int], Row | None], low: int, high: int, is_in: Callable[[Row], bool]
) -> int:
    """Return the position after which all rows are in; *low*, or one where a row is.

    *next_row* returns the first row after a position.  No row up to *low* is in, and
    there is none after *high*.
    """
    while low < high:
        middle = (low + high) // 2
        row = next_row(middle)
        if row is None or is_in(row):
            high = middle
        else:
            low = row[0]
    return low
