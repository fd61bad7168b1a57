/**
 * One message by its id: where it is in each group, and steering it. Nothing is searched: the cost is that of a few look-ups for each
 * group and each of its consumers.
 *
 * @module
 */
import { bytes, listOf, make as script, namesOf, number, row, text } from "../connection/Script.ts"
import { pageArgs, rowsOfWaiting } from "../inspect/Figures.ts"
import { places } from "../inspect/MessagePlaces.ts"
import { keys } from "../wire/Keys.ts"
import { announce, clock, weighing } from "../wire/Lua.ts"
import { records } from "../wire/PackedMessage.ts"
import type { Source } from "./Source.ts"

/**
 * The keys of a group. The marker of the message's id is the first of the further keys; then follow, for each group, these and
 * `processing` of each consumer. Further arguments: for each group its name, the number of its consumers, and their names.
 */
export const ofGroup = keys(
  "waiting",
  "marks",
  "omitted",
  "dead",
  "deadIds",
  "cancelled",
  "consumers",
  "state",
  "position",
  "restored"
)

export const groupKeys = namesOf(ofGroup)

const named = (source: Source, step: string) => `waybill/${source.pattern}/${step}`

const ofTopic = (source: Source) => ({ ...source.keys, ...keys("unique", "groups", "wake") })

/** Others have joined since the caller listed the groups and their consumers: list them again. */
const again = { AGAIN: {} } as const

/**
 * `entry`, `main`, `due`, `member`: what the source finds. `all`: the places, one for each group, with the `state`:
 *
 * | `state` | | fields |
 * |---|---|---|
 * | `R` | not given to a consumer | |
 * | `P` | a consumer holds it | `receipt`, `consumer` |
 * | `W` | waits | `due`: until then; without it, it came back |
 * | `D` | dead letter | `letter`: its entry; `fields` |
 * | `S` | nothing of it is known | |
 *
 * `marked`, `owned`: notes of where the message of this id was stored; `isOf(note)`: whether it is this one.
 */
const locating = ({ finding = "" }: Source, before = "touch()") => /* lua */ `${clock}${records}${places}${finding}
local now, marker = clock(), KEYS[moreKeys + 1]
${before}
local all, asked, k, a = {}, {}, moreKeys + 1, moreArgs
while a < #ARGV do
  local place = {group = ARGV[a + 1], state = 'S', consumers = {}}
  place.keys = {${groupKeys.map((name, i) => `${name} = KEYS[k + ${i + 1}]`).join(", ")}}
  k = k + ${groupKeys.length}
  local count = tonumber(ARGV[a + 2])
  for c = 1, count do place.consumers[ARGV[a + 2 + c]] = KEYS[k + c] end
  k, a = k + count, a + 2 + count
  for _, consumer in ipairs(redis.call('ZRANGE', place.keys.consumers, 0, -1)) do
    if not place.consumers[consumer] then return {'AGAIN'} end
  end
  all[#all + 1], asked[place.group] = place, true
end
for _, group in ipairs(redis.call('SMEMBERS', groups)) do if not asked[group] then return {'AGAIN'} end end
local owned, marked = redis.call('HGET', unique, id), redis.call('GET', marker)
local notes = {}
for _, note in ipairs({owned or '', marked or '', id}) do if note ~= '' then notes[#notes + 1] = note end end
local entry, main, due, member = find(id, notes, all)
local function isOf(note)
  return note and (entry and entryIn(note) == entry or member and string.match(note, '^%S+') == 'd' .. member)
end
local function locate(place)
  local names = place.keys
  place.record = not due and entry and recordIn(place, entry, main)
  if place.record then
    place.mark = redis.call('HGET', names.marks, entry)
    local fence = tonumber(string.match(place.mark or '', '^%d+:(%d+)') or '0')
    place.receipt = fence == 0 and entry or entry .. '#' .. string.format('%.0f', fence + 1)
    for consumer, processing in pairs(place.consumers) do
      if redis.call('SISMEMBER', processing, place.receipt) == 1 then
        place.state, place.consumer = 'P', consumer
        return
      end
    end
    local score = redis.call('ZSCORE', names.waiting, entry)
    if score or place.mark then place.state, place.due = 'W', score and tonumber(score)
    elseif main and isUnread(place, entry) then place.state = 'R' end
    if place.state ~= 'S' then return end
  end
  local score = redis.call('ZSCORE', names.deadIds, id)
  local letter = score and redis.call('XRANGE', names.dead, entryOf(score), entryOf(score))[1]
  if letter and letter[2][9] == 'id' and letter[2][10] == id then
    place.state, place.letter, place.fields = 'D', letter[1], letter[2]
  end
end
local known = main
for _, place in ipairs(all) do
  locate(place)
  known = known or place.state ~= 'S'
end
if not known then return {'MISSING', id} end
`

