import { make, number, type Script } from "../connection/Script.ts"
import { shape } from "../publish/Publisher.ts"
import { keys } from "../wire/Keys.ts"
import { announce, clock, mismatch, opening, writes } from "../wire/Lua.ts"
/**
 * How messages come to be in the topic: published in batches, all of a batch or none and once however often the script
 * runs for it, or written by others as plain keys and taken in, each version of a key once.
 *
 * @module
 */
import { envelopes, part, records } from "../wire/PackedMessage.ts"
import { numbering } from "./Numbers.ts"

/** The name of the pattern in the topic's meta key. */
export const pattern = "keyspace"

/**
 * Stores messages, or answers what it answered before when the batch was stored already.
 *
 * | KEYS | |
 * |---|---|
 * | 1 | meta |
 * | 2 | publisher: the number of its last batch and the answer to it |
 * | 3, 4 | delayed, and their bodies |
 * | 5 | numbers |
 * | 6 | the channel `wake` |
 * | 7... | for each message with an id: the marker that it was stored |
 *
 * | ARGV | |
 * |---|---|
 * | 1 to 5, 7... | as `Publishing` says |
 * | 6 | for how long a message lives, ms |
 *
 * | reply | |
 * |---|---|
 * | `OK`, answers, new | answers joined by commas: the id of the message; `+` when the caller gave it; `=` for a duplicate. new = 1: the topic was not there before |
 * | `CONFLICT`, pattern, wire | the topic was opened as something else |
 * | `STALE` | a later batch of this publisher was stored already: this one was given up, and changes nothing |
 * | `WRONGTYPE`, key, found | |
 */
export const publish: Script = {
  name: "waybill/keyspace-publish",
  lua: `${writes}${mismatch}${clock}${announce}
local meta, publisher, delayed, bodies, numbers = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local shapes, ttl = ARGV[7], ARGV[6]
local opened, before
local function look()
  opened, before = redis.call('HMGET', meta, 'pattern', 'wire'), redis.call('GETRANGE', publisher, 0, 19)
  redis.call('GETRANGE', numbers, 0, 0)
  if string.find(shapes, '[@-o]') then
    redis.call('ZRANGE', delayed, 1, 0)
    redis.call('HEXISTS', bodies, '')
  end
end
local fine, why = pcall(look)
if not fine then
  return mismatch(meta, 'hash') or mismatch(publisher, 'string') or mismatch(numbers, 'string')
    or mismatch(delayed, 'zset') or mismatch(bodies, 'hash') or error(why)
end
if opened[1] and (opened[1] ~= ARGV[1] or opened[2] ~= ARGV[2]) then
  return {'CONFLICT', opened[1], opened[2] or ''}
end
if before ~= '' then
  local number = string.match(before, '^%d+')
  if number == ARGV[3] then
    return {'OK', string.sub(redis.call('GET', publisher), #number + 2), 0}
  end
  if tonumber(number) > tonumber(ARGV[3]) then return {'STALE'} end
end
${numbering}
load()
if not opened[1] then redis.call('HSET', meta, 'pattern', ARGV[1], 'wire', ARGV[2]) end

${records}
local band, byte = bit.band, string.byte
local now = clock()
local at = digits(now)
-- The record of a message that is nothing but its payload.
local plain = string.char(${48 + part.at}) .. #at .. ',\\n' .. at
local answers = {}
local arg, mark, stored, soonest = 8, 7, last, nil
for i = 1, #shapes do
  local shape = byte(shapes, i) - 48
  local payload = ARGV[arg]
  arg = arg + 1
  if shape == 0 then
    answers[i] = add(plain .. payload, ttl)
  else
    local id, headers, key, version, due
    if band(shape, ${shape.id}) ~= 0 then id = ARGV[arg]; arg = arg + 1 end
    if band(shape, ${shape.headers}) ~= 0 then headers = ARGV[arg]; arg = arg + 1 end
    if band(shape, ${shape.key}) ~= 0 then key = ARGV[arg]; arg = arg + 1 end
    if band(shape, ${shape.version}) ~= 0 then version = ARGV[arg]; arg = arg + 1 end
    if band(shape, ${shape.after + shape.at}) ~= 0 then
      due = tonumber(ARGV[arg])
      if band(shape, ${shape.after}) ~= 0 then due = now + due end
      arg = arg + 1
    end
    local seen
    if id then seen = KEYS[mark]; mark = mark + 1 end
    if seen and call('EXISTS', seen) == 1 then
      answers[i] = '='
    else
      if due and due > now then
        local number = call('HINCRBY', meta, 'delayed', 1)
        answers[i] = '+'
        if not id then
          id = string.format('%.0f-d%d', now, number)
          answers[i] = id
        end
        -- Padded, so that messages which are due in the same millisecond keep their order.
        local member = string.format('%012d', number)
        call('HSET', bodies, member, ttl .. ' ' .. record(payload, id, headers, key, version, at))
        call('ZADD', delayed, due, member)
        soonest = math.min(soonest or due, due)
      else
        local number = add(record(payload, id, headers, key, version, at), ttl)
        answers[i] = id and '+' or number
      end
      if seen then call('SET', seen, '1', 'PX', ARGV[5]) end
    end
  end
end
if last > stored then note() end
local answer = table.concat(answers, ',')
call('SET', publisher, ARGV[3] .. ' ' .. answer, 'PX', ARGV[4])
-- What is stored announces itself; what waits does not.
if soonest then announce(KEYS[6], soonest - now) end
return {'OK', answer, opened[1] and 0 or 1}
`
}

/**
 * Takes keys in that others have written: what they hold becomes a message with the same expiry, under a number of its
 * own, so that writing the key again or deleting it takes nothing back. What was taken in before is known by its value and its
 * expiry; a key without one gets the time that our own messages have.
 *
 * Further keys, for each: the key, and the mark of what was taken in from it.
 */
export const adopt = make({
  name: "waybill/keyspace-adopt",
  mode: "writes",
  keys: keys("meta", "numbers"),
  args: {
    pattern: "text",
    wire: "text",
    /** For how long a message lives that says nothing about it, ms. */
    ttl: "number"
  },
  replies: {
    OK: {
      /** How many were new. */
      count: number
    }
  },
  lua: /* lua */ `${clock}${opening}
touch()
for i = moreKeys + 2, #KEYS, 2 do redis.call('GETRANGE', KEYS[i], 0, 0) end
local conflict, opened = opening()
if conflict then return conflict end
${numbering}${records}${envelopes}
load()
local now = clock()
local at = digits(now)
local stored = last
for i = moreKeys + 1, #KEYS, 2 do
  -- A key that holds no string is not a message, and one that is gone was a message for too short a time.
  local value = redis.call('TYPE', KEYS[i]).ok == 'string' and redis.call('GET', KEYS[i])
  if value then
    local expires = redis.call('PEXPIRETIME', KEYS[i])
    if expires < 0 then
      expires = now + ttl
      redis.call('PEXPIREAT', KEYS[i], digits(expires))
    end
    local mark = redis.sha1hex(value) .. ' ' .. digits(expires)
    if expires > now and redis.call('GET', KEYS[i + 1]) ~= mark then
      add(recordOf(value, at), digits(expires - now))
      redis.call('SET', KEYS[i + 1], mark, 'PXAT', digits(expires))
    end
  end
end
if last > stored then
  note()
  if not opened then redis.call('HSET', meta, 'pattern', pattern, 'wire', wire) end
end
return {'OK', last - stored}
`
})
