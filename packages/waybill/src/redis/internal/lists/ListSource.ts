/**
 * Where the messages of a queue come from: lists of ids, most urgent first, with the messages in a hash beside them. A
 * queue has one group, the first that joins.
 *
 * @module
 */
import type { Delivery } from "../../../Delivery.ts"
import type { Source } from "../claims/Source.ts"
import { keys } from "../wire/Keys.ts"
import { envelopes } from "../wire/PackedMessage.ts"
import { disagreement, levels } from "./ListStorage.ts"

/** `peek(from, limit, newest)`, see `Source`. */
const peeking = /* lua */ `
-- The ids of a list between two places, counted in the order in which they are taken.
local function row(key, start, stop)
  if stop < start then return {} end
  if order() ~= 'lifo' then return redis.call('LRANGE', key, start, stop) end
  local ids, found = {}, redis.call('LRANGE', key, -1 - stop, -1 - start)
  for i = #found, 1, -1 do ids[#ids + 1] = found[i] end
  return ids
end
local function peek(from, limit, newest)
  local ids, level, place = {}, 0, 0
  order()
  for k = 1, from and 3 or 0 do
    local found = (not someMoved or #standing(k, {from}) > 0) and redis.call('LPOS', lists[k], from)
    if found then level, place = k, order() == 'lifo' and redis.call('LLEN', lists[k]) - 1 - found or found end
  end
  if newest then
    if from and level == 0 then return ids end
    for k = from and level or 3, 1, -1 do
      local stop = k == level and place or redis.call('LLEN', lists[k])
      while stop > 0 and #ids < limit do
        local start = math.max(0, stop - limit + #ids)
        local some = row(lists[k], start, stop - 1)
        stop = start
        if someMoved then some = standing(k, some) end
        for _, id in ipairs(ids) do some[#some + 1] = id end
        ids = some
      end
    end
    return ids
  end
  if level > 0 then place = place + 1 end
  for k = math.max(1, level), 3 do
    local length = redis.call('LLEN', lists[k])
    while place < length and #ids < limit do
      local some = row(lists[k], place, math.min(length, place + limit - #ids) - 1)
      place = place + #some
      for _, id in ipairs(someMoved and standing(k, some) or some) do ids[#ids + 1] = id end
    end
    place = 0
  end
  return ids
end
`

/**
 * `noted(entry, marker)`: what the marker of an id notes about its message, if that is the one of this entry.
 * `freed(entries, ids)`: see `Source`.
 */
export const freeing = /* lua */ `
local function noted(entry, marker)
  local place, rest = string.match(marker or '', '([^:%s]+)( ?t?)$')
  return place == entry and rest
end
local function freed(entries, ids)
  local gone = {}
  for i, marker in ipairs(redis.call('HMGET', unique, unpack(ids))) do
    if noted(entries[i], marker) then gone[#gone + 1] = ids[i] end
  end
  if #gone > 0 then redis.call('HDEL', unique, unpack(gone)) end
  if redis.call('EXISTS', named) == 0 then return end
  gone = {}
  for i, entry in ipairs(redis.call('HMGET', named, unpack(ids))) do if entry == entries[i] then gone[#gone + 1] = ids[i] end end
  if #gone > 0 then redis.call('HDEL', named, unpack(gone)) end
end
`

/**
 * In `meta`, `last` counts the messages, `group` names the group that owns the queue, and `order` says which message is next. The
 * `setting` of a joining member is an order, or `any` for the one that the queue has.
 */
