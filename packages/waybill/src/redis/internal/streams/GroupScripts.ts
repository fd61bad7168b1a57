/**
 * What the members of a group do besides handling messages: join, stay alive, bring back what is due, trim what is settled,
 * leave. Any number of members may do it at once; each step continues where others left off.
 *
 * @module
 */
import type { Start } from "../../../Inspector.ts"
import { flag, listOf, make, number, opener, text } from "../connection/Script.ts"
import { beatArgs, beaten, member } from "../group/Beat.ts"
import { keeping, unclaiming } from "../inspect/DeadLetterScripts.ts"
import { places } from "../inspect/MessagePlaces.ts"
import { keys } from "../wire/Keys.ts"
import {
  add,
  announce,
  ask,
  clock,
  fetching,
  filtering,
  forgetting,
  heartbeats,
  ids,
  lagging,
  maps,
  opening,
  paging,
  shorten,
  tallies,
  unseen,
  weighing
} from "../wire/Lua.ts"
import { nobody, noting, restoring, sources, sweeping } from "./Progress.ts"
import { opens } from "./UniqueIds.ts"

/** The name of the pattern in the topic's meta key. */
export const pattern = "streams"

/** The last entry that a group with this start does not get: an id, or `$`. */
export const startOf = (start: Start): string => {
  if (start === "earliest") return "0-0"
  if (start === "latest") return "$"
  const before = Math.ceil(start.at) - 1
  return before < 0 ? "0-0" : `${before}-18446744073709551615`
}

/**
 * Creates the group if it is missing, and registers the consumer.
 *
 * A group that is registered but missing was lost. It continues where it was (Progress.ts), or begins with everything stored if
 * that is unknown: again is better than never.
 *
 * Further arguments: source, entry and count of each delivery that the consumer holds; and then the receipts of those it
 * settled last.
 */
