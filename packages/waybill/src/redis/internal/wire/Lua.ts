/**
 * Lua that several scripts share. A script consists of the parts it needs, and its body.
 *
 * Every script reads its keys before the first write, so that a foreign value under one of our names ends it and leaves
 * nothing half done.
 *
 * @module
 */
import { consumerDied, maxLines } from "../../../internal/Attempts.ts"
import { base, suspicious } from "../../../internal/Suspects.ts"

/**
 * `room()`: whether a page has room for more. `weigh(value)`: counts its bytes, and returns it. A page ends after the
 * message that fills it, so that it holds one however large that is, and a slow connection carries it before its deadline.
 */
export const weighing = /* lua */ `
local carried = 0
local function room() return carried < 1048576 end
local function weigh(value)
  if type(value) == 'string' then carried = carried + #value + 8
  elseif type(value) == 'table' then for _, part in ipairs(value) do weigh(part) end end
  return value
end
`

/**
 * `page(stream, from, limit, backwards)`: entries of a stream, from an end of the range as in XRANGE, until the page has
 * no room. The server loads entries as a whole; a few at a time do not matter, however large.
 *
 * It uses `weighing`.
 */
export const paging = /* lua */ `
local function page(stream, from, limit, backwards)
  local rows = {}
  while #rows < limit and room() do
    local count = math.min(16, limit - #rows)
    local some = backwards and redis.call('XREVRANGE', stream, from, '-', 'COUNT', count)
      or redis.call('XRANGE', stream, from, '+', 'COUNT', count)
    for _, entry in ipairs(some) do
      if not room() then break end
      rows[#rows + 1] = weigh(entry)
    end
    if #some < count then break end
    from = '(' .. rows[#rows][1]
  end
  return rows
end
`

/**
 * `behind(stream, id)`: how many entries come after this id; nil if that is more than a page.
 *
 * It uses `weighing` and `paging`, and starts a new count.
 */
export const lagging = /* lua */ `
local function behind(stream, id)
  carried = 0
  local ahead = #page(stream, '(' .. id, 1000)
  return room() and ahead < 1000 and ahead or nil
end
`

/**
 * `bodiesOf(hash, ids)`: the values in the hash for the first of these ids, until about a megabyte; the other ids are
 * removed from the list. A few at a time, because the size of the next ones is unknown.
 *
 * It uses `weighing`, and starts a new count.
 */
export const fetching = /* lua */ `
local function bodiesOf(hash, ids)
  carried = 0
  local bodies, step = {}, 1
  while #bodies < #ids and room() do
    local from = #bodies
    for _, body in ipairs(redis.call('HMGET', hash, unpack(ids, from + 1, math.min(from + step, #ids)))) do
      bodies[#bodies + 1] = weigh(body)
    end
    step = math.min(16, step * 2)
  end
  for i = #ids, #bodies + 1, -1 do ids[i] = nil end
  return bodies
end
`

/** `clock()`: milliseconds since the epoch by the server's clock, the only one that counts. */
export const clock = /* lua */ `
local function clock()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
`

/** The cap of the dead letters, as arguments: how many, and for how long in ms. */
export const cap = { maxCount: "number", maxAgeMillis: "number" } as const

/**
 * `noted`, what the state of the group records about it and this consumer.
 * `live(now)`: the consumer lives for a lease from now on. Its lease is recorded, so that others can tell a heartbeat from what a
 * clock that went back has left of one.
 * `correct(now)`: a heartbeat further ahead than the lease of its consumer does not count. A live consumer beats again within a
 * lease; it gets that long, and no longer. One not further ahead than the caller's lease is checked later. A consumer
 * without a recorded lease gets a minute more before it is doubted, and then the same.
 * `holding(age, now)`: records how long the oldest delivery has been held, ms; "": there is none.
 * `paused(quiet)`: 1 if the group is paused, otherwise 0. `quiet` = '1': the consumer has stopped beginning messages. That is
 * recorded until the next beat without it, so that pausing can wait for every consumer.
 *
 * `refiltered(only)`: whether the group has another filter.
 *
 * They use the locals `consumers` and `state`, the keys, and `consumer` and `lease`. Unchanged records are not written.
 */
