/**
 * Where the messages of a group come from: the numbers after its cursor. Each group has its own cursor, which moves in the step
 * that hands messages out, so that nothing is skipped or repeated, whichever consumer asks and whatever events arrived.
 *
 * @module
 */
import { make as makeScripts } from "../claims/Scripts.ts"
import { coalesced } from "../publish/PublishScript.ts"
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
-- How many of the numbers after one, up to another, are those of removed messages.
local function omittedIn(from, to)
  local count = redis.pcall('ZCOUNT', omitted, '(' .. digits(from), to and digits(to) or '+inf')
  return type(count) == 'number' and count or 0
end
local function forgetUpTo(set, from, to)
  local gone = redis.pcall('ZRANGE', set, from, to, 'BYSCORE', 'LIMIT', 0, 1000)
  if #gone > 0 then redis.pcall('ZREM', set, unpack(gone)) end
  return #gone
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
    missed = missed - (missed > 0 and omittedIn(to - missed, to) or 0)
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
  load()
  forgetUpTo(promoted, '-inf', '(' .. digits(first))
  for _ = 1, 10 do if forgetUpTo(ownIds, '0', '(' .. digits(first)) < 1000 then break end end
  forgetUpTo(omitted, '(0', redis.call('HGET', position, 'cursor') or '0')
  local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, limit)
  if #due > 0 then
    for i, record in ipairs(bodiesOf(delayedBodies, due)) do
      local ttl, text = string.match(record or '', '^(%d+) (.*)$')
      if ttl then
        local number, id = add(text, ttl), parsed(text).id
        redis.pcall('ZADD', promoted, number, due[i])
        if id and redis.pcall('ZSCORE', ownIds, id) == '-' .. (string.match(due[i], '^0*(%d+)$') or '') then
          redis.pcall('ZADD', ownIds, number, id)
        end
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
  local at = from + gone(from + 1, 2000)
  return math.max(0, last - at - omittedIn(at)), digits(from)
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

/** See `Source`. A message is named by its number, and a delayed one has an id that ends with its member. */
const finding = /* lua */ `
local message = string.gsub(numbers, 'numbers$', 'message:#')
local function memberIn(note)
  local number = string.match(note, '^%d+%-d(%d+)$')
  return number and string.format('%012d', number) or string.match(note, '^d(%d+)')
end
local function promotedTo(member)
  local number = redis.call('ZSCORE', promoted, member)
  return number and string.format('%.0f', number) or nil
end
local function entryIn(note)
  local member = memberIn(note)
  if member then return promotedTo(member) end
  return string.match(note .. ' ', '^(%d+) ')
end
local function find(id, notes, groups)
  local own = tonumber(redis.call('ZSCORE', ownIds, id) or '')
  if own then table.insert(notes, #notes, own < 0 and string.format('d%012d', -own) or string.format('%.0f', own)) end
  -- One that coalesces is not noted: its member follows from its id.
  local coalesced = '${coalesced}' .. id
  for n = 0, #notes do
    local note = notes[n]
    local entry, member = note and entryIn(note) or promotedTo(coalesced), note and memberIn(note) or coalesced
    local function is(record)
      return record and (parsed(record).id or entry) == id
    end
    local due = member and redis.call('ZSCORE', delayed, member)
    local late = due and string.match(redis.call('HGET', delayedBodies, member) or '', '^%d+ (.*)$')
    if is(late) then return nil, late, due, member end
    local record = entry and redis.call('GET', message .. entry)
    if is(record) then return entry, record end
    -- It has expired, and a group has it from its dead letters.
    for _, place in ipairs(entry and groups or {}) do
      if is(redis.call('HGET', place.keys.restored, entry)) then return entry end
    end
  end
end
local function recordIn(place, entry, record)
  return record or redis.call('HGET', place.keys.restored, entry)
end
local function isUnread(place, entry)
  return tonumber(entry) > (tonumber(redis.call('HGET', place.keys.position, 'cursor')) or 0)
end
local function unname(id)
  redis.call('ZREM', ownIds, id)
end
local function withdraw(entry, groups, record)
  redis.call('DEL', message .. entry)
  for _, place in ipairs(groups) do
    if place.state == 'R' then redis.call('ZADD', place.keys.omitted, entry, entry) end
    if place.state ~= 'P' then redis.call('HDEL', place.keys.restored, entry)
    -- Settling it takes its record, unless the consumer sends it.
    elseif record then redis.call('HSET', place.keys.restored, entry, record) end
  end
end
local function lateOf(_, body)
  return '', string.match(body, '^%d+ (.*)$') or '0'
end
`

export const scripts = makeScripts(
  {
    pattern,
    keys: keys(
      "numbers",
      "delayed",
      "delayedBodies",
      "promoted",
      "ownIds",
      "position",
      "restored",
      "omitted",
      "unique",
      "groups"
    ),
    fleeting: ["delayed", "delayedBodies", "promoted", "ownIds", "restored", "omitted", "unique"],
    lua,
    finding,
    filters: true,
    passes: true,
    frees: true
  },
  storage
)
