import type { Script } from "../connection/Script.ts"
/**
 * How consumers belong to a group that keeps claims: they join, live, and leave or die. A consumer whose heartbeat has run out
 * loses its whole set in one step.
 *
 * KEYS begin with those of the source; `+1` in the tables below is the first after them.
 *
 * @module
 */
import { burying, keeping } from "../inspect/DeadLetterScripts.ts"
import { add, clock, drains, fetching, heartbeats, mismatch, pausing, tallies, weighing } from "../wire/Lua.ts"
import { records } from "../wire/PackedMessage.ts"
import { marking, nth } from "./AttemptLog.ts"
import { naming, type Source } from "./Source.ts"

export interface MemberScripts {
  readonly join: Script
  readonly beat: Script
  readonly vacate: Script
}

export const make = (source: Source): MemberScripts => {
  const { at, name } = naming(source)

  /**
   * | KEYS | |
   * |---|---|
   * | +1, +2 | meta, groups |
   * | +3, +4 | consumers, state |
   * | +5 to +10 | processing of the consumer, returned, suspects, marks, waiting, dead letters |
   *
   * | ARGV | |
   * |---|---|
   * | 1, 2 | pattern and wire version |
   * | 3, 4 | group, consumer |
   * | 5 | `earliest` or `latest` |
   * | 6 | lease, ms |
   *
   * | reply | |
   * |---|---|
   * | `OK`, known | known = 1: the group was there |
   * | `CONFLICT`, pattern, wire | the topic was opened as something else |
   * | `WRONGTYPE`, key, found | |
   * | what `open` refuses with | |
   */
  const join: Script = {
    name: name("join"),
    lua: `${drains}${mismatch}${clock}${records}${source.lua}
local meta, groups, consumers, state = ${at(1)}, ${at(2)}, ${at(3)}, ${at(4)}
local wrong = foreign() or mismatch(meta, 'hash') or mismatch(groups, 'set') or mismatch(consumers, 'zset')
  or mismatch(state, 'hash') or mismatch(${at(5)}, 'set') or mismatch(${at(6)}, 'list') or mismatch(${at(7)}, 'list')
  or mismatch(${at(8)}, 'hash') or mismatch(${at(9)}, 'zset') or mismatch(${at(10)}, 'stream')
if wrong then return wrong end
local opened = redis.call('HMGET', meta, 'pattern', 'wire')
if opened[1] and (opened[1] ~= ARGV[1] or opened[2] ~= ARGV[2]) then return {'CONFLICT', opened[1], opened[2] or ''} end
local known = redis.call('SISMEMBER', groups, ARGV[3]) == 1
local refused = open(ARGV[3], ARGV[5], known)
if refused then return refused end
if not opened[1] then redis.call('HSET', meta, 'pattern', ARGV[1], 'wire', ARGV[2]) end
redis.call('SADD', groups, ARGV[3])
${heartbeats}
live(ARGV[4], tonumber(ARGV[6]), clock())
return {'OK', known and 1 or 0}
`
  }

  /**
   * Says that the consumer lives, brings in what is due, and looks around.
   *
   * | KEYS | |
   * |---|---|
   * | +1 | groups |
   * | +2, +3 | consumers, state |
   * | +4 to +8 | waiting, returned, suspects, marks, dead letters |
   * | +9 | the channel `wake` |
   * | +10 | processing of the consumer |
   *
   * | ARGV | |
   * |---|---|
   * | 1, 2 | group, consumer |
   * | 3 | lease, ms |
   * | 4 | how many may be moved of each kind at most |
   * | 5 | for how long the oldest delivery has been held, ms, or "" |
   * | 6, 7 | cap of the dead letters: how many, and for how long in ms |
   * | 8 | 1: it knows that the group is paused, and begins nothing |
   *
   * | reply | |
   * |---|---|
   * | `OK`, alive, paused, more, next, backlog, dead, dropped, held, urgency | alive = 0: the heartbeat had run out. more = 1: there is more to move. next: ms until something is due, -1 when nothing waits. backlog: how many could be taken now. dead: names of consumers whose heartbeat has run out. dropped: dead letters the cap dropped. held: how many deliveries the consumer has. urgency: of the most urgent one that nobody was given, 0 where that is not told |
   * | `NOGROUP` | nothing was done |
   * | `WRONGTYPE`, key, found | |
   */
  const beat: Script = {
    name: name("beat"),
    lua: `${drains}${mismatch}${clock}${pausing}${records}${weighing}${fetching}${source.lua}
local groups, consumers, state, waiting, returned, suspects, marks, channel =
  ${at(1)}, ${at(2)}, ${at(3)}, ${at(4)}, ${at(5)}, ${at(6)}, ${at(7)}, ${at(9)}
local consumer, limit, dead = ARGV[2], tonumber(ARGV[4]), ${at(8)}
local wrong = foreign() or mismatch(groups, 'set') or mismatch(consumers, 'zset') or mismatch(state, 'hash')
  or mismatch(waiting, 'zset') or mismatch(returned, 'list') or mismatch(suspects, 'list')
  or mismatch(marks, 'hash') or mismatch(dead, 'stream') or mismatch(${at(10)}, 'set')
if wrong then return wrong end
${keeping}${marking}
if redis.call('SISMEMBER', groups, ARGV[1]) == 0 then return {'NOGROUP'} end
local now = clock()
local until_ = redis.call('ZSCORE', consumers, consumer)
local alive = until_ and tonumber(until_) > now
${heartbeats}
live(consumer, tonumber(ARGV[3]), now)
correct(tonumber(ARGV[3]), now)
if ARGV[5] ~= '' then redis.call('HSET', state, 'oldest:' .. consumer, string.format('%.0f', now - tonumber(ARGV[5])))
else redis.call('HDEL', state, 'oldest:' .. consumer) end

local again = redis.call('ZRANGEBYSCORE', waiting, '-inf', now, 'LIMIT', 0, limit)
if #again > 0 then
  for _, id in ipairs(again) do
    local _, _, deaths = marked(id)
    free(id, deaths)
  end
  redis.call('ZREM', waiting, unpack(again))
end
local moved, due = promote(now, limit)
${source.urgent ? "if moved > 0 then press(urgency()) end" : ""}
if #again + moved > 0 then wake(0) end
local head = redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')[2]
if head and (not due or tonumber(head) < due) then due = tonumber(head) end
return {'OK', alive and 1 or 0, paused(state, consumer, ARGV[8]), due and due <= now and 1 or 0,
  due and math.max(0, due - now) or -1,
  redis.call('LLEN', returned) + redis.call('LLEN', suspects) + backlog(),
  redis.call('ZRANGEBYSCORE', consumers, '-inf', now, 'LIMIT', 0, 16), keepDead(ARGV[6], tonumber(ARGV[7]), now),
  redis.call('SCARD', ${at(10)}), ${source.urgent ? "press(urgency(redis.call('LINDEX', returned, 0))) or 0" : 0}}
`
  }

  /**
   * Takes everything from consumers: from the caller, which leaves and has finished none of it, or from those whose
   * heartbeat has run out. What too many have died with becomes a dead letter. A call stops when about a megabyte is buried.
   *
   * | KEYS | |
   * |---|---|
   * | +1, +2 | consumers, state |
   * | +3 to +6 | returned, suspects, marks, dead letters |
   * | +7 | the channel `wake` |
   * | +8... | processing of each consumer |
   *
   * | ARGV | |
   * |---|---|
   * | 1 | `leave` or `dead` |
   * | 2 | how many deliveries at most |
   * | 3 | how often a message may be delivered to consumers that die |
   * | 4, 5 | cap of the dead letters: how many, and for how long in ms |
   * | 6... | the consumers |
   *
   * | reply | |
   * |---|---|
   * | `OK`, moved, from, buried, dropped, more | moved: how many went to others. from: whose. buried: member, attempts, record, of each dead letter. dropped: dead letters the cap dropped. more = 1: call again |
   * | `WRONGTYPE`, key, found | |
   */
  const vacate: Script = {
    name: name("vacate"),
    lua: `${drains}${mismatch}${clock}${add}${records}${source.lua}
local consumers, state, returned, suspects, marks, dead, channel =
  ${at(1)}, ${at(2)}, ${at(3)}, ${at(4)}, ${at(5)}, ${at(6)}, ${at(7)}
local leaving, limit, most = ARGV[1] == 'leave', tonumber(ARGV[2]), tonumber(ARGV[3])
local wrong = foreign() or mismatch(consumers, 'zset') or mismatch(state, 'hash') or mismatch(returned, 'list')
  or mismatch(suspects, 'list') or mismatch(marks, 'hash') or mismatch(dead, 'stream')
for i = 6, #ARGV do wrong = wrong or mismatch(KEYS[${source.keys} + 2 + i], 'set') end
if wrong then return wrong end
${tallies}${marking}${burying}${keeping}${nth}${weighing}
local now = clock()
local moved, from, buried, done = 0, {}, {}, 0
for i = 6, #ARGV do
  local consumer, processing = ARGV[i], KEYS[${source.keys} + 2 + i]
  local until_ = redis.call('ZSCORE', consumers, consumer)
  -- It may have come back to life since the caller looked.
  if leaving or (until_ and tonumber(until_) <= now) then
    local before = moved + #buried
    local members = redis.call('SMEMBERS', processing)
    local order = {}
    for m, member in ipairs(members) do order[member] = nth(idOf(member)) end
    table.sort(members, function(a, b)
      if order[a] ~= order[b] then return order[a] > order[b] end
      return a > b
    end)
    -- The newest first, so that the oldest ends up in front, also when it takes several calls.
    for m, member in ipairs(members) do
      if done >= limit or not room() then break end
      done = done + 1
      local id = idOf(member)
      local attempts, fence, deaths, tally = marked(id)
      if leaving then
        mark(id, attempts, fence + 1, deaths, tally)
        putBack(id, deaths)
        moved = moved + 1
      elseif deaths + 1 < most then
        mark(id, attempts + 1, fence + 1, deaths + 1, tally)
        putBack(id, deaths + 1)
        moved = moved + 1
      else
        local text = read({id})[1]
        if text then
          local message = parsed(text)
          bury('CrashLoop', 'delivered ' .. deaths + 1 .. ' times to consumers that died or stalled', attempts + 1,
            fence + 1, message.id or id, message.at or string.match(id, '^%d+') or '0', id, consumer, fieldsOf(message), 1,
            isPartial(tally), '')
          buried[#buried + 1] = {member, attempts + 1, weigh(text)}
          redis.call('HDEL', marks, id)
          forget({id})
        else
          -- The next that takes counts it among those that are gone.
          putBack(id, deaths)
          moved = moved + 1
        end
      end
      redis.call('SREM', processing, member)
    end
    if moved + #buried > before and not leaving then from[#from + 1] = consumer end
    if redis.call('EXISTS', processing) == 0 then
      redis.call('ZREM', consumers, consumer)
      redis.call('HDEL', state, 'oldest:' .. consumer, 'gone:' .. consumer, 'lease:' .. consumer, 'quiet:' .. consumer)
    end
  end
end
if moved > 0 then wake(0) end
return {'OK', moved, from, buried, #buried > 0 and keepDead(ARGV[4], tonumber(ARGV[5]), now) or 0,
  (done >= limit or not room()) and 1 or 0}
`
  }

  return { join, beat, vacate }
}