export const heartbeats = /* lua */ `
local noted = redis.call('HMGET', state, 'paused', 'quiet:' .. consumer, 'oldest:' .. consumer, 'lease:' .. consumer, 'only')
local function refiltered(only)
  return (noted[5] or '') ~= only
end
local function live(now)
  redis.call('ZADD', consumers, now + lease, consumer)
  if tonumber(noted[4]) ~= lease then redis.call('HSET', state, 'lease:' .. consumer, lease) end
end
local function correct(now)
  local ahead = redis.call('ZRANGE', consumers, '+inf', string.format('(%.0f', now + lease), 'BYSCORE', 'REV',
    'LIMIT', 0, 16, 'WITHSCORES')
  for i = 1, #ahead, 2 do
    local told, until_ = tonumber(redis.call('HGET', state, 'lease:' .. ahead[i])), tonumber(ahead[i + 1])
    if until_ > now + (told or lease + 60000) then redis.call('ZADD', consumers, now + (told or lease), ahead[i]) end
  end
end
local function holding(age, now)
  if age ~= '' then redis.call('HSET', state, 'oldest:' .. consumer, string.format('%.0f', now - tonumber(age)))
  elseif noted[3] then redis.call('HDEL', state, 'oldest:' .. consumer) end
end
local function paused(quiet)
  local is = noted[1] and 1 or 0
  if is == 1 and quiet == '1' then
    if not noted[2] then redis.call('HSET', state, 'quiet:' .. consumer, '1') end
  elseif noted[2] then redis.call('HDEL', state, 'quiet:' .. consumer) end
  return is
end
`

/**
 * `ask(...)`: the reply to a command about a group, nil if there is no such group or stream. Any other error, such as a missing
 * permission, ends the script: it must not look like another consumer's delivery.
 */
export const ask = /* lua */ `
local function ask(...)
  local reply = redis.pcall(...)
  if not reply.err then return reply end
  if not string.find(reply.err, '^NOGROUP') and not string.find(reply.err, 'no such key', 1, true) then error(reply) end
end
`

/**
 * `announce(channel, millis, group)`: tells listeners that something may be available in that many milliseconds, for this
 * group only if one is named. A hint, so a missing permission does not matter.
 */
export const announce = /* lua */ `
local function announce(channel, millis, group)
  redis.pcall('PUBLISH', channel, string.format('%.0f', math.max(0, millis)) .. (group and ' ' .. group or ''))
end
`

/**
 * `less(a, b)`: the order of stream ids, which have more digits than a Lua number.
 * `after(id)`: the next id, or the same if it is too large to count on.
 * `before(id)`: an id such that everything from `id` on comes after it, and of earlier entries only a few of the same
 * millisecond.
 */
export const ids = /* lua */ `
local function less(a, b)
  local am, as = string.match(a, '^(%d+)-(%d+)$')
  local bm, bs = string.match(b, '^(%d+)-(%d+)$')
  if am == bm then return #as < #bs or (#as == #bs and as < bs) end
  return #am < #bm or (#am == #bm and am < bm)
end
local function after(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return #seq < 16 and ms .. '-' .. string.format('%.0f', tonumber(seq) + 1) or id
end
local function before(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  if seq ~= '0' and #seq < 16 then return ms .. '-' .. string.format('%.0f', tonumber(seq) - 1) end
  if ms == '0' then return '0-0' end
  return string.format('%.0f', tonumber(ms) - 1) .. '-18446744073709551615'
end
`

/**
 * `add(stream, head, raw, from)`: XADD of the pairs in `head` and then of the pairs in `raw` from index `from` on; the new id.
 *
 * Lua passes at most some thousand arguments. An entry with more fields than that keeps its payload, and all fields
 * packed into one.
 */
export const add = /* lua */ `
local function add(stream, head, raw, from)
  local call = {}
  for i = 1, #head do call[#call + 1] = head[i] end
  if #raw - from > 6000 then
    for i = from, #raw, 2 do
      if raw[i] == 'payload' then
        call[#call + 1] = 'payload'
        call[#call + 1] = raw[i + 1]
        break
      end
    end
    call[#call + 1] = 'packed'
    call[#call + 1] = cmsgpack.pack(raw)
  else
    for i = from, #raw do call[#call + 1] = raw[i] end
  end
  return redis.call('XADD', stream, '*', unpack(call))
end
`

