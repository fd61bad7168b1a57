/**
 * What happens to deliveries: they are settled, taken over, kept alive. Each step first makes the server check that the delivery
 * still belongs to the consumer: same owner, same count of deliveries. Otherwise nothing is changed.
 *
 * Entries are named by source and id: source 0 is the topic's stream, 1 the group's retry stream.
 *
 * @module
 */
import { cancelled as ended } from "../../../Settlement.ts"
import { bit, flag, listOf, make, number, row, text } from "../connection/Script.ts"
import { suspectArgs } from "../group/Suspecting.ts"
import { deadLettering, hooking, keeping } from "../inspect/DeadLetterScripts.ts"
import { keys } from "../wire/Keys.ts"
import { add, announce, ask, cap, clock, ids, maps, split, suspecting } from "../wire/Lua.ts"
import { nobody, noting, sources, sweeping } from "./Progress.ts"
import { freeing } from "./UniqueIds.ts"

/** An entry that was taken over. `owner`: its previous owner. `tally`: the attempts in which consumers died since the entry was made. */
const claimed = row({
  source: bit,
  entry: text,
  count: number,
  released: number,
  fields: listOf(text),
  owner: text,
  tally: text
})

export type Claimed = ReturnType<typeof claimed>

/**
 * Ends deliveries, each in its own way.
 *
 * Further keys: markers of commits that were refused in part.
 *
 * Further arguments: the steps, as in `tell`. A place is source, entry and count; count 0 means that the group was lost with the
 * entry, so there is no ownership to check. `S`: an ack of a message that has its id to itself; the id and its first entry follow.
 * `U`: the consumer leaves, and its handler has had it: handed back, and the attempt counts. The message's fields, packed, are taken
 * from the entry; the caller only sends them after `G`. Once the dead letter carries the mark, the marker may expire.
 */
export const settle = make({
  name: "waybill/settle",
  mode: "drains",
  keys: keys(
    "stream",
    "retry",
    "waiting",
    "waitingBodies",
    "retryIds",
    "dead",
    "deadIds",
    "cancelled",
    "released",
    "state",
    "unique",
    "wake"
  ),
  args: {
    group: "text",
    consumer: "text",
    ...cap,
    /** How long a marker lasts, ms. */
    ttl: "number"
  },
  replies: {
    OK: {
      /** One character per delivery: `O` done, `F` not the consumer's (any more), `G` the entry is gone, send its fields. */
      answers: text,
      /** How many dead letters the cap dropped. */
      dropped: number
    }
  },
  lua: /* lua */ `${clock}${add}${split}${ask}${announce}${deadLettering}${keeping}${hooking}${ids}${maps}${freeing}
touch()
local now = clock()
local answers, deadLettered, soonest = {}, false, nil
local i = moreArgs + 1
while i <= #ARGV do
  local op, source, entry, count = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3])
  i = i + 4
  local a, cause, tally, failure, id, at, attempt, fence, marker, raw, first
  if op == 'S' then
    id, first = ARGV[i], ARGV[i + 1]
    i = i + 2
  elseif op == 'R' or op == 'N' or op == 'D' then
    a, cause, tally, failure, id, at, attempt, fence, marker, raw = unpack(ARGV, i, i + 9)
    marker, raw = tonumber(marker), raw ~= '' and cmsgpack.unpack(raw)
    i = i + 10
  end
  local key = source == '0' and stream or retry
  local member = source .. entry
  local mine = count == 0
  if not mine then
    local owned = ask('XPENDING', key, group, entry, entry, 1, consumer)
    mine = owned and #owned == 1 and owned[1][4] == count
  end
  local answer = 'O'
  if not mine then
    answer = 'F'
  elseif op == 'A' or op == 'S' then
    redis.call('XACK', key, group, entry)
    redis.call('HDEL', released, member, '!' .. member)
  elseif op == 'L' or op == 'U' then
    redis.call('XCLAIM', key, group, '${nobody}', 0, entry, 'TIME', 0, 'JUSTID')
    if op == 'L' then redis.call('HINCRBY', released, member, 1) end
    soonest = 0
  else
    local from = 1
    if op ~= 'D' and redis.call('ZSCORE', cancelled, member) then op, a, cause = 'D', '${ended.reason}', '${ended.cause}' end
    if not raw then
      local there = redis.call('XRANGE', key, entry, entry)[1]
      if there then
        raw = there[2]
        if source == '1' then
          local _
          _, _, _, _, from = split(source, entry, raw)
        end
      end
    end
    local place = raw and uniqueAt(raw, from)
    first = place and (source == '0' and entry or raw[place])
    if not raw then
      answer = 'G'
    elseif op == 'R' or op == 'N' then
      if op == 'N' then redis.call('HSET', state, 'newer', string.format('%.0f ', now) .. cause) end
      if place then
        raw[place] = first
        keep(id, first)
      end
      local body = {id, at, attempt, fence, cause, 'tally', timed(tally, now)}
      for f = from, #raw do body[#body + 1] = raw[f] end
      redis.call('HSET', waitingBodies, member, cmsgpack.pack(body))
      redis.call('ZADD', waiting, now + tonumber(a), member)
      if id ~= entry then index(retryIds, '-' .. scoreOf(entry), id) end
      soonest = math.min(soonest or a, a)
    else
      deadLetter(a, cause, attempt, fence, id, at, member, consumer, raw, from, timed(tally, now), failure)
      if marker > 0 then redis.call('PEXPIRE', KEYS[moreKeys + marker], ttl) end
      deadLettered = true
    end
    if answer == 'O' and count > 0 then
      redis.call('XACK', key, group, entry)
      if count > 1 then redis.call('HDEL', released, member, '!' .. member) end
    end
  end
  if first and answer == 'O' and op ~= 'R' and op ~= 'N' then free(id, first) end
  answers[#answers + 1] = answer
end
if deadLettered and isHooked() then soonest = math.min(soonest or 1, 1) end
if soonest then announce(wake, soonest, group) end
return {'OK', table.concat(answers), deadLettered and keepDead(maxCount, maxAgeMillis, now) or 0}
`
})

