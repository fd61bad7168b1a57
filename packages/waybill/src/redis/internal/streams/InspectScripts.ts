/**
 * Inspecting a topic, which writes nothing, and redriving dead letters.
 *
 * @module
 */
import { bit, bytes, flag, listOf, make, number, row, text } from "../connection/Script.ts"
import { counting, redriving } from "../inspect/DeadLetterScripts.ts"
import { asides, figures, loneliness, pageArgs, rowsOfWaiting } from "../inspect/Figures.ts"
import { bodyOf, occupying, removal } from "../inspect/Removal.ts"
import { keys } from "../wire/Keys.ts"
import { add, ask, clock, ids, infos, lagging, maps, paging, weighing } from "../wire/Lua.ts"
import { trimming } from "./GroupScripts.ts"
import { nobody, noting, sources } from "./Progress.ts"

/**
 * A topic and its groups. Inspecting a thousand topics is common, so it asks nothing twice and nothing that it can know to be
 * empty.
 *
 * The backlog is exact if the group is at the end, has not begun, or has at most 32 entries to go. In between it is computed from
 * the entries ever added and read, less those trimmed: exact too, unless single entries were deleted by hand.
 *
 * Further keys, for each group: retry stream, waiting, dead letters, consumers, state. Further arguments: the groups.
 */
export const describe = make({
  name: "waybill/describe",
  mode: "reads",
  keys: keys("stream", "meta", "delayed"),
  replies: {
    OK: {
      /** "" if the topic was never opened. */
      opened: text,
      depth: number,
      later: number,
      /** When the next delayed message is due, -1 if there is none. */
      next: number,
      /** Entries ever added, -1 if the server does not count. */
      published: number,
      /** For each group. */
      figures: listOf(row({ tag: text, ...figures })),
      /** Groups of the stream that were not asked for. */
      others: listOf(text),
      /** Whether there are limits for everything, or for what is settled. */
      limited: flag,
      keepsHistory: flag
    }
  },
  lua: /* lua */ `${clock}${ask}${maps}${ids}${counting}${asides}${loneliness}
local call = redis.call
local now = clock()

local function groupsOf(key)
  local found = {}
  for _, flat in ipairs(ask('XINFO', 'GROUPS', key) or {}) do
    local group = of(flat)
    found[group['name']] = group
  end
  return found
end

local function backlog(key, info, mine)
  if not info or info['length'] == 0 then return 0 end
  if not mine then return info['length'] end
  local at = mine['last-delivered-id']
  if not less(at, info['last-generated-id']) then return 0 end
  if less(at, info['first-entry'][1]) then return info['length'] end
  -- The server's own count is right until single entries are deleted: its groups are told what was trimmed before them.
  if mine['lag'] and info['max-deleted-entry-id'] == '0-0' then return math.min(info['length'], mine['lag']) end
  local ahead = #call('XRANGE', key, '(' .. at, '+', 'COUNT', 33)
  if ahead < 33 then return ahead end
  if mine['entries-read'] and info['entries-added'] then
    return math.max(ahead, math.min(info['length'], info['entries-added'] - mine['entries-read']))
  end
  return math.max(ahead, math.min(info['length'], mine['lag'] or info['length']))
end

local info = ask('XINFO', 'STREAM', stream)
info = info and of(info)
local mine = info and groupsOf(stream) or {}
local figures, asked, places = {}, {}, {}
for g = 1, #ARGV do
  local k = moreKeys + 1 + 5 * (g - 1)
  places[#places + 1] = KEYS[k]
  places[#places + 1] = KEYS[k + 1]
  places[#places + 1] = KEYS[k + 2]
end
-- Retries and dead letters are rare: one question for the keys of all groups.
local calm = #places == 0 or call('EXISTS', unpack(places)) == 0
for g = 1, #ARGV do
  local group, k = ARGV[g], moreKeys + 1 + 5 * (g - 1)
  local retry, waiting, dead, consumers, state = KEYS[k], KEYS[k + 1], KEYS[k + 2], KEYS[k + 3], KEYS[k + 4]
  asked[group] = true
  local noted = of(call('HGETALL', state))
  local pending, released, oldest, held = 0, 0, 0, {}
  local function count(key)
    local summary = ask('XPENDING', key, group)
    if not summary or summary[1] == 0 then return end
    for _, one in ipairs(summary[4]) do
      local name, holds = one[1], tonumber(one[2])
      if name == '${nobody}' then
        released = released + holds
      else
        pending = pending + holds
        held[name] = (held[name] or 0) + holds
        oldest = math.max(oldest, call('XPENDING', key, group, '-', '+', 1, name)[1][3])
        local since = noted['oldest:' .. name]
        if since then oldest = math.max(oldest, now - tonumber(since)) end
      end
    end
  end
  if mine[group] and mine[group]['pending'] > 0 then count(stream) end
  local retries = not calm and call('XLEN', retry) > 0
  if retries then count(retry) end
  local living = {}
  local alive = call('ZRANGEBYSCORE', consumers, string.format('(%.0f', now), '+inf', 'WITHSCORES')
  for i = 1, #alive, 2 do
    living[#living + 1] = alive[i]
    living[#living + 1] = held[alive[i]] or 0
    living[#living + 1] = tonumber(alive[i + 1]) - now
  end
  local again = released
  if retries then
    again = again + backlog(retry, of(call('XINFO', 'STREAM', retry)), groupsOf(retry)[group])
  end
  local later, next = calm and 0 or call('ZCARD', waiting), again > 0 and now or -1
  if later > 0 and again == 0 then next = tonumber(call('ZRANGE', waiting, 0, 0, 'WITHSCORES')[2]) end
  local letters, old = 0, 0
  if not calm then letters, old = deadCount(dead, state, now) end
  figures[#figures + 1] = {'OK', backlog(stream, info, mine[group]), pending, oldest,
    later + again, next, letters, tonumber(noted['dropped'] or '0'), noted['paused'] and 1 or 0, living,
    mine[group] and mine[group]['last-delivered-id'] or '', old, lately(noted['newer'], now),
    #living == 0 and alone(consumers, noted['left'], now) or -1}
end
local others = {}
for group in pairs(mine) do if not asked[group] then others[#others + 1] = group end end
local laters = call('ZCARD', delayed)
local next = laters > 0 and tonumber(call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2]) or -1
local opened = call('HMGET', meta, 'pattern', 'maxLength', 'history')
return {'OK', opened[1] or '', info and info['length'] or 0, laters, next,
  not info and 0 or info['entries-added'] or -1, figures, others, opened[2] and 1 or 0, opened[3] and 1 or 0}
`
})

