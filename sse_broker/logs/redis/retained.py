"""Retained messages in Redis, kept in the step that records them.

Keys, in the log's hash slot; a *field* is tenant, target, addressee and event, one a line::

    {prefix}:retained        field -> stream id, until (ms or empty) and entry, parted by line ends
    {prefix}:retained:names  the fields, a sorted set of one score, to be found by their beginning
    {prefix}:retained:order  the fields by age
    {prefix}:retained:until  those that end, by when

``{prefix}:meta`` has ``retained`` (how many there ever were) and ``retained_bytes``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from sse_broker.core.ports import Interest, Record
from sse_broker.logs.redis.link import Link
from sse_broker.logs.redis.server import Options
from sse_broker.logs.retained import Decoded, Key, keys_of, tenants_of, wanted
from sse_broker.wire.command import Command
from sse_broker.wire.message import Message

__all__ = ["RETAIN", "RedisRetained", "asked"]

WILDCARDS = ("*", "**")

_COMMON = """
local kept, named = KEYS[#KEYS - 4], KEYS[#KEYS - 3]
local order, ends, sums = KEYS[#KEYS - 2], KEYS[#KEYS - 1], KEYS[#KEYS]

local function drop(field)
  local value = redis.call('HGET', kept, field)
  if not value then return 0 end
  redis.call('HDEL', kept, field)
  redis.call('ZREM', named, field)
  redis.call('ZREM', order, field)
  redis.call('ZREM', ends, field)
  redis.call('HINCRBY', sums, 'retained_bytes', -#value)
  return 1
end
"""

RETAIN = (
    _COMMON
    + """
-- *text* is JSON: keys, and seconds or none.  Returns how many others had to go.
local function retain(text, id, entry, now, size, bytes)
  local asked = cjson.decode(text)
  local till = asked.seconds and string.format('%.0f', now + asked.seconds * 1000) or ''
  for _, field in ipairs(asked.keys) do
    drop(field)
    local value = id .. '\\n' .. till .. '\\n' .. entry
    redis.call('HSET', kept, field, value)
    redis.call('ZADD', named, 0, field)
    redis.call('ZADD', order, redis.call('HINCRBY', sums, 'retained', 1), field)
    if till ~= '' then redis.call('ZADD', ends, till, field) end
    redis.call('HINCRBY', sums, 'retained_bytes', #value)
  end
  local function over()
    return redis.call('ZCARD', order) > size
      or tonumber(redis.call('HGET', sums, 'retained_bytes')) > bytes
  end
  if over() then
    local ended = redis.call('ZRANGEBYSCORE', ends, '-inf', string.format('%.0f', now))
    for _, field in ipairs(ended) do drop(field) end
  end
  local evicted = 0
  while over() and redis.call('ZCARD', order) > #asked.keys do
    evicted = evicted + drop(redis.call('ZRANGE', order, 0, 0)[1])
  end
  return evicted
end
"""
)

FIND = (
    _COMMON
    + """
-- ARGV: now in ms, or empty, and beginnings of fields.  Returns {field, stream id} for each
-- that begins so and has not ended.
local now, found = tonumber(ARGV[1]), {}
if not now then
  local t = redis.call('TIME')
  now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end
for i = 2, #ARGV do
  local fields = redis.call('ZRANGEBYLEX', named, '[' .. ARGV[i], '(' .. ARGV[i] .. '\\255')
  for _, field in ipairs(fields) do
    local value = redis.call('HGET', kept, field) or ''
    local id, till = string.match(value, '^(%d+%-%d+)\\n(%d*)\\n')
    if id and (till == '' or tonumber(till) > now) then found[#found + 1] = {field, id} end
  end
end
return found
"""
)

CLEAR = (
    _COMMON
    + """
-- ARGV: the beginning of a field, and whether it is the whole.  Returns how many were dropped.
if ARGV[2] == '1' then return drop(ARGV[1]) end
local count = 0
local fields = redis.call('ZRANGEBYLEX', named, '[' .. ARGV[1], '(' .. ARGV[1] .. '\\255')
for _, field in ipairs(fields) do count = count + drop(field) end
return count
"""
)


def asked(message: Message | Command) -> str:
    """Return what APPEND is told of retaining *message*; empty if nothing is to be retained."""
    if not isinstance(message, Message) or not message.retain:
        return ""
    return json.dumps(
        {
            "keys": ["\n".join(key) for key in keys_of(message)],
            **({} if message.retain_for is None else {"seconds": message.retain_for}),
        },
        ensure_ascii=False,
    )


class RedisRetained:
    """What is asked of the keys, over one process's connections."""

    def __init__(self, link: Link, options: Options) -> None:
        self._link = link
        names = ("retained", "retained:names", "retained:order", "retained:until", "meta")
        self.keys = tuple(options.key(name) for name in names)
        self._decoded = Decoded()

    def find(
        self,
        interest: Interest,
        now: str,
        number: Callable[[bytes], int],
        read: Callable[[bytes, bytes], Record],
    ) -> list[Record]:
        """Return what a client may be for, each once, oldest first.

        *now* is in milliseconds, or empty for the server's own time; *number* says what
        a stream id is as a number, *read* decodes the entry at a stream id.

        :raises LogUnavailable: Redis did not say.
        """
        rows = self._link.run(FIND, self.keys, now, *_beginnings(interest))
        places: dict[bytes, bytes] = {}
        for field, place in rows:
            if not interest.patterns or _is_for(interest, field):
                places[place] = field
        missing = [place for place in places if self._decoded.get(number(place)) is None]
        if missing:
            self._fetch([(place, places[place]) for place in missing], number, read)
        found = [self._decoded.get(number(place)) for place in sorted(places, key=number)]
        return [one for one in found if one is not None and type(one.message) is Message]

    def _fetch(
        self,
        wanted_rows: list[tuple[bytes, bytes]],
        number: Callable[[bytes], int],
        read: Callable[[bytes, bytes], Record],
    ) -> None:
        fields = [field for _, field in wanted_rows]
        values: list[Any] = self._link.call(lambda client: client.hmget(self.keys[0], fields))
        for (place, _), value in zip(wanted_rows, values, strict=True):
            head, _, rest = (value or b"").partition(b"\n")
            if head == place:  # else it was replaced a moment ago
                self._decoded.put(number(place), read(place, rest.partition(b"\n")[2]))

    def clear(self, tenant: str, target: str, addressee: str, event: str | None) -> int:
        """Drop what is kept for an addressee, of one event or of all; return how many.

        :raises LogUnavailable: nothing was cleared, or nobody knows.
        """
        field = "\n".join(Key(tenant, target, addressee, event or ""))
        return int(self._link.run(CLEAR, self.keys, field, "0" if event is None else "1"))


def _beginnings(interest: Interest) -> Iterator[str]:
    """Yield how the fields begin that a client may be for."""
    for tenant in tenants_of(interest, "user"):
        yield f"{tenant}\nuser\n{interest.user_id}\n"
    literal = {_literal(pattern) for pattern in interest.patterns}
    for tenant in tenants_of(interest, "topic"):
        for name in interest.names:
            yield f"{tenant}\ntopic\n{name}\n"
        for beginning in literal:
            yield f"{tenant}\ntopic\n{beginning}"


def _literal(pattern: str) -> str:
    """Return how the names that a pattern takes begin."""
    parts = pattern.split(":")
    first = next(index for index, part in enumerate(parts) if part in WILDCARDS)
    return "".join(f"{part}:" for part in parts[:first])


def _is_for(interest: Interest, field: bytes) -> bool:
    parts = field.decode(errors="replace").split("\n")
    return len(parts) == 4 and (parts[1] == "user" or wanted(interest, parts[2]))