/**
 * Ends plain acks of messages that have their ids to themselves.
 *
 * Further arguments: the entries of the `fresh` ones, which were delivered once and are their own first entries, and their ids; then for
 * each other one: source, entry, count, id, and its first entry.
 */
export const ackUnique = make({
  name: "waybill/ack-unique",
  mode: "drains",
  keys: keys("stream", "retry", "released", "unique"),
  args: { group: "text", fresh: "number" },
  replies: {
    OK: {
      /** How many were pending. */
      count: number
    }
  },
  lua: /* lua */ `${ask}${ids}${maps}${sources}${freeing}
touch()
local ids = moreArgs + fresh
local entries, firsts = {[0] = {unpack(ARGV, moreArgs + 1, ids)}, {}}, {unpack(ARGV, moreArgs + 1, ids)}
local uncounted, names, acked = {}, {unpack(ARGV, ids + 1, ids + fresh)}, 0
for i = ids + fresh + 1, #ARGV, 5 do
  local some, n = entries[tonumber(ARGV[i])], #names + 1
  some[#some + 1], names[n], firsts[n] = ARGV[i + 1], ARGV[i + 3], ARGV[i + 4]
  if ARGV[i + 2] ~= '1' then
    uncounted[#uncounted + 1] = ARGV[i] .. ARGV[i + 1]
    uncounted[#uncounted + 1] = '!' .. ARGV[i] .. ARGV[i + 1]
  end
end
for source = 0, 1 do
  local some = entries[source]
  if #some > 0 then acked = acked + redis.call('XACK', sources[source], group, unpack(some)) end
end
if #uncounted > 0 then redis.call('HDEL', released, unpack(uncounted)) end
-- If others have some of them by now, it is unknown which: the groups tell, and what is left is swept.
if acked == #names then freeAll(names, firsts) end
return {'OK', acked}
`
})

/**
 * Takes over entries that no consumer is working on. An entry that two consumers have died with is a suspect, and a consumer gets
 * fewer of them the fewer deaths they may still cause: otherwise innocent ones would become dead letters too. A call stops when it
 * has gathered a few megabytes.
 *
 * It takes entries that were released, those of consumers whose heartbeat has expired, and the caller's own that it does not know
 * of. An entry that was delivered too often becomes a dead letter instead.
 *
 * Further arguments: source and entry of the consumer's own unknown ones, and 1 if the delivery counts as an attempt.
 */
