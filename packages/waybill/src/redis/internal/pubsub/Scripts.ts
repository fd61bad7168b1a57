/**
 * What a topic that stores no messages still has in the store: that it was opened, its subscribers, and the dead letters.
 *
 * @module
 */
import { flag, make, number, opener } from "../connection/Script.ts"
import { member } from "../group/Beat.ts"
import { counting, deadLettering, keeping, redriving, unclaiming } from "../inspect/DeadLetterScripts.ts"
import { figures } from "../inspect/Figures.ts"
import { places } from "../inspect/MessagePlaces.ts"
import { bodyOf, occupying, removal } from "../inspect/Removal.ts"
import { marker } from "../wire/Envelope.ts"
import { keys } from "../wire/Keys.ts"
import { add, cap, clock, heartbeats, opening, tallies } from "../wire/Lua.ts"

/** The name of the pattern in the topic's meta key. */
export const pattern = "pubsub"

/** `open()`: a reply if the topic was opened as something else; otherwise nil, and whether it was opened now. */
const open = /* lua */ `${opening}
local function open()
  local conflict, opened = opening(meta)
  if conflict or opened then return conflict, 0 end
  redis.call('HSET', meta, 'pattern', pattern, 'wire', wire)
  return nil, 1
end
`

/** Publishes a batch in order: all of it or nothing. Further arguments: the messages. */
const publishWith = (command: "PUBLISH" | "SPUBLISH") =>
  make({
    name: "waybill/announce",
    mode: "drains",
    announces: { command, key: "channel" },
    keys: keys("meta", "channel"),
    args: opener,
    replies: {
      OK: {
        /** The topic was opened by this. */
        isNew: flag
      }
    },
    lua: /* lua */ `${open}
local conflict, new = open()
if conflict then return conflict end
local call = redis.call
for i = moreArgs + 1, #ARGV do call('${command}', channel, ARGV[i]) end
return {'OK', new}
`
  })
export const publish = { PUBLISH: publishWith("PUBLISH"), SPUBLISH: publishWith("SPUBLISH") }

/**
 * Tells that a subscriber lives and what it holds, and asks whether its group is paused. Forgets subscribers that have
 * been silent for too long, some at a time.
 */
export const beat = make({
  name: "waybill/listen",
  mode: "drains",
  keys: keys("meta", "groups", "consumers", "state", "dead", "deadIds"),
  args: {
    ...opener,
    ...member,
    /** How many deliveries it holds, and how many wait for their next attempt. */
    holds: "text",
    waits: "text",
    /** In how many ms the first of these is due, or -1. */
    due: "number",
    /** For how many ms it has held its oldest delivery, or -1. */
    held: "number",
    ...cap,
    /** 1: it knows that the group is paused, and begins nothing. */
    quiet: "text",
    /** 1: it has hooks for dead letters. */
    hooks: "text"
  },
  replies: {
    OK: {
      /** The topic was opened by this. */
      isNew: flag,
      paused: flag,
      /** How many dead letters the cap dropped. */
      dropped: number,
      /** Its hooks may have dead letters to claim. */
      unclaimed: flag
    }
  },
  lua: /* lua */ `${clock}${opening}${heartbeats}${places}${keeping}${unclaiming}
local conflict, opened = opening(meta)
if conflict then return conflict end
-- Everything is read before anything is written.
local gone = redis.call('ZRANGEBYSCORE', consumers, '-inf', clock(), 'LIMIT', 0, 16)
local before = redis.call('HGET', state, 'held:' .. consumer)
redis.call('XLEN', dead)
redis.call('ZRANGE', deadIds, 1, 0)
redis.call('SADD', groups, group)
if not opened then redis.call('HSET', meta, 'pattern', pattern, 'wire', wire) end
local now = clock()
live(now)
correct(now)
local told = holds .. ' ' .. waits .. ' ' .. (due < 0 and '-1' or string.format('%.0f', now + due)) .. ' '
  .. (held < 0 and '-1' or string.format('%.0f', now - held))
if told ~= before then redis.call('HSET', state, 'held:' .. consumer, told) end
for _, name in ipairs(gone) do
  if name ~= consumer then
    redis.call('ZREM', consumers, name)
    redis.call('HDEL', state, 'held:' .. name, 'lease:' .. name, 'quiet:' .. name)
  end
end
return {'OK', opened and 0 or 1, paused(quiet), keepDead(maxCount, maxAgeMillis, now), hooks == '1' and unclaimed(now) or 0}
`
})

/**
 * Stores dead letters. A repeated batch is recognised by its number, which `publisher` holds.
 *
 * Further arguments, for each letter: reason, cause, tally, failure, attempts, fence, id, publishing time, topic,
 * number of fields, and the fields.
 */
