"""``sqlite:///path``: the log of all processes of one machine, in one file."""

from sse_broker.logs.sqlite.log import SqliteLog

__all__ = ["SqliteLog"]
