/**
 * The messages of a topic are numbered without holes, and a message is a key named after its number: the numbers are the
 * index. Order, catching up and counting what expired need no look at any other key.
 *
 * @module
 */

/**
 * Lua, for a script with the local `meta`. `load()` comes first, when it is known that nothing foreign lies there; then
 * `add(record, ttl)` stores the next message, and `note()` keeps the numbers, once, after the last. `name(number)` is the key of a
 * message, `digits(number)` the number as text.
 *
 * `base` is where the numbers began: the clock, in microseconds. Should the meta key be lost, they begin again above every
 * number that was ever given, and no group waits for what came before.
 *
 * `first` is the lowest number whose message may be there. Each call moves it on over what has expired, faster than numbers
 * are given, so that nobody who catches up begins with a long way over nothing.
 *
 * The keys of messages cannot be among KEYS: the script itself finds their numbers. They lie under the same hash tag.
 */
export const numbers = `
local message = string.sub(meta, 1, -5) .. 'message:n'
local function digits(number) return string.format('%.0f', number) end
local function name(number) return message .. digits(number) end
local base, first, last
local function load()
  if base then return end
  local found = redis.call('HMGET', meta, 'base', 'first', 'last')
  base, first, last = tonumber(found[1]), tonumber(found[2]), tonumber(found[3])
  if not (base and first and last) then
    local t = redis.call('TIME')
    base = t[1] * 1000000 + t[2]
    first, last = base + 1, base
  end
end
local function add(record, ttl)
  last = last + 1
  redis.call('SET', name(last), record, 'PX', ttl)
end
-- How many messages from this number on are gone, one after the other; about so many are looked at.
local function gone(from, most)
  local there, size = 0, 1
  while there < most and from + there <= last do
    local row = {}
    for number = from + there, math.min(from + there + size - 1, last) do row[#row + 1] = name(number) end
    if redis.call('EXISTS', unpack(row)) > 0 then
      for _, key in ipairs(row) do
        if redis.call('EXISTS', key) == 1 then return there end
        there = there + 1
      end
    end
    there = there + #row
    size = math.min(2 * size, 128)
  end
  return there
end
local function note()
  first = first + gone(first, 2000)
  redis.call('HSET', meta, 'base', digits(base), 'first', digits(first), 'last', digits(last))
end
`