export const join = make({
  name: "waybill/join",
  mode: "drains",
  keys: keys("stream", "retry", "meta", "groups", "consumers", "state", "released", "waiting", "waitingBodies", "dead"),
  args: {
    ...opener,
    ...member,
    /** Where a new group starts: `startOf`. */
    start: "text",
    /** 1: this consumer was a member before. */
    again: "number",
    /** The limits of the stream: those that apply to everything, and those for what is settled; or "". */
    maxLength: "text",
    history: "text",
    /** The filter, "" for none. */
    only: "text",
    holds: "number"
  },
  replies: {
    OK: {
      /** Of the stream. 0: the group existed; 1: it was created; 2: it continues where it was. */
      main: number,
      onRetry: number,
      /** It had existed. */
      known: flag,
      from: text,
      /** The first entry of the stream, or "". */
      firstMain: text,
      firstOnRetry: text,
      paused: flag
    }
  },
  lua: /* lua */ `${clock}${ids}${ask}${unseen}${weighing}${paging}${lagging}${sources}${opening}${filtering}
touch()
local conflict, opened, length, past = opening(meta, 'maxLength', 'history')
if conflict then return conflict end
local refused = filtering(only)
if refused then return refused end
if string.find(maxLength .. history, ':%d+$') and type(redis.pcall('MEMORY', 'USAGE', stream, 'SAMPLES', 1)) == 'table' then
  error({err = "NOPERM this user has no permissions to run the 'memory|usage' command"})
end
if not opened then redis.call('HSET', meta, 'pattern', pattern, 'wire', wire) end
for field, limits in pairs({maxLength = {maxLength, length or ''}, history = {history, past or ''}}) do
  if limits[1] == '' and limits[2] ~= '' then redis.call('HDEL', meta, field)
  elseif limits[1] ~= limits[2] then redis.call('HSET', meta, field, limits[1]) end
end

local function streamOf(key)
  return redis.call('EXISTS', key) == 1 and of(redis.call('XINFO', 'STREAM', key))
end
local function lastOf(info)
  return info and info['last-generated-id'] or '0-0'
end
local info = streamOf(stream)
local last, lastRetry = lastOf(info), lastOf(streamOf(retry))
-- By source and entry: how often the consumer's deliveries were delivered, and what it has settled.
local held, over, settled = {}, {}, {[0] = {}, {}}
for i = moreArgs + 1, moreArgs + 3 * holds, 3 do held[ARGV[i] .. ARGV[i + 1]] = tonumber(ARGV[i + 2]) end
for i = moreArgs + 3 * holds + 1, #ARGV do
  local entry = string.match(ARGV[i], '^retry:(.*)$')
  over[entry and '1' .. entry or '0' .. ARGV[i]] = true
  local to = settled[entry and 1 or 0]
  to[#to + 1] = entry or ARGV[i]
end
${noting}${restoring}
local function first(key)
  local entry = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1]
  return entry and entry[1] or ''
end
local function create(key, at, ...)
  local made = redis.pcall('XGROUP', 'CREATE', key, group, at, 'MKSTREAM', ...)
  if not made.err then return 1 end
  if string.find(made.err, '^BUSYGROUP') then return 0 end
  error(made)
end
local known = again == 1 or redis.call('SISMEMBER', groups, group) == 1
local from = start == '$' and last or start
local progress = known and progressOf(0, last)
local progressRetry = known and progressOf(1, lastRetry)
if progress then from = progress.at
elseif known then
  local mark = redis.call('HGET', state, 'mark')
  from = mark and not less(last, mark) and mark or '0-0'
end
-- The group has not missed what was trimmed before it existed.
local passed = not info and from == last and 0
if info and info['entries-added'] and not less(last, from) then
  local first, ahead = info['first-entry'], 0
  if not first or less(from, first[1]) then ahead = info['length']
  elseif less(from, last) then ahead = behind(stream, from) end
  passed = ahead and info['entries-added'] - ahead
end
local main = passed and create(stream, from, 'ENTRIESREAD', string.format('%.0f', passed)) or create(stream, from)
local onRetry = create(retry, progressRetry and progressRetry.at or '0-0')
redis.call('SADD', groups, group)
for source = 0, 1 do
  -- Another consumer was first, and could not know of them.
  if (source == 0 and main or onRetry) == 0 and #settled[source] > 0 then
    redis.call('XACK', sources[source], group, unpack(settled[source]))
  end
end
if main == 1 and onRetry == 1 and not progress and not progressRetry then redis.call('DEL', released) end
if main == 1 and progress then
  main = 2
  restore(0, progress)
elseif main == 1 then redis.call('HSET', state, 'mark', from) end
if onRetry == 1 and progressRetry then
  onRetry = 2
  restore(1, progressRetry)
end
local now = clock()
if main + onRetry > 0 then note(now) end
${heartbeats}
live(now)
return {'OK', main, onRetry, known and 1 or 0, from, first(stream), first(retry),
  redis.call('HEXISTS', state, 'paused')}
`
})

/**
 * One beat of a member: it lives, moves what is due, checks whether the group is paused, and records from where the group would
 * have to start again.
 */
