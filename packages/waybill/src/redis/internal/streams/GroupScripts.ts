import type { Script } from "../connection/Script.ts"
/**
 * What the members of a group do besides handling messages: join, stay alive, bring back what is due, cut off what is
 * settled, leave. Any number of members may do it at once; each step finds what the others left to do.
 *
 * @module
 */
import { keeping } from "../inspect/DeadLetterScripts.ts"
import {
  add,
  announce,
  ask,
  clock,
  drains,
  fetching,
  heartbeats,
  ids,
  mismatch,
  pausing,
  tallies,
  unseen,
  weighing
} from "../wire/Lua.ts"
import { noting, restoring } from "./Progress.ts"

/** The name of the pattern in the topic's meta key. */
export const pattern = "streams"

/** The owner of entries that were handed back: not a process, and always as good as dead, so that the next claim finds them. */
export const nobody = "(released)"

/**
 * Makes the group where it is missing and registers the consumer.
 *
 * A group that is registered and missing was lost. It goes on where it stood (Progress.ts), or begins with everything stored
 * when that is not known: again is better than never.
 *
 * | KEYS | |
 * |---|---|
 * | 1, 2 | stream, retry stream |
 * | 3, 4 | meta, groups |
 * | 5, 6, 7 | consumers, state, released |
 * | 8, 9, 10 | waiting, their bodies, dead letters |
 *
 * | ARGV | |
 * |---|---|
 * | 1, 2 | pattern and wire version |
 * | 3, 4 | group, consumer |
 * | 5 | where a new group starts: `0` or `$` |
 * | 6 | lease, ms |
 * | 7 | 1: this consumer was a member before |
 * | 8 | the name that released entries go to |
 * | 9 | how many deliveries the consumer holds |
 * | 10... | source, entry and count of each; and then the receipts of those that it settled last |
 *
 * | reply | |
 * |---|---|
 * | `OK`, main, retry, lost, from, first, first, paused | main, retry = 1: the group was made there; 2: it goes on there where it stood. lost = 1: it had existed. from: where it starts. first: id of the first entry of the stream and of the retry stream, or "". paused = 1: the group is |
 * | `CONFLICT`, pattern, wire | the topic was opened as something else |
 * | `WRONGTYPE`, key, found | |
 */
