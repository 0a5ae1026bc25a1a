"""What runs inside Redis: each step of the log that has to be one.

Keys, all in one hash slot::

    {prefix}:log        the stream; fields e (the entry), p (the id before), c (the epoch),
                        k (the publisher's key of this message), i (an own id, if it has one)
    {prefix}:meta       epoch, last (newest id), gone (newest trimmed id), bytes, n (count of
                        all), limits, run and checked (which server, and when it was seen)
    {prefix}:ids        own id -> stream id
    {prefix}:presence   user -> {process: online}, as JSON
    {prefix}:processes  process -> [until, clients], as JSON
    {prefix}:online     the users with a stream, a set, to be counted
    {prefix}:revoked    token -> until, a sorted set

Each entry names the one before, so a reader proves continuity by what it reads:
an entry that does not name the reader's position says that something is missing.
Ids are Redis's own kind, milliseconds and a sequence; they are made here to be
newer than ``last`` even where the clock went back.
"""

from __future__ import annotations

from sse_broker.logs.redis.retained import RETAIN

__all__ = ["APPEND", "CHECK", "LOCATE", "READ", "ROSTER", "SET_LIMITS", "SINCE", "TIME"]

_COMMON = """
local log, meta, ids = KEYS[1], KEYS[2], KEYS[3]

local function clock(given)
  if given ~= '' then return tonumber(given) end
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

local function split(id)
  local ms, seq = string.match(id, '^(%d+)%-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

local function join(ms, seq)
  return string.format('%.0f-%.0f', ms, seq)
end

local function before(a, b)
  local ams, aseq = split(a)
  local bms, bseq = split(b)
  return ams < bms or (ams == bms and aseq < bseq)
end

local function value(fields, name)
  for i = 1, #fields, 2 do
    if fields[i] == name then return fields[i + 1] end
  end
  return ''
end

-- The rule of LogLimits.keeps, for an entry of *age* ms, the oldest of *count* with *size* bytes.
local function keeps(limits, age, count, size)
  if limits[1] > 0 and age <= limits[1] and size <= limits[2] then return true end
  return count <= limits[3] and (limits[4] == 0 or age <= limits[4])
    and (limits[5] == 0 or size <= limits[5])
end

local function limits()
  local found = {}
  for number in string.gmatch(redis.call('HGET', meta, 'limits'), '[^:]+') do
    found[#found + 1] = tonumber(number)
  end
  return found
end

-- Trims at most *most* entries; returns whether that was all there was to trim.
local function trim(now, limits, most)
  local state = redis.call('HMGET', meta, 'bytes', 'gone')
  local size, gone = tonumber(state[1]) or 0, state[2] or '0-0'
  local count, look, cut = redis.call('XLEN', log), 1, nil
  local from, finished = '-', false
  while most > 0 and not finished do
    local batch = redis.call('XRANGE', log, from, '+', 'COUNT', math.min(look, most))
    if #batch == 0 then finished = true end
    for _, entry in ipairs(batch) do
      if keeps(limits, now - split(entry[1]), count, size) then finished = true break end
      cut, count, size, most = entry[1], count - 1, size - #value(entry[2], 'e'), most - 1
      local own = value(entry[2], 'i')
      if own ~= '' then redis.call('HDEL', ids, own) end
    end
    if cut then from = '(' .. cut end
    look = 64
  end
  if cut then
    local ms, seq = split(cut)
    redis.call('XTRIM', log, 'MINID', '=', join(ms, seq + 1))
    redis.call('HSET', meta, 'gone', cut, 'bytes', size)
  end
  return finished
end
"""

