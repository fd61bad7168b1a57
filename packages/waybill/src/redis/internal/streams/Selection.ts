/**
 * Reading for a group with a filter: the server selects what it wants, and what it does not want is neither sent nor pending.
 *
 * Groups that want some types share what it costs to go through the stream, since copying entries into a script is most of that. The
 * first to go through a run of entries notes the type of each, and the others copy only those of their types. The notes are a cache:
 * without them, and without permission for them, a group goes through every entry.
 *
 * They are entries of the stream `types`, one a run, whose id is that of the run's last entry:
 *
 * | field | value |
 * |---|---|
 * | `count` | how many entries it has |
 * | `first` | the first of them |
 * | `=` and a type | the entries of that type: for each its number in the run, from 1, a colon, its id, less the milliseconds of the first, and a comma |
 * | `-` | likewise those without a type |
 * | `?` | those that every group has to see, because they cannot be read or their types are long |
 *
 * @module
 */
import { bit, listOf, make, row, text } from "../connection/Script.ts"
import { keys } from "../wire/Keys.ts"
import { ask, infos, maps, wanting } from "../wire/Lua.ts"

/** How many entries one call copies, wanted or not, about how many bytes, and how many entries it passes: most of them by notes. */
const mostCopied = 1000
const mostBytes = 4 * 1024 * 1024
const mostPassed = 4000

/** A run has at least so many entries: fewer are gone through as fast as they are looked up. */
const shortestRun = 32
/** The last ones are kept for a while after they were of use: at a thousand entries each they take about three megabytes. */
const mostRuns = 256
const keptMillis = 10_000
/** Longer types are not noted. */
const longestType = 64

/**
 * `runAfter(at)`: of the run in which the next entry is: the last entry, the fields, how many of its entries come before, or were
 * trimmed, and the milliseconds of the first; nil if it is in none.
 * `note(id, payload, headers)`: the entry is the next in the run that is noted. `keepRun(last)`: that was the last one.
 *
 * They use `wanting`, and the locals `stream` and `types`, the keys.
 */
const noting = /* lua */ `
local function millisOf(entry)
  return tonumber(string.match(entry, '^%d+'))
end
-- Its id, short.
local function since(base, entry)
  return string.format('%.0f', millisOf(entry) - base) .. string.match(entry, '-.*$')
end
local function runAfter(at)
  local found = redis.pcall('XRANGE', types, '(' .. at, '+', 'COUNT', 1)
  local ahead = not found.err and found[1] and redis.call('XRANGE', stream, '(' .. at, '+', 'COUNT', 1)[1]
  if not ahead then return end
  local last, fields = found[1][1], found[1][2]
  local base = millisOf(fields[4])
  if fields[4] == ahead[1] then return last, fields, 0, base end
  local short = ':' .. since(base, ahead[1]) .. ','
  for f = 6, #fields, 2 do
    local place = string.find(fields[f], short, 1, true)
    if place then return last, fields, string.match(string.sub(fields[f], math.max(1, place - 5), place - 1), '%d+$') - 1, base end
  end
end
local run, first, base, count
local function note(id, payload, headers)
  if not run then run, first, base, count = {}, id, millisOf(id), 0 end
  local found, kind = payload and headersOf(headers or '{}'), '?'
  if found then
    local name = found['type']
    if type(name) ~= 'string' then kind = '-' elseif #name <= ${longestType} then kind = '=' .. name end
  end
  count = count + 1
  local places = run[kind] or {}
  run[kind] = places
  places[#places + 1] = count .. ':' .. since(base, id) .. ','
end
local function keepRun(last)
  if run and count >= ${shortestRun} then
    local fields = {'count', count, 'first', first}
    for kind, places in pairs(run) do
      fields[#fields + 1] = kind
      fields[#fields + 1] = table.concat(places)
    end
    redis.pcall('XADD', types, 'MAXLEN', ${mostRuns}, last, unpack(fields))
  end
  run = nil
end
`

/**
 * Reads new entries for a group with a filter: those of the topic that it does not want are passed over, without ever being pending, and
 * all from its retry stream are given to the consumer. A call goes through a thousand entries, or a few megabytes, and more where others
 * have noted their types; it takes no more than `bytes` and one entry from the topic.
 */