const lua = /* lua */ `${envelopes}${levels}${disagreement}
local lists = {high, normal, low}
local queueOrder, someMoved
local function order()
  if not queueOrder then
    local noted = redis.call('HMGET', meta, 'order', 'moved')
    queueOrder, someMoved = noted[1] or 'fifo', noted[2]
  end
  return queueOrder
end
-- Those of these ids, found in a list, that stand there.
local function standing(k, ids)
  local left, places = {}, {}
  for i, id in ipairs(ids) do places[i] = k .. ':' .. id end
  local gone = redis.call('SMISMEMBER', moved, unpack(places))
  for i, id in ipairs(ids) do
    if gone[i] == 0 then left[#left + 1] = id end
  end
  return left, places
end
local function urgent()
  return order() == 'priority'
end
local function open(group, start, known, setting)
  local noted = redis.call('HMGET', meta, 'group', 'order')
  local owner = noted[1]
  if owner and owner ~= group then return {'OWNED', owner, group} end
  local refused = disagreement(setting, noted[2])
  if refused then return refused end
  if not noted[2] and setting ~= 'any' then redis.call('HSET', meta, 'order', setting) end
  if owner then return end
  redis.call('HSET', meta, 'group', group)
  -- Messages stored before are not for this group. Delayed messages come later than the group.
  if start == 'latest' then redis.call('UNLINK', high, normal, low, bodies, inbox, unique, named) end
end
local function restore(id, text)
  redis.call('HSET', bodies, id, text)
end
-- Messages of other programs get an id, and a place after those that are ready.
local adopted
local function adopt(n)
  if adopted then return end
  local found = redis.call('LPOP', inbox, n)
  adopted = not found
  if adopted then return end
  local last, now = redis.call('HINCRBY', meta, 'last', #found), string.format('%.0f', clock())
  for i, body in ipairs(found) do
    local id = now .. '-' .. string.format('%.0f', last - #found + i)
    local text = recordOf(body)
    restore(id, text)
    redis.call('RPUSH', lists[urgent() and levelOf(parsed(text).headers) or 2], id)
  end
end
local filled = {}
local function probe()
  order()
  redis.call('HEXISTS', bodies, '')
  adopted = redis.call('LLEN', inbox) == 0
  for k = 1, 3 do filled[k] = redis.call('LLEN', lists[k]) > 0 or not adopted end
end
local function fresh(n, urgency)
  adopt(n)
  local pop, ids = order() == 'lifo' and 'RPOP' or 'LPOP', {}
  for k = urgency or 1, urgency or 3 do
    if #ids == n then break end
    local more = filled[k] and redis.call(pop, lists[k], n - #ids)
    while more do
      local want, found, places = n - #ids, more, nil
      if someMoved then
        more, places = standing(k, found)
        redis.pcall('SREM', moved, unpack(places))
      end
      if #ids == 0 then ids = more else for _, id in ipairs(more) do ids[#ids + 1] = id end end
      more = #found == want and #ids < n and redis.call(pop, lists[k], n - #ids)
    end
  end
  return ids
end
local function urgencyOf(record)
  return levelOf(parsed(record).headers)
end
local function read(ids)
  return redis.call('HMGET', bodies, unpack(ids))
end
-- At most about a megabyte of what comes back in one call is read.
local weighed = 0
local function pressing(id)
  if not urgent() or weighed > 1048576 then return end
  local record = read({id})[1]
  if not record then return end
  weighed = weighed + #record
  return urgencyOf(record)
end
local function urgency(back)
  local most = 4
  for k = 3, 1, -1 do if redis.call('EXISTS', lists[k]) == 1 then most = k end end
  local record = back and read({back})[1]
  if record then most = math.min(most, urgencyOf(record)) end
  return most < 4 and most or 0
end
local function forget(ids)
  redis.call('HDEL', bodies, unpack(ids))
end
local function dropped(id)
  return redis.pcall('SREM', removed, id) == 1
end
${freeing}local function given(entry, id)
  if noted(entry, redis.call('HGET', unique, id)) == ' t' then
    redis.call('HDEL', unique, id)
    redis.call('HSET', named, id, entry)
  end
end
-- A delayed member is its urgency (the number of its list), a number that keeps the order, and the id.
local function promote(now, limit)
  -- Older builds leave it as it is.
  if redis.call('EXISTS', high, normal, low) == 0 then redis.call('UNLINK', removed, moved) end
  local members = redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, limit)
  if #members > 0 then
    local found = bodiesOf(delayedBodies, members)
    for i, member in ipairs(members) do
      local level, id = string.match(member, '^([123]):%d+:(.*)$')
      if found[i] then
        id = id or member
        redis.call('HSET', bodies, id, found[i])
        redis.call('RPUSH', lists[tonumber(level) or 2], id)
      end
    end
    redis.call('ZREM', delayed, unpack(members))
    redis.call('HDEL', delayedBodies, unpack(members))
  end
  local head = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2]
  return #members, head and tonumber(head)
end
local function backlog()
  local ready = redis.call('LLEN', high) + redis.call('LLEN', normal) + redis.call('LLEN', low)
  return math.max(0, ready - redis.call('SCARD', removed) - redis.call('SCARD', moved)) + redis.call('LLEN', inbox)
end
${peeking}local function outlook()
  local head = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2]
  local laters = redis.call('ZCARD', delayed)
  return redis.call('HLEN', bodies) + redis.call('LLEN', inbox), laters, head and tonumber(head),
    (tonumber(redis.call('HGET', meta, 'last')) or 0) + redis.call('LLEN', inbox) - laters
end
local function clear(mark)
  local left = tonumber(mark) or backlog() + redis.call('ZCARD', delayed)
  local done = 0
  local function room()
    return math.min(left, 1000) - done
  end
  order()
  for k = 1, 3 do
    local found = room() > 0 and redis.call('LPOP', lists[k], room())
    if found then
      redis.call('HDEL', bodies, unpack(found))
      redis.pcall('SREM', removed, unpack(found))
      if someMoved then
        local _, places = standing(k, found)
        redis.pcall('SREM', moved, unpack(places))
      end
      done = done + #found
    end
  end
  local found = room() > 0 and redis.call('LPOP', inbox, room())
  if found then done = done + #found end
  local later = room() > 0 and redis.call('ZRANGE', delayed, 0, room() - 1) or {}
  if #later > 0 then
    redis.call('ZREM', delayed, unpack(later))
    redis.call('HDEL', delayedBodies, unpack(later))
    done = done + #later
  end
  return string.format('%.0f', left - done), done > 0 and left > done
end
local function close()
  redis.call('HDEL', meta, 'group')
end
local function handBack(id)
  local record = urgent() and read({id})[1]
  redis.call(order() == 'lifo' and 'RPUSH' or 'LPUSH', lists[record and urgencyOf(record) or 2], id)
  return record and #record or 0
end
`