/**
 * `isTally(name, value)`: whether the pair is our tally of a message, and no field of its own (Tally.ts).
 * `isPartial(tally)`: whether part of the commit was applied.
 * `timed(tally, now)`: with the time of the attempt after the last line of its log, if that has none.
 * `died(tally, attempt, consumer, now)`: with a line for an attempt whose consumer died (Attempts.ts); the last ten stay.
 * `onto(tally, other)`: with the log of another after its own; the last ten lines stay.
 * `lasting(tally)`: the part that outlasts the death of the message: whether part of its commit was applied, and its log; nil if
 * there is neither.
 */
export const tallies = /* lua */ `
local function isTally(name, value)
  return name == 'tally' and value and string.find(value, '^%d+;[01];%S*$')
end
local function isPartial(tally)
  return tally and string.find(tally, '^%d+;1;')
end
local function timed(tally, now)
  return string.sub(tally, -1) == '@' and tally .. string.format('%.0f', now) or tally
end
local function onto(tally, other)
  local head, log = string.match(tally, '^(%d+;[01];[^;]*);?(.*)$')
  log = log .. string.match(other, '^%d+;[01];[^;]*;?(.*)$')
  local _, lines = string.gsub(log, '|', '')
  for _ = ${maxLines + 1}, lines do log = string.gsub(log, '^|[^|]*', '') end
  return log == '' and head or head .. ';' .. log
end
local function died(tally, attempt, consumer, now)
  local name = string.gsub(string.sub(consumer, 1, 64), '[^%w%-_.:()]', function(c)
    return string.format('%%%02X', string.byte(c))
  end)
  return onto(tally, '0;0;;|' .. attempt .. ',' .. name .. ',${consumerDied.tag},${consumerDied.message.replaceAll(" ", "+")}@'
    .. string.format('%.0f', now))
end
local function lasting(tally)
  local partial, log = string.match(tally or '', '^%d+;([01]);[^;]*;?(.*)$')
  if partial == '1' or (log and log ~= '') then return '0;' .. partial .. ';' .. (log ~= '' and ';' .. log or '') end
end
`

/**
 * `isSuspect(deaths)`, `admits(deaths)`: whether a consumer may have it beside what it holds (Suspects.ts). If one had to wait,
 * those after it wait too, so that its turn comes.
 *
 * Uses the locals `most`, how often a message may be delivered to consumers that die; `held` and `limit`: how many suspects
 * the consumer holds, and the most it may hold, or -1.
 */
export const suspecting = /* lua */ `
local waits = false
local function isSuspect(deaths)
  return deaths >= ${suspicious}
end
local function admits(deaths)
  local company = ${base} ^ math.max(0, most - deaths - 1)
  if limit >= 0 then company = math.min(company, limit) end
  if waits or held >= company then
    waits = true
    return false
  end
  held, limit = held + 1, company
  return true
end
`

/**
 * `split(source, entry, fields)`: id, publishing time, attempts and deliveries before this entry, and where the fields of the message
 * begin; and its tally, if it has one. A retry entry carries the first four in its first four pairs, followed by the tally; an
 * entry of the main stream may carry the first two, and its own id stands for those it does not.
 */
export const split = /* lua */ `${tallies}
local function split(source, entry, fields)
  if source == '1' and fields[1] == 'id' and fields[3] == 'at' and fields[5] == 'attempt' and fields[7] == 'fence' then
    local tally = isTally(fields[9], fields[10]) and fields[10]
    return fields[2], fields[4], tonumber(fields[6]) or 0, tonumber(fields[8]) or 0, tally and 11 or 9, tally
  end
  local id, at = entry, string.match(entry, '^%d+')
  for i = 1, #fields, 2 do
    if fields[i] == 'id' and fields[i + 1] ~= '' then id = fields[i + 1] end
    if fields[i] == 'at' and string.find(fields[i + 1], '^%d+$') then at = fields[i + 1] end
  end
  return id, at, 0, 0, 1
end
`

/** `of(flat)`: a reply of alternating names and values, as a map. */
export const maps = /* lua */ `
local function of(flat)
  local map = {}
  for i = 1, #flat, 2 do map[flat[i]] = flat[i + 1] end
  return map
end
`

