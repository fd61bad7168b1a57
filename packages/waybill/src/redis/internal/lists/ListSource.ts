/**
 * Where the messages of a queue come from: lists of ids, most urgent first, with the messages in a hash beside them. A
 * queue has one group, the first that joins.
 *
 * @module
 */
import type { Delivery } from "../../../Delivery.ts"
import { make as makeScripts } from "../claims/Scripts.ts"
import type { Source } from "../claims/Source.ts"
import type { TopicKeys } from "../wire/Keys.ts"
import { envelopes } from "../wire/PackedMessage.ts"

export type Order = "fifo" | "lifo" | "priority" | "any"

/** The keys of the source, in the order in which its Lua names them. */
export const keysOf = (keys: TopicKeys): ReadonlyArray<string> => [
  keys.ready.high,
  keys.ready.normal,
  keys.ready.low,
  keys.bodies,
  keys.delayed,
  keys.delayedBodies,
  keys.inbox,
  keys.meta
]

/** `levelOf(headers)`: the number of the list for a message with these headers, where priorities count. */
export const levels = `
local function levelOf(headers)
  local ok, parsed = pcall(cjson.decode, headers or '')
  local priority = ok and type(parsed) == 'table' and parsed.priority
  return priority == 'high' and 1 or priority == 'low' and 3 or 2
end
`

/**
 * `disagreement(order, found)`: the reply when the queue has another order than the one that is asked for, or nil. A queue that an
 * older version has opened has none yet, and takes the first that is asked for.
 */
export const disagreement = `
local function disagreement(order, found)
  if found and order ~= 'any' and order ~= found then return {'ORDERED', found, order} end
end
`

/**
 * In `meta`, `last` counts the messages, `group` names the group that the queue belongs to, and `order` says who is next.
 * `any` is the order that the queue has.
 */