/** Where a message is. Fails with `MessageNotFound`. */
const locate = (source: Source) =>
  script({
    name: named(source, "locate"),
    mode: "reads",
    keys: ofTopic(source),
    args: { id: "text" },
    bytes: true,
    replies: {
      OK: {
        now: number,
        /** When it is due, -1 if it is not delayed. */
        due: number,
        /** Its entry, or "". */
        entry: text,
        /** Empty if it is only somewhere in a group. */
        record: bytes,
        groups: listOf(
          row({
            group: text,
            state: text,
            consumer: text,
            heldMillis: number,
            /** Those before it was given to its consumer. */
            attempts: number,
            cause: text,
            tally: text,
            dueAt: number,
            /** Empty if it is the one above. */
            record: bytes,
            /** The entry of the dead letter, and its fields. */
            letter: text,
            fields: listOf(bytes)
          })
        )
      },
      ...again
    },
    lua: /* lua */ `${locating(source, "")}
local rows = {}
for g, place in ipairs(all) do
  local idle, tally = 0, ''
  local mark = string.gsub(place.mark or '', '\\31(%d+;[01];[^%s\\31]*)$', function(found) tally = found return '' end)
  local attempts, cause = string.match(mark, '^(%d+):%d+:%d+:(.*)$')
  if place.state == 'P' then
    local since = redis.call('HGET', place.keys.state, 'oldest:' .. place.consumer)
    if since then idle = math.max(0, now - tonumber(since)) end
  end
  rows[g] = {place.group, place.state, place.consumer or '', idle, tonumber(attempts) or 0, cause or '', tally, place.due or now,
    not main and place.record or '', place.letter or '', place.fields or {}}
end
return {'OK', now, due and tonumber(due) or -1, entry or '', main or '', rows}
`
  })

/**
 * `removeAll()`: deletes a message where no consumer holds it. Its id is free then, unless one does.
 *
 * It uses `locating`.
 */
const removing = /* lua */ `
local function removeAll()
  local isHeld = false
  if due then
    redis.call('ZREM', delayed, member)
    redis.call('HDEL', delayedBodies, member)
  end
  for _, place in ipairs(all) do
    isHeld = isHeld or place.state == 'P'
    if place.state == 'W' then
      if not place.due then redis.call('ZADD', place.keys.omitted, 0, entry) end
      redis.call('ZREM', place.keys.waiting, entry)
      redis.call('HDEL', place.keys.marks, entry)
    end
  end
  if not due and entry then withdraw(entry, all, main) end
  if not isHeld then
    if isOf(owned) then redis.call('HDEL', unique, id) end
    if isOf(marked) then redis.call('DEL', marker) end
    if main then unname(id, entry) end
  end
end
`

/** Deletes a message everywhere, or changes nothing: fails with `MessageInUse` if a consumer holds it. */
const removeMessage = (source: Source) =>
  script({
    name: named(source, "remove-message"),
    mode: "drains",
    keys: ofTopic(source),
    args: { id: "text" },
    replies: { OK: {}, ...again },
    lua: /* lua */ `${locating(source)}${removing}
for _, place in ipairs(all) do
  if place.state == 'P' then return {'HELD', id, place.group, place.consumer} end
end
removeAll()
for _, place in ipairs(all) do
  if place.state == 'D' then
    redis.call('XDEL', place.keys.dead, place.letter)
    -- The message that the marker names: it was stored there.
    if marked and entryIn(marked) == place.fields[14] then redis.call('DEL', marker) end
    redis.call('ZREM', place.keys.deadIds, id)
  end
end
return {'OK'}
`
  })