export const deadLetter = make({
  name: "waybill/dead-letter",
  mode: "drains",
  keys: keys("dead", "deadIds", "state", "publisher"),
  args: {
    consumer: "text",
    ...cap,
    /** Number of the batch, and how long it is remembered, ms. */
    batch: "text",
    ttl: "number"
  },
  replies: {
    OK: {
      /** How many dead letters the cap dropped. */
      dropped: number
    }
  },
  lua: /* lua */ `${clock}${add}${tallies}${deadLettering}${keeping}
redis.call('XLEN', dead)
redis.call('ZRANGE', deadIds, 1, 0)
redis.call('HEXISTS', state, '')
if redis.call('GET', publisher) == batch then return {'OK', 0} end
local now, i = clock(), moreArgs + 1
while i <= #ARGV do
  local reason, cause, tally, failure, attempts, fence, id, at, topic = unpack(ARGV, i, i + 8)
  local count, raw = tonumber(ARGV[i + 9]), {}
  for f = 1, count do raw[f] = ARGV[i + 9 + f] end
  deadLetter(reason, cause, attempts, fence, id, at, topic, consumer, raw, 1, timed(tally, now), failure)
  i = i + 10 + count
end
redis.call('SET', publisher, batch, 'PX', ttl)
return {'OK', keepDead(maxCount, maxAgeMillis, now)}
`
})

/** A group as reported by its subscribers. `lag` is 0, and `reached` is "": unknown. */
export const describe = make({
  name: "waybill/describe",
  mode: "reads",
  keys: keys("consumers", "state", "dead"),
  replies: { OK: figures },
  lua: /* lua */ `${clock}${counting}
touch()
local now = clock()
local pending, waiting, next, oldest, living = 0, 0, -1, 0, {}
local alive = redis.call('ZRANGEBYSCORE', consumers, string.format('(%.0f', now), '+inf', 'WITHSCORES')
for i = 1, #alive, 2 do
  local name = alive[i]
  local told = redis.call('HGET', state, 'held:' .. name) or ''
  local held, waits, due, since = string.match(told, '^(%d+) (%d+) (%-?%d+) (%-?%d+)$')
  held, waits, due, since = tonumber(held or '0'), tonumber(waits or '0'), tonumber(due or '-1'), tonumber(since or '-1')
  if since >= 0 then oldest = math.max(oldest, now - since) end
  pending, waiting = pending + held, waiting + waits
  if due >= 0 and (next < 0 or due < next) then next = due end
  living[#living + 1] = name
  living[#living + 1] = held
  living[#living + 1] = tonumber(alive[i + 1]) - now
end
local noted = redis.call('HMGET', state, 'dropped', 'paused')
local letters, old = deadCount(dead, state, now)
return {'OK', 0, pending, oldest, waiting, next, letters, tonumber(noted[1] or '0'), noted[2] and 1 or 0, living, '', old, '', -1}
`
})

/** Deletes a group that has no subscriber, with its dead letters. */
export const retire = make({
  name: "waybill/retire",
  mode: "drains",
  keys: keys("groups", "consumers", "state", "dead", "deadIds"),
  args: { group: "text" },
  replies: { OK: {} },
  lua: /* lua */ `${clock}${occupying}
redis.call('XLEN', dead)
local refused = occupied(group, clock())
if refused then return refused end
redis.call('SREM', groups, group)
redis.call('UNLINK', consumers, state, dead, deadIds)
return {'OK'}
`
})

/** Dead letters are all that is stored of messages. */
export const remove = removal("waybill/remove", "return {'OK', '', 0, 0}", bodyOf(describe))

/**
 * Publishes dead letters to the subscribers of their group. One that no subscriber receives stays where it is. The caller need not
 * know the kind of the group's channels: no subscriber listens on both.
 */
export const redrive = redriving({
  name: "waybill/redrive",
  announces: { command: "PUBLISH", key: "redriven" },
  keys: keys("dead", "deadIds", "redriven", "state"),
  lua: /* lua */ `
local function heard(message)
  local plain = redis.pcall('PUBLISH', redriven, message)
  if plain == 0 or type(plain) == 'table' then
    local sharded = redis.pcall('SPUBLISH', redriven, message)
    -- Permission for one of them is enough.
    if type(sharded) ~= 'table' then return sharded > 0 end
    if type(plain) == 'table' then error(plain) end
  end
  return plain > 0
end
local function back(entry, f, from, head)
  head = head or {}
  local message = {}
  for n = from, #f - 1, 2 do message[f[n]] = f[n + 1] end
  if message['packed'] then
    local raw = cmsgpack.unpack(message['packed'])
    for n = 1, #raw, 2 do message[raw[n]] = raw[n + 1] end
  end
  local line = '{"id":' .. cjson.encode(head.id or entry) .. ',"fence":' .. (tonumber(head.fence) or 0)
  if string.find(head.at or '', '^%d+$') then line = line .. ',"at":' .. head.at end
  if head.origin then line = line .. ',"topic":' .. cjson.encode(head.origin) end
  if message['key'] then line = line .. ',"key":' .. cjson.encode(message['key']) end
  if string.find(message['v'] or '', '^%d+$') then line = line .. ',"v":' .. message['v'] end
  if string.find(message['headers'] or '', '^{') then line = line .. ',"headers":' .. message['headers'] end
  return heard('${marker}' .. line .. '}\\n' .. (message['payload'] or ''))
end
`
})

/** A leaving subscriber has nothing more to report. */
export const leave = make({
  name: "waybill/hang-up",
  mode: "drains",
  keys: keys("consumers", "state"),
  args: { consumer: "text" },
  replies: { OK: {} },
  lua: /* lua */ `
touch()
redis.call('ZREM', consumers, consumer)
redis.call('HDEL', state, 'held:' .. consumer, 'lease:' .. consumer, 'quiet:' .. consumer)
return {'OK'}
`
})