export const join: Script = {
  name: "waybill/join",
  lua: `${drains}${mismatch}${clock}${ids}${ask}${unseen}
local stream, retry, meta, groups, consumers, state = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local group, consumer, nobody = ARGV[3], ARGV[4], ARGV[8]
local wrong = mismatch(stream, 'stream') or mismatch(retry, 'stream') or mismatch(meta, 'hash')
  or mismatch(groups, 'set') or mismatch(consumers, 'zset') or mismatch(state, 'hash') or mismatch(KEYS[7], 'hash')
  or mismatch(KEYS[8], 'zset') or mismatch(KEYS[9], 'hash') or mismatch(KEYS[10], 'stream')
if wrong then return wrong end
local opened = redis.call('HMGET', meta, 'pattern', 'wire')
if opened[1] and (opened[1] ~= ARGV[1] or opened[2] ~= ARGV[2]) then
  return {'CONFLICT', opened[1], opened[2] or ''}
end
if not opened[1] then redis.call('HSET', meta, 'pattern', ARGV[1], 'wire', ARGV[2]) end

local function infoOf(key)
  return redis.call('EXISTS', key) == 1 and of(redis.call('XINFO', 'STREAM', key))
end
local function lastOf(info)
  return info and info['last-generated-id'] or '0-0'
end
local info = infoOf(stream)
local last, lastRetry = lastOf(info), lastOf(infoOf(retry))
-- By source and entry: how often what the consumer holds was delivered, and what it has settled.
local held, over, settled = {}, {}, {{}, {}}
for i = 10, 9 + 3 * ARGV[9], 3 do held[ARGV[i] .. ARGV[i + 1]] = tonumber(ARGV[i + 2]) end
for i = 10 + 3 * ARGV[9], #ARGV do
  local entry = string.match(ARGV[i], '^retry:(.*)$')
  over[entry and '1' .. entry or '0' .. ARGV[i]] = true
  local to = settled[entry and 2 or 1]
  to[#to + 1] = entry or ARGV[i]
end
${noting}${restoring}
local function first(key)
  local entry = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)[1]
  return entry and entry[1] or ''
end
local function create(key, start, ...)
  local made = redis.pcall('XGROUP', 'CREATE', key, group, start, 'MKSTREAM', ...)
  if not made.err then return 1 end
  if string.find(made.err, '^BUSYGROUP') then return 0 end
  error(made)
end
local known = ARGV[7] == '1' or redis.call('SISMEMBER', groups, group) == 1
local from = ARGV[5] == '$' and last or '0-0'
local progress = known and progressOf(0, last)
local progressRetry = known and progressOf(1, lastRetry)
if progress then from = progress.at
elseif known then
  local mark = redis.call('HGET', state, 'mark')
  from = mark and not less(last, mark) and mark or '0-0'
end
-- What was cut off before the group was there, it has not missed.
local passed = not info and 0
if info and info['entries-added'] then
  if from == last then passed = info['entries-added']
  elseif from == '0-0' then passed = info['entries-added'] - info['length'] end
end
local main = passed and create(stream, from, 'ENTRIESREAD', string.format('%.0f', passed)) or create(stream, from)
local again = create(retry, progressRetry and progressRetry.at or '0-0')
redis.call('SADD', groups, group)
for source = 0, 1 do
  -- Another consumer was first, and could not know of them.
  if (source == 0 and main or again) == 0 and #settled[source + 1] > 0 then
    redis.call('XACK', KEYS[source + 1], group, unpack(settled[source + 1]))
  end
end
if main == 1 and again == 1 and not progress and not progressRetry then redis.call('DEL', KEYS[7]) end
if main == 1 and progress then
  main = 2
  restore(0, progress)
elseif main == 1 then redis.call('HSET', state, 'mark', from) end
if again == 1 and progressRetry then
  again = 2
  restore(1, progressRetry)
end
local now = clock()
if main + again > 0 then note(now) end
${heartbeats}
live(consumer, tonumber(ARGV[6]), now)
return {'OK', main, again, known and 1 or 0, from, first(stream), first(retry),
  redis.call('HEXISTS', state, 'paused')}
`
}

/**
 * One beat of a member: says that it lives, moves what is due, looks whether the group is paused, and notes from where the group
 * would have to start again.
 *
 * | KEYS | |
 * |---|---|
 * | 1, 2 | stream, retry stream |
 * | 3, 4, 5 | consumers, state, released |
 * | 6, 7 | delayed, their bodies |
 * | 8, 9, 10 | waiting, their bodies, dead letters |
 * | 11 | meta |
 *
 * | ARGV | |
 * |---|---|
 * | 1, 2 | group, consumer |
 * | 3 | lease, ms |
 * | 4 | how many may be moved of each kind at most, and about a megabyte |
 * | 5 | for how long the oldest delivery has been held, ms, or "" |
 * | 6, 7 | cap of the dead letters: how many, and for how long in ms |
 * | 8 | 1: it knows that the group is paused, and begins nothing |
 *
 * | reply | |
 * |---|---|
 * | `OK`, alive, paused, more, next, cut, dropped, held | alive = 0: the heartbeat had run out. paused, more = 1: yes. next: ms until something is due, -1 when nothing waits. cut: messages this group never saw that were cut off since the last beat. dropped: dead letters the cap dropped. held: how many deliveries the consumer has |
 * | `NOGROUP` | nothing was done |
 * | `WRONGTYPE`, key, found | |
 */
