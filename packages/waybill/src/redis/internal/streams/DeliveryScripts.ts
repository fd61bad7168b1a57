import type { Script } from "../connection/Script.ts"
/**
 * What happens to deliveries: they are settled, taken over, kept alive. Each step first asks the server whether the
 * delivery is still the consumer's: same owner, same count of deliveries. If not, somebody else has it, and nothing is changed.
 *
 * Entries are named by source and id: source 0 is the topic's stream, 1 the group's retry stream.
 *
 * @module
 */
import { burying, keeping } from "../inspect/DeadLetterScripts.ts"
import { add, announce, ask, clock, drains, mismatch, split, suspecting } from "../wire/Lua.ts"
import { noting } from "./Progress.ts"

/**
 * Ends deliveries, each in its own way.
 *
 * | KEYS | |
 * |---|---|
 * | 1, 2 | stream, retry stream |
 * | 3, 4 | waiting, their bodies |
 * | 5, 6, 7 | dead letters, released, state |
 * | 8 | the channel `wake` |
 * | 9... | markers of commits that were refused in part |
 *
 * | ARGV | |
 * |---|---|
 * | 1, 2, 3 | group, consumer, the name that released entries go to |
 * | 4, 5 | cap of the dead letters: how many, and for how long in ms |
 * | 6 | how long a marker lasts, ms |
 * | 7... | for each delivery: operation, source, entry, count; for `R` and `D` also: a, cause, id, published at, attempt, fence, tally, failure, marker, number of fields, and the fields |
 *
 * Operations: `A` ack; `R` retry, a = delay in ms; `D` dead letter, a = reason; `L` release; `U` the consumer leaves, and its
 * handler has had it: handed back, and the attempt counts. The fields of the message are
 * taken from the entry; the caller sends them only after `G`. Count 0 means that the group was lost and the entry with
 * it: there is no owner to ask for. marker: which of KEYS, or 0: now that the dead letter knows, it may expire.
 *
 * | reply | |
 * |---|---|
 * | `OK`, answers, dropped | one character a delivery: `O` done, `F` not the consumer's (any more), `G` the entry is gone, send its fields. dropped: dead letters the cap dropped |
 * | `WRONGTYPE`, key, found | nothing was done |
 */
export const settle: Script = {
  name: "waybill/settle",
  lua: `${drains}${mismatch}${clock}${add}${split}${ask}${announce}
local waiting, bodies, dead, released, state = KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local group, consumer = ARGV[1], ARGV[2]
local wrong = mismatch(KEYS[1], 'stream') or mismatch(KEYS[2], 'stream') or mismatch(waiting, 'zset')
  or mismatch(bodies, 'hash') or mismatch(dead, 'stream') or mismatch(released, 'hash') or mismatch(state, 'hash')
if wrong then return wrong end
${burying}${keeping}
local now = clock()
local answers, buried, soonest = {}, false, nil
local i = 7
while i <= #ARGV do
  local op, source, entry, count = ARGV[i], ARGV[i + 1], ARGV[i + 2], tonumber(ARGV[i + 3])
  i = i + 4
  local a, cause, id, at, attempt, fence, tally, failure, marker, raw
  if op == 'R' or op == 'D' then
    a, cause, id, at, attempt, fence, tally, failure = unpack(ARGV, i, i + 7)
    marker = tonumber(ARGV[i + 8])
    local fields = tonumber(ARGV[i + 9])
    i = i + 10
    if fields > 0 then
      raw = {}
      for f = 1, fields do raw[f] = ARGV[i + f - 1] end
      i = i + fields
    end
  end
  local stream = source == '0' and KEYS[1] or KEYS[2]
  local member = source .. entry
  local mine = count == 0
  if not mine then
    local owned = ask('XPENDING', stream, group, entry, entry, 1, consumer)
    mine = owned and #owned == 1 and owned[1][4] == count
  end
  local answer = 'O'
  if not mine then
    answer = 'F'
  elseif op == 'A' then
    redis.call('XACK', stream, group, entry)
    redis.call('HDEL', released, member)
  elseif op == 'L' or op == 'U' then
    redis.call('XCLAIM', stream, group, ARGV[3], 0, entry, 'TIME', 0, 'JUSTID')
    if op == 'L' then redis.call('HINCRBY', released, member, 1) end
    soonest = 0
  else
    local from = 1
    if not raw then
      local there = redis.call('XRANGE', stream, entry, entry)[1]
      if there then
        raw = there[2]
        if source == '1' then
          local _
          _, _, _, _, from = split(source, entry, raw)
        end
      end
    end
    if not raw then
      answer = 'G'
    elseif op == 'R' then
      local body = {id, at, attempt, fence, cause, 'tally', tally}
      for f = from, #raw do body[#body + 1] = raw[f] end
      redis.call('HSET', bodies, member, cmsgpack.pack(body))
      redis.call('ZADD', waiting, now + tonumber(a), member)
      soonest = math.min(soonest or a, a)
    else
      bury(a, cause, attempt, fence, id, at, member, consumer, raw, from, isPartial(tally), failure)
      if marker > 0 then redis.call('PEXPIRE', KEYS[marker], ARGV[6]) end
      buried = true
    end
    if answer == 'O' and count > 0 then
      redis.call('XACK', stream, group, entry)
      if count > 1 then redis.call('HDEL', released, member) end
    end
  end
  answers[#answers + 1] = answer
end
if soonest then announce(KEYS[8], soonest, group) end
return {'OK', table.concat(answers), buried and keepDead(ARGV[4], tonumber(ARGV[5]), now) or 0}
`
}