export const beat = make({
  name: "waybill/beat",
  mode: "drains",
  keys: keys(
    "stream",
    "retry",
    "consumers",
    "state",
    "released",
    "delayed",
    "delayedBodies",
    "promoted",
    "ownIds",
    "waiting",
    "waitingBodies",
    "retryIds",
    "dead",
    "deadIds",
    "cancelled",
    "meta",
    "unique"
  ),
  args: beatArgs,
  replies: {
    OK: {
      ...beaten,
      /** Messages that were trimmed since the last beat without this group having seen them. */
      truncated: number,
      /** There may be something to claim, or a consumer to forget. */
      claims: flag,
      /** Source and entry of the consumer's deliveries that were cancelled. */
      cancelled: listOf(text)
    },
    /** Nothing was done. */
    NOGROUP: {}
  },
  lua: /* lua */ `${clock}${ids}${add}${ask}${unseen}${tallies}${weighing}${fetching}${sources}${noting}${sweeping}${places}${keeping}${unclaiming}${opens}${forgetting}
local pending, retrying = ask('XPENDING', stream, group), ask('XPENDING', retry, group)
if not pending or not retrying then return {'NOGROUP'} end
${heartbeats}
if refiltered(only) then return {'NOGROUP'} end
local now = clock()
-- Everything is read before anything is written.
local until_ = redis.call('ZSCORE', consumers, consumer)
local alive = until_ and tonumber(until_) > now
local position = redis.call('HMGET', state, 'mark', 'cut', 'noted', 'progress:0', 'progress:1', 'swept')
local told = redis.call('HGET', meta, 'cut:' .. group)
local info = of(redis.call('XINFO', 'STREAM', stream))
local mine = infoOf(stream, group)
local function due(set, bodies)
  local members = redis.call('ZRANGEBYSCORE', set, '-inf', now, 'LIMIT', 0, limit)
  redis.call('HEXISTS', bodies, '')
  return members, #members > 0 and bodiesOf(bodies, members)
end
-- An idle group has none of them.
local rests = redis.call('EXISTS', released, delayed, delayedBodies, promoted, waiting, waitingBodies, retryIds, dead, cancelled, unique) == 0
local moved, again, found, foundAgain = {}, {}, nil, nil
if not rests then
  redis.call('HEXISTS', released, '')
  redis.call('HEXISTS', unique, '')
  redis.call('XLEN', dead)
  for _, set in ipairs({promoted, retryIds, deadIds, cancelled}) do redis.call('ZRANGE', set, 1, 0) end
  moved, found = due(delayed, delayedBodies)
  again, foundAgain = due(waiting, waitingBodies)
end

live(now)
correct(now)
holding(age, now)
local function unpacked(body)
  local ok, fields = pcall(cmsgpack.unpack, body)
  if ok and type(fields) == 'table' then return fields end
end
-- Entries that were trimmed before every group had settled them free their ids without a trace. And a group of this name that was
-- retired, or a member of an older build, has left the name in the place of a message that the group does not keep.
local function sweep()
  if redis.call('EXISTS', unique) == 0 then return end
  local first = info['first-entry'] and info['first-entry'][1] or after(info['last-generated-id'])
  forgetLost(state, now, lease * info['groups'], function(id, place)
    local rest, isKept = without(place, group)
    isKept = isKept and redis.call('ZSCORE', retryIds, id)
    if not isOpen(isKept and place or rest, nil, first) then return true end
    if not isKept and rest ~= place then redis.call('HSET', unique, id, rest) end
  end)
end
-- The id of a message, and whether it has it to itself.
local function ownIdOf(fields)
  local id, is
  for f = 1, #fields - 1, 2 do
    if fields[f] == 'id' then id = fields[f + 1] elseif fields[f] == 'unique' then is = true end
  end
  return id, is
end
if #moved > 0 then
  for i = 1, #moved do
    if found[i] then
      local fields = unpacked(found[i]) or {'payload', found[i]}
      local entry = add(stream, {}, fields, 1)
      index(promoted, scoreOf(entry), moved[i])
      local id, isUnique = ownIdOf(fields)
      if isUnique and redis.call('HGET', unique, id) == 'd' .. moved[i] then redis.call('HSET', unique, id, entry) end
      if id and redis.pcall('ZSCORE', ownIds, id) == '-' .. (string.match(moved[i], '^0*(%d+)$') or '') then
        index(ownIds, scoreOf(entry), id)
      end
    end
  end
  redis.call('ZREM', delayed, unpack(moved))
  redis.call('HDEL', delayedBodies, unpack(moved))
end
if #again > 0 then
  for i = 1, #again do
    local f = foundAgain[i] and unpacked(foundAgain[i])
    if f then
      local head, from = {'id', f[1], 'at', f[2], 'attempt', f[3], 'fence', f[4]}, 6
      if isTally(f[6], f[7]) then
        head[9], head[10], from = f[6], f[7], 8
      end
      index(retryIds, scoreOf(add(retry, head, f, from)), f[1])
    elseif foundAgain[i] then add(retry, {}, {'payload', foundAgain[i]}, 1) end
  end
  redis.call('ZREM', waiting, unpack(again))
  redis.call('HDEL', waitingBodies, unpack(again))
end
local next, dropped, ended = -1, 0, {}
if not rests then
  sweep()
  for _, set in ipairs({delayed, waiting}) do
    local head = redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')[2]
    if head then
      local wait = math.max(0, tonumber(head) - now)
      if next < 0 or wait < next then next = wait end
    end
  end
  if pending[1] == 0 and retrying[1] == 0 then redis.call('DEL', released) end
  dropped = keepDead(maxCount, maxAgeMillis, now)
  for _, of in ipairs(redis.call('ZRANGE', cancelled, 0, 999)) do
    local source, entry = tonumber(string.sub(of, 1, 1)), string.sub(of, 2)
    local row = ask('XPENDING', sources[source], group, entry, entry, 1)
    if not row or not row[1] then
      if source == 1 or not less(mine['last-delivered-id'], entry) then redis.call('ZREM', cancelled, of) end
    elseif row[1][2] == consumer then ended[#ended + 1] = of end
  end
  local oldest = redis.call('XRANGE', retry, '-', '+', 'COUNT', 1)[1]
  forgetBefore(retryIds, oldest and oldest[1])
  if #moved == 0 then forgetBefore(promoted, info['first-entry'] and info['first-entry'][1]) end
end

local mark = pending[1] > 0 and before(pending[2]) or mine['last-delivered-id']
if mark ~= position[1] then redis.call('HSET', state, 'mark', mark) end
-- A message that comes again on the retry stream has left its entry before: the record must know that.
local since = now - (tonumber(position[3]) or 0)
if #again > 0 or since >= 100 or since < 0 then
  note(now, {[0] = pending[1] == 0 and position[4], retrying[1] == 0 and position[5]})
end

-- Trimmed by other programs, or by publishers, who have recorded it.
local cut = unseen(stream, group, info, mine) - (position[2] or 0)
if position[2] then redis.call('HDEL', state, 'cut') end
if told then redis.call('HDEL', meta, 'cut:' .. group) end
cut = math.max(0, cut) + (told or 0)
local held = 0
for _, summary in ipairs({pending, retrying}) do
  for _, one in ipairs(summary[4] or {}) do if one[1] == consumer then held = held + tonumber(one[2]) end end
end
local claims = pending[1] + retrying[1] > held or sweeping(position[6], now) or redis.call('ZCOUNT', consumers, '-inf', now) > 0
return {'OK', alive and 1 or 0, paused(quiet), next == 0 and 1 or 0, next, dropped, held,
  hooks == '1' and unclaimed(now) or 0, cut, claims and 1 or 0, ended}
`
})