/** One page of the stream. */
export const messages = make({
  name: "waybill/messages",
  mode: "reads",
  keys: keys("stream"),
  args: { ...pageArgs, newest: "number" },
  bytes: true,
  replies: {
    OK: {
      /** As in replies of XRANGE and XREVRANGE. */
      entries: listOf(row({ entry: text, fields: listOf(bytes) }))
    }
  },
  lua: /* lua */ `${weighing}${paging}
touch()
local backwards = newest == 1
from = from ~= '' and '(' .. from or backwards and '+' or '-'
return {'OK', page(stream, from, limit, backwards)}
`
})

/** The messages that consumers of a group hold: first from the stream, then from the retry stream. */
export const pending = make({
  name: "waybill/pending",
  mode: "reads",
  keys: keys("stream", "retry", "released", "state"),
  args: {
    ...pageArgs,
    group: "text",
    /** The source in which to begin. */
    first: "number"
  },
  bytes: true,
  replies: {
    OK: {
      rows: listOf(
        row({
          source: bit,
          entry: text,
          consumer: text,
          /** The longest possible time. */
          heldMillis: number,
          count: number,
          released: number,
          /** None if the entry was trimmed. */
          fields: listOf(bytes)
        })
      )
    }
  },
  lua: /* lua */ `${clock}${ask}${weighing}${sources}
touch()
local rows, now, since = {}, clock(), {}
-- Renewing a lease makes the server forget since when: the consumer reports it for its oldest delivery.
local function held(consumer, idle)
  if since[consumer] == nil then since[consumer] = tonumber(redis.call('HGET', state, 'oldest:' .. consumer) or now) end
  return math.max(idle, now - since[consumer])
end
for source = first, 1 do
  local at = source == first and from ~= '' and '(' .. from or '-'
  while #rows < limit and room() do
    local page = ask('XPENDING', sources[source], group, at, '+', limit)
    if not page or #page == 0 then break end
    for _, row in ipairs(page) do
      at = '(' .. row[1]
      if row[2] ~= '${nobody}' and #rows < limit and room() then
        local there = redis.call('XRANGE', sources[source], row[1], row[1])[1]
        rows[#rows + 1] = {source, row[1], row[2], held(row[2], row[3]), row[4],
          tonumber(redis.call('HGET', released, source .. row[1]) or '0'), weigh(there and there[2] or {})}
      end
    end
  end
end
return {'OK', rows}
`
})

