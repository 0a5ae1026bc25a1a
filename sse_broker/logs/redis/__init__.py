"""``redis://``: the log of several machines, in a Redis stream.  Needs the extra ``redis``."""

from sse_broker.logs.redis.log import RedisLog

__all__ = ["RedisLog"]