/**
 * `settled(key, registered)`: the lowest id that some group still needs; nil without a group, or if one of these is missing.
 * `cutTo(key, low, most)`: trims what comes before it, about that many entries; whether there may be more.
 *
 * They use `ids`, `ask` and `maps`.
 */
export const trimming = /* lua */ `
local function settled(key, registered)
  local low
  local there = {}
  for _, flat in ipairs(ask('XINFO', 'GROUPS', key) or {}) do
    local mine = of(flat)
    there[mine['name']] = true
    local from = mine['pending'] > 0 and redis.call('XPENDING', key, mine['name'])[2] or after(mine['last-delivered-id'])
    if not low or less(from, low) then low = from end
  end
  for _, name in ipairs(registered) do if not there[name] then return end end
  return low
end
local function cutTo(key, low, most)
  -- Whole nodes first, as many as allowed; less than a node is left then.
  local count = redis.call('XTRIM', key, 'MINID', '~', low, 'LIMIT', most)
  -- Redis stops before it exceeds the limit: more than a node (128 entries at most, by default) may be left then.
  if count >= most - 128 then return true end
  redis.call('XTRIM', key, 'MINID', low)
end
`

/** The most that one call of `trim` should remove. */
export const trimLimit = 20_000

/**
 * Trims what every group has settled, and what exceeds limits. A group that is registered but missing holds everything: it may come
 * back.
 */
