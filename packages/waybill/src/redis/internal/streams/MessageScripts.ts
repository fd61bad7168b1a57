/**
 * One message of a stream by its id: where it is in each group, and steering it. Nothing is searched: the cost is that of a few
 * look-ups for each group.
 *
 * @module
 */
import { bit, bytes, listOf, make, namesOf, number, row, text } from "../connection/Script.ts"
import { pageArgs, rowsOfWaiting } from "../inspect/Figures.ts"
import { places } from "../inspect/MessagePlaces.ts"
import { coalesced } from "../publish/PublishScript.ts"
import { keys } from "../wire/Keys.ts"
import { announce, ask, clock, ids, maps, split, weighing } from "../wire/Lua.ts"
import { nobody } from "./Progress.ts"

/** The keys of a group. They follow the marker of the message's id, the first of the further keys; the groups are further arguments. */
export const ofGroup = keys(
  "retry",
  "waiting",
  "waitingBodies",
  "retryIds",
  "dead",
  "deadIds",
  "released",
  "cancelled",
  "state"
)

export const groupKeys = namesOf(ofGroup)

const ofTopic = keys("stream", "types", "delayed", "delayedBodies", "promoted", "unique", "ownIds", "wake")

/**
 * `due`: when the message is due, if it is not yet; `member`: its name among the delayed. `entry`: its entry of the stream, if it
 * was one; `main`: its fields in either place. `marker`: the key of the marker of its id.
 *
 * `placeIn(g)`: where it is in that group:
 *
 * | `state` | | fields |
 * |---|---|---|
 * | `R` | not given to a consumer | |
 * | `P` | a consumer holds it | `source`, `entry`, `consumer`, `idle`, `count` |
 * | `W` | waits | `source`, `entry`; `count` > 0: it was handed back; `due`: later; otherwise it is due and not taken yet |
 * | `D` | dead letter | `entry` |
 * | `S` | nothing of it is known | |
 */
const locating = /* lua */ `${clock}${ask}${ids}${maps}${split}${places}
local call = redis.call
local now = clock()
local function at(key, entry)
  local found = call('XRANGE', key, entry, entry)[1]
  return found and found[2]
end
local function unpacked(body)
  local ok, fields = pcall(cmsgpack.unpack, body or '')
  return ok and type(fields) == 'table' and fields or nil
end
local owned, marker = call('HGET', unique, id), KEYS[moreKeys + 1]
local marked = call('GET', marker)
local stored = owned and string.match(owned, '^%S+') or marked
local own = tonumber(call('ZSCORE', ownIds, id) or '')
local entry, member, due, main
-- Its name among the delayed messages, if it is one that coalesces.
local coalesced = '${coalesced}' .. id
if call('ZSCORE', delayed, coalesced) then member = coalesced
elseif stored and string.byte(stored) == 100 then member = string.sub(stored, 2)
elseif stored and string.find(stored, '^%d+%-%d+$') then entry = stored
elseif own then
  if own < 0 then member = string.format('%012d', -own) else entry = entryOf(own) end
elseif string.find(id, '^%d+%-%d+$') then entry = id
else
  local number = string.match(id, '^%d+%-d(%d+)$')
  member = number and string.format('%012d', number) or coalesced
end
if member then
  due = call('ZSCORE', delayed, member)
  local score = not due and call('ZSCORE', promoted, member)
  if due then main = unpacked(call('HGET', delayedBodies, member))
  elseif score then entry = entryOf(score) end
end
if entry then main = at(stream, entry) end
-- Markers outlive their messages, and entries may share a score: what was found may be another message.
if not main or split('0', entry or '', main) ~= id then
  if main or member then entry = nil end
  main, due = nil, nil
end
local read = {}
for _, flat in ipairs(ask('XINFO', 'GROUPS', stream) or {}) do
  local mine = of(flat)
  read[mine['name']] = mine['last-delivered-id']
end
local function placeIn(g)
  local group, k = ARGV[moreArgs + g], moreKeys + 1 + ${groupKeys.length} * (g - 1)
  local place = {group = group, state = 'S'}
  ${groupKeys.map((key, i) => `place.${key}${key === "state" ? "Key" : ""} = KEYS[k + ${i + 1}]`).join("\n  ")}
  local sources = {[0] = stream, place.retry}
  local function held(source, entry)
    local row = ask('XPENDING', sources[source], group, entry, entry, 1)
    row = row and row[1]
    if not row then return end
    place.source, place.entry, place.count = source, entry, row[4]
    if row[2] == '${nobody}' then place.state = 'W'
    else place.state, place.consumer, place.idle = 'P', row[2], row[3] end
    return true
  end
  local function waits(source, entry)
    local score = call('ZSCORE', place.waiting, source .. entry)
    local body = score and unpacked(call('HGET', place.waitingBodies, source .. entry))
    if not body or body[1] ~= id then return end
    place.state, place.source, place.entry, place.due, place.body = 'W', source, entry, tonumber(score), body
    return true
  end
  if entry then
    if held(0, entry) or waits(0, entry) then return place end
    if main and read[group] and less(read[group], entry) then
      place.state = 'R'
      return place
    end
  end
  local score = call('ZSCORE', place.retryIds, id)
  if score then
    local last = entryOf(score)
    if tonumber(score) < 0 then
      if waits(1, last) or waits(0, last) then return place end
    else
      local fields = at(place.retry, last)
      if not fields or split('1', last, fields) ~= id then fields = nil end
      if fields and held(1, last) then return place end
      for _, flat in ipairs(fields and ask('XINFO', 'GROUPS', place.retry) or {}) do
        local mine = of(flat)
        if mine['name'] == group and less(mine['last-delivered-id'], last) then
          place.state, place.source, place.entry = 'W', 1, last
          return place
        end
      end
    end
  end
  score = call('ZSCORE', place.deadIds, id)
  local letter = score and at(place.dead, entryOf(score))
  if letter and letter[9] == 'id' and letter[10] == id then
    place.state, place.entry, place.at = 'D', entryOf(score), letter[12]
  end
  return place
end
local groups, known = {}, main
for g = 1, #ARGV - moreArgs do
  groups[g] = placeIn(g)
  known = known or groups[g].state ~= 'S'
end
if not known then return {'MISSING', id} end
`

