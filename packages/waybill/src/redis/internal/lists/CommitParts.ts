import { make as makeScripts } from "../claims/Scripts.ts"
import type { Source } from "../claims/Source.ts"
/**
 * Commits of deliveries from a queue: whose a delivery is, the group's claims say.
 *
 * @module
 */
import { commitScript } from "../commit/CommitScript.ts"
import { keys, type TopicKeys } from "../wire/Keys.ts"
import { records } from "../wire/PackedMessage.ts"
import * as ListSource from "./ListSource.ts"
import { incoming } from "./PublishScript.ts"

/** The name in the topic's meta key of the pattern that commits. */
export const pattern = "exactly-once"

/** The keys of a topic that messages go to, in the order of the script. */
export const targetOf = (keys: TopicKeys): ReadonlyArray<string> => [
  keys.high,
  keys.normal,
  keys.low,
  keys.bodies,
  keys.meta,
  keys.delayed,
  keys.delayedBodies,
  keys.wake
]

/** Argument of a delivery: its member in the processing set. */
const commitOf = (source: Source) =>
  commitScript({
    keys: { ...source.keys, ...keys("processing", "marks") },
    args: {
      pattern: "text",
      wire: "text",
      /** How long message ids are remembered, ms. */
      remembered: "text",
      /** Of the queue, or `any`. `priority`: the header of that name decides on the list. */
      asked: "text"
    },
    delivery: 1,
    lua: /* lua */ `${records}${source.lua}${incoming}
local left, ids, marked = {}, {}, {}
local owned = redis.call('SMISMEMBER', processing, unpack(ARGV, moreArgs + 1, moreArgs + deliveries))
local function owns(i)
  return owned[i - moreArgs] == 1
end
local function leave(i)
  local member = ARGV[i]
  local id = string.match(member, '^(.*)#%d+$')
  left[#left + 1] = member
  ids[#ids + 1] = id or member
  if id then marked[#marked + 1] = id end
end
local function leaving()
  if #left == 0 then return end
  redis.call('SREM', processing, unpack(left))
  if #marked > 0 then redis.call('HDEL', marks, unpack(marked)) end
  forget(ids)
end
local function objection(base)
  local wrong = mismatch(KEYS[base], 'list') or mismatch(KEYS[base + 1], 'list') or mismatch(KEYS[base + 2], 'list')
    or mismatch(KEYS[base + 3], 'hash') or mismatch(KEYS[base + 4], 'hash') or mismatch(KEYS[base + 5], 'zset')
    or mismatch(KEYS[base + 6], 'hash')
  if wrong then return wrong[2] .. ' is a ' .. wrong[3] end
  local opened = redis.call('HMGET', KEYS[base + 4], 'pattern', 'wire', 'order')
  if opened[1] and (opened[1] ~= pattern or opened[2] ~= wire) then
    return 'the topic is ' .. opened[1] .. ', wire version ' .. (opened[2] or '')
  end
  local other = disagreement(asked, opened[3])
  if other then return 'the topic is a queue in the order ' .. other[2] .. ', not ' .. other[3] end
end
local instant
local function append(base, shape, arg, seen)
  if seen and redis.call('EXISTS', seen) == 1 then return '=' end
  local meta = KEYS[base + 4]
  instant = instant or clock()
  local order = asked
  if order == 'any' then order = redis.call('HGET', meta, 'order') or 'priority' end
  local text, to, id, due = incoming(shape, arg, instant, order)
  local number = redis.pcall('HINCRBY', meta, 'last', 1)
  if type(number) == 'table' then return number end
  local opened = redis.call('HSETNX', meta, 'pattern', pattern) == 1
  if opened then redis.call('HSET', meta, 'wire', wire) end
  if asked ~= 'any' then redis.call('HSETNX', meta, 'order', order) end
  local entry = string.format('%.0f-%.0f', instant, number)
  if due then
    local member = string.format('%d:%015.0f:%s', to, number, entry)
    redis.call('HSET', KEYS[base + 6], member, text)
    redis.call('ZADD', KEYS[base + 5], due, member)
    redis.pcall('PUBLISH', KEYS[base + 7], string.format('%.0f', due - instant))
  else
    redis.call('HSET', KEYS[base + 3], entry, text)
    redis.call('RPUSH', KEYS[base + to - 1], entry)
    redis.pcall('PUBLISH', KEYS[base + 7], order == 'priority' and '0;' .. to or '0')
  end
  if seen then redis.call('SET', seen, '1', 'PX', remembered) end
  return id and '+' or entry, opened
end
`
  })

export type CommitScript = ReturnType<typeof commitOf>

const make = (order: ListSource.Order) => {
  const source = ListSource.make(pattern, order)
  return { scripts: makeScripts(source), commit: commitOf(source) }
}

const made = { fifo: make("fifo"), lifo: make("lifo"), priority: make("priority"), any: make("any") }

/** The scripts of `claims/`, and the one that applies commits. */
export const of = (order: ListSource.Order) => made[order]