/** See `Source`. A message keeps the id of its entry, and a delayed one is named by it. */
const finding = /* lua */ `
local function entryIn(note)
  return string.match(note, '^d[123]:%d+:(%S+)') or string.match(note, '^%S+')
end
local function find(id, notes)
  table.insert(notes, #notes, redis.call('HGET', named, id) or id)
  for _, note in ipairs(notes) do
    local entry = entryIn(note) or ''
    local function is(record)
      return record and (parsed(record).id or entry) == id
    end
    local record = redis.call('HGET', bodies, entry)
    if is(record) then return entry, record end
    local number = string.match(entry, '^%d+%-(%d+)$')
    for level = 1, number and 3 or 0 do
      local member = string.format('%d:%015.0f:%s', level, number, entry)
      local due = redis.call('ZSCORE', delayed, member)
      record = due and redis.call('HGET', delayedBodies, member)
      if is(record) then return entry, record, due, member end
    end
  end
end
local function recordIn(_, _, record)
  return record
end
local function isUnread()
  return true
end
local function unname(id, entry)
  if redis.call('HGET', named, id) == entry then redis.call('HDEL', named, id) end
end
local function withdraw(entry, groups)
  for _, place in ipairs(groups) do if place.state == 'P' then return end end
  redis.call('HDEL', bodies, entry)
  for _, place in ipairs(groups) do if place.state ~= 'R' then return end end
  redis.call('SADD', removed, entry)
end
local function lateOf(member, body)
  return string.match(member, '^[123]:%d+:(.*)$') or member, body
end
`

/**
 * `prioritise(entry, text, due, member, unread, priority)`: gives the message with this record this priority; `unread`: it is in a list.
 * It goes behind the others of that urgency, and where it was it is only noted that it no longer stands there; going back, it has
 * that place again. Returns its urgency, and its new member if it is delayed.
 * `ranks()`: whether urgency decides the order.
 */
const prioritising = /* lua */ `
local function ranks()
  return redis.call('HGET', meta, 'order') == 'priority'
end
local function prioritise(entry, text, due, member, unread, priority)
  local message = parsed(text)
  local before, ok, headers = levelOf(message.headers), pcall(cjson.decode, message.headers or '{}')
  headers = ok and type(headers) == 'table' and headers or {}
  headers.priority = priority
  local packed = cjson.encode(headers)
  local level = levelOf(packed)
  text = record(message.payload, message.id, packed, message.key, message.v, message.at)
  if due then
    local renamed = string.gsub(member, '^[123]:', level .. ':')
    redis.call('ZREM', delayed, member)
    redis.call('HDEL', delayedBodies, member)
    redis.call('ZADD', delayed, due, renamed)
    redis.call('HSET', delayedBodies, renamed, text)
    return level, renamed
  end
  redis.call('HSET', bodies, entry, text)
  if unread and level ~= before then
    redis.call('SADD', moved, before .. ':' .. entry)
    redis.call('HSET', meta, 'moved', '1')
    if redis.call('SREM', moved, level .. ':' .. entry) == 0 then redis.call('RPUSH', ({high, normal, low})[level], entry) end
  end
  return level
end
`

/** Under the pattern's own name. */
export const source = (pattern: string): Source => ({
  pattern,
  keys: keys(
    "high",
    "normal",
    "low",
    "bodies",
    "delayed",
    "delayedBodies",
    "inbox",
    "removed",
    "moved",
    "unique",
    "named",
    "meta"
  ),
  fleeting: ["high", "normal", "low", "bodies", "delayed", "delayedBodies", "inbox", "removed", "moved"],
  lua,
  finding,
  prioritising: levels + prioritising,
  drops: true,
  ranks: true,
  hands: true,
  frees: true,
  gives: true
})

/** The same as `levelOf` in the scripts. */
export const urgencyOf = ({ headers: { priority } }: Delivery): number =>
  priority === "high" ? 1 : priority === "low" ? 3 : 2