const lua = (order: Order) => `${envelopes}${levels}${disagreement}
local queueOrder
local function order()
  queueOrder = queueOrder or redis.call('HGET', KEYS[8], 'order') or '${order === "any" ? "fifo" : order}'
  return queueOrder
end
local function foreign()
  return mismatch(KEYS[1], 'list') or mismatch(KEYS[2], 'list') or mismatch(KEYS[3], 'list') or mismatch(KEYS[4], 'hash')
    or mismatch(KEYS[5], 'zset') or mismatch(KEYS[6], 'hash') or mismatch(KEYS[7], 'list') or mismatch(KEYS[8], 'hash')
end
local function open(group, start, known)
  local noted = redis.call('HMGET', KEYS[8], 'group', 'order')
  local owner = noted[1]
  if owner and owner ~= group then return {'OWNED', owner, group} end
  local refused = disagreement('${order}', noted[2])
  if refused then return refused end
  if not noted[2] and '${order}' ~= 'any' then redis.call('HSET', KEYS[8], 'order', '${order}') end
  if owner then return end
  redis.call('HSET', KEYS[8], 'group', group)
  -- Whatever was stored before is not for this group. Delayed messages come later than the group.
  if start == 'latest' then redis.call('UNLINK', KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[7]) end
end
-- What others wrote gets an id, and its place behind what is ready.
local adopted
local function adopt(n)
  if adopted then return end
  local bodies = redis.call('LPOP', KEYS[7], n)
  adopted = not bodies
  if adopted then return end
  local last, now = redis.call('HINCRBY', KEYS[8], 'last', #bodies), string.format('%.0f', clock())
  for i, body in ipairs(bodies) do
    local id = now .. '-' .. string.format('%.0f', last - #bodies + i)
    local text = recordOf(body)
    redis.call('HSET', KEYS[4], id, text)
    redis.call('RPUSH', KEYS[order() == 'priority' and levelOf(parsed(text).headers) or 2], id)
  end
end
local function fresh(n, urgency)
  adopt(n)
  if urgency then return redis.call('LPOP', KEYS[urgency], n) or {} end
  local pop = order() == 'lifo' and 'RPOP' or 'LPOP'
  local ids = redis.call(pop, KEYS[1], n) or {}
  for k = 2, 3 do
    if #ids == n then break end
    local more = redis.call(pop, KEYS[k], n - #ids)
    if more then
      if #ids == 0 then ids = more else for _, id in ipairs(more) do ids[#ids + 1] = id end end
    end
  end
  return ids
end
local function urgencyOf(record)
  return levelOf(parsed(record).headers)
end
local function read(ids)
  return redis.call('HMGET', KEYS[4], unpack(ids))
end
-- Of what comes back in one call about a megabyte is looked at.
local weighed = 0
local function pressing(id)
  if order() ~= 'priority' or weighed > 1048576 then return end
  local record = read({id})[1]
  if not record then return end
  weighed = weighed + #record
  return urgencyOf(record)
end
local function urgency(back)
  local most = 4
  for k = 3, 1, -1 do if redis.call('EXISTS', KEYS[k]) == 1 then most = k end end
  local record = back and read({back})[1]
  if record then most = math.min(most, urgencyOf(record)) end
  return most < 4 and most or 0
end
local function forget(ids)
  redis.call('HDEL', KEYS[4], unpack(ids))
end
local function restore(id, text)
  redis.call('HSET', KEYS[4], id, text)
end
-- A delayed member is how urgent it is (the number of its list), a number that keeps the order, and the id.
local function promote(now, limit)
  local members = redis.call('ZRANGEBYSCORE', KEYS[5], '-inf', now, 'LIMIT', 0, limit)
  if #members > 0 then
    local found = bodiesOf(KEYS[6], members)
    for i, member in ipairs(members) do
      local level, id = string.match(member, '^([123]):%d+:(.*)$')
      if found[i] then
        id = id or member
        redis.call('HSET', KEYS[4], id, found[i])
        redis.call('RPUSH', KEYS[tonumber(level) or 2], id)
      end
    end
    redis.call('ZREM', KEYS[5], unpack(members))
    redis.call('HDEL', KEYS[6], unpack(members))
  end
  local head = redis.call('ZRANGE', KEYS[5], 0, 0, 'WITHSCORES')[2]
  return #members, head and tonumber(head)
end
local function backlog()
  return redis.call('LLEN', KEYS[1]) + redis.call('LLEN', KEYS[2]) + redis.call('LLEN', KEYS[3]) + redis.call('LLEN', KEYS[7])
end
-- The ids of a list from one place to another, places counted in the order in which they are taken.
local function row(key, start, stop)
  if stop < start then return {} end
  if order() ~= 'lifo' then return redis.call('LRANGE', key, start, stop) end
  local ids, found = {}, redis.call('LRANGE', key, -1 - stop, -1 - start)
  for i = #found, 1, -1 do ids[#ids + 1] = found[i] end
  return ids
end
local function peek(from, limit, newest)
  local ids, level, place = {}, 0, 0
  for k = 1, from and 3 or 0 do
    local found = redis.call('LPOS', KEYS[k], from)
    if found then level, place = k, order() == 'lifo' and redis.call('LLEN', KEYS[k]) - 1 - found or found end
  end
  if newest then
    if from and level == 0 then return ids end
    for k = from and level or 3, 1, -1 do
      local stop = k == level and place or redis.call('LLEN', KEYS[k])
      local some = row(KEYS[k], math.max(0, stop - limit + #ids), stop - 1)
      for _, id in ipairs(ids) do some[#some + 1] = id end
      ids = some
    end
    return ids
  end
  if level > 0 then place = place + 1 end
  for k = math.max(1, level), 3 do
    if #ids == limit then break end
    for _, id in ipairs(row(KEYS[k], place, math.min(redis.call('LLEN', KEYS[k]), place + limit - #ids) - 1)) do
      ids[#ids + 1] = id
    end
    place = 0
  end
  return ids
end
local function outlook()
  local head = redis.call('ZRANGE', KEYS[5], 0, 0, 'WITHSCORES')[2]
  local delayed = redis.call('ZCARD', KEYS[5])
  return redis.call('HLEN', KEYS[4]) + redis.call('LLEN', KEYS[7]), delayed, head and tonumber(head),
    (tonumber(redis.call('HGET', KEYS[8], 'last')) or 0) + redis.call('LLEN', KEYS[7]) - delayed
end
`

/** The name of the pattern in the topic's meta key. */
export const pattern = "lists"

/** The source as another pattern that keeps its messages in lists uses it, under a name of its own. */
export const make = (pattern: string, order: Order): Source => ({
  pattern,
  keys: 8,
  lua: lua(order),
  urgent: order === "priority"
})

/** As `levelOf` of the scripts says. */
export const urgencyOf = ({ headers: { priority } }: Delivery): number =>
  priority === "high" ? 1 : priority === "low" ? 3 : 2

const made = {
  fifo: makeScripts(make(pattern, "fifo")),
  lifo: makeScripts(make(pattern, "lifo")),
  priority: makeScripts(make(pattern, "priority")),
  any: makeScripts(make(pattern, "any"))
}

export const scripts = (order: Order) => made[order]
