/**
 * How messages enter the topic: published in batches, all of a batch or none and once however often the script runs for it, or
 * written by other programs as plain keys and copied, each version of a key once.
 *
 * @module
 */
import { make, number, opener } from "../connection/Script.ts"
import { coalesced, type Storage } from "../publish/PublishScript.ts"
import { keys } from "../wire/Keys.ts"
import { clock, opening } from "../wire/Lua.ts"
import { envelopes, part, records } from "../wire/PackedMessage.ts"
import { numbering } from "./Numbers.ts"

/** The name of the pattern in the topic's meta key. */
export const pattern = "keyspace"

/**
 * `isOpen(place)`: whether the message is still there, and a group has yet to settle it: of those that are noted after its number or, if
 * none are, there was none when it was published. Uses the locals `numbers` and `groups`, the keys.
 */
export const opens = /* lua */ `
local function isOpen(place)
  local number, rest = string.match(place, '^(%S+)(.*)$')
  if redis.call('EXISTS', string.gsub(numbers, 'numbers$', 'message:#') .. number) == 0 then return false end
  if rest == '' then return true end
  for name in string.gmatch(rest, '%S+') do
    if redis.call('SISMEMBER', groups, name) == 1 then return true end
  end
  return false
end
`

/** `setting`: how long a message lives, ms. Storing announces itself; delaying does not. */
export const storage: Storage = {
  keys: keys("numbers", "groups"),
  noting: "owing()",
  naming: { keys: keys("ownIds"), lua: "call('ZADD', ownIds, member and '-' .. member or name, id)" },
  lua: `${records}${opens}`,
  opening: /* lua */ `${numbering}
  load()
  local stored, at = last, digits(now())
  -- The record of a message that is only a payload.
  local plain = string.char(${48 + part.at}) .. #at .. ',\\n' .. at
  local function stateOf(place)
    if string.byte(place) ~= 100 then return isOpen(place) and 'o' end
    return call('ZSCORE', delayed, string.match(place, '^d(%S+)')) and 'd'
  end
  local function standing(id)
    local member = '${coalesced}' .. id
    if call('ZSCORE', delayed, member) then return 'd', member end
  end
  local function replace(_, member, payload, id, headers, key, version)
    local before = parsed(string.match(call('HGET', delayedBodies, member) or '', '^%d+ (.*)$') or '')
    local first = tonumber(before.at) or now()
    call('HSET', delayedBodies, member, setting .. ' ' .. record(payload, id, headers, key, version, digits(first)))
    return first
  end
  local owed
  local function owing()
    if not owed then
      local names = call('SMEMBERS', groups)
      owed = #names > 0 and ' ' .. table.concat(names, ' ') or ''
    end
    return owed
  end
  local function store(payload, id, headers, key, version)
    if not (id or headers or key or version) then return add(plain .. payload, setting) end
    return add(record(payload, id, headers, key, version, at), setting)
  end
  local function delay(payload, id, headers, key, version, _, coalesces)
    local name, member = numbered(meta)
    return name, coalesces and '${coalesced}' .. id or member, setting .. ' ' .. record(payload, id or name, headers, key, version, at)
  end
  local function finish()
    if last > stored then note() end
  end
`
}

/**
 * Copies keys that other programs have written: their values become messages with the same expiry, under numbers of their own, so
 * that writing a key again or deleting it takes nothing back. A version that was copied before is recognised by its value and
 * expiry; a key without one gets the lifetime of our own messages.
 *
 * Further keys, for each: the key, and the mark of the version that was copied.
 */
export const adopt = make({
  name: "waybill/keyspace-adopt",
  mode: "writes",
  keys: keys("meta", "numbers"),
  args: {
    ...opener,
    /** How long a message lives that does not say, ms. */
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
local conflict, opened = opening(meta)
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
