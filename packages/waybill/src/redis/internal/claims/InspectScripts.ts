/**
 * What an inspector asks about a group's claims, and does to its dead letters. All but `redrive` and `remove` only read.
 *
 * @module
 */
import { bytes, flag, listOf, make as script, number, row, text } from "../connection/Script.ts"
import { counting, redriving } from "../inspect/DeadLetterScripts.ts"
import { asides, figures, loneliness, pageArgs, rowsOfWaiting } from "../inspect/Figures.ts"
import { bodyOf, occupying, removal } from "../inspect/Removal.ts"
import { keys } from "../wire/Keys.ts"
import { clock, weighing } from "../wire/Lua.ts"
import { records } from "../wire/PackedMessage.ts"
import { marking, nth } from "./AttemptLog.ts"
import type { Source } from "./Source.ts"

const named = (source: Source, step: string) => `waybill/${source.pattern}/${step}`

/** A topic without its groups. */
const overview = (source: Source, first = "") =>
  script({
    name: named(source, "overview"),
    mode: "reads",
    keys: { ...source.keys, ...keys("meta", "groups") },
    replies: {
      OK: {
        /** The pattern, "" if the topic was never opened. */
        opened: text,
        depth: number,
        delayed: number,
        /** When the next delayed message is due, -1 if there is none. */
        next: number,
        names: listOf(text),
        /** How many messages there ever were, -1 if not counted. */
        published: number
      }
    },
    lua: /* lua */ `${clock}${records}${source.lua}
touch()
${first}
local names = redis.call('SMEMBERS', groups)
table.sort(names)
local depth, delayed, next, published = outlook()
return {'OK', redis.call('HGET', meta, 'pattern') or '', depth, delayed, next or -1, names, published or -1}
`
  })

/**
 * The figures of one group.
 *
 * Further arguments: the consumers. Further keys: processing of each.
 */
const describe = (source: Source) =>
  script({
    name: named(source, "describe"),
    mode: "reads",
    keys: { ...source.keys, ...keys("waiting", "returned", "suspects", "omitted", "dead", "consumers", "state") },
    moreKeys: "set",
    replies: { OK: figures },
    lua: /* lua */ `${clock}${records}${counting}${asides}${loneliness}${source.lua}
touch()
local now = clock()
local pending, oldest, living = 0, 0, {}
for i, consumer in ipairs(ARGV) do
  local held = redis.call('SCARD', KEYS[moreKeys + i])
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
local again = redis.call('LLEN', returned) + redis.call('LLEN', suspects) - redis.call('ZCOUNT', omitted, 0, 0)
again = math.max(0, again)
local next = redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')[2]
next = again > 0 and now or next and tonumber(next) or -1
local lag, reached = backlog()
local letters, old = deadCount(dead, state, now)
return {'OK', lag, pending, oldest, redis.call('ZCARD', waiting) + again, next, letters,
  tonumber(redis.call('HGET', state, 'dropped') or '0'), redis.call('HEXISTS', state, 'paused'), living,
  reached or '', old, lately(redis.call('HGET', state, 'newer'), now),
  #living == 0 and alone(consumers, redis.call('HGET', state, 'left'), now) or -1}
`
  })

/** The messages that `fresh` would take. */
const messages = (source: Source) =>
  script({
    name: named(source, "messages"),
    mode: "reads",
    keys: source.keys,
    args: { ...pageArgs, newest: "number" },
    bytes: true,
    replies: { OK: { rows: listOf(row({ id: text, record: bytes })) } },
    lua: /* lua */ `${clock}${records}${source.lua}${weighing}
touch()
local newest = newest == 1
local rows, start, tried = {}, from ~= '' and from, 0
-- An empty page is the end, so it goes past removed messages.
repeat
  local ids = peek(start, limit, newest)
  -- What the page has no room for comes after it or, with the newest ones, before it.
  for i = newest and #ids or 1, newest and 1 or #ids, newest and -1 or 1 do
    if not room() then break end
    local found = read({ids[i]})[1]
    if found then table.insert(rows, newest and 1 or #rows + 1, {ids[i], weigh(found)}) end
  end
  start, tried = ids[newest and 1 or #ids], tried + #ids
until #rows > 0 or #ids < limit or tried > 10000
return {'OK', rows}
`
  })

/**
 * The messages that consumers hold, in the order of their ids.
 *
 * Further arguments: the consumers. Further keys: processing of each.
 */