/**
 * Takes over entries that no consumer is working on. An entry that two consumers have died with is a suspect, and a consumer gets the
 * fewer of them the fewer deaths they may still see: innocent ones would be buried with it in the end. A call stops when it
 * has gathered a few megabytes.
 *
 * It takes entries that were released, those of consumers whose heartbeat has run out, and
 * the caller's own of which it does not know. What has been delivered too often becomes a dead letter instead.
 *
 * | KEYS | |
 * |---|---|
 * | 1, 2 | stream, retry stream |
 * | 3, 4 | consumers, released |
 * | 5, 6 | dead letters, state |
 *
 * | ARGV | |
 * |---|---|
 * | 1, 2, 3 | group, consumer, the name that released entries go to |
 * | 4 | how many to take at most |
 * | 5 | how often an entry may be delivered |
 * | 6, 7 | cap of the dead letters: how many, and for how long in ms |
 * | 8 | lease, ms: what a consumer without a heartbeat has had for that long is taken from it |
 * | 9, 10 | how many suspects the consumer holds, and how many they are to be at most, or -1 |
 * | 11... | source and entry of what is the consumer's own and unknown to it, and 1 when the delivery counts as an attempt |
 *
 * | reply | |
 * |---|---|
 * | `OK`, taken, buried, gone, dropped, more | taken, buried: lists of source, entry, count, released, fields, owner. gone: pending entries that are no longer in the stream. dropped: dead letters the cap dropped. more = 1: something was left for the next call |
 * | `EXPIRED` | the caller's own heartbeat has run out; it has no business here |
 * | `WRONGTYPE`, key, found | |
 */
