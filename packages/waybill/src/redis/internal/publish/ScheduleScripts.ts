/**
 * Schedules beside the messages of a topic: a sorted set of their ids by due time, `inf` for those that are not due at all, and a hash
 * of their revisions and texts. The texts are opaque here.
 *
 * @module
 */
import { flag, listOf, make, number, row, text } from "../connection/Script.ts"
import { keys } from "../wire/Keys.ts"
import { clock, fetching, weighing } from "../wire/Lua.ts"
import { keysOf, settingArg, type Storage, storing, storingArgs } from "./PublishScript.ts"

/** What an announcement ends with, in place of a group: no group has a name with a space. */
export const announced = " schedules"

/**
 * Changes schedules, each only if it has the expected revision, together with its messages.
 *
 * Further keys: for each message the marker of its id.
 *
 * Further arguments, for each change: id, expected revision, text, due time or "inf", number of messages, number of their arguments; for
 * each message: shape, payload and the parts in its shape. An empty text removes the schedule.
 */
export const scheduleScript = (pattern: string, storage: Storage) => {
  const target = keysOf(storage)
  return make({
    name: `waybill/${pattern}/schedule`,
    mode: "writes",
    keys: { ...target, ...keys("schedules", "scheduleEntries") },
    moreKeys: "string",
    args: {
      ...storingArgs,
      ...settingArg,
      /** How many. */
      changes: "number",
      /** 1: inform those who listen. */
      announced: "text"
    },
    replies: {
      OK: {
        /** One character per change: `1` if it was made. */
        made: text,
        /** For each message of each change that was made, its reply. */
        published: listOf(text),
        /** The topic was not there before. */
        isNew: flag
      }
    },
    lua: /* lua */ `${storing(storage)}
local refused, known, _, take, close = open(${Object.keys(target).join(", ")})
if refused then return refused end
touch()
local made, published, arg, marker = {}, {}, moreArgs + 1, moreKeys
for i = 1, changes do
  local id, revision, text, due, messages = ARGV[arg], ARGV[arg + 1], ARGV[arg + 2], ARGV[arg + 3], tonumber(ARGV[arg + 4])
  local after = arg + 6 + ARGV[arg + 5]
  local found = call('HGET', scheduleEntries, id)
  made[i] = (found and string.match(found, '^%d*') or '') == revision and '1' or '0'
  if made[i] == '1' then
    if text == '' then
      call('HDEL', scheduleEntries, id)
      call('ZREM', schedules, id)
    else
      call('HSET', scheduleEntries, id, format('%.0f', call('HINCRBY', meta, 'schedules', 1)) .. ' ' .. text)
      call('ZADD', schedules, due, id)
    end
    arg = arg + 6
    for m = 1, messages do
      published[#published + 1], arg = take(tonumber(ARGV[arg]), arg + 1, KEYS[marker + m])
    end
  end
  arg, marker = after, marker + messages
end
close()
if announced == '1' then announce(wake, 0, '${announced}') end
return {'OK', table.concat(made), published, known and 0 or 1}
`
  })
}

const rows = listOf(
  row({
    id: text,
    /** Due time, or "inf". */
    due: text,
    /** Revision, a space, and the text; "" if there is no such schedule. */
    entry: text
  })
)

const reading = /* lua */ `${clock}${weighing}${fetching}
local function rowsOf(ids, dues)
  local rows, entries = {}, #ids > 0 and bodiesOf(scheduleEntries, ids) or {}
  for i, id in ipairs(ids) do rows[i] = {id, dues[i], entries[i] or ''} end
  return rows
end
local function unzipped(pairs_)
  local ids, dues = {}, {}
  for i = 1, #pairs_, 2 do ids[#ids + 1], dues[#dues + 1] = pairs_[i], pairs_[i + 1] end
  return ids, dues
end
touch()
`

