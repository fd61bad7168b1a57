import type { Script } from "../connection/Script.ts"
/**
 * What an inspector asks of a group's claims, and does to its dead letters. All but `redrive` only look.
 *
 * KEYS begin with those of the source; `+1` in the tables below is the first after them.
 *
 * @module
 */
import { aging, counting, exhuming } from "../inspect/DeadLetterScripts.ts"
import { bodyOf, removal } from "../inspect/Removal.ts"
import { clock, drains, mismatch, reads, weighing } from "../wire/Lua.ts"
import { records } from "../wire/PackedMessage.ts"
import { marking, nth } from "./AttemptLog.ts"
import { naming, type Source } from "./Source.ts"

export interface InspectScripts {
  readonly overview: Script
  readonly describe: Script
  readonly messages: Script
  readonly pending: Script
  readonly waiting: Script
  readonly redrive: Script
  readonly remove: Script
}

export const make = (source: Source): InspectScripts => {
  const { at, name } = naming(source)

  /**
   * A topic without its groups.
   *
   * | KEYS | |
   * |---|---|
   * | +1, +2 | meta, groups |
   *
   * | reply | |
   * |---|---|
   * | `OK`, pattern, depth, delayed, next, groups, published | pattern: "" when the topic was never opened. next: when the next delayed message is due, -1 when there is none. published: how many messages there ever were, -1 when nobody counts |
   * | `WRONGTYPE`, key, found | |
   */
  const overviewOf = (first: string) => `${mismatch}${clock}${records}${source.lua}
local wrong = foreign() or mismatch(${at(1)}, 'hash') or mismatch(${at(2)}, 'set')
if wrong then return wrong end
${first}
local names = redis.call('SMEMBERS', ${at(2)})
table.sort(names)
local depth, delayed, next, published = outlook()
return {'OK', redis.call('HGET', ${at(1)}, 'pattern') or '', depth, delayed, next or -1, names, published or -1}
`
  const overview: Script = { name: name("overview"), lua: `${reads}${overviewOf("")}` }

  /**
   * The figures of one group.
   *
   * | KEYS | |
   * |---|---|
   * | +1 to +4 | waiting, returned, suspects, dead letters |
   * | +5, +6 | consumers, state |
   * | +7... | processing of each consumer |
   *
   * | ARGV | |
   * |---|---|
   * | 1... | the consumers |
   *
   * | reply | |
   * |---|---|
   * | `OK`, lag, pending, oldest, waiting, next, dead, dropped, paused, consumers, reached, old | oldest: ms. next: when the next retry is due, -1 when none waits. consumers: name, pending, ms until its lease ends, name... of the living. reached: the last id that the group was given, "" where the source does not know |
   * | `WRONGTYPE`, key, found | |
   */
  const describe: Script = {
    name: name("describe"),
    lua: `${reads}${mismatch}${clock}${records}${counting}${source.lua}
local waiting, returned, suspects, dead, consumers, state = ${at(1)}, ${at(2)}, ${at(3)}, ${at(4)}, ${at(5)}, ${at(6)}
local wrong = foreign() or mismatch(waiting, 'zset') or mismatch(returned, 'list') or mismatch(suspects, 'list')
  or mismatch(dead, 'stream') or mismatch(consumers, 'zset') or mismatch(state, 'hash')
for i = 1, #ARGV do wrong = wrong or mismatch(KEYS[${source.keys} + 6 + i], 'set') end
if wrong then return wrong end
local now = clock()
local pending, oldest, living = 0, 0, {}
for i, consumer in ipairs(ARGV) do
  local held = redis.call('SCARD', KEYS[${source.keys} + 6 + i])
  pending = pending + held
  local since = held > 0 and redis.call('HGET', state, 'oldest:' .. consumer)
  if since then oldest = math.max(oldest, now - tonumber(since)) end
  local until_ = redis.call('ZSCORE', consumers, consumer)
  if until_ and tonumber(until_) > now then
    living[#living + 1] = consumer
    living[#living + 1] = held
    living[#living + 1] = tonumber(until_) - now
  end
end
local again = redis.call('LLEN', returned) + redis.call('LLEN', suspects)
local next = redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')[2]
next = again > 0 and now or next and tonumber(next) or -1
local lag, reached = backlog()
local letters, old = deadCount(dead, state, now)
return {'OK', lag, pending, oldest, redis.call('ZCARD', waiting) + again, next, letters,
  tonumber(redis.call('HGET', state, 'dropped') or '0'), redis.call('HEXISTS', state, 'paused'), living, reached or '', old}
`
  }

  /**
   * What `fresh` would take.
   *
   * | ARGV | |
   * |---|---|
   * | 1 | id after which to begin, or before which to end, or "" |
   * | 2 | how many at most |
   * | 3 | 1: the last ones |
   *
   * | reply | |
   * |---|---|
   * | `OK`, rows | rows: id, record |
   * | `WRONGTYPE`, key, found | |
   */
  const messages: Script = {
    name: name("messages"),
    lua: `${reads}${mismatch}${clock}${records}${source.lua}${weighing}
local wrong = foreign()
if wrong then return wrong end
local newest = ARGV[3] == '1'
local ids, rows = peek(ARGV[1] ~= '' and ARGV[1], tonumber(ARGV[2]), newest), {}
-- What the page has no room for lies behind it, and with the newest ones in front of it.
for i = newest and #ids or 1, newest and 1 or #ids, newest and -1 or 1 do
  if not room() then break end
  local found = read({ids[i]})[1]
  if found then table.insert(rows, newest and 1 or #rows + 1, {ids[i], weigh(found)}) end
end
return {'OK', rows}
`
  }

  /**
   * What consumers hold, in the order of its ids.
   *
   * | KEYS | |
   * |---|---|
   * | +1, +2 | state, marks |
   * | +3... | processing of each consumer |
   *
   * | ARGV | |
   * |---|---|
   * | 1 | member after which to begin, or "" |
   * | 2 | how many at most |
   * | 3... | the consumers |
   *
   * | reply | |
   * |---|---|
   * | `OK`, rows | rows: member, consumer, held for ms, attempt, record |
   * | `WRONGTYPE`, key, found | |
   */
  const pending: Script = {
    name: name("pending"),
    lua: `${reads}${mismatch}${clock}${records}${source.lua}${weighing}
local state, marks = ${at(1)}, ${at(2)}
local wrong = foreign() or mismatch(state, 'hash') or mismatch(marks, 'hash')
for i = 3, #ARGV do wrong = wrong or mismatch(KEYS[${source.keys} + i], 'set') end
if wrong then return wrong end
${marking}${nth}
local now, held, of, order = clock(), {}, {}, {}
for i = 3, #ARGV do
  for _, member in ipairs(redis.call('SMEMBERS', KEYS[${source.keys} + i])) do
    held[#held + 1] = member
    of[member] = ARGV[i]
    order[member] = nth(idOf(member))
  end
end
local function before(a, b)
  if order[a] ~= order[b] then return order[a] < order[b] end
  return a < b
end
table.sort(held, before)
local rows, from = {}, ARGV[1]
order[from] = order[from] or nth(idOf(from))
for _, member in ipairs(held) do
  if #rows == tonumber(ARGV[2]) or not room() then break end
  if from == '' or before(from, member) then
    local id = idOf(member)
    local since = redis.call('HGET', state, 'oldest:' .. of[member])
    rows[#rows + 1] = {member, of[member], since and math.max(0, now - tonumber(since)) or 0, marked(id) + 1,
      weigh(read({id})[1] or '0')}
  end
end
return {'OK', rows}
`
  }

  /**
   * What came back: first what may be taken now, then what is due later.
   *
   * | KEYS | |
   * |---|---|
   * | +1 to +4 | waiting, returned, suspects, marks |
   *
   * | ARGV | |
   * |---|---|
   * | 1 | position after which to begin: the part (`a` returned, `b` suspects, `c` due later), for `c` the due time and a colon, and the id; or "a" |
   * | 2 | how many at most |
   *
   * | reply | |
   * |---|---|
   * | `OK`, now, rows | rows: position, id, due, attempts, cause, record |
   * | `WRONGTYPE`, key, found | |
   */
  const waiting: Script = {
    name: name("waiting"),
    lua: `${reads}${mismatch}${clock}${records}${source.lua}${weighing}
local waiting, returned, suspects, marks = ${at(1)}, ${at(2)}, ${at(3)}, ${at(4)}
local wrong = foreign() or mismatch(waiting, 'zset') or mismatch(returned, 'list') or mismatch(suspects, 'list')
  or mismatch(marks, 'hash')
if wrong then return wrong end
local now, limit, rows = clock(), tonumber(ARGV[2]), {}
local part, place = string.sub(ARGV[1], 1, 1), string.sub(ARGV[1], 2)
local function row(position, id, due)
  local text = string.gsub(redis.call('HGET', marks, id) or '', '\\31%d+;[01];[^%s\\31]*$', '')
  local attempts, cause = string.match(text, '^(%d+):%d+:%d+:(.*)$')
  rows[#rows + 1] = {position, id, due, tonumber(attempts) or 0, cause or '', weigh(read({id})[1] or '0')}
end
for _, of in ipairs({{'a', returned}, {'b', suspects}}) do
  local letter, list = of[1], of[2]
  if part <= letter and #rows < limit and room() then
    local after = part == letter and place ~= '' and redis.call('LPOS', list, place)
    local from = after and after + 1 or 0
    for _, id in ipairs(redis.call('LRANGE', list, from, from + limit - #rows - 1)) do
      if room() then row(letter .. id, id, now) end
    end
  end
end
if #rows < limit and room() then
  local rank = 0
  if part == 'c' then
    local score, id = string.match(place, '^(%-?%d+):(.*)$')
    rank = redis.call('ZRANK', waiting, id)
    rank = rank and rank + 1 or redis.call('ZCOUNT', waiting, '-inf', '(' .. score)
  end
  local page = redis.call('ZRANGE', waiting, rank, rank + limit - #rows - 1, 'WITHSCORES')
  for i = 1, #page, 2 do
    if not room() then break end
    local due = string.format('%.0f', tonumber(page[i + 1]))
    row('c' .. due .. ':' .. page[i], page[i], tonumber(due))
  end
end
return {'OK', now, rows}
`
  }

  /**
   * Sends dead letters back to their group: the same message under its old id, attempts counted anew, the fence going on.
   *
   * | KEYS | |
   * |---|---|
   * | +1 to +4 | dead letters, returned, marks, state |
   * | +5 | the channel `wake` |
   *
   * | ARGV | |
   * |---|---|
   * | 1... | their entries |
   *
   * | reply | |
   * |---|---|
   * | `OK`, count, passed | how many were there, of how many that were looked at: the others are for the next call |
   * | `WRONGTYPE`, key, found | |
   */
  const redrive: Script = {
    name: name("redrive"),
    lua: `${drains}${mismatch}${clock}${records}${aging}${weighing}${exhuming}${source.lua}
local dead, returned, marks, state, channel = ${at(1)}, ${at(2)}, ${at(3)}, ${at(4)}, ${at(5)}
local suspects = returned
local wrong = foreign() or mismatch(dead, 'stream') or mismatch(returned, 'list') or mismatch(marks, 'hash')
  or mismatch(state, 'hash')
if wrong then return wrong end
${marking}
local since, count, passed = keptSince(state, clock()), 0, 0
while passed < #ARGV and room() do
  passed = passed + 1
  local entry = ARGV[passed]
  local letter = isKept(entry, since) and redis.call('XRANGE', dead, entry, entry)[1]
  if letter then
    local f = weigh(letter[2])
    -- A letter that somebody else wrote has an id of its own; the entry is one.
    local id, fence, message, at, tally = 'letter-' .. entry, 0, nil, nil, nil
    local from, head = exhumed(f)
    if head then
      id, fence, tally = head.origin, tonumber(head.fence) or 0, head.partial and '0;1;' or nil
      if head.id ~= id then message = head.id end
      if head.at ~= string.match(id, '^(%d+)-') then at = head.at end
    end
    local of = {}
    for n = from, #f - 1, 2 do of[f[n]] = f[n + 1] end
    restore(id, record(of.payload or '', message, of.headers, of.key, of.v, at))
    mark(id, 0, fence, 0, tally)
    free(id, 0)
    redis.call('XDEL', dead, entry)
    count = count + 1
  end
end
if count > 0 then wake(0) end
return {'OK', count, passed}
`
  }

  /** The looks are `overview` and, for each group, `describe`. */
  const remove = removal(
    name("remove"),
    overviewOf(source.passes === true ? "if pass() then return {'AGAIN'} end" : ""),
    `local function figures(KEYS, ARGV)
${bodyOf(describe)}
end
local found, asked = figures(KEYS, ARGV), {}
if found[1] ~= 'OK' then return found end
for _, consumer in ipairs(ARGV) do asked[consumer] = true end
-- Who came after the caller had looked holds what the caller did not ask for.
for _, consumer in ipairs(redis.call('ZRANGE', ${at(5)}, 0, -1)) do
  if not asked[consumer] then found[10] = {consumer, 0, 0} end
end
return found`
  )

  return { overview, describe, messages, pending, waiting, redrive, remove }
}