export const select = make({
  name: "waybill/select",
  mode: "drains",
  keys: keys("stream", "retry", "types", "state"),
  args: { group: "text", consumer: "text", only: "text", max: "number", bytes: "number" },
  replies: {
    OK: {
      entries: listOf(row({ source: bit, entry: text, fields: listOf(text) })),
      /** If there is no more: the last ids of both streams, to wait for later ones. Otherwise "". */
      last: text,
      lastRetry: text
    },
    /** The group was lost, or has got another filter. */
    NOGROUP: {}
  },
  lua: /* lua */ `${ask}${maps}${infos}${wanting}${noting}
local mine, groups = infoOf(stream, group)
if not mine or not ask('XPENDING', retry, group) or redis.call('HGET', state, 'only') ~= only then return {'NOGROUP'} end
-- The first to write, so it may be refused: its key stands where a check of permissions does not look.
local again = redis.pcall('XREADGROUP', 'GROUP', group, consumer, 'COUNT', max, 'STREAMS', retry, '>')
if again and again.err then error(again) end
local entries, taken, size, copied, read, passed = {}, {}, 0, 0, 0, 0
for _, entry in ipairs(again and again[1][2] or {}) do
  entries[#entries + 1] = {1, entry[1], entry[2]}
  for _, field in ipairs(entry[2]) do size = size + #field end
end
local wants, filter = wanted(only)
-- The kinds of entries that it looks at, if the notes tell enough; and whether it looks at nothing else.
local kinds, isExact = filter.h['type'] and {['?'] = true}, not filter.k and next(filter.h, next(filter.h)) == nil
for name in pairs(filter.h['type'] or {}) do kinds['=' .. name] = true end
local isNoted = kinds and groups > 1 and not (mine['lag'] and mine['lag'] < ${shortestRun})
local at, more = mine['last-delivered-id'], true

local function isFull()
  return #entries >= max or size >= bytes or read >= ${mostBytes}
end
-- Gives the entry to the consumer, if the group wants it; otherwise returns what the note of it needs.
local function look(entry, isWanted)
  local fields, length, key, headers, payload = entry[2], 0, nil, nil, nil
  for f = 1, #fields, 2 do
    length = length + #fields[f + 1]
    if fields[f] == 'payload' then payload = fields[f + 1]
    elseif fields[f] == 'headers' then headers = fields[f + 1]
    elseif fields[f] == 'key' then key = fields[f + 1] end
  end
  copied, read = copied + 1, read + length
  if isWanted or not payload or wants(key, headers) then
    size = size + length
    entries[#entries + 1] = {0, entry[1], fields}
    taken[#taken + 1] = entry[1]
  end
  return payload, headers
end

-- Looks at those that the notes of a run name. One that was trimmed meanwhile has not been passed.
local function follow(last, fields, before, base)
  local named, lists, gone = {}, 0, 0
  for f = 5, #fields, 2 do
    if kinds[fields[f]] then
      lists = lists + 1
      local sure = isExact and fields[f] ~= '?'
      for n, millis, rest in string.gmatch(fields[f + 1], '(%d+):(%d+)(-%d+),') do
        n = tonumber(n)
        if n > before then named[#named + 1] = {n, string.format('%.0f', base + millis) .. rest, sure} end
      end
    end
  end
  if lists > 1 then table.sort(named, function(a, b) return a[1] < b[1] end) end
  local reached = before
  for _, one in ipairs(named) do
    if isFull() then
      passed = passed + reached - before - gone
      return
    end
    reached, at = one[1], one[2]
    local entry = redis.call('XRANGE', stream, at, at)[1]
    if entry then look(entry, one[3]) else gone = gone + 1 end
  end
  at, passed = last, passed + tonumber(fields[2]) - before - gone
end

-- Goes through some entries; whether there may be more.
local function pass()
  -- Few at first, then as many as may fit if they are like those.
  local some = copied == 0 and 8 or math.min(100, math.ceil((${mostBytes} - read) * copied / read))
  some = math.min(some, 4 * (max - #entries))
  local found = redis.call('XRANGE', stream, '(' .. at, '+', 'COUNT', some)
  for _, entry in ipairs(found) do
    if isFull() then return true end
    local payload, headers = look(entry)
    if isNoted then note(entry[1], payload, headers) end
    at, passed = entry[1], passed + 1
  end
  return #found == some
end

while more and copied < ${mostCopied} and passed < ${mostPassed} and not isFull() do
  local last, fields, before, base
  if isNoted then last, fields, before, base = runAfter(at) end
  if last then
    keepRun(at)
    follow(last, fields, before, base)
  else
    more = pass()
  end
end
keepRun(at)
if isNoted then redis.pcall('PEXPIRE', types, ${keptMillis}) end
if at ~= mine['last-delivered-id'] then
  for i = 1, #taken, 100 do
    local ids = {unpack(taken, i, math.min(#taken, i + 99))}
    for _, option in ipairs({'RETRYCOUNT', 1, 'FORCE', 'JUSTID'}) do ids[#ids + 1] = option end
    redis.call('XCLAIM', stream, group, consumer, 0, unpack(ids))
  end
  -- The server counts on from there, if it knows where the group was.
  local read = mine['entries-read']
  if read then redis.call('XGROUP', 'SETID', stream, group, at, 'ENTRIESREAD', string.format('%.0f', read + passed))
  else redis.call('XGROUP', 'SETID', stream, group, at) end
end
local ended = not more and #entries == 0
return {'OK', entries, ended and at or '', ended and of(redis.call('XINFO', 'STREAM', retry))['last-generated-id'] or ''}
`
})
