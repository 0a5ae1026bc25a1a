"""What runs inside Redis: each step of the log that has to be one.

Keys, all in one hash slot::

    {prefix}:log        the stream; fields e (the entry), p (the id before), c (the epoch),
                        k (the publisher's key of this message), and if it has an own id
                        i (that) and s (its scope)
    {prefix}:meta       epoch, start (newest id when it began), last (newest id), gone (newest
                        trimmed id), bytes, n (count of all), limits, key (seals the positions),
                        format, run and checked (which server, and when it was seen), heard
                        (when any process last reported who is online)
    {prefix}:own        own id, scope and stream id of a message, parted by NUL, a sorted set
    {prefix}:presence   user -> {process: online}, as JSON
    {prefix}:processes  process -> [until, clients], as JSON
    {prefix}:online     the users with a stream, a set, to be counted
    {prefix}:revoked    token -> until, a sorted set

Each entry names the one before, so a reader proves continuity by what it reads:
an entry that does not name the reader's position says that something is missing.
Ids are Redis's own kind, milliseconds and a sequence; they are made here to be
newer than ``last`` even where the clock went back, with gaps of random length, so
that an id proves its entry: after a restore the new ones are at other places.

Whoever may write to this Redis may write nonsense.  What is no entry of ours is
passed over, and damaged ``meta`` begins a new epoch.
"""

from __future__ import annotations

from sse_broker.logs.redis.retained import RETAIN

__all__ = ["APPEND", "CHECK", "LOCATE", "OWNERS", "READ", "ROSTER", "SET_LIMITS", "SINCE", "TIME"]

_COMMON = """
local log, meta, owned = KEYS[1], KEYS[2], KEYS[3]

local function clock(given)
  if given ~= '' then return tonumber(given) end
  local t = redis.call('TIME')
  return tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end

local function split(id)
  local ms, seq = string.match(id, '^(%d+)%-(%d+)$')
  return tonumber(ms), tonumber(seq)
end

local function is_id(text)
  return text and string.match(text, '^%d+%-%d+$') ~= nil
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
  if #found < 5 then return {60000, 16777216, 0, 86400000, 67108864} end
  return found
end

-- The member of *owned* that an own id has in a scope, or of whatever scope with a stream id.
local function owner(own, scope, id)
  if scope ~= '' then
    local from = own .. '\\0' .. scope
    local first, past = '[' .. from .. '\\0', '(' .. from .. '\\1'
    return redis.call('ZRANGEBYLEX', owned, first, past, 'LIMIT', 0, 1)[1]
  end
  local first, past = '[' .. own .. '\\0', '(' .. own .. '\\1'
  for _, one in ipairs(redis.call('ZRANGEBYLEX', owned, first, past)) do
    if string.sub(one, -#id - 1) == '\\0' .. id then return one end
  end
end

local function id_of(member)
  return member and string.match(member, '(%d+%-%d+)$')
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
      if own ~= '' then
        local member = owner(own, value(entry[2], 's'), entry[1])
        if id_of(member) == entry[1] then redis.call('ZREM', owned, member) end
      end
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
-- ARGV: entry, own id, its scope, key, gap, what to retain, and perhaps since, now.  *since*
-- is not empty when this is another try: then the log is looked through for the key first.
-- Returns epoch, id, the entry of an own id that was there already, and how many retained
-- messages had to go; no epoch where CHECK has to begin one.
local entry, own, scope, key, gap = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local retaining, since = ARGV[6], ARGV[7] or ''
local state = redis.call('HMGET', meta, 'epoch', 'last', 'gone', 'key')
local epoch, last = state[1], state[2]
if not epoch or not is_id(last) or not is_id(state[3]) or not state[4] then return {'', '', ''} end

if since ~= '' then
  if before(since, state[3]) then return {epoch, '', ''} end
  for _, found in ipairs(redis.call('XRANGE', log, '(' .. since, '+')) do
    if value(found[2], 'k') == key then return {epoch, found[1], ''} end
  end
end
local now = clock(ARGV[8] or '')
if own ~= '' then
  local known = id_of(owner(own, scope))
  if known then
    trim(now, limits(), 10000)
    local found = redis.call('XRANGE', log, known, known)
    if #found > 0 then return {epoch, known, value(found[1][2], 'e')} end
    redis.call('ZREM', owned, own .. '\\0' .. scope .. '\\0' .. known)
  end
end

local function next_id(after)
  local ms, seq = split(after)
  if now > ms then return join(now, gap) end
  if seq + 1 + gap < 4294967296 then return join(ms, seq + 1 + gap) end
  return join(ms + 1, gap)
end

local function add(id)
  if own == '' then
    return redis.pcall('XADD', log, id, 'e', entry, 'p', last, 'c', epoch, 'k', key)
  end
  return redis.pcall(
    'XADD', log, id, 'e', entry, 'p', last, 'c', epoch, 'k', key, 'i', own, 's', scope)
end

local id = next_id(last)
local answer = add(id)
if type(answer) == 'table' and answer.err then
  -- Somebody else has put an entry in that is newer than ours.
  local top = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  if not top or not before(id, top[1]) then return redis.error_reply(answer.err) end
  id = next_id(top[1])
  answer = add(id)
  if type(answer) == 'table' and answer.err then return redis.error_reply(answer.err) end
end
if own ~= '' then redis.call('ZADD', owned, 0, own .. '\\0' .. scope .. '\\0' .. id) end
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
local found, size, rows, after = {}, 0, {}, ARGV[1]
while state[1] and #rows == 0 do  -- more than once only where all that was found is not ours
  found = redis.call('XRANGE', log, '(' .. after, '+', 'COUNT', ARGV[2])
  if #found == 0 then break end
  for _, one in ipairs(found) do
    after = one[1]
    if value(one[2], 'c') == state[1] and is_id(value(one[2], 'p')) then
      local entry = value(one[2], 'e')
      rows[#rows + 1] = {one[1], entry, value(one[2], 'p')}
      size = size + #entry
      if size >= tonumber(ARGV[3]) then break end
    end
  end
end
return {state[1] or '', is_id(state[2]) and state[2] or '0-0', rows}
"""
)

