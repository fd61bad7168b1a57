/**
 * Where the messages of a group come from: the numbers after its cursor. Each group has its own cursor, which moves in the step
 * that hands messages out, so that nothing is skipped or repeated, whichever consumer asks and whatever events arrived.
 *
 * @module
 */
import { make as makeScripts } from "../claims/Scripts.ts"
import { keys } from "../wire/Keys.ts"
import { forgetting } from "../wire/Lua.ts"
import { opens, pattern, storage } from "./KeyspaceScripts.ts"
import { numbering } from "./Numbers.ts"

/** See `Source` of `claims/`. */
const lua = /* lua */ `
local open, probe, fresh, pressing, read, forget, freed, restore, promote, backlog, peek, outlook, pass, clear, close
local wants, passed
do
${numbering}${opens}${forgetting}
-- The records that were looked up to see whether they exist.
local taken = {}
local function cursor()
  load()
  return math.max(first - 1, math.min(last, tonumber(redis.call('HGET', position, 'cursor')) or 0))
end
function open(group, start, known)
  load()
  note()
  if redis.call('HEXISTS', position, 'cursor') == 0 then
    -- A group does not miss what had expired before it existed.
    redis.call('HSET', position, 'cursor', digits(start == 'latest' and not known and last or first - 1),
      'born', digits(known and base or last))
  end
end
function probe()
  load()
  redis.call('HEXISTS', position, '')
  redis.call('HEXISTS', restored, '')
end
function fresh(n)
  local read = 0
  local at = redis.call('HMGET', position, 'cursor', 'born')
  -- A group that has lost its position begins at the front: again is better than never.
  local before, born = tonumber(at[1]), tonumber(at[2]) or last
  at = cursor()
  local ids, missing = {}, {}
  -- Numbers up to this one are passed, and that many of the last of them were gone.
  local function pass(to, count)
    local missed = math.min(count, to - math.max(born, base))
    if missed > 0 then missing[#ids + 1] = (missing[#ids + 1] or 0) + missed end
    at = to
  end
  if before and at > before then pass(at, at - before) end
  -- How many keys one call checks: a long row of expired ones takes several.
  local budget = n + 5000
  while #ids < n and at < last and budget > 0 and read < 4194304 do
    local row, names = {}, {}
    local size = math.min(n - #ids, last - at, 200)
    for i = 1, size do
      names[i] = digits(at + i)
      row[i] = message .. names[i]
    end
    local found, any = redis.call('MGET', unpack(row)), false
    for i = 1, size do
      if found[i] then
        local message = wants and parsed(found[i])
        if not message or wants(message.key, message.headers) then
          ids[#ids + 1] = names[i]
          taken[names[i]] = found[i]
        else
          read = read + #found[i]
          if message.id then passed(names[i], message.id) end
        end
        any = true
        at = at + 1
      else
        pass(at + 1, 1)
      end
    end
    budget = budget - size
    if not any then
      local skipped = gone(at + 1, budget)
      pass(at + skipped, skipped)
      budget = budget - skipped
    end
  end
  if at ~= before then redis.call('HSET', position, 'cursor', digits(at)) end
  return ids, missing, at < last and #ids < n
end
function pressing()
end
function read(ids)
  local texts, missing = {}, {}
  for i, id in ipairs(ids) do
    texts[i] = taken[id] or false
    if not texts[i] then missing[#missing + 1] = i end
  end
  if #missing == 0 then return texts end
  local names, fields = {}, {}
  for i, index in ipairs(missing) do
    names[i] = message .. ids[index]
    fields[i] = ids[index]
  end
  local there = redis.call('MGET', unpack(names))
  local back = redis.call('HMGET', restored, unpack(fields))
  for i, index in ipairs(missing) do texts[index] = there[i] or back[i] end
  return texts
end
function forget(ids)
  if redis.call('EXISTS', restored) == 1 then redis.call('HDEL', restored, unpack(ids)) end
end
local function free(entry, id, group)
  local number, rest = string.match(redis.call('HGET', unique, id) or '', '^(%S+)(.*)$')
  if number ~= entry then return end
  local left = {entry}
  for _, name in ipairs(rest == '' and redis.call('SMEMBERS', groups) or {}) do rest = rest .. ' ' .. name end
  for name in string.gmatch(rest, '%S+') do if name ~= group then left[#left + 1] = name end end
  local place = table.concat(left, ' ')
  if #left > 1 and isOpen(place) then redis.call('HSET', unique, id, place)
  else redis.call('HDEL', unique, id) end
end
function freed(entries, ids, group)
  for i, entry in ipairs(entries) do free(entry, ids[i], group) end
end
function restore(id, record)
  redis.call('HSET', restored, id, record)
end
function promote(now, limit)
  -- Messages that expire free their ids without a trace.
  if redis.call('EXISTS', unique) == 1 then
    forgetLost(position, now, lease * redis.call('SCARD', groups), function(_, place) return not isOpen(place) end)
  end
  local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, limit)
  if #due > 0 then
    load()
    for i, record in ipairs(bodiesOf(delayedBodies, due)) do
      local ttl, text = string.match(record or '', '^(%d+) (.*)$')
      if ttl then
        local number, id = add(text, ttl), parsed(text).id
        local place = id and redis.call('HGET', unique, id)
        if place and string.match(place, '^d(%S+)') == due[i] then
          redis.call('HSET', unique, id, number .. string.match(place, '^%S+(.*)$'))
        end
      end
    end
    redis.call('ZREM', delayed, unpack(due))
    redis.call('HDEL', delayedBodies, unpack(due))
    note()
  end
  return #due, tonumber(redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2])
end
function backlog()
  local from = cursor()
  return last - from - gone(from + 1, 2000), digits(from)
end
function peek(from, limit, newest)
  load()
  local ids = {}
  local step = newest and -1 or 1
  local at = newest and math.min(last, (tonumber(from) or last + 1) - 1) or math.max(first, (tonumber(from) or 0) + 1)
  if not newest then at = at + gone(at, 2000) end
  for tried = 1, limit + 1000 do
    if #ids == limit or at < first or at > last then break end
    if redis.call('EXISTS', name(at)) == 1 then table.insert(ids, newest and 1 or #ids + 1, digits(at)) end
    at = at + step
  end
  return ids
end
function outlook()
  load()
  return last - first + 1 - gone(first, 2000), redis.call('ZCARD', delayed),
    tonumber(redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2]), last - base
end
function pass()
  load()
  local before = first
  if before <= last then note() end
  return first - before >= 2000
end
-- Scripts that only consume have these functions too, and are asked in advance whether they may run every command named in a call.
local unlink = 'UNLINK'
function clear(mark)
  load()
  local to = math.min(last, tonumber(mark) or last)
  if redis.call('HEXISTS', position, 'cursor') == 1 then
    redis.call('HSET', position, 'cursor', digits(math.max(cursor(), to)))
  else
    redis.call(unlink, delayed, delayedBodies)
    -- The messages expire by themselves. Those that consumers hold are still found.
    if first <= to then
      first = to + 1
      note()
    end
  end
  return digits(to), false
end
function close()
  redis.call(unlink, position, restored)
end
end
`

export const scripts = makeScripts(
  {
    pattern,
    keys: keys("numbers", "delayed", "delayedBodies", "position", "restored", "unique", "groups"),
    fleeting: ["delayed", "delayedBodies", "restored", "unique"],
    lua,
    filters: true,
    passes: true,
    frees: true
  },
  storage
)
