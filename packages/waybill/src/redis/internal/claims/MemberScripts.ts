/**
 * How consumers belong to a group that keeps claims: they join, live, and leave or die. A consumer whose heartbeat has expired
 * loses its whole set in one step.
 *
 * @module
 */
import { cancelled as ended } from "../../../Settlement.ts"
import { flag, listOf, make as script, number, opener, row, text } from "../connection/Script.ts"
import { beatArgs, beaten, member } from "../group/Beat.ts"
import { deadLettering, keeping, unclaiming } from "../inspect/DeadLetterScripts.ts"
import { places } from "../inspect/MessagePlaces.ts"
import { keys } from "../wire/Keys.ts"
import { add, cap, clock, fetching, filtering, heartbeats, opening, tallies, weighing } from "../wire/Lua.ts"
import { records } from "../wire/PackedMessage.ts"
import { heads, marking, nth } from "./AttemptLog.ts"
import type { Source } from "./Source.ts"

const join = (source: Source) =>
  script({
    name: `waybill/${source.pattern}/join`,
    mode: "drains",
    keys: {
      ...source.keys,
      ...keys("meta", "groups", "consumers", "state", "processing", "returned", "suspects", "marks", "waiting", "dead")
    },
    args: {
      ...opener,
      ...member,
      /** `earliest` or `latest`. */
      start: "text",
      setting: "text",
      /** The filter, "" for none. */
      only: "text"
    },
    replies: {
      OK: {
        /** The group existed. */
        known: flag
      }
      // And the refusals of `open`.
    },
    lua: /* lua */ `${clock}${opening}${records}${source.lua}${heartbeats}${filtering}
touch()
local conflict, opened = opening(meta)
if conflict then return conflict end
conflict = filtering(only)
if conflict then return conflict end
local known = redis.call('SISMEMBER', groups, group) == 1
local refused = open(group, start, known, setting)
if refused then return refused end
if not opened then redis.call('HSET', meta, 'pattern', pattern, 'wire', wire) end
redis.call('SADD', groups, group)
live(clock())
return {'OK', known and 1 or 0}
`
  })

/** Sends a heartbeat, brings in what is due, and looks for dead consumers. */
const beat = (source: Source) =>
  script({
    name: `waybill/${source.pattern}/beat`,
    mode: "drains",
    keys: {
      ...source.keys,
      ...keys(
        "groups",
        "consumers",
        "state",
        "waiting",
        "returned",
        "suspects",
        "marks",
        "dead",
        "deadIds",
        "omitted",
        "cancelled",
        "wake",
        "processing"
      )
    },
    args: beatArgs,
    replies: {
      OK: {
        ...beaten,
        /** How many could be taken now. */
        backlog: number,
        /** Consumers whose heartbeat has expired. */
        dead: listOf(text),
        /** Of the most urgent message that no consumer has, 0 if not tracked. */
        urgency: number,
        /** The consumer's deliveries that were cancelled. */
        cancelled: listOf(text)
      },
      /** Nothing was done. */
      NOGROUP: {}
    },
    lua: /* lua */ `${clock}${records}${weighing}${fetching}${source.lua}${places}${keeping}${unclaiming}${marking}${heartbeats}
if redis.call('SISMEMBER', groups, group) == 0 or refiltered(only) then return {'NOGROUP'} end
local now = clock()
-- Everything is read before anything is written.
local until_ = redis.call('ZSCORE', consumers, consumer)
local alive = until_ and tonumber(until_) > now
-- An idle group has none of them.
local rests = redis.call('EXISTS', waiting, returned, suspects, marks, dead, omitted, cancelled, processing, ${source.fleeting.join(", ")}) == 0
if not rests then touch() end
local left = rests and backlog()

live(now)
correct(now)
holding(age, now)
local again, moved, due, dropped, over = {}, 0, nil, 0, {}
if not rests then
  again = redis.call('ZRANGEBYSCORE', waiting, '-inf', now, 'LIMIT', 0, limit)
  for _, id in ipairs(again) do
    local _, _, deaths = marked(id)
    free(id, deaths)
  end
  if #again > 0 then redis.call('ZREM', waiting, unpack(again)) end
  moved, due = promote(now, limit)
  ${source.ranks ? "if moved > 0 and urgent() then press(urgency()) end" : ""}
  if #again + moved > 0 then tell(0) end
  local head = redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')[2]
  if head and (not due or tonumber(head) < due) then due = tonumber(head) end
  dropped = keepDead(maxCount, maxAgeMillis, now)
  for _, of in ipairs(redis.call('ZRANGE', cancelled, 0, 999)) do
    local member, holder = string.match(of, '^(%S+) (.*)$')
    if holder == consumer and redis.call('SISMEMBER', processing, member) == 1 then over[#over + 1] = member
    -- It has been settled. What a dead consumer holds is looked for when others are given it.
    elseif holder == consumer or not redis.call('ZSCORE', consumers, holder) then redis.call('ZREM', cancelled, of) end
  end
end
local held, most = 0, 0
if not rests then
  left = backlog() + redis.call('LLEN', returned) + redis.call('LLEN', suspects)
  held = redis.call('SCARD', processing)
  ${source.ranks ? "if urgent() then most = press(urgency(redis.call('LINDEX', returned, 0))) or 0 end" : ""}
end
return {'OK', alive and 1 or 0, paused(quiet), due and due <= now and 1 or 0,
  due and math.max(0, due - now) or -1, dropped, held, hooks == '1' and unclaimed(now) or 0, left,
  redis.call('ZRANGEBYSCORE', consumers, '-inf', now, 'LIMIT', 0, 16), most, over}
`
  })