APPEND = (
    _COMMON
    + RETAIN
    + """
-- ARGV: entry, own id, key, what to retain, and perhaps since, now.  *since* is not empty
-- when this is another try: then the log is looked through for the key first.
-- Returns epoch, id, the entry of an own id that was there already, and how many retained
-- messages had to go; no epoch where CHECK has to begin one.
local entry, own, key, retaining, since = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5] or ''
local state = redis.call('HMGET', meta, 'epoch', 'last')
local epoch, last = state[1], state[2]
if not epoch then return {'', '', ''} end

if since ~= '' then
  if before(since, redis.call('HGET', meta, 'gone')) then return {epoch, '', ''} end
  for _, found in ipairs(redis.call('XRANGE', log, '(' .. since, '+')) do
    if value(found[2], 'k') == key then return {epoch, found[1], ''} end
  end
end
local now = clock(ARGV[6] or '')
if own ~= '' then
  local known = redis.call('HGET', ids, own)
  if known then
    trim(now, limits(), 10000)
    local found = redis.call('XRANGE', log, known, known)
    if #found > 0 then return {epoch, known, value(found[1][2], 'e')} end
  end
end

local ms, seq = split(last)
local id = now > ms and join(now, 0) or join(ms, seq + 1)
if own == '' then
  redis.call('XADD', log, id, 'e', entry, 'p', last, 'c', epoch, 'k', key)
else
  redis.call('XADD', log, id, 'e', entry, 'p', last, 'c', epoch, 'k', key, 'i', own)
  redis.call('HSET', ids, own, id)
end
redis.call('HSET', meta, 'last', id)
redis.call('HINCRBY', meta, 'bytes', #entry)
if redis.call('HINCRBY', meta, 'n', 1) % 64 == 0 then trim(now, limits(), 256) end
local evicted = 0
if retaining ~= '' then
  local most = limits()
  evicted = retain(retaining, id, entry, now, most[6] or 10000, most[7] or 16777216)
end
return {epoch, id, '', evicted}
"""
)

READ = (
    _COMMON
    + """
-- ARGV: after, limit, bytes.  Returns epoch, last, and {id, entry, id before} for each.
local state = redis.call('HMGET', meta, 'epoch', 'last')
local found, size, rows = {}, 0, {}
if state[1] then found = redis.call('XRANGE', log, '(' .. ARGV[1], '+', 'COUNT', ARGV[2]) end
for _, one in ipairs(found) do
  local entry = value(one[2], 'e')
  rows[#rows + 1] = {one[1], entry, value(one[2], 'p')}
  size = size + #entry
  if size >= tonumber(ARGV[3]) then break end
end
return {state[1] or '', state[2] or '0-0', rows}
"""
)

LOCATE = (
    _COMMON
    + """
-- ARGV: wire id, its epoch, its stream id, now.
-- Returns epoch, stream id, and why continuity from there cannot be proved.
local state = redis.call('HMGET', meta, 'epoch', 'last')
if not state[1] then return {'', '', 'epoch'} end
local epoch, last = state[1], state[2]
if not trim(clock(ARGV[4]), limits(), 10000) then return {epoch, '', 'again'} end
local gone = redis.call('HGET', meta, 'gone')
local own = redis.call('HGET', ids, ARGV[1])
if own then return {epoch, own, ''} end
if ARGV[3] == '' then return {epoch, '', 'unknown'} end
if ARGV[2] ~= epoch then return {epoch, '', 'epoch'} end
local id = ARGV[3]
if before(last, id) then return {epoch, '', 'ahead'} end
if before(id, gone) then return {epoch, '', 'trimmed'} end
if id ~= gone and #redis.call('XRANGE', log, id, id) == 0 then return {epoch, '', 'unknown'} end
return {epoch, id, ''}
"""
)

SINCE = (
    _COMMON
    + """
-- ARGV: an age in ms or empty, now.  Returns epoch, the id of the last entry that is older (or
-- of the newest that is gone), and whether all that are younger are there.
local state = redis.call('HMGET', meta, 'epoch', 'last')
local now = clock(ARGV[2])
if not trim(now, limits(), 10000) then return {state[1], 'again', 0} end
local gone = redis.call('HGET', meta, 'gone')
if ARGV[1] == '' then return {state[1], gone, gone == '0-0' and 1 or 0} end
local oldest = now - tonumber(ARGV[1])
local found = redis.call('XREVRANGE', log, '(' .. join(math.max(0, oldest), 0), '-', 'COUNT', 1)
if #found > 0 then return {state[1], found[1][1], 1} end
return {state[1], gone, split(gone) < oldest and 1 or 0}
"""
)