/** Deletes a message where no consumer holds it, and records that it is cancelled where one does. */
const cancel = (source: Source) =>
  script({
    name: named(source, "cancel"),
    mode: "drains",
    keys: ofTopic(source),
    args: { id: "text" },
    replies: { OK: { groups: listOf(text) }, ...again },
    lua: /* lua */ `${announce}${locating(source)}${removing}
local told, open = {}, due
for _, place in ipairs(all) do open = open or place.state ~= 'D' and place.state ~= 'S' end
-- While there is no group, it is open as long as it is stored.
if not open and #all > 0 then return {'SETTLED', id} end
for _, place in ipairs(all) do
  if place.state == 'P' then
    told[#told + 1] = place.group
    redis.call('ZADD', place.keys.cancelled, string.format('%.0f', now), place.receipt .. ' ' .. place.consumer)
    -- Heard of something that is due, its consumer beats.
    announce(wake, 1, place.group)
  end
end
removeAll()
return {'OK', told}
`
  })

/** Changes when a message is due, wherever it waits for a time. */
const reschedule = (source: Source) =>
  script({
    name: named(source, "reschedule"),
    mode: "drains",
    keys: ofTopic(source),
    args: {
      id: "text",
      /** The time in ms since the epoch. */
      time: "number"
    },
    replies: { OK: {}, ...again },
    lua: /* lua */ `${announce}${locating(source)}
time = math.max(time, now)
local moved = due
if due then redis.call('ZADD', delayed, 'XX', string.format('%.0f', time), member) end
for _, place in ipairs(all) do
  if place.due then
    redis.call('ZADD', place.keys.waiting, 'XX', string.format('%.0f', time), entry)
    moved = true
  -- It may be had already.
  elseif place.state == 'W' and time <= now then moved = true end
end
if not moved then return {'NOT WAITING', id} end
announce(wake, math.max(1, time - now))
return {'OK'}
`
  })

/** Changes how urgent a message is. */
const changePriority = (source: Source, prioritising: string) =>
  script({
    name: named(source, "change-priority"),
    mode: "drains",
    keys: ofTopic(source),
    args: { id: "text", priority: "text" },
    replies: {
      OK: {},
      /** Urgency does not decide the order. */
      UNRANKED: {},
      ...again
    },
    lua: /* lua */ `${locating(source)}${prioritising}
if not ranks() then return {'UNRANKED'} end
local unread, open = true, main
for _, place in ipairs(all) do
  unread = unread and place.state == 'R'
  if place.state == 'D' or place.state == 'S' then open = due end
end
if not open then return {'SETTLED', id} end
local level, renamed = prioritise(entry, main, due, member, unread, priority)
if renamed then
  if isOf(owned) then redis.call('HSET', unique, id, 'd' .. renamed .. string.match(owned, '^%S+(.*)$')) end
  if isOf(marked) then redis.call('SET', marker, 'd' .. renamed, 'KEEPTTL') end
else redis.pcall('PUBLISH', wake, '0;' .. level) end
return {'OK'}
`
  })

/** One page of the delayed messages. A place is `d`, the due time, a colon and the member; or "a". */
const delayed = (source: Source) =>
  script({
    name: named(source, "delayed"),
    mode: "reads",
    keys: source.keys,
    args: pageArgs,
    bytes: true,
    replies: {
      OK: {
        now: number,
        rows: listOf(row({ position: text, dueAt: number, entry: text, record: bytes }))
      }
    },
    lua: /* lua */ `${clock}${weighing}${records}${source.finding ?? ""}
touch()
local rows, waiting, part, place = {}, delayed, string.sub(from, 1, 1), string.sub(from, 2)
local function later(position, member, due)
  local entry, record = lateOf(member, redis.call('HGET', delayedBodies, member) or '0')
  rows[#rows + 1] = {position, due, entry, weigh(record)}
end
${rowsOfWaiting("d")}return {'OK', clock(), rows}
`
  })

export const make = (source: Source) => ({
  locate: locate(source),
  removeMessage: removeMessage(source),
  cancel: cancel(source),
  reschedule: reschedule(source),
  delayed: delayed(source),
  changePriority: source.prioritising === undefined ? undefined : changePriority(source, source.prioritising)
})

export type MessageScripts = ReturnType<typeof make>