const pending = (source: Source) =>
  script({
    name: named(source, "pending"),
    mode: "reads",
    keys: { ...source.keys, ...keys("state", "marks") },
    moreKeys: "set",
    args: pageArgs,
    bytes: true,
    replies: {
      OK: {
        rows: listOf(row({ member: text, consumer: text, heldMillis: number, attempt: number, record: bytes }))
      }
    },
    lua: /* lua */ `${clock}${records}${source.lua}${weighing}${marking}${nth}
touch()
local now, held, of, order = clock(), {}, {}, {}
for i = moreArgs + 1, #ARGV do
  for _, member in ipairs(redis.call('SMEMBERS', KEYS[moreKeys + i - moreArgs])) do
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
local rows = {}
order[from] = order[from] or nth(idOf(from))
for _, member in ipairs(held) do
  if #rows == limit or not room() then break end
  if from == '' or before(from, member) then
    local id = idOf(member)
    local since = redis.call('HGET', state, 'oldest:' .. of[member])
    rows[#rows + 1] = {member, of[member], since and math.max(0, now - tonumber(since)) or 0, marked(id) + 1,
      weigh(read({id})[1] or '0')}
  end
end
return {'OK', rows}
`
  })

/**
 * Messages that came back: first those that may be taken now, then those due later. A place is the part (`a` returned, `b` suspects,
 * `c` due later), for `c` the due time and a colon, and the id; or "a".
 */
const waiting = (source: Source) =>
  script({
    name: named(source, "waiting"),
    mode: "reads",
    keys: { ...source.keys, ...keys("waiting", "returned", "suspects", "marks") },
    args: pageArgs,
    bytes: true,
    replies: {
      OK: {
        now: number,
        rows: listOf(
          row({ position: text, id: text, dueAt: number, attempts: number, cause: text, record: bytes, tally: text })
        )
      }
    },
    lua: /* lua */ `${clock}${records}${source.lua}${weighing}
touch()
local now, rows = clock(), {}
local part, place = string.sub(from, 1, 1), string.sub(from, 2)
local function later(position, id, due)
  local text, tally = redis.call('HGET', marks, id) or '', ''
  text = string.gsub(text, '\\31(%d+;[01];[^%s\\31]*)$', function(found) tally = found return '' end)
  local attempts, cause = string.match(text, '^(%d+):%d+:%d+:(.*)$')
  rows[#rows + 1] = {position, id, due, tonumber(attempts) or 0, cause or '', weigh(read({id})[1] or '0'), tally}
end
for _, of in ipairs({{'a', returned}, {'b', suspects}}) do
  local letter, list = of[1], of[2]
  if part <= letter and #rows < limit and room() then
    local found = part == letter and place ~= '' and redis.call('LPOS', list, place)
    local start = found and found + 1 or 0
    for _, id in ipairs(redis.call('LRANGE', list, start, start + limit - #rows - 1)) do
      if room() then later(letter .. id, id, now) end
    end
  end
end${rowsOfWaiting("c")}return {'OK', now, rows}
`
  })

/** The same message under its old id, with a new count of attempts and a continued fence. */
const redrive = (source: Source) =>
  redriving({
    name: named(source, "redrive"),
    keys: { ...source.keys, ...keys("dead", "deadIds", "returned", "suspects", "marks", "state", "wake") },
    done: "tell(0)",
    lua: /* lua */ `${records}${source.lua}${marking}
local function back(entry, f, from, head)
  -- A letter that another program wrote has an id of its own: its entry.
  local id, fence, message, at, tally = 'letter-' .. entry, 0, nil, nil, nil
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
  return true
end
`
  })

/**
 * Deletes what no consumer of the group holds, some at a time; without a group, what is left then and not due yet. `mark`, "" at first,
 * is what the source notes about how far to go.
 */
const purge = (source: Source) =>
  script({
    name: named(source, "purge"),
    mode: "drains",
    keys: { ...source.keys, ...keys("waiting", "returned", "suspects", "marks", "omitted") },
    args: { mark: "text" },
    replies: {
      OK: {
        mark: text,
        /** Call again. */
        more: flag
      }
    },
    lua: /* lua */ `${clock}${records}${source.lua}
touch()
local most, more = 500, false
local function drop(found)
  if #found == 0 then return end
  forget(found)
  redis.call('HDEL', marks, unpack(found))
  redis.call('ZREM', omitted, unpack(found))
  more = more or #found == most
end
for _, list in ipairs({suspects, returned}) do drop(redis.call('LPOP', list, most) or {}) end
local later = redis.call('ZRANGE', waiting, 0, most - 1)
if #later > 0 then redis.call('ZREM', waiting, unpack(later)) end
drop(later)
${source.frees === true ? `redis.call('UNLINK', unique${source.gives === true ? ", named" : ""})` : ""}
local noted, rest = clear(mark)
return {'OK', noted, (more or rest) and 1 or 0}
`
  })