/**
 * Messages waiting for their next attempt: first those that may be taken now (released, or due and not taken), then those due later.
 * A place is a letter for the part (`a` released, `b` released retries, `c` due, `d` due later) and a name within the part; or "a".
 */
export const waiting = make({
  name: "waybill/waiting",
  mode: "reads",
  keys: keys("stream", "retry", "released", "waiting", "waitingBodies", "retryIds"),
  args: {
    ...pageArgs,
    group: "text"
  },
  bytes: true,
  replies: {
    OK: {
      now: number,
      rows: listOf(
        row({
          position: text,
          source: bit,
          entry: text,
          dueAt: number,
          count: number,
          released: number,
          fields: listOf(bytes),
          /** For part `d`. */
          cause: text
        })
      )
    }
  },
  lua: /* lua */ `${clock}${ask}${maps}${infos}${weighing}${sources}
touch()
local now, rows = clock(), {}
local part, place = string.sub(from, 1, 1), string.sub(from, 2)
local function fieldsOf(key, entry)
  local there = redis.call('XRANGE', key, entry, entry)[1]
  return weigh(there and there[2] or {})
end
local function later(position, member, due)
  local body = redis.call('HGET', waitingBodies, member)
  local ok, fields = pcall(cmsgpack.unpack, body or '')
  if not ok or type(fields) ~= 'table' then fields = {'', '', 0, 0, '', 'payload', body or ''} end
  local raw = {'id', tostring(fields[1]), 'at', tostring(fields[2]), 'attempt', tostring(fields[3]), 'fence',
    tostring(fields[4])}
  for f = 6, #fields do raw[#raw + 1] = fields[f] end
  rows[#rows + 1] = {position, 1, member, due, 0, 0, weigh(raw), weigh(tostring(fields[5]))}
end
for source = 0, 1 do
  local letter = source == 0 and 'a' or 'b'
  if part <= letter and room() then
    local from = part == letter and place ~= '' and '(' .. place or '-'
    local page = ask('XPENDING', sources[source], group, from, '+', limit - #rows + 1, '${nobody}') or {}
    for _, row in ipairs(page) do
      if #rows == limit or not room() then break end
      rows[#rows + 1] = {letter .. row[1], source, row[1], now, row[4],
        tonumber(redis.call('HGET', released, source .. row[1]) or '0'), fieldsOf(sources[source], row[1]), ''}
    end
  end
end
if part <= 'c' and #rows < limit and room() then
  local mine = infoOf(retry, group)
  local from = part == 'c' and place ~= '' and place or mine and mine['last-delivered-id'] or '0-0'
  local more = true
  while more and #rows < limit and room() do
    local some = redis.call('XRANGE', retry, '(' .. from, '+', 'COUNT', math.min(16, limit - #rows))
    for _, entry in ipairs(some) do
      if not room() then break end
      rows[#rows + 1] = {'c' .. entry[1], 1, entry[1], now, 0, 0, weigh(entry[2]), ''}
      from = entry[1]
    end
    more = #some > 0
  end
end${rowsOfWaiting("d")}return {'OK', now, rows}
`
})

