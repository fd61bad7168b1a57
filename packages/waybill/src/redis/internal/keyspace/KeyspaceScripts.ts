/**
 * How messages come to be in the topic: published in batches, all of a batch or none and once however often the script
 * runs for it, or written by others as plain keys and taken in, each version of a key once.
 *
 * @module
 */
import { make, number, opener } from "../connection/Script.ts"
import type { Storage } from "../publish/PublishScript.ts"
import { keys } from "../wire/Keys.ts"
import { clock, opening } from "../wire/Lua.ts"
import { envelopes, part, records } from "../wire/PackedMessage.ts"
import { numbering } from "./Numbers.ts"

/** The name of the pattern in the topic's meta key. */
export const pattern = "keyspace"

/** `setting`: for how long a message lives, ms. What is stored announces itself; what waits does not. */
export const storage: Storage = {
  keys: keys("numbers"),
  lua: records,
  opening: /* lua */ `${numbering}
  load()
  local stored, at = last, digits(now())
  -- The record of a message that is nothing but its payload.
  local plain = string.char(${48 + part.at}) .. #at .. ',\\n' .. at
  local function store(payload, id, headers, key, version)
    if not (id or headers or key or version) then return add(plain .. payload, setting) end
    return add(record(payload, id, headers, key, version, at), setting)
  end
  local function delay(payload, id, headers, key, version)
    local name, member = numbered(meta)
    return name, member, setting .. ' ' .. record(payload, id or name, headers, key, version, at)
  end
  local function finish()
    if last > stored then note() end
  end
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
    ...opener,
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