export const claim = make({
  name: "waybill/claim",
  mode: "drains",
  keys: keys("stream", "retry", "consumers", "released", "dead", "deadIds", "cancelled", "state", "unique"),
  args: {
    group: "text",
    consumer: "text",
    /** How many to take at most. */
    budget: "number",
    ...cap,
    /** Milliseconds after which a consumer without a heartbeat loses its deliveries. */
    lease: "number",
    ...suspectArgs
  },
  replies: {
    OK: {
      taken: listOf(claimed),
      deadLettered: listOf(claimed),
      /** Dead letters, too. */
      cancelled: listOf(claimed),
      /** Pending entries that are no longer in the stream. */
      gone: number,
      /** How many dead letters the cap dropped. */
      dropped: number,
      /** Something was left for the next call. */
      more: flag
    },
    /** The caller's own heartbeat has expired, so it may not claim. */
    EXPIRED: {}
  },
  lua: /* lua */ `${clock}${add}${split}${ask}${deadLettering}${keeping}${sources}${maps}${noting}${sweeping}${suspecting}${ids}${freeing}
local now = clock()
local until_ = redis.call('ZSCORE', consumers, consumer)
if not until_ or tonumber(until_) <= now then return {'EXPIRED'} end
-- Everything is read before anything is written.
local due = sweeping(redis.call('HGET', state, 'swept'), now)
if redis.call('EXISTS', released, dead, unique) > 0 then
  redis.call('HEXISTS', released, '')
  redis.call('HEXISTS', unique, '')
  redis.call('XLEN', dead)
  redis.call('ZRANGE', deadIds, 1, 0)
end
local cancels = redis.call('ZCARD', cancelled) > 0
local pending = {}
for source = 0, 1 do
  local summary = ask('XPENDING', sources[source], group)
  pending[source] = summary and summary[1]
end
local taken, deadLettered, ended, gone = {}, {}, {}, 0
local bytes, more = 0, 0

local function full()
  return bytes > 4194304
end
local function weigh(fields)
  for _, field in ipairs(fields) do bytes = bytes + #field end
end

-- Takes the entry, dead-letters it, or leaves it if it is one suspect too many.
local function adopt(source, entry, count, owner, uncounting)
  local key, member = sources[source], source .. entry
  local uncounted = tonumber(redis.call('HGET', released, member) or '0')
  local isDead = owner ~= '${nobody}' and owner ~= consumer
  local deaths, there, before = count - uncounted, nil, 0
  if source == 1 and owner ~= consumer then
    there = redis.call('XRANGE', key, entry, entry)[1]
    local _, tally
    if there then _, _, before, _, _, tally = split('1', entry, there[2]) end
    if tally then deaths = deaths + tonumber(string.match(tally, '^%d+')) end
  end
  local log = count > 1 and redis.call('HGET', released, '!' .. member) or '0;0;'
  if isDead then log = died(log, before + count - uncounted, owner, now) end
  local over = cancels and owner ~= consumer and redis.call('ZSCORE', cancelled, member)
  if over or isDead and deaths >= most then
    there = there or redis.call('XRANGE', key, entry, entry)[1]
    local name, place
    if there then
      local id, at, attempt, fence, from, tally = split(tostring(source), entry, there[2])
      local attempts = attempt + count - uncounted
      local reason, cause = 'CrashLoop', 'delivered ' .. deaths .. ' times to consumers that died or stalled'
      if over then reason, cause = '${ended.reason}', '${ended.cause}' end
      deadLetter(reason, cause, attempts, fence + count, id, at, member, owner, there[2], from, onto(tally or '0;0;', log), '')
      local letters = over and ended or deadLettered
      letters[#letters + 1] = {source, entry, count, uncounted, there[2], owner, log}
      weigh(there[2])
      name, place = id, uniqueAt(there[2], from)
    elseif not over then
      gone = gone + 1
    end
    redis.call('XACK', key, group, entry)
    if place then free(name, source == 0 and entry or there[2][place]) end
    redis.call('HDEL', released, member, '!' .. member)
    return
  end
  if owner ~= consumer and isSuspect(deaths) and not admits(deaths) then
    more = 1
    return
  end
  there = redis.call('XCLAIM', key, group, consumer, 0, entry)[1]
  if there then
    -- A delivery in a lost reply was not an attempt.
    if uncounting then uncounted = redis.call('HINCRBY', released, member, 1) end
    if isDead then redis.call('HSET', released, '!' .. member, log) end
    taken[#taken + 1] = {source, entry, count + 1, uncounted, there[2], owner, log}
    weigh(there[2])
  else
    gone = gone + 1
    redis.call('XACK', key, group, entry)
    redis.call('HDEL', released, member, '!' .. member)
  end
end

for i = moreArgs + 1, #ARGV, 3 do
  if full() then break end
  local source = tonumber(ARGV[i])
  local own = ask('XPENDING', sources[source], group, ARGV[i + 1], ARGV[i + 1], 1, consumer)
  if own and own[1] then adopt(source, own[1][1], own[1][4], consumer, ARGV[i + 2] ~= '1') end
end

-- Takes the owner's entries, as far as the budget goes.
local function drain(owner, idle)
  for source = 0, 1 do
    local left = budget - #taken - #deadLettered - #ended
    if left <= 0 or full() then
      more = 1
      return
    end
    local held = (pending[source] or 0) > 0 and ask('XPENDING', sources[source], group, 'IDLE', idle, '-', '+', left, owner)
    if held then
      for _, p in ipairs(held) do
        if full() then break end
        adopt(source, p[1], p[4], owner)
      end
    end
  end
end
local function remove(owner)
  for source = 0, 1 do
    local held = pending[source] ~= 0 and ask('XPENDING', sources[source], group, '-', '+', 1, owner)
    if not pending[source] or held and #held > 0 then return end
  end
  for source = 0, 1 do redis.call('XGROUP', 'DELCONSUMER', sources[source], group, owner) end
  redis.call('ZREM', consumers, owner)
  redis.call('HDEL', state, 'oldest:' .. owner, 'lease:' .. owner, 'quiet:' .. owner)
end
drain('${nobody}', 0)
for _, owner in ipairs(redis.call('ZRANGEBYSCORE', consumers, '-inf', now, 'LIMIT', 0, 16)) do
  drain(owner, 0)
  remove(owner)
end
-- Consumers without a heartbeat are not ours, or were recreated by a read that outlived its process.
if due then redis.call('HSET', state, 'swept', string.format('%.0f', now)) end
for source = 0, due and 1 or -1 do
  for _, flat in ipairs(ask('XINFO', 'CONSUMERS', sources[source], group) or {}) do
    local owner, pending, idle = flat[2], flat[4], flat[6]
    if owner ~= '${nobody}' and not redis.call('ZSCORE', consumers, owner) then
      if pending > 0 then drain(owner, lease)
      elseif idle > 3600000 then remove(owner) end
    end
  end
end
if #taken + #deadLettered + #ended > 0 then note(now) end
return {'OK', taken, deadLettered, ended, gone, #deadLettered + #ended > 0 and keepDead(maxCount, maxAgeMillis, now) or 0, more}
`
})