/** The same message, with a new count of attempts and a continued fence. */
export const redrive = redriving({
  name: "waybill/redrive",
  keys: keys("dead", "deadIds", "retry", "retryIds", "state"),
  lua: /* lua */ `${add}
local function back(_, f, from, head)
  local again = head and {'id', head.id, 'at', head.at, 'attempt', '0', 'fence', head.fence} or {}
  if head and (head.partial or f[from] == 'tally') then
    again[9] = 'tally'
    again[10] = head.partial and '0;1;' or '0;0;'
  end
  local entry = add(retry, again, f, from)
  index(retryIds, scoreOf(entry), head and head.id or entry)
  return entry
end
`
})

/**
 * Takes away from a group what none of its consumers holds: moves it behind the messages stored so far, and deletes those that wait
 * for their next attempt, about a thousand at a time.
 */
export const purgeGroup = make({
  name: "waybill/purge-group",
  mode: "drains",
  keys: keys("stream", "retry", "released", "waiting", "waitingBodies", "retryIds"),
  args: {
    group: "text",
    /** The last message to take away, or "" for the last one that there is. */
    upTo: "text"
  },
  replies: {
    OK: {
      upTo: text,
      /** Call again. */
      more: flag
    }
  },
  lua: /* lua */ `${ids}${ask}${maps}${infos}${weighing}${paging}${lagging}${sources}
touch()
local function last(key)
  local info = ask('XINFO', 'STREAM', key)
  info = info and of(info) or {}
  return info['last-generated-id'] or '0-0', info['entries-added']
end
local more = 0
for source = 0, 1 do
  local key = sources[source]
  local to, added = last(key)
  if source == 0 then
    if upTo == '' then upTo = to end
    to = upTo
  end
  local mine = infoOf(key, group)
  if mine then
    if less(mine['last-delivered-id'], to) then
      local since = behind(key, to)
      local call = {'XGROUP', 'SETID', key, group, to}
      -- So that nothing of it counts as trimmed unseen.
      if added and since then
        call[6] = 'ENTRIESREAD'
        call[7] = string.format('%.0f', added - since)
      end
      redis.call(unpack(call))
    end
    local given = ask('XPENDING', key, group, '-', '+', 1000, '${nobody}')
    for _, row in ipairs(given) do
      redis.call('XACK', key, group, row[1])
      redis.call('HDEL', released, source .. row[1], '!' .. source .. row[1])
    end
    if #given == 1000 then more = 1 end
  end
end
redis.call('UNLINK', waiting, waitingBodies)
-- Of those that waited: consumers hold the others.
local waited = redis.call('ZRANGE', retryIds, '-inf', '(0', 'BYSCORE', 'LIMIT', 0, 1000)
if #waited > 0 then redis.call('ZREM', retryIds, unpack(waited)) end
if #waited == 1000 then more = 1 end
return {'OK', upTo, more}
`
})

/** Deletes what is not due yet, and frees all ids; and deletes what no group needs up to this message, or to the last one. */
export const purge = make({
  name: "waybill/purge",
  mode: "drains",
  keys: keys("stream", "delayed", "delayedBodies", "unique"),
  args: {
    upTo: "text",
    /** About how many entries to remove at most. */
    most: "number"
  },
  replies: { OK: { upTo: text, more: flag } },
  lua: /* lua */ `${ids}${ask}${maps}${trimming}
touch()
redis.call('UNLINK', delayed, delayedBodies, unique)
if redis.call('EXISTS', stream) == 0 then return {'OK', upTo, 0} end
if upTo == '' then upTo = of(redis.call('XINFO', 'STREAM', stream))['last-generated-id'] end
local low, needed = after(upTo), settled(stream, {})
if needed and less(needed, low) then low = needed end
return {'OK', upTo, cutTo(stream, low, most) and 1 or 0}
`
})