export const trim = make({
  name: "waybill/trim",
  mode: "drains",
  keys: keys("stream", "retry", "groups", "meta", "ownIds"),
  args: {
    /** About how many entries to remove at most. */
    most: "number",
    /**
     * Of the main stream: `none`; `settled`; `history`, what is settled and exceeds the limits; `newest`, what exceeds them.
     */
    what: "text",
    limits: "text"
  },
  replies: { OK: { more: flag } },
  lua: /* lua */ `${clock}${ids}${ask}${unseen}${trimming}${shorten}${places}
touch()
local more = 0
local function cut(key, registered, before)
  local low = settled(key, registered)
  if low and before and less(before, low) then low = before end
  if low and cutTo(key, low, most) then more = 1 end
  return low
end
cut(retry, {})
local registered = what ~= 'none' and redis.call('SMEMBERS', groups)
if what == 'settled' then cut(stream, registered)
elseif what == 'newest' then shorten(stream, meta, limits, clock(), true)
elseif what == 'history' and redis.call('EXISTS', stream) == 1 then
  local count, since, bytes = excess(stream, limits, clock())
  local used = bytes and heavy(stream, meta, bytes, clock())
  if used then count = math.max(count, math.ceil(redis.call('XLEN', stream) * (1 - bytes / used))) end
  if since then cut(stream, registered, since) end
  local low = count > 0 and settled(stream, registered)
  if low then redis.call('XTRIM', stream, 'MINID', '~', low, 'LIMIT', math.min(count, most)) end
end
if redis.call('EXISTS', ownIds) == 1 then
  local first = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  local to = first and '(' .. scoreOf(first[1]) or '+inf'
  local rest = redis.pcall('ZRANGE', ownIds, '0', to, 'BYSCORE', 'LIMIT', most, 1, 'WITHSCORES')[2]
  if rest then to, more = '(' .. rest, 1 end
  redis.pcall('ZREMRANGEBYSCORE', ownIds, '0', to)
end
return {'OK', more}
`
})

/**
 * Leaves the group: the consumer's deliveries are handed back without counting as attempts, and the consumer is removed once it
 * holds nothing more. The others check at once: they take over what is handed back, and what it knew to be due.
 */
export const leave = make({
  name: "waybill/leave",
  mode: "drains",
  keys: keys("stream", "retry", "consumers", "released", "state", "wake"),
  args: {
    group: "text",
    consumer: "text",
    /** How many to hand back at most. */
    limit: "number"
  },
  replies: { OK: { more: flag } },
  lua: /* lua */ `${clock}${ask}${announce}${sources}${maps}${noting}
local more = 0
for source = 0, 1 do
  local key = sources[source]
  local held = ask('XPENDING', key, group, '-', '+', limit, consumer)
  if held then
    for _, p in ipairs(held) do
      redis.call('XCLAIM', key, group, '${nobody}', 0, p[1], 'TIME', 0, 'JUSTID')
      redis.call('HINCRBY', released, source .. p[1], 1)
    end
    if #held == limit then more = 1 else redis.call('XGROUP', 'DELCONSUMER', key, group, consumer) end
  end
end
if more == 0 then
  local now = clock()
  -- Of a group that was retired nothing must be left.
  if redis.call('ZREM', consumers, consumer) == 1 then redis.call('HSET', state, 'left', string.format('%.0f', now)) end
  redis.call('HDEL', state, 'oldest:' .. consumer, 'lease:' .. consumer, 'quiet:' .. consumer)
  note(now)
end
announce(wake, 0, group)
return {'OK', more}
`
})