/**
 * `forgetLost(record, now, spell, isLost)`: takes samples of the ids in `unique`, the key, and deletes those of messages that left without
 * freeing them, as `isLost(id, place)` says, except for delayed ones. Done once in `spell` ms, as noted in `record`; a call looks at about a
 * thousand, and at few if few of them are lost. Without permission nothing is done.
 */
export const forgetting = /* lua */ `
local function forgetLost(record, now, spell, isLost)
  local swept = tonumber(redis.call('HGET', record, 'unique')) or 0
  if now >= swept and now - swept < spell then return end
  for _ = 1, 32 do
    local some, lost = redis.pcall('HRANDFIELD', unique, 32, 'WITHVALUES'), {}
    if some.err then return end
    for i = 1, #some, 2 do
      if string.byte(some[i + 1]) ~= 100 and isLost(some[i], some[i + 1]) then lost[#lost + 1] = some[i] end
    end
    if #lost > 0 then redis.call('HDEL', unique, unpack(lost)) end
    if #lost < 8 then
      redis.call('HSET', record, 'unique', string.format('%.0f', now))
      return
    end
  end
end
`

/**
 * `infoOf(stream, group)`: the group in XINFO, as a map, and how many groups there are; nil if the stream or the group is missing. Uses
 * `ask` and `of`.
 */
export const infos = /* lua */ `
local function infoOf(stream, group)
  local groups = ask('XINFO', 'GROUPS', stream) or {}
  for _, flat in ipairs(groups) do if flat[2] == group then return of(flat), #groups end end
end
`

/**
 * `unseen(stream, group, info, mine, cut)`: how many entries were trimmed before this group could read them, if that shows: before all
 * there is, or at the end. The server is told where the group is, so that it counts on from there; some count trimmed entries as
 * still to be read, and some do not. If it did not know, these are at most as many as were just `cut`. Takes the replies of XINFO as
 * maps. Uses `less` and the local `meta`, the key.
 */
export const unseen = /* lua */ `${maps}
-- Redis 7 does not tell replicas how far a group has read: on one that became the master, the first difference says nothing.
local function isNews(group)
  local replication = redis.pcall('INFO', 'replication')
  if type(replication) ~= 'string' then return true end
  local id, former = string.match(replication, 'master_replid:(%x+)%s+master_replid2:(%x+)')
  if not id or not string.find(former, '[^0]') or redis.call('HGET', meta, 'on:' .. group) == id then return true end
  redis.call('HSET', meta, 'on:' .. group, id)
  return false
end
local function unseen(stream, group, info, mine, cut)
  local at, read, added, first = mine['last-delivered-id'], mine['entries-read'], info['entries-added'], info['first-entry']
  local last = info['last-generated-id']
  -- A group that waits for a time is told nothing.
  if not added or less(last, at) then return 0 end
  local left
  local isLast = at == last
  if isLast or not first then left = 0
  elseif less(at, first[1]) then left = info['length']
  else return 0 end
  if read == added - left then return 0 end
  local told = redis.pcall('XGROUP', 'SETID', stream, group, at, 'ENTRIESREAD', string.format('%.0f', added - left))
  if told.err then return 0 end
  local count = read and math.max(0, added - left - read) or not isLast and cut or 0
  return (count == 0 or isNews(group)) and count or math.min(count, cut or 0)
end
`

/**
 * `opening(meta, ...)`: the reply `{'CONFLICT', pattern, wire}` when the topic was opened as something else, otherwise nil; the pattern
 * that it was opened with, if it was, and what its meta key says under two further fields. Uses the locals `pattern` and `wire`.
 */
export const opening = /* lua */ `
local function opening(meta, ...)
  local noted = redis.call('HMGET', meta, 'pattern', 'wire', ...)
  if noted[1] and (noted[1] ~= pattern or noted[2] ~= wire) then return {'CONFLICT', noted[1], noted[2] or ''} end
  return nil, noted[1], noted[3], noted[4]
end
`

/**
 * `filtering(only)`: records the filter of the group; or returns the reply `{'FILTERED', theirs, mine}` if another member lives that
 * wants something else. Uses `clock` and the locals `state`, `consumers` and `consumer`.
 */
export const filtering = /* lua */ `
local function filtering(only)
  local theirs = redis.call('HGET', state, 'only') or ''
  if theirs == only then return end
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', consumers, string.format('(%.0f', clock()), '+inf', 'LIMIT', 0, 2)) do
    if name ~= consumer then return {'FILTERED', theirs, only} end
  end
  if only == '' then redis.call('HDEL', state, 'only') else redis.call('HSET', state, 'only', only) end
end
`