/** The schedules that are due. */
export const dueSchedules = make({
  name: "waybill/schedules-due",
  mode: "reads",
  keys: keys("schedules", "scheduleEntries"),
  args: { limit: "text" },
  replies: {
    OK: {
      now: number,
      /** When the next one is due; -1 if none is. */
      next: number,
      due: rows
    }
  },
  lua: /* lua */ `${reading}
local now = clock()
local head = redis.call('ZRANGE', schedules, 0, 0, 'WITHSCORES')[2]
if not head or head == 'inf' then return {'OK', now, -1, {}} end
if tonumber(head) > now then return {'OK', now, tonumber(head), {}} end
return {'OK', now, now, rowsOf(unzipped(
  redis.call('ZRANGEBYSCORE', schedules, '-inf', string.format('%.0f', now), 'WITHSCORES', 'LIMIT', 0, limit)))}
`
})

/** The schedules whose ids follow as further arguments. */
export const findSchedules = make({
  name: "waybill/schedules-find",
  mode: "reads",
  keys: keys("schedules", "scheduleEntries"),
  replies: { OK: { now: number, found: rows } },
  lua: /* lua */ `${reading}
local ids, dues = {}, {}
for i = moreArgs + 1, #ARGV do
  ids[#ids + 1], dues[#dues + 1] = ARGV[i], redis.call('ZSCORE', schedules, ARGV[i]) or 'inf'
end
return {'OK', clock(), rowsOf(ids, dues)}
`
})

/** The schedules after one of them, in the order of their due times; "": from the first one on. */
export const pageOfSchedules = make({
  name: "waybill/schedules-page",
  mode: "reads",
  keys: keys("schedules", "scheduleEntries"),
  args: { after: "text", due: "text", limit: "number" },
  replies: { OK: { now: number, found: rows } },
  lua: /* lua */ `${reading}
-- By bytes, as in a sorted set; < would go by the locale of the server.
local function precedes(a, b)
  for i = 1, math.min(#a, #b) do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x < y end
  end
  return #a < #b
end
local from = 0
if after ~= '' then
  -- It may have moved or gone: looked for is where it was, among those that are due at the same time.
  local till
  from, till = redis.call('ZCOUNT', schedules, '-inf', '(' .. due), redis.call('ZCOUNT', schedules, '-inf', due)
  while from < till do
    local middle = math.floor((from + till) / 2)
    if precedes(after, redis.call('ZRANGE', schedules, middle, middle)[1]) then till = middle else from = middle + 1 end
  end
end
return {'OK', clock(), rowsOf(unzipped(redis.call('ZRANGE', schedules, from, from + limit - 1, 'WITHSCORES')))}
`
})

/**
 * Records drifts for some time, and forgets others, which follow as further arguments, each a word, a space and the id of a schedule.
 * Processes repeat what they find, and withdraw it as they end; what one of them left behind expires.
 */
export const noteDrifts = make({
  name: "waybill/schedules-note",
  mode: "writes",
  keys: keys("scheduleDrifts"),
  args: {
    /** How long they are known, ms. */
    millis: "number",
    /** How many are recorded: the rest is over. */
    noted: "number"
  },
  replies: { OK: {} },
  lua: /* lua */ `${clock}
touch()
local untilWhen = string.format('%.0f', clock() + millis)
for i = moreArgs + 1, #ARGV do
  if i <= moreArgs + noted then redis.call('ZADD', scheduleDrifts, untilWhen, ARGV[i])
  else redis.call('ZREM', scheduleDrifts, ARGV[i]) end
end
if noted > 0 then redis.call('PEXPIRE', scheduleDrifts, millis) end
return {'OK'}
`
})

/** The drifts that are known now, the first ones of them. */
export const knownDrifts = make({
  name: "waybill/schedules-drifts",
  mode: "reads",
  keys: keys("scheduleDrifts"),
  args: { limit: "text" },
  replies: { OK: { drifts: listOf(text) } },
  lua: /* lua */ `${clock}
touch()
return {'OK', redis.call('ZRANGEBYSCORE', scheduleDrifts, string.format('(%.0f', clock()), '+inf', 'LIMIT', 0, limit)}
`
})