LOCATE = (
    _COMMON
    + """
-- ARGV: epoch, stream id, now.
-- Returns epoch, stream id, and why continuity from there cannot be proved.
local state = redis.call('HMGET', meta, 'epoch', 'last')
if not state[1] then return {'', '', 'epoch'} end
local epoch, last = state[1], state[2]
if not trim(clock(ARGV[3]), limits(), 10000) then return {epoch, '', 'again'} end
local gone, id = redis.call('HGET', meta, 'gone'), ARGV[2]
if ARGV[1] ~= epoch then return {epoch, '', 'epoch'} end
if before(last, id) then return {epoch, '', 'ahead'} end
if before(id, gone) then return {epoch, '', 'trimmed'} end
if id ~= gone and id ~= redis.call('HGET', meta, 'start')
  and #redis.call('XRANGE', log, id, id) == 0 then return {epoch, '', 'unknown'} end
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

OWNERS = (
    _COMMON
    + """
-- ARGV: own id, most, scopes.  Returns {id, entry, epoch} of the messages that have it: as many
-- as that, and if there are more, those of the scopes.
local from, rows, seen = ARGV[1] .. '\\0', {}, {}
local function take(member)
  local id = id_of(member)
  if not id or seen[id] then return end
  seen[id] = true
  local found = redis.call('XRANGE', log, id, id)[1]
  if found then rows[#rows + 1] = {id, value(found[2], 'e'), value(found[2], 'c')} end
end
local most = tonumber(ARGV[2])
local found = redis.call(
  'ZRANGEBYLEX', owned, '[' .. from, '(' .. ARGV[1] .. '\\1', 'LIMIT', 0, most)
for _, member in ipairs(found) do take(member) end
if #found == most then
  for i = 3, #ARGV do take(owner(ARGV[1], ARGV[i])) end
end
return rows
"""
)

CHECK = (
    _COMMON
    + """
-- ARGV: a fresh epoch, an epoch, an id that was recorded in it, now, limits for a log that
-- has none, a fresh key.  Returns epoch, start, last, key, and the format before this release's.
-- Where that id is gone although nothing trimmed it, or where a replica has become the
-- master (it may lack what the old one took last), the log is in a new epoch.
local state = redis.call('HMGET', meta, 'epoch', 'last', 'gone', 'run', 'checked', 'key', 'format')
local epoch, last, gone, run, key = state[1], state[2], state[3], state[4], state[6]
local before_format, lost = '', false
if not epoch or epoch == '' then
  epoch, last, gone, run = ARGV[1], '0-0', '0-0', false
  redis.call('HSET', meta, 'epoch', epoch, 'last', last, 'gone', gone, 'bytes', 0, 'n', 0,
    'start', last, 'format', '2')
  redis.call('DEL', log, owned)
elseif not state[7] then
  before_format = '1'
end
if not is_id(last) or not is_id(gone) then  -- damaged
  local top = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  last, gone, lost = top and top[1] or '0-0', '0-0', true
  redis.call('HSET', meta, 'last', last, 'gone', gone, 'bytes', 0, 'n', 0)
end
if not key or #key ~= 32 then
  key = ARGV[6]
  redis.call('HSET', meta, 'key', key)
end
redis.call('HSETNX', meta, 'limits', ARGV[5])
if redis.call('TYPE', owned).ok ~= 'zset' then redis.call('DEL', owned) end
if ARGV[3] ~= '' and ARGV[2] == epoch and before(gone, ARGV[3]) then
  lost = lost or #redis.call('XRANGE', log, ARGV[3], ARGV[3]) == 0
end
local now = clock(ARGV[4])
local info = redis.pcall('INFO', 'server')
if type(info) == 'string' then
  local server = string.match(info, 'run_id:(%w+)')
  local uptime = tonumber(string.match(info, 'uptime_in_seconds:(%d+)') or '0') * 1000
  local checked = tonumber(state[5] or '')
  if server ~= run then
    -- It ran before the log was last seen on another server: so it was a replica then.
    if run and checked and now - uptime < checked then lost = true end
    redis.call('HSET', meta, 'run', server)
  end
  redis.call('HSET', meta, 'checked', string.format('%.0f', now))
end
if lost then
  epoch = ARGV[1]
  redis.call('HSET', meta, 'epoch', epoch, 'start', last)
end
return {epoch, redis.call('HGET', meta, 'start') or '0-0', last, key, before_format}
"""
)

TIME = "return redis.call('TIME')"
SET_LIMITS = "return redis.call('HSET', KEYS[2], 'limits', ARGV[1])"

ROSTER = """
-- KEYS: presence, processes, online, meta.  ARGV: process, clients, ttl in ms, now, silence,
-- then user and state by turns: 1 online, 0 away, - gone.  Time in which no process was heard,
-- if it is longer than *silence* ms, is taken out of all lives.  Returns came, left, known,
-- and the census.
local presence, processes, online, me = KEYS[1], KEYS[2], KEYS[3], ARGV[1]
local now = tonumber(ARGV[4])
if not now then
  local t = redis.call('TIME')
  now = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)
end
local came, left, live, clients = {}, {}, {}, 0

local function decoded(text)
  local ok, found = pcall(cjson.decode, text or '')
  return ok and type(found) == 'table' and found or {}
end

local function entries(user)
  return decoded(redis.call('HGET', presence, user))
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
local heard, silence = tonumber(redis.call('HGET', KEYS[4], 'heard') or ''), 0
if heard and (now < heard or now - heard > tonumber(ARGV[5])) then silence = now - heard end
redis.call('HSET', KEYS[4], 'heard', string.format('%.0f', now))
local all = redis.call('HGETALL', processes)
for i = 1, #all, 2 do
  local one = decoded(all[i + 1])
  one = {tonumber(one[1]) or 0, tonumber(one[2]) or 0}
  if silence ~= 0 and all[i] ~= me then
    one[1] = one[1] + silence
    redis.call('HSET', processes, all[i], cjson.encode(one))
  end
  if one[1] < now then
    dead[all[i]] = true
    redis.call('HDEL', processes, all[i])
  else
    live[#live + 1] = all[i]
    clients = clients + one[2]
  end
end
for i = 6, #ARGV, 2 do
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
    local found, changed = decoded(all[i + 1]), false
    for process in pairs(dead) do
      if found[process] ~= nil then found[process], changed = nil, true end
    end
    if changed then store(all[i], found) end
  end
end
return {came, left, known, #live, clients, redis.call('SCARD', online)}
"""