/**
 * Deletes a group, with all it keeps. Where its messages belong to the topic, they go back there first, some at a time.
 *
 * Further arguments: the consumers. Further keys: processing of each.
 */
const retire = (source: Source) =>
  script({
    name: named(source, "retire"),
    mode: "drains",
    keys: {
      ...source.keys,
      ...keys("groups", "waiting", "returned", "suspects", "marks", "omitted", "dead", "deadIds", "cancelled"),
      ...keys("consumers", "state")
    },
    moreKeys: "set",
    args: { group: "text" },
    replies: {
      OK: {},
      /** Not done yet: list the consumers and call again. */
      AGAIN: {}
    },
    lua: /* lua */ `${clock}${records}${source.lua}${occupying}${marking}${nth}
touch()
local refused = occupied(group, clock())
if refused then return refused end
local asked = {}
for i = moreArgs + 1, #ARGV do asked[ARGV[i]] = true end
-- One that joined and died since the caller listed them.
for _, consumer in ipairs(redis.call('ZRANGE', consumers, 0, -1)) do
  if not asked[consumer] then return {'AGAIN'} end
end
${source.hands === true ? handing : ""}
close()
redis.call('SREM', groups, group)
redis.call('UNLINK', waiting, returned, suspects, marks, omitted, dead, deadIds, cancelled, consumers, state)
for k = moreKeys + 1, #KEYS do redis.call('UNLINK', KEYS[k]) end
return {'OK'}
`
  })

/** What would be delivered last goes back first: each goes to the front. */
const handing = /* lua */ `
local done, bytes = 0, 0
local function handed(id)
  done = done + 1
  if redis.call('ZREM', omitted, id) == 0 then bytes = bytes + handBack(id) end
  return done < 1000 and bytes < 1048576
end
local function last()
  return redis.call('ZRANGE', waiting, 0, 0, 'REV')[1]
end
for id in last do
  redis.call('ZREM', waiting, id)
  if not handed(id) then return {'AGAIN'} end
end
for _, list in ipairs({suspects, returned}) do
  while redis.call('LLEN', list) > 0 do
    if not handed(redis.call('RPOP', list)) then return {'AGAIN'} end
  end
end
for k = moreKeys + 1, #KEYS do
  local members = redis.call('SMEMBERS', KEYS[k])
  table.sort(members, function(a, b) return nth(idOf(a)) > nth(idOf(b)) end)
  for _, member in ipairs(members) do
    redis.call('SREM', KEYS[k], member)
    if redis.call('ZREM', cancelled, member .. ' ' .. ARGV[moreArgs + k - moreKeys]) == 1 then forget({idOf(member)})
    elseif not handed(idOf(member)) then return {'AGAIN'} end
  end
end
`

/** Inspects with `overview` and, for each group, `describe`. */
const remove = (source: Source) => {
  const figures = describe(source)
  return removal(
    named(source, "remove"),
    bodyOf(overview(source, source.passes === true ? "if pass() then return {'AGAIN'} end" : "")),
    /* lua */ `local function figures(KEYS, ARGV)
${bodyOf(figures)}
end
local found, asked = figures(KEYS, ARGV), {}
if found[1] ~= 'OK' then return found end
for _, consumer in ipairs(ARGV) do asked[consumer] = true end
-- A consumer that joined after the caller's inspection holds what the caller did not ask for.
for _, consumer in ipairs(redis.call('ZRANGE', KEYS[${figures.keyNames.indexOf("consumers") + 1}], 0, -1)) do
  if not asked[consumer] then found[10] = {consumer, 0, 0} end
end
return found`
  )
}

export const make = (source: Source) => ({
  overview: overview(source),
  describe: describe(source),
  messages: messages(source),
  pending: pending(source),
  waiting: waiting(source),
  redrive: redrive(source),
  purge: purge(source),
  retire: retire(source),
  remove: remove(source)
})