/** Where a message is. Fails with `MessageNotFound`. */
export const locate = make({
  name: "waybill/locate",
  mode: "reads",
  keys: ofTopic,
  args: { id: "text" },
  bytes: true,
  replies: {
    OK: {
      now: number,
      /** When it is due, -1 if it is not delayed. */
      due: number,
      /** The entry of the stream, or "". */
      entry: text,
      /** None if it is only somewhere in a group. */
      fields: listOf(bytes),
      groups: listOf(
        row({
          group: text,
          state: text,
          source: bit,
          entry: text,
          consumer: text,
          heldMillis: number,
          count: number,
          released: number,
          /** Attempts in which consumers died since the entry was made, as a tally, or "". */
          died: text,
          dueAt: number,
          cause: text,
          /** None if they are those above. */
          fields: listOf(bytes)
        })
      )
    }
  },
  lua: /* lua */ `${locating}
local rows = {}
for g, place in ipairs(groups) do
  local fields, cause, idle, uncounted, log = {}, '', place.idle or 0, 0, ''
  local key = place.source == 1 and place.retry or stream
  if place.state == 'D' then fields = at(place.dead, place.entry) or {}
  elseif place.due then
    local raw = place.body
    fields = {'id', tostring(raw[1]), 'at', tostring(raw[2]), 'attempt', tostring(raw[3]), 'fence', tostring(raw[4])}
    for f = 6, #raw do fields[#fields + 1] = raw[f] end
    cause = tostring(raw[5])
  elseif place.source == 1 then fields = at(key, place.entry) or {} end
  if place.state == 'P' then
    local since = call('HGET', place.stateKey, 'oldest:' .. place.consumer)
    if since then idle = math.max(idle, now - tonumber(since)) end
  end
  if place.count then
    local of = place.source .. place.entry
    uncounted = tonumber(call('HGET', place.released, of) or '0')
    log = call('HGET', place.released, '!' .. of) or ''
  end
  rows[g] = {place.group, place.state, place.due and 1 or place.source or 0, place.entry or '', place.consumer or '', idle,
    place.due and 0 or place.count or 0, uncounted, log, place.due or now, cause, fields}
end
return {'OK', now, due and tonumber(due) or -1, entry or '', main or {}, rows}
`
})

/**
 * `stranger()`: a group that was not asked for, and its consumer that holds the message.
 * `removeAll(isHeld)`: deletes a message where no consumer holds it; `isHeld`: its entry stays. Its id is free then.
 *
 * They use `locating`.
 */