const lastDelivery = row({ member: text, attempts: number, record: text })

/**
 * Takes everything from consumers: from the caller, which leaves and has finished none of it, or from those whose heartbeat
 * has expired. A message that too many have died with becomes a dead letter. A call stops at about a megabyte of dead letters.
 *
 * Further arguments: the consumers. Further keys: processing of each.
 */
const vacate = (source: Source) =>
  script({
    name: `waybill/${source.pattern}/vacate`,
    mode: "drains",
    keys: {
      ...source.keys,
      ...keys("consumers", "state", "returned", "suspects", "marks", "dead", "deadIds", "cancelled", "wake")
    },
    moreKeys: "set",
    args: {
      group: "text",
      /** `leave` or `dead`. */
      how: "text",
      /** How many deliveries at most. */
      limit: "number",
      /** How often a message may be delivered to consumers that die. */
      most: "number",
      ...cap
    },
    replies: {
      OK: {
        /** How many went to others. */
        moved: number,
        /** Whose they were. */
        from: listOf(text),
        deadLettered: listOf(lastDelivery),
        /** Dead letters, too. */
        cancelled: listOf(lastDelivery),
        /** How many dead letters the cap dropped. */
        dropped: number,
        /** Call again. */
        more: flag
      }
    },
    lua: /* lua */ `${clock}${add}${records}${source.lua}${tallies}${marking}${deadLettering}${keeping}${heads}${nth}${weighing}
local leaving = how == 'leave'
touch()
local now = clock()
local moved, from, deadLettered, over, done = 0, {}, {}, {}, 0
local cancels = redis.call('ZCARD', cancelled) > 0
for i = 1, #ARGV - moreArgs do
  local consumer, processing = ARGV[moreArgs + i], KEYS[moreKeys + i]
  local until_ = redis.call('ZSCORE', consumers, consumer)
  -- It may have come back to life since the caller's check.
  if leaving or (until_ and tonumber(until_) <= now) then
    local before = done
    local members = redis.call('SMEMBERS', processing)
    local order = {}
    for m, member in ipairs(members) do order[member] = nth(idOf(member)) end
    table.sort(members, function(a, b)
      if order[a] ~= order[b] then return order[a] > order[b] end
      return a > b
    end)
    -- The newest first, so that the oldest ends up in front, even if it takes several calls.
    for m, member in ipairs(members) do
      if done >= limit or not room() then break end
      done = done + 1
      local id = idOf(member)
      local attempts, fence, deaths, tally = marked(id)
      local after = died(tally or (attempts == deaths and '0;0;' or '0;0;?'), attempts + 1, consumer, now)
      local isOver = cancels and redis.call('ZREM', cancelled, member .. ' ' .. consumer) == 1
      if leaving and not isOver then
        mark(id, attempts, fence + 1, deaths, tally)
        putBack(id, deaths)
        moved = moved + 1
      elseif not isOver and deaths + 1 < most then
        mark(id, attempts + 1, fence + 1, deaths + 1, after)
        putBack(id, deaths + 1)
        moved = moved + 1
      else
        local text = read({id})[1]
        if text then
          local own, at = headOf(text, id)
          local reason, cause = 'CrashLoop', 'delivered ' .. deaths + 1 .. ' times to consumers that died or stalled'
          if isOver then reason, cause = '${ended.reason}', '${ended.cause}' end
          deadLetter(reason, cause, attempts + 1, fence + 1, own, at, id, consumer, fieldsOf(parsed(text)), 1,
            leaving and tally or after, '')
          local letters = isOver and over or deadLettered
          letters[#letters + 1] = {member, attempts + 1, weigh(text)}
          redis.call('HDEL', marks, id)
          forget({id})
          ${source.frees === true ? "if own ~= id then freed({id}, {own}, group) end" : ""}
        else
          -- The next take counts it as missing.
          putBack(id, deaths)
          moved = moved + 1
        end
      end
      redis.call('SREM', processing, member)
    end
    if done > before and not leaving then from[#from + 1] = consumer end
    if redis.call('EXISTS', processing) == 0 then
      local known = redis.call('ZREM', consumers, consumer) == 1
      -- Of a group that was retired nothing must be left.
      if known and leaving then redis.call('HSET', state, 'left', string.format('%.0f', now)) end
      redis.call('HDEL', state, 'oldest:' .. consumer, 'gone:' .. consumer, 'lease:' .. consumer, 'quiet:' .. consumer)
    end
  end
end
if moved > 0 then tell(0) end
return {'OK', moved, from, deadLettered, over, #deadLettered + #over > 0 and keepDead(maxCount, maxAgeMillis, now) or 0,
  (done >= limit or not room()) and 1 or 0}
`
  })

export const make = (source: Source) => ({
  join: join(source),
  beat: beat(source),
  vacate: vacate(source)
})
