/**
 * The messages of a topic are numbered without holes, and each is a key named after its number: the numbers are the
 * index. Order, catching up and counting expired messages need no other key.
 *
 * @module
 */

/**
 * Lua for a script with the key `numbers`. `load()` comes first, once it is known that the key is ours; then `add(record, ttl)` stores
 * the next message and returns its number as text, and `note()` stores the numbers, once, after the last: the event for that
 * change wakes waiting consumers, once per batch. `name(number)` is the key of a message, `digits(number)` the number as
 * text.
 *
 * `base` is where the numbers began: the clock, in microseconds. If the key is lost, numbering begins again above every number
 * that was ever assigned, and no group waits for earlier ones.
 *
 * `first` is the lowest number whose message may exist. Each call moves it over expired ones, faster than numbers are
 * assigned, so that a group that catches up does not begin with a long way over nothing.
 *
 * The keys of messages cannot be among KEYS, because the script itself finds their numbers. They share the hash tag.
 */
export const numbering = /* lua */ `
local message = string.gsub(numbers, 'numbers$', 'message:#')
local format, call = string.format, redis.call
local function digits(number) return format('%.0f', number) end
local function name(number) return message .. digits(number) end
local base, first, last
local function load()
  if base then return end
  local b, f, l = string.match(redis.call('GET', numbers) or '', '^(%d+) (%d+) (%d+)$')
  base, first, last = tonumber(b), tonumber(f), tonumber(l)
  if not base then
    local t = redis.call('TIME')
    base = t[1] * 1000000 + t[2]
    first, last = base + 1, base
  end
end
local function add(record, ttl)
  last = last + 1
  local number = digits(last)
  call('SET', message .. number, record, 'PX', ttl)
  return number
end
-- How many messages from this number on are gone in a row; about that many are checked.
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
  redis.call('SET', numbers, digits(base) .. ' ' .. digits(first) .. ' ' .. digits(last))
end
`