/**
 * Moves a group on the stream. What it had taken after its new place and not settled is given back, at most a thousand at a time: it
 * comes again.
 */
export const move = make({
  name: "waybill/move",
  mode: "drains",
  keys: keys("stream", "retry", "consumers", "state", "released"),
  args: {
    group: "text",
    /** The last entry that it does not get: an id, or `$`. */
    to: "text"
  },
  replies: {
    OK: {},
    /** Call again, with the same place. */
    AGAIN: {},
    /** There is no such group. */
    GONE: {}
  },
  lua: /* lua */ `${clock}${ids}${ask}${maps}${weighing}${paging}${lagging}${sources}${noting}${occupying}
touch()
local now = clock()
local refused = occupied(group, now)
if refused then return refused end
if not infoOf(stream, group) then return {'GONE'} end
local info = of(redis.call('XINFO', 'STREAM', stream))
local last, first, added = info['last-generated-id'], info['first-entry'], info['entries-added']
if to == '$' then to = last end
local call = {'XGROUP', 'SETID', stream, group, to}
-- Without it, the server counts again once the group has reached the end.
local ahead = 0
if not first or less(to, first[1]) then ahead = info['length']
elseif less(to, last) then ahead = behind(stream, to) end
if added and ahead and not less(last, to) then
  call[6] = 'ENTRIESREAD'
  call[7] = string.format('%.0f', added - ahead)
end
redis.call(unpack(call))
local given = redis.call('XPENDING', stream, group, '(' .. to, '+', 1000)
for _, row in ipairs(given) do
  redis.call('XACK', stream, group, row[1])
  redis.call('HDEL', released, '0' .. row[1], '!0' .. row[1])
end
-- If the group is lost, it goes on from here.
redis.call('HSET', state, 'mark', to)
note(now)
return {#given == 1000 and 'AGAIN' or 'OK'}
`
})

/** Deletes a group on both streams, with all it keeps. What only it held back can be trimmed then. */
export const retire = make({
  name: "waybill/retire",
  mode: "drains",
  keys: keys(
    "stream",
    "retry",
    "meta",
    "groups",
    "consumers",
    "state",
    "released",
    "waiting",
    "waitingBodies",
    "retryIds",
    "dead",
    "deadIds",
    "cancelled"
  ),
  args: { group: "text" },
  replies: {
    OK: {
      /** Whether the stream has limits. */
      limited: flag
    }
  },
  lua: /* lua */ `${clock}${occupying}
touch()
local refused = occupied(group, clock())
if refused then return refused end
local limits = redis.call('HMGET', meta, 'maxLength', 'history')
if redis.call('EXISTS', stream) == 1 then redis.call('XGROUP', 'DESTROY', stream, group) end
redis.call('SREM', groups, group)
redis.call('HDEL', meta, 'cut:' .. group, 'on:' .. group)
redis.call('UNLINK', retry, consumers, state, released, waiting, waitingBodies, retryIds, dead, deadIds, cancelled)
return {'OK', (limits[1] or limits[2]) and 1 or 0}
`
})

/**
 * The topic is inspected by `describe`, with all groups. For a group it is made sure that it has read its streams to the end, because
 * a backlog may be the server's estimate. Its KEYS: stream, retry stream, state; its argument: the group.
 */
export const remove = removal(
  "waybill/remove",
  /* lua */ `local function inspect(KEYS, ARGV)
${bodyOf(describe)}
end
local found = inspect(KEYS, ARGV)
if found[1] == 'OK' then for i = 1, #ARGV do seen[ARGV[i]] = found[7][i] end end
return found`,
  /* lua */ `${ids}${ask}${maps}${infos}
local function unread(stream, at)
  local newest = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  return newest and (at == '' or less(at, newest[1])) and 1 or 0
end
local figures, again = seen[ARGV[1]], infoOf(KEYS[2], ARGV[1])
figures[2] = unread(KEYS[1], figures[11])
figures[5] = math.max(figures[5], unread(KEYS[2], again and again['last-delivered-id'] or ''))
return figures`
)