/**
 * `headersOf(text)`: the headers of a message, from JSON; false if they cannot be parsed.
 * `wanted(only)`: a function that says whether the group wants a message with this key and these headers, as JSON; and the filter. What
 * cannot be parsed is wanted: the message is delivered, and ends as a dead letter.
 */
export const wanting = /* lua */ `
-- Few messages have headers of their own alone.
local parsed = {}
local function headersOf(text)
  local known = parsed[text]
  if known == nil then
    local ok, found = pcall(cjson.decode, text)
    known = ok and type(found) == 'table' and found
    parsed[text] = known
  end
  return known
end
local function wanted(only)
  local filter = cjson.decode(only)
  return function(key, headers)
    if filter.k and not (key and filter.k[key]) then return false end
    if next(filter.h) == nil then return true end
    local found = headersOf(headers or '{}')
    if not found then return true end
    for name, values in pairs(filter.h) do
      local value = found[name]
      if type(value) ~= 'string' or not values[value] then return false end
    end
    return true
  end, filter
end
`

/**
 * `excess(stream, limits, now)`: how many entries are too many; and, if there are such limits, the id of the first that is not too old,
 * and the most bytes.
 * `heavy(stream, meta, bytes, now)`: how many bytes it has, if those are too many. The server's estimates know only the oldest entries,
 * and exact figures take time for each node: they are asked for at most every ten milliseconds for each MiB of the limit.
 * `shorten(stream, meta, limits, now, exact)`: trims what exceeds the limits, whole nodes or with `exact` every entry that is too old, and
 * records in the meta key how many of them each group did not see.
 */
export const shorten = /* lua */ `
local function excess(stream, limits, now)
  local length, age, bytes = string.match(limits, '^(%d*):(%d*):(%d*)$')
  local count = length ~= '' and math.max(0, redis.call('XLEN', stream) - tonumber(length)) or 0
  return count, age ~= '' and string.format('%.0f-0', math.max(0, now - tonumber(age))), tonumber(bytes)
end
local function measure(stream, bytes)
  local used = redis.pcall('MEMORY', 'USAGE', stream, 'SAMPLES', 0)
  return type(used) == 'number' and used > bytes and used
end
local function heavy(stream, meta, bytes, now)
  local since = now - (tonumber(redis.call('HGET', meta, 'measured') or '') or 0)
  if since >= 0 and since < 10 * math.floor(bytes / 1048576) then return end
  redis.call('HSET', meta, 'measured', string.format('%.0f', now))
  return measure(stream, bytes)
end
local function shorten(stream, meta, limits, now, exact)
  local count, since, bytes = excess(stream, limits, now)
  local cut, step = 0, 1
  local used = bytes and heavy(stream, meta, bytes, now)
  while used do
    -- Few at first: the oldest may be the largest. At most its share, or a node.
    local stored = redis.call('XLEN', stream)
    local some = math.min(step, math.max(128, math.ceil(stored * (1 - bytes / used))))
    some = redis.call('XTRIM', stream, 'MAXLEN', '~', math.max(1, stored - some))
    cut, step = cut + some, 2 * step
    if some > 0 then used = measure(stream, bytes) elseif step > 2 * stored then used = nil end
  end
  if count > 0 then cut = redis.call('XTRIM', stream, 'MAXLEN', '~', redis.call('XLEN', stream) - count) end
  if since then
    local old = redis.call('XTRIM', stream, 'MINID', '~', since, 'LIMIT', 10000)
    if exact and old < 9000 then old = old + redis.call('XTRIM', stream, 'MINID', since) end
    cut = cut + old
  end
  if cut == 0 then return end
  -- A user without permission to inspect still publishes: then the group finds out by itself, if it can.
  local groups, info = redis.pcall('XINFO', 'GROUPS', stream), redis.pcall('XINFO', 'STREAM', stream)
  if groups.err or info.err then return end
  info = of(info)
  for _, flat in ipairs(groups) do
    local mine = of(flat)
    local count = unseen(stream, mine['name'], info, mine, cut)
    if count > 0 then redis.call('HINCRBY', meta, 'cut:' .. mine['name'], count) end
  end
end
`