export const beat: Script = {
  name: "waybill/beat",
  lua: `${drains}${mismatch}${clock}${ids}${add}${ask}${unseen}${pausing}${tallies}${weighing}${fetching}
local stream, retry, consumers, state = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local group, consumer = ARGV[1], ARGV[2]
${noting}
local wrong = mismatch(stream, 'stream') or mismatch(retry, 'stream') or mismatch(consumers, 'zset')
  or mismatch(state, 'hash') or mismatch(KEYS[5], 'hash') or mismatch(KEYS[6], 'zset') or mismatch(KEYS[7], 'hash')
  or mismatch(KEYS[8], 'zset') or mismatch(KEYS[9], 'hash') or mismatch(KEYS[10], 'stream') or mismatch(KEYS[11], 'hash')
if wrong then return wrong end
local dead = KEYS[10]
${keeping}
local pending, retrying = ask('XPENDING', stream, group), ask('XPENDING', retry, group)
if not pending or not retrying then return {'NOGROUP'} end
local now = clock()

local until_ = redis.call('ZSCORE', consumers, consumer)
local alive = until_ and tonumber(until_) > now
${heartbeats}
live(consumer, tonumber(ARGV[3]), now)
correct(tonumber(ARGV[3]), now)
if ARGV[5] ~= '' then redis.call('HSET', state, 'oldest:' .. consumer, string.format('%.0f', now - tonumber(ARGV[5])))
else redis.call('HDEL', state, 'oldest:' .. consumer) end

local function due(set)
  return redis.call('ZRANGEBYSCORE', set, '-inf', now, 'LIMIT', 0, ARGV[4])
end
local function unpacked(body)
  local ok, fields = pcall(cmsgpack.unpack, body)
  if ok and type(fields) == 'table' then return fields end
end
local moved = due(KEYS[6])
if #moved > 0 then
  local found = bodiesOf(KEYS[7], moved)
  for i = 1, #moved do
    if found[i] then add(stream, {}, unpacked(found[i]) or {'payload', found[i]}, 1) end
  end
  redis.call('ZREM', KEYS[6], unpack(moved))
  redis.call('HDEL', KEYS[7], unpack(moved))
end
local again = due(KEYS[8])
if #again > 0 then
  local found = bodiesOf(KEYS[9], again)
  for i = 1, #again do
    local f = found[i] and unpacked(found[i])
    if f then
      local head, from = {'id', f[1], 'at', f[2], 'attempt', f[3], 'fence', f[4]}, 6
      if isTally(f[6], f[7]) then
        head[9], head[10], from = f[6], f[7], 8
      end
      add(retry, head, f, from)
    elseif found[i] then add(retry, {}, {'payload', found[i]}, 1) end
  end
  redis.call('ZREM', KEYS[8], unpack(again))
  redis.call('HDEL', KEYS[9], unpack(again))
end
local next = -1
for _, set in ipairs({KEYS[6], KEYS[8]}) do
  local head = redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')[2]
  if head then
    local wait = math.max(0, tonumber(head) - now)
    if next < 0 or wait < next then next = wait end
  end
end

local info = of(redis.call('XINFO', 'STREAM', stream))
local mine
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
  if flat[2] == group then mine = of(flat) end
end
local noted = redis.call('HMGET', state, 'mark', 'cut', 'noted')
local mark = pending[1] > 0 and before(pending[2]) or mine['last-delivered-id']
if mark ~= noted[1] then redis.call('HSET', state, 'mark', mark) end
if pending[1] == 0 and retrying[1] == 0 then redis.call('DEL', KEYS[5]) end
-- What comes again as an entry of the retry stream has left its entry before: the note must know that.
local since = now - (tonumber(noted[3]) or 0)
if #again > 0 or since >= 100 or since < 0 then note(now) end

-- Cut off by programs of others, and by publishers, who have noted it.
local cut = unseen(stream, group, info, mine) - (noted[2] or 0)
if noted[2] then redis.call('HDEL', state, 'cut') end
local told = redis.call('HGET', KEYS[11], 'cut:' .. group)
if told then redis.call('HDEL', KEYS[11], 'cut:' .. group) end
cut = math.max(0, cut) + (told or 0)
local held = 0
for _, summary in ipairs({pending, retrying}) do
  for _, one in ipairs(summary[4] or {}) do if one[1] == consumer then held = held + tonumber(one[2]) end end
end
return {'OK', alive and 1 or 0, paused(state, consumer, ARGV[8]), next == 0 and 1 or 0, next, cut, keepDead(ARGV[6], tonumber(ARGV[7]), now), held}
`
}

