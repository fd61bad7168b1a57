import type { Script } from "../connection/Script.ts"
/**
 * What a topic that stores no messages has in the store all the same: that it was opened, who listens, and the dead letters.
 *
 * @module
 */
import { aging, burying, counting, keeping } from "../inspect/DeadLetterScripts.ts"
import { bodyOf, removal } from "../inspect/Removal.ts"
import { add, clock, drains, heartbeats, mismatch, pausing, reads, weighing } from "../wire/Lua.ts"

/** The name of the pattern in the topic's meta key. */
export const pattern = "pubsub"

/** `open(meta)`: a reply when the topic was opened as something else; otherwise nil, and whether it was opened now. */
const open = `
local function open(meta)
  local wrong = mismatch(meta, 'hash')
  if wrong then return wrong end
  local opened = redis.call('HMGET', meta, 'pattern', 'wire')
  if opened[1] and (opened[1] ~= ARGV[1] or opened[2] ~= ARGV[2]) then
    return {'CONFLICT', opened[1], opened[2] or ''}
  end
  if opened[1] then return nil, 0 end
  redis.call('HSET', meta, 'pattern', ARGV[1], 'wire', ARGV[2])
  return nil, 1
end
`

/**
 * Publishes a batch in order: all of it or nothing.
 *
 * | KEYS | |
 * |---|---|
 * | 1, 2 | meta, channel |
 *
 * | ARGV | |
 * |---|---|
 * | 1, 2 | pattern and wire version |
 * | 3... | the messages |
 *
 * | reply | |
 * |---|---|
 * | `OK`, new | new = 1: the topic was opened by this |
 * | `CONFLICT`, pattern, wire | the topic was opened as something else |
 * | `WRONGTYPE`, key, found | |
 */
const publishWith = (command: "PUBLISH" | "SPUBLISH"): Script => ({
  name: "waybill/announce",
  announces: { command, key: 2 },
  lua: `${drains}${mismatch}${open}
local wrong, new = open(KEYS[1])
if wrong then return wrong end
local channel, command = KEYS[2], '${command}'
local call = redis.call
for i = 3, #ARGV do call(command, channel, ARGV[i]) end
return {'OK', new}
`
})
export const publish = { PUBLISH: publishWith("PUBLISH"), SPUBLISH: publishWith("SPUBLISH") }

/**
 * Says that a subscriber lives, what it has in hand, and asks whether its group is paused. Forgets subscribers that have
 * been silent for too long, some at a time.
 *
 * | KEYS | |
 * |---|---|
 * | 1, 2 | meta, groups |
 * | 3, 4, 5 | consumers, state, dead letters |
 *
 * | ARGV | |
 * |---|---|
 * | 1, 2 | pattern and wire version |
 * | 3, 4 | group, consumer |
 * | 5 | for how long it counts as alive, ms |
 * | 6, 7 | how many deliveries it holds, how many wait for their next attempt |
 * | 8 | in how many ms the first of these is due, or -1 |
 * | 9 | for how many ms it has held the oldest of its deliveries, or -1 |
 * | 10, 11 | cap of the dead letters: how many, and for how long in ms |
 * | 12 | 1: it knows that the group is paused, and begins nothing |
 *
 * | reply | |
 * |---|---|
 * | `OK`, new, paused, dropped | new = 1: the topic was opened by this. dropped: dead letters the cap dropped |
 * | `CONFLICT`, pattern, wire | the topic was opened as something else |
 * | `WRONGTYPE`, key, found | |
 */
export const beat: Script = {
  name: "waybill/listen",
  lua: `${drains}${mismatch}${clock}${pausing}${open}
local groups, consumers, state, dead = KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local wrong = mismatch(groups, 'set') or mismatch(consumers, 'zset') or mismatch(state, 'hash') or mismatch(dead, 'stream')
local new
if not wrong then wrong, new = open(KEYS[1]) end
if wrong then return wrong end
local now = clock()
redis.call('SADD', groups, ARGV[3])
${heartbeats}
live(ARGV[4], tonumber(ARGV[5]), now)
correct(tonumber(ARGV[5]), now)
local due, held = tonumber(ARGV[8]), tonumber(ARGV[9])
redis.call('HSET', state, 'held:' .. ARGV[4], ARGV[6] .. ' ' .. ARGV[7] .. ' '
  .. (due < 0 and '-1' or string.format('%.0f', now + due)) .. ' '
  .. (held < 0 and '-1' or string.format('%.0f', now - held)))
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', consumers, '-inf', now, 'LIMIT', 0, 16)) do
  redis.call('ZREM', consumers, gone)
  redis.call('HDEL', state, 'held:' .. gone, 'lease:' .. gone, 'quiet:' .. gone)
end
${keeping}
return {'OK', new, paused(state, ARGV[4], ARGV[12]), keepDead(ARGV[10], tonumber(ARGV[11]), now)}
`
}

/**
 * Stores dead letters. A batch that is sent again is recognised by its number.
 *
 * | KEYS | |
 * |---|---|
 * | 1, 2, 3 | dead letters, state, the last batch of this subscriber |
 *
 * | ARGV | |
 * |---|---|
 * | 1 | consumer |
 * | 2, 3 | cap of the dead letters: how many, and for how long in ms |
 * | 4, 5 | number of the batch, and how long it is remembered, ms |
 * | 6... | for each letter: reason, cause, failure, attempts, fence, id, published at, topic, number of fields, and the fields |
 *
 * | reply | |
 * |---|---|
 * | `OK`, dropped | dead letters the cap dropped |
 * | `WRONGTYPE`, key, found | nothing was done |
 */