CHECK = (
    _COMMON
    + """
-- ARGV: a fresh epoch, an epoch, an id that was recorded in it, now, limits for a log that
-- has none.  Returns epoch and last.
-- Where that id is gone although nothing trimmed it, or where a replica has become the
-- master (it may lack what the old one took last), the log is in a new epoch.
local state = redis.call('HMGET', meta, 'epoch', 'last', 'gone', 'run', 'checked')
local epoch, last, gone, run = state[1], state[2], state[3], state[4]
if not epoch then
  epoch, last, gone, run = ARGV[1], '0-0', '0-0', false
  redis.call('HSET', meta, 'epoch', epoch, 'last', last, 'gone', gone, 'bytes', 0, 'n', 0)
  redis.call('DEL', log, ids)
end
redis.call('HSETNX', meta, 'limits', ARGV[5])
local lost = false
if ARGV[3] ~= '' and ARGV[2] == epoch and before(gone, ARGV[3]) then
  lost = #redis.call('XRANGE', log, ARGV[3], ARGV[3]) == 0
end
local now = clock(ARGV[4])
local info = redis.pcall('INFO', 'server')
if type(info) == 'string' then
  local server = string.match(info, 'run_id:(%w+)')
  local uptime = tonumber(string.match(info, 'uptime_in_seconds:(%d+)') or '0') * 1000
  if server ~= run then
    -- It ran before the log was last seen on another server: so it was a replica then.
    if run and state[5] and now - uptime < tonumber(state[5]) then lost = true end
    redis.call('HSET', meta, 'run', server)
  end
  redis.call('HSET', meta, 'checked', string.format('%.0f', now))
end
if lost then
  epoch = ARGV[1]
  redis.call('HSET', meta, 'epoch', epoch)
end
return {epoch, last}
"""
)

TIME = "return redis.call('TIME')"
SET_LIMITS = "return redis.call('HSET', KEYS[2], 'limits', ARGV[1])"

ROSTER = """
-- KEYS: presence, processes, online.  ARGV: process, clients, ttl in ms, now, then user and
-- state by turns: 1 online, 0 away, - gone.  Returns came, left, known, and the census.
local presence, processes, online, me = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
local now = tonumber(ARGV[4])
if not now then
  local t = redis.call('TIME')
  now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end
local came, left, live, clients = {}, {}, {}, 0

local function entries(user)
  local text = redis.call('HGET', presence, user)
  return text and cjson.decode(text) or {}
end

local function store(user, found)
  local is_online = false
  for _, state in pairs(found) do is_online = is_online or state == 1 end
  redis.call(is_online and 'SADD' or 'SREM', online, user)
  if next(found) == nil then
    left[#left + 1] = user
    redis.call('HDEL', presence, user)
  else
    redis.call('HSET', presence, user, cjson.encode(found))
  end
end

local known = redis.call('HEXISTS', processes, me)
redis.call('HSET', processes, me, cjson.encode({now + tonumber(ARGV[3]), tonumber(ARGV[2])}))
local dead = {}
local all = redis.call('HGETALL', processes)
for i = 1, #all, 2 do
  local one = cjson.decode(all[i + 1])
  if one[1] < now then
    dead[all[i]] = true
    redis.call('HDEL', processes, all[i])
  else
    live[#live + 1] = all[i]
    clients = clients + one[2]
  end
end
for i = 5, #ARGV, 2 do
  local user, found = ARGV[i], entries(ARGV[i])
  if ARGV[i + 1] ~= '-' then
    if next(found) == nil then came[#came + 1] = user end
    found[me] = tonumber(ARGV[i + 1])
    store(user, found)
  elseif found[me] ~= nil then
    found[me] = nil
    store(user, found)
  end
end
if next(dead) ~= nil then
  all = redis.call('HGETALL', presence)
  for i = 1, #all, 2 do
    local found, changed = cjson.decode(all[i + 1]), false
    for process in pairs(dead) do
      if found[process] ~= nil then found[process], changed = nil, true end
    end
    if changed then store(all[i], found) end
  end
end
return {came, left, known, #live, clients, redis.call('SCARD', online)}
"""