export const claim: Script = {
  name: "waybill/claim",
  lua: `${drains}${mismatch}${clock}${add}${split}${ask}
local consumers, released, dead, state = KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local group, consumer, nobody = ARGV[1], ARGV[2], ARGV[3]
local wrong = mismatch(KEYS[1], 'stream') or mismatch(KEYS[2], 'stream') or mismatch(consumers, 'zset')
  or mismatch(released, 'hash') or mismatch(dead, 'stream') or mismatch(state, 'hash')
if wrong then return wrong end
${burying}${keeping}${noting}
local now = clock()
local until_ = redis.call('ZSCORE', consumers, consumer)
if not until_ or tonumber(until_) <= now then return {'EXPIRED'} end
local budget, most, held, limit = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[9]), tonumber(ARGV[10])
${suspecting}
local taken, buried, gone = {}, {}, 0
local bytes, more = 0, 0

local function full()
  return bytes > 4194304
end
local function weigh(fields)
  for _, field in ipairs(fields) do bytes = bytes + #field end
end

-- Takes the entry, buries it, or leaves it when it is a suspect too many.
local function adopt(source, entry, count, owner, uncounting)
  local stream, member = KEYS[source + 1], source .. entry
  local uncounted = tonumber(redis.call('HGET', released, member) or '0')
  local died = owner ~= nobody and owner ~= consumer
  local deaths, there = count - uncounted, nil
  if source == 1 and owner ~= consumer then
    there = redis.call('XRANGE', stream, entry, entry)[1]
    local tally = there and select(6, split('1', entry, there[2]))
    if tally then deaths = deaths + tonumber(string.match(tally, '^%d+')) end
  end
  if died and deaths >= most then
    there = there or redis.call('XRANGE', stream, entry, entry)[1]
    if there then
      local id, at, attempt, fence, first, tally = split(tostring(source), entry, there[2])
      local attempts = attempt + count - uncounted
      bury('CrashLoop', 'delivered ' .. deaths .. ' times to consumers that died or stalled', attempts,
        fence + count, id, at, member, owner, there[2], first, isPartial(tally), '')
      buried[#buried + 1] = {source, entry, count, uncounted, there[2], owner}
      weigh(there[2])
    else
      gone = gone + 1
    end
    redis.call('XACK', stream, group, entry)
    redis.call('HDEL', released, member)
    return
  end
  if owner ~= consumer and isSuspect(deaths) and not admits(deaths) then
    more = 1
    return
  end
  there = redis.call('XCLAIM', stream, group, consumer, 0, entry)[1]
  if there then
    -- A delivery in an answer that never came was not an attempt.
    if uncounting then uncounted = redis.call('HINCRBY', released, member, 1) end
    taken[#taken + 1] = {source, entry, count + 1, uncounted, there[2], owner}
    weigh(there[2])
  else
    gone = gone + 1
    redis.call('XACK', stream, group, entry)
    redis.call('HDEL', released, member)
  end
end

for i = 11, #ARGV, 3 do
  if full() then break end
  local own = ask('XPENDING', KEYS[ARGV[i] + 1], group, ARGV[i + 1], ARGV[i + 1], 1, consumer)
  if own and own[1] then adopt(tonumber(ARGV[i]), own[1][1], own[1][4], consumer, ARGV[i + 2] ~= '1') end
end

-- Takes what the owner holds, as far as the budget goes.
local function drain(owner, idle)
  for source = 0, 1 do
    local left = budget - #taken - #buried
    if left <= 0 or full() then
      more = 1
      return
    end
    local held = ask('XPENDING', KEYS[source + 1], group, 'IDLE', idle, '-', '+', left, owner)
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
    local held = ask('XPENDING', KEYS[source + 1], group, '-', '+', 1, owner)
    if not held or #held > 0 then return end
  end
  for source = 0, 1 do redis.call('XGROUP', 'DELCONSUMER', KEYS[source + 1], group, owner) end
  redis.call('ZREM', consumers, owner)
  redis.call('HDEL', state, 'oldest:' .. owner, 'lease:' .. owner, 'quiet:' .. owner)
end
drain(nobody, 0)
for _, owner in ipairs(redis.call('ZRANGEBYSCORE', consumers, '-inf', now, 'LIMIT', 0, 16)) do
  drain(owner, 0)
  remove(owner)
end
-- Consumers without a heartbeat are none of ours, or were made again by a read that outlived its process. Looking at
-- every consumer costs their number, so the group does it once a lease.
local swept = tonumber(redis.call('HGET', state, 'swept') or '0')
local due = now < swept or now - swept >= tonumber(ARGV[8]) / 2
if due then redis.call('HSET', state, 'swept', string.format('%.0f', now)) end
for source = 0, due and 1 or -1 do
  for _, flat in ipairs(ask('XINFO', 'CONSUMERS', KEYS[source + 1], group) or {}) do
    local owner, pending, idle = flat[2], flat[4], flat[6]
    if owner ~= nobody and not redis.call('ZSCORE', consumers, owner) then
      if pending > 0 then drain(owner, ARGV[8])
      elseif idle > 3600000 then remove(owner) end
    end
  end
end
if #taken + #buried > 0 then note(now) end
return {'OK', taken, buried, gone, #buried > 0 and keepDead(ARGV[6], tonumber(ARGV[7]), now) or 0, more}
`
}

/**
 * Keeps deliveries that take long, and tells which are the consumer's no more.
 *
 * | KEYS | |
 * |---|---|
 * | 1, 2 | stream, retry stream |
 *
 * | ARGV | |
 * |---|---|
 * | 1, 2 | group, consumer |
 * | 3... | for each delivery: source, entry, count |
 *
 * | reply | |
 * |---|---|
 * | `OK`, answers | one character a delivery: `O` renewed, `L` lost |
 * | `NOGROUP` | the group was lost, and whose they are is not known |
 */
export const renew: Script = {
  name: "waybill/renew",
  lua: `${drains}${ask}
local group, consumer = ARGV[1], ARGV[2]
local answers = {}
for i = 3, #ARGV, 3 do
  local stream, entry = KEYS[ARGV[i] + 1], ARGV[i + 1]
  local owned = ask('XPENDING', stream, group, entry, entry, 1, consumer)
  if not owned then return {'NOGROUP'} end
  if #owned == 1 and owned[1][4] == tonumber(ARGV[i + 2]) then
    -- XCLAIM would drop an entry that was cut off, and with it our right to settle it.
    if #redis.call('XRANGE', stream, entry, entry) == 1 then
      redis.call('XCLAIM', stream, group, consumer, 0, entry, 'JUSTID')
    end
    answers[#answers + 1] = 'O'
  else
    answers[#answers + 1] = 'L'
  end
end
return {'OK', table.concat(answers)}
`
}