/**
 * Cuts off what every group has settled. A group that is registered and missing holds everything: it may come back.
 *
 * | KEYS | |
 * |---|---|
 * | 1, 2, 3 | stream, retry stream, groups |
 *
 * | ARGV | |
 * |---|---|
 * | 1 | about how many entries to remove at most |
 * | 2 | 1: the main stream too |
 *
 * | reply | |
 * |---|---|
 * | `OK`, more | more = 1: call again |
 * | `WRONGTYPE`, key, found | |
 */
export const trim: Script = {
  name: "waybill/trim",
  lua: `${drains}${mismatch}${ids}${ask}
local wrong = mismatch(KEYS[1], 'stream') or mismatch(KEYS[2], 'stream') or mismatch(KEYS[3], 'set')
if wrong then return wrong end
local function settled(stream, registered)
  local low
  local there = {}
  for _, g in ipairs(ask('XINFO', 'GROUPS', stream) or {}) do
    local name, pending, from
    for i = 1, #g, 2 do
      if g[i] == 'name' then name = g[i + 1] end
      if g[i] == 'pending' then pending = g[i + 1] end
      if g[i] == 'last-delivered-id' then from = g[i + 1] end
    end
    there[name] = true
    from = pending > 0 and redis.call('XPENDING', stream, name)[2] or after(from)
    if not low or less(from, low) then low = from end
  end
  for _, name in ipairs(registered) do if not there[name] then return end end
  return low
end
local more = 0
local function cut(stream, registered)
  local low = settled(stream, registered)
  if not low then return end
  -- Whole nodes first, as many as allowed; what is left then is less than a node.
  local most = tonumber(ARGV[1])
  local count = redis.call('XTRIM', stream, 'MINID', '~', low, 'LIMIT', most)
  -- Redis stops before it exceeds the limit: more than a node (128 entries at most, as the server comes) may be left then.
  if count >= most - 128 then more = 1 else redis.call('XTRIM', stream, 'MINID', low) end
end
cut(KEYS[2], {})
if ARGV[2] == '1' then cut(KEYS[1], redis.call('SMEMBERS', KEYS[3])) end
return {'OK', more}
`
}

/**
 * Leaves the group: what the consumer holds is handed back without counting as an attempt, and the consumer is removed
 * when it holds nothing more. The others look at once: they take over what is handed back, and what it knew to be due.
 *
 * | KEYS | |
 * |---|---|
 * | 1, 2 | stream, retry stream |
 * | 3, 4, 5 | consumers, released, state |
 * | 6 | the channel `wake` |
 *
 * | ARGV | |
 * |---|---|
 * | 1, 2, 3 | group, consumer, the name that released entries go to |
 * | 4 | how many to hand back at most |
 *
 * | reply | |
 * |---|---|
 * | `OK`, more | more = 1: call again |
 */
export const leave: Script = {
  name: "waybill/leave",
  lua: `${drains}${clock}${ask}${announce}
local group, consumer, limit, state = ARGV[1], ARGV[2], tonumber(ARGV[4]), KEYS[5]
${noting}
local more = 0
for source = 0, 1 do
  local stream = KEYS[source + 1]
  local held = ask('XPENDING', stream, group, '-', '+', limit, consumer)
  if held then
    for _, p in ipairs(held) do
      redis.call('XCLAIM', stream, group, ARGV[3], 0, p[1], 'TIME', 0, 'JUSTID')
      redis.call('HINCRBY', KEYS[4], source .. p[1], 1)
    end
    if #held == limit then more = 1 else redis.call('XGROUP', 'DELCONSUMER', stream, group, consumer) end
  end
end
if more == 0 then
  redis.call('ZREM', KEYS[3], consumer)
  redis.call('HDEL', state, 'oldest:' .. consumer, 'lease:' .. consumer, 'quiet:' .. consumer)
  note(clock())
end
announce(KEYS[6], 0, group)
return {'OK', more}
`
}