const removing = /* lua */ `
local function stranger()
  local listed = {}
  for g = moreArgs + 1, #ARGV do listed[ARGV[g]] = true end
  for group in pairs(entry and read or {}) do
    local row = not listed[group] and ask('XPENDING', stream, group, entry, entry, 1)
    if row and row[1] and row[1][2] ~= '${nobody}' then return group, row[1][2] end
  end
end
-- For a group that has yet to read it, it counts as read: otherwise it would count as trimmed.
local function drop(key, entry)
  for _, flat in ipairs(ask('XINFO', 'GROUPS', key) or {}) do
    local mine = of(flat)
    local last, read = mine['last-delivered-id'], mine['entries-read']
    if read and less(last, entry) then
      call('XGROUP', 'SETID', key, mine['name'], last, 'ENTRIESREAD', string.format('%.0f', read + 1))
    end
  end
  call('XDEL', key, entry)
  -- They count it.
  redis.pcall('UNLINK', types)
end
local function removeAll(isHeld)
  if due then
    call('ZREM', delayed, member)
    call('HDEL', delayedBodies, member)
  end
  for _, place in ipairs(groups) do
    if place.state == 'W' then
      local of = place.source .. place.entry
      if place.due then
        call('ZREM', place.waiting, of)
        call('HDEL', place.waitingBodies, of)
      else
        local key = place.source == 1 and place.retry or stream
        if place.count then
          call('XACK', key, place.group, place.entry)
          call('HDEL', place.released, of, '!' .. of)
        end
        if place.source == 1 then drop(key, place.entry) end
      end
      call('ZREM', place.retryIds, id)
    end
  end
  if not isHeld then
    if entry and main then drop(stream, entry) end
    if owned then call('HDEL', unique, id) end
    if main and own then call('ZREM', ownIds, id) end
    if main and marked and stored == marked then call('DEL', marker) end
  end
end
`

/**
 * Deletes a message everywhere, or changes nothing: fails with `MessageInUse` if a consumer holds it.
 */
export const removeMessage = make({
  name: "waybill/remove-message",
  mode: "drains",
  keys: ofTopic,
  args: { id: "text" },
  replies: { OK: {} },
  lua: /* lua */ `${locating}${removing}
for _, place in ipairs(groups) do
  if place.state == 'P' then return {'HELD', id, place.group, place.consumer} end
end
local group, holder = stranger()
if group then return {'HELD', id, group, holder} end
removeAll()
for _, place in ipairs(groups) do
  if place.state == 'D' then
    call('XDEL', place.dead, place.entry)
    -- The message that the marker names: it was published at that time.
    if marked and string.match(marked, '^%d+') == place.at then call('DEL', marker) end
    call('ZREM', place.deadIds, id)
  end
end
return {'OK'}
`
})

/** Deletes a message where no consumer holds it, and records that it is cancelled where one does. */
export const cancel = make({
  name: "waybill/cancel",
  mode: "drains",
  keys: ofTopic,
  args: { id: "text" },
  replies: { OK: { groups: listOf(text) } },
  lua: /* lua */ `${announce}${locating}${removing}
local told, isHeld = {}, stranger() ~= nil
local open = due or isHeld
for _, place in ipairs(groups) do
  open = open or place.state ~= 'D' and place.state ~= 'S'
  isHeld = isHeld or place.state == 'P'
end
-- While there is no group, it is open as long as it is stored.
if not open and #groups > 0 then return {'SETTLED', id} end
for _, place in ipairs(groups) do
  -- Its holder needs the entry, so a group that has not been given it yet is told as soon as it has.
  if place.state == 'P' or isHeld and place.state == 'R' then
    told[#told + 1] = place.group
    call('ZADD', place.cancelled, string.format('%.0f', now), (place.source or 0) .. (place.entry or entry))
    announce(wake, 0, place.group)
  end
end
removeAll(isHeld)
return {'OK', told}
`
})

/** Changes when a message is due, wherever it waits for a time. */
export const reschedule = make({
  name: "waybill/reschedule",
  mode: "drains",
  keys: ofTopic,
  args: {
    id: "text",
    /** The time in ms since the epoch. */
    time: "number"
  },
  replies: { OK: {} },
  lua: /* lua */ `${announce}${locating}
time = math.max(time, now)
local moved = due
if due then call('ZADD', delayed, 'XX', string.format('%.0f', time), member) end
for _, place in ipairs(groups) do
  if place.due then
    call('ZADD', place.waiting, 'XX', string.format('%.0f', time), place.source .. place.entry)
    moved = true
  -- It may be had already.
  elseif place.state == 'W' and time <= now then moved = true end
end
if not moved then return {'NOT WAITING', id} end
announce(wake, time - now)
return {'OK'}
`
})

/** One page of the delayed messages. A place is `d`, the due time, a colon and the member; or "a". */
export const delayed = make({
  name: "waybill/delayed",
  mode: "reads",
  keys: keys("delayed", "delayedBodies"),
  args: pageArgs,
  bytes: true,
  replies: {
    OK: {
      now: number,
      rows: listOf(row({ position: text, dueAt: number, fields: listOf(bytes) }))
    }
  },
  lua: /* lua */ `${clock}${weighing}
touch()
local rows, waiting, part, place = {}, delayed, string.sub(from, 1, 1), string.sub(from, 2)
local function later(position, member, due)
  local body = redis.call('HGET', delayedBodies, member)
  local ok, fields = pcall(cmsgpack.unpack, body or '')
  rows[#rows + 1] = {position, due, weigh(ok and type(fields) == 'table' and fields or {'payload', body or ''})}
end
${rowsOfWaiting("d")}return {'OK', clock(), rows}
`
})