/**
 * Renews long deliveries, and tells which no longer belong to the consumer.
 *
 * Further arguments, for each delivery: source, entry, count.
 */
export const renew = make({
  name: "waybill/renew",
  mode: "drains",
  keys: keys("stream", "retry"),
  args: { group: "text", consumer: "text" },
  replies: {
    OK: {
      /** One character per delivery: `O` renewed, `L` lost. */
      answers: text
    },
    /** The group was lost, and ownership is unknown. */
    NOGROUP: {}
  },
  lua: /* lua */ `${ask}${sources}
local answers = {}
for i = moreArgs + 1, #ARGV, 3 do
  local key, entry = sources[tonumber(ARGV[i])], ARGV[i + 1]
  local owned = ask('XPENDING', key, group, entry, entry, 1, consumer)
  if not owned then return {'NOGROUP'} end
  if #owned == 1 and owned[1][4] == tonumber(ARGV[i + 2]) then
    -- XCLAIM would drop an entry that was trimmed, and with it our right to settle it.
    if #redis.call('XRANGE', key, entry, entry) == 1 then
      redis.call('XCLAIM', key, group, consumer, 0, entry, 'JUSTID')
    end
    answers[#answers + 1] = 'O'
  else
    answers[#answers + 1] = 'L'
  end
end
return {'OK', table.concat(answers)}
`
})