export const bury: Script = {
  name: "waybill/bury",
  lua: `${drains}${mismatch}${clock}${add}
local dead, state, last = KEYS[1], KEYS[2], KEYS[3]
local wrong = mismatch(dead, 'stream') or mismatch(state, 'hash') or mismatch(last, 'string')
if wrong then return wrong end
if redis.call('GET', last) == ARGV[4] then return {'OK', 0} end
${burying}${keeping}
local i = 6
while i <= #ARGV do
  local reason, cause, failure, attempts, fence, id, at, topic = unpack(ARGV, i, i + 7)
  local count, raw = tonumber(ARGV[i + 8]), {}
  for f = 1, count do raw[f] = ARGV[i + 8 + f] end
  bury(reason, cause, attempts, fence, id, at, topic, ARGV[1], raw, 1, false, failure)
  i = i + 9 + count
end
redis.call('SET', last, ARGV[4], 'PX', ARGV[5])
return {'OK', keepDead(ARGV[2], tonumber(ARGV[3]), clock())}
`
}

/**
 * A group as its subscribers have told.
 *
 * | KEYS | |
 * |---|---|
 * | 1, 2, 3 | consumers, state, dead letters |
 *
 * | reply | |
 * |---|---|
 * | `OK`, lag, pending, oldest, waiting, next, dead, dropped, paused, consumers, reached, old | lag is 0, and reached is "": it is not known. oldest: ms. next: when the next retry is due, -1 when none waits. consumers: name, pending, ms until it counts as gone, name... |
 * | `WRONGTYPE`, key, found | |
 */
export const describe: Script = {
  name: "waybill/describe",
  lua: `${reads}${mismatch}${clock}${counting}
local consumers, state, dead = KEYS[1], KEYS[2], KEYS[3]
local wrong = mismatch(consumers, 'zset') or mismatch(state, 'hash') or mismatch(dead, 'stream')
if wrong then return wrong end
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
return {'OK', 0, pending, oldest, waiting, next, letters, tonumber(noted[1] or '0'), noted[2] and 1 or 0, living, '', old}
`
}

/** What is stored of messages is dead letters alone. */
export const remove = removal("waybill/remove", "return {'OK', '', 0, 0}", bodyOf(describe))

/**
 * Publishes dead letters to the subscribers of their group. One that no subscriber hears stays where it is. A program that sends them
 * back need not know of which kind the group's channels are: no subscriber listens on both.
 *
 * | KEYS | |
 * |---|---|
 * | 1, 2, 3 | dead letters, the channel of what is sent back, state |
 *
 * | ARGV | |
 * |---|---|
 * | 1 | what the first line of a message begins with |
 * | 2... | their entries |
 *
 * | reply | |
 * |---|---|
 * | `OK`, count, passed | how many were there and were heard, of how many that were looked at: the others are for the next call |
 * | `WRONGTYPE`, key, found | |
 */
export const redrive: Script = {
  name: "waybill/redrive",
  announces: { command: "PUBLISH", key: 2 },
  lua: `${drains}${mismatch}${clock}${aging}${weighing}
local dead, channel, state = KEYS[1], KEYS[2], KEYS[3]
local wrong = mismatch(dead, 'stream') or mismatch(state, 'hash')
if wrong then return wrong end
local since = keptSince(state, clock())
local function heard(message)
  local plain = redis.pcall('PUBLISH', channel, message)
  if plain == 0 or type(plain) == 'table' then
    local sharded = redis.pcall('SPUBLISH', channel, message)
    -- Who may not use one of them gets along with the other.
    if type(sharded) ~= 'table' then return sharded > 0 end
    if type(plain) == 'table' then error(plain) end
  end
  return plain > 0
end
local count, passed = 0, 0
while passed < #ARGV - 1 and room() do
  passed = passed + 1
  local entry = ARGV[passed + 1]
  local letter = isKept(entry, since) and redis.call('XRANGE', dead, entry, entry)[1]
  if letter then
    weigh(letter[2])
    local head, message = {}, {}
    for f = 1, #letter[2], 2 do (f <= 16 and head or message)[letter[2][f]] = letter[2][f + 1] end
    if message['packed'] then
      local raw = cmsgpack.unpack(message['packed'])
      for f = 1, #raw, 2 do message[raw[f]] = raw[f + 1] end
    end
    local line = '{"id":' .. cjson.encode(head['id'] or entry) .. ',"fence":' .. (tonumber(head['fence']) or 0)
    if string.find(head['at'] or '', '^%d+$') then line = line .. ',"at":' .. head['at'] end
    if head['origin'] then line = line .. ',"topic":' .. cjson.encode(head['origin']) end
    if message['key'] then line = line .. ',"key":' .. cjson.encode(message['key']) end
    if string.find(message['v'] or '', '^%d+$') then line = line .. ',"v":' .. message['v'] end
    if string.find(message['headers'] or '', '^{') then line = line .. ',"headers":' .. message['headers'] end
    if heard(ARGV[1] .. line .. '}\\n' .. (message['payload'] or '')) then
      redis.call('XDEL', dead, entry)
      count = count + 1
    end
  end
end
return {'OK', count, passed}
`
}

/** Nothing is left to say of a subscriber that leaves. KEYS: consumers, state. ARGV: consumer. Replies `OK`. */
export const leave: Script = {
  name: "waybill/hang-up",
  lua: `${drains}${mismatch}
local wrong = mismatch(KEYS[1], 'zset') or mismatch(KEYS[2], 'hash')
if wrong then return wrong end
redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], 'held:' .. ARGV[1], 'lease:' .. ARGV[1], 'quiet:' .. ARGV[1])
return {'OK'}
`
}
