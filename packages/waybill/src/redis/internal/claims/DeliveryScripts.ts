/**
 * How messages change hands: a consumer takes and settles them.
 *
 * @module
 */
import { cancelled as ended } from "../../../Settlement.ts"
import { bytes, flag, make as script, number, text } from "../connection/Script.ts"
import { suspectArgs } from "../group/Suspecting.ts"
import { deadLettering, hooking, keeping } from "../inspect/DeadLetterScripts.ts"
import { keys } from "../wire/Keys.ts"
import { add, cap, clock, suspecting, tallies, wanting } from "../wire/Lua.ts"
import { records } from "../wire/PackedMessage.ts"
import { heads, marking, nth } from "./AttemptLog.ts"
import type { Source } from "./Source.ts"

/** How many records are looked up at a time, and how many of those that came back, at either end, are sorted by urgency. */
const part = 32
/** Bytes of a record: if the average is at most this, more are looked up at a time. */
const small = 4096
const mostRanked = 256
/** How many removed messages one call skips. */
const mostSkipped = 1000

/** What came back, and then what is new. */
const inTurn = /* lua */ `
while came and left() > 0 do
  local some = redis.call('LPOP', returned, left())
  if not some then break end
  brought = brought + #some
  back(some)
end
while left() > 0 do
  local n = left()
  local new, missing, open = fresh(n)
  rest = rest or open
  brought = brought + #new
  first(new, missing)
  if #new < n then break end
end
`

/** Messages that came back are then among new ones. */
const ranking = /* lua */ `${nth}local mixed = urgent()
`

/** By urgency, then by age: a message that came back is older than a new one of the same urgency. */
const byUrgency = /* lua */ `
local ranked, ranks = {}, {}
do
  -- From both ends: messages handed back come first, retries and dead letters after them.
  local length = redis.call('LLEN', returned)
  for _, behind in ipairs({false, true}) do
    local scanned, seen = 0, 0
    while scanned < ${mostRanked} and seen < bytes and #ranked < length do
      local count = math.min(${part}, length - #ranked)
      local some = behind and redis.call('LRANGE', returned, -scanned - count, -scanned - 1)
        or redis.call('LRANGE', returned, scanned, scanned + count - 1)
      scanned = scanned + #some
      for i, text in ipairs(read(some)) do
        local id = some[i]
        ranked[#ranked + 1] = id
        ranks[id] = {text and urgencyOf(text) or 1, nth(id)}
        seen = seen + (text and #text or 0)
      end
    end
  end
end
table.sort(ranked, function(a, b)
  if ranks[a][1] ~= ranks[b][1] then return ranks[a][1] < ranks[b][1] end
  return ranks[a][2] < ranks[b][2]
end)
local next = 1
for urgency = 1, 3 do
  while left() > 0 and ranked[next] and ranks[ranked[next]][1] == urgency do
    redis.call('LREM', returned, 1, ranked[next])
    brought = brought + 1
    back({ranked[next]})
    next = next + 1
  end
  while left() > 0 do
    local n = left()
    local new = fresh(n, urgency)
    brought = brought + #new
    first(new)
    if #new < n then break end
  end
end
`

/**
 * `left()`: how many more to bring now. `back(ids)`: gives the consumer what came back. Missing ones count in `hole`, and until
 * `turned` as suspects.
 */
const bringing = /* lua */ `-- Part by part, and fewer if their records are large, which is unknown before they are read.
local brought, size, turned = suspect, 0, false
-- Parts are larger after small records: each costs a few calls.
local function left()
  local part = size < brought * ${small} and ${4 * part} or ${part}
  return size < bytes and math.min(part, max - brought) or 0
end
-- A message that was removed is nothing that is missing.
local skipped = 0
local function skip()
  skipped = skipped + 1
  if skipped <= ${mostSkipped} then brought = brought - 1 else rest = true end
end
local function back(again)
  local stored, known = read(again), redis.call('HMGET', marks, unpack(again))
  for i = 1, #again do
    local id, text = again[i], stored[i]
    if text then
      local a, f, d = string.match(known[i] or '', '^(%d+):(%d+):(%d+)')
      a, f = tonumber(a) or 0, tonumber(f) or 0
      local n = #members + 1
      members[n] = f == 0 and id or id .. '#' .. f + 1
      attempts[n] = a + 1
      tallied[n] = (d or '0') .. (string.match(known[i] or '', '\\31%d+(;[01];[^%s\\31]*)$') or (a == (tonumber(d) or 0) and ';0;' or ';0;?'))
      found[n] = text
      lengths[n] = #text
      size = size + #text
    else
      if not turned then dead = dead + 1 end
      if redis.pcall('ZREM', omitted, id) == 1 then skip() else hole(1) end
      redis.call('HDEL', marks, id)
    end
  end
end
`

/**
 * Gives the consumer what came back, then what is new. A whole batch is a few strings: parsing a reply of thousands of
 * small ones would cost more than everything else.
 */
const take = (source: Source) =>
  script({
    name: `waybill/${source.pattern}/take`,
    mode: "drains",
    keys: { ...source.keys, ...keys("consumers", "state", "processing", "returned", "suspects", "marks", "omitted") },
    args: {
      group: "text",
      consumer: "text",
      /** The most to bring, up to 1000. */
      max: "number",
      /** 1: a reply was lost, report the number of missing ones in any case. */
      unsure: "number",
      /** The filter, "" for none. */
      only: "text",
      ...suspectArgs,
      /** About how many bytes of records at most; a part that was begun is brought in any case. */
      bytes: "number"
    },
    bytes: true,
    replies: {
      OK: {
        /** Separated by spaces, those that came back first. */
        members: bytes,
        /** The sizes of their records in bytes, in the same form. */
        lengths: bytes,
        /** Of those that came back. */
        attempts: bytes,
        /** All in one. */
        records: bytes,
        /** How many of the first ones are suspects. */
        suspects: number,
        /** How many ids that this consumer was due since it joined have no message any more, -1 if none was added. */
        gone: number,
        /** Where they were, as pairs: before which of the members, from 1, and how many. */
        holes: bytes,
        /** Of those that came back. */
        tallies: bytes,
        /** It has passed over so much that the rest is for the next call. */
        more: flag,
        /** Some message of the topic has its id to itself: one of them may be here. */
        guards: flag
      },
      /** The heartbeat has expired, so that what it took could be taken from it at once; or the group got another filter meanwhile. */
      EXPIRED: {},
      PAUSED: {}
    },
    lua: /* lua */ `${clock}${records}${source.lua}${suspecting}${source.filters ? wanting : ""}
local now, rest, guards = clock(), nil, ${source.frees === true ? guarded(source) : "false"}
local until_ = redis.call('ZSCORE', consumers, consumer)
if not until_ or tonumber(until_) <= now then return {'EXPIRED'} end
${
  source.filters
    ? `local noted = redis.call('HMGET', state, 'paused', 'only')
if (noted[2] or '') ~= only then return {'EXPIRED'} end
if noted[1] then return {'PAUSED'} end`
    : "if redis.call('HEXISTS', state, 'paused') == 1 then return {'PAUSED'} end"
}
${source.filters ? "if only ~= '' then wants, passed = wanted(only), function(entry, id) freed({entry}, {id}, group) end end\n" : ""}-- Everything is read before anything is taken.
probe()
local begins = redis.call('SCARD', processing) == 0
local came = redis.call('EXISTS', returned, suspects, marks) > 0
if came then
  redis.call('LLEN', returned)
  redis.call('HEXISTS', marks, '')
end

local again = {}
for _, id in ipairs(came and redis.call('LRANGE', suspects, 0, max - 1) or {}) do
  if not admits(tonumber(string.match(redis.call('HGET', marks, id) or '', '^%d+:%d+:(%d+)') or '0')) then break end
  again[#again + 1] = id
end
local suspect = #again
if suspect > 0 then redis.call('LPOP', suspects, suspect) end
local members, lengths, attempts, found, gone, holes, tallied, dead = {}, {}, {}, {}, 0, {}, {}, 0
local function hole(count)
  local place = #members + 1
  gone = gone + count
  if holes[#holes - 1] == place then holes[#holes] = holes[#holes] + count
  else
    holes[#holes + 1] = place
    holes[#holes + 1] = count
  end
end
${bringing}${source.ranks ? ranking : ""}local function first(new, missing)
  local stored = #new > 0 and read(new)
  local n = #members
  for i = 1, #new do
    local text = stored[i]
    if missing and missing[i] then hole(missing[i]) end
    if text then
      n = n + 1
      members[n] = new[i]
      found[n] = text
      lengths[n] = #text
      size = size + #text
      ${source.gives === true ? giving : ""}
      ${source.ranks ? "if mixed then attempts[n], tallied[n] = 1, '0;0;' end" : ""}
    ${source.drops === true ? "elseif dropped(new[i]) then\n      skip()\n    " : ""}else
      hole(1)
    end
  end
  if missing and missing[#new + 1] then hole(missing[#new + 1]) end
end
if suspect > 0 then back(again) end
turned = true
${source.ranks ? `if mixed then${byUrgency}else${inTurn}end` : inTurn}
local sum = -1
if gone > 0 then sum = redis.call('HINCRBY', state, 'gone:' .. consumer, gone)
elseif unsure == 1 then sum = tonumber(redis.call('HGET', state, 'gone:' .. consumer)) or 0 end
if #members > 0 then
  if begins then
    redis.call('HSET', state, 'oldest:' .. consumer, string.format('%.0f', now))
  end
  redis.call('SADD', processing, unpack(members))
end
return {'OK', table.concat(members, ' '), table.concat(lengths, ' '), table.concat(attempts, ' '), table.concat(found),
  suspect - dead, sum, table.concat(holes, ' '), table.concat(tallied, ' '), rest and 1 or 0,
  guards and 1 or 0}
`
  })

/** Only records whose first character says so have an id. */
const giving = /* lua */ `
      if guards and string.byte(text) % 2 == 1 then
        local id = parsed(text).id
        if id then given(new[i], id) end
      end`

/** Some messages have, or had, their ids to themselves. */
const guarded = ({ gives }: Source) => `redis.call('EXISTS', unique${gives === true ? ", named" : ""}) > 0`

const freeAcked = (source: Source) => /* lua */ `
  if own ~= '' and ${guarded(source)} then
    own = cmsgpack.unpack(own)
    local entries, names = {}, {}
    for n = 1, #own, 2 do
      local i = tonumber(own[n])
      if answers[i] == 'O' then
        entries[#entries + 1] = ARGV[moreArgs + i]
        names[#names + 1] = own[n + 1]
      end
    end
    if #names > 0 then freed(entries, names, group) end
  end
`

/** Ends the plain acks, and defines `answers`. */
const acking = (source: Source) => /* lua */ `local answers = {}
if acks > 0 then
  local held = redis.call('SMISMEMBER', processing, unpack(ARGV, moreArgs + 1, moreArgs + acks))
  local stale = false
  for i = 1, acks do
    if held[i] == 1 then answers[i] = 'O' else answers[i], stale = 'F', true end
  end
  local ids = {unpack(ARGV, moreArgs + 1, moreArgs + acks)}
  if stale then
    ids = {}
    for i = 1, acks do if held[i] == 1 then ids[#ids + 1] = ARGV[moreArgs + i] end end
  end
  if #ids > 0 then
    -- In this order: what cannot be forgotten still belongs to the consumer.
    forget(ids)
    redis.call('SREM', processing, unpack(ids))
  end
${source.frees === true ? freeAcked(source) : ""}end
`

/**
 * Ends deliveries, each in its own way. Plain acks of first deliveries come first, because they are many.
 *
 * Further keys: markers of commits that were refused in part.
 *
 * Further arguments: the members of the plain acks, which are ids; then the steps, as in `tell`. A place is a member; of several
 * releases the newest comes first. `U`: the consumer has lost the delivery or its settlement: handed back, and the attempt counts.
 * The record is read here; the caller only sends it after `G`. Once the dead letter carries the mark, the marker may expire.
 */
const settle = (source: Source) =>
  script({
    name: `waybill/${source.pattern}/settle`,
    mode: "drains",
    keys: {
      ...source.keys,
      ...keys("processing", "returned", "suspects", "marks", "waiting", "dead", "deadIds", "cancelled", "state", "wake")
    },
    args: {
      group: "text",
      consumer: "text",
      ...cap,
      /** How many plain acks. */
      acks: "number",
      /** Of those whose messages have ids of their own: the place among them and the id, packed; or "". */
      own: "text",
      /** How long a marker lasts, ms. */
      ttl: "number"
    },
    replies: {
      OK: {
        /**
         * One character per delivery: `O` done, `F` not the consumer's (any more), `G` the record is gone, send it, `C` it was
         * cancelled before, and is a dead letter.
         */
        answers: text,
        /** How many dead letters the cap dropped. */
        dropped: number
      }
    },
    lua: /* lua */ `${clock}${add}${records}${source.lua}${tallies}${marking}${deadLettering}${keeping}${hooking}${heads}
local steps = #ARGV > moreArgs + acks
if steps then touch() end
${acking(source)}if not steps then return {'OK', table.concat(answers), 0} end
local cancels = redis.pcall('EXISTS', cancelled) == 1
local now, ready, soonest, deadLettered = clock(), false, nil, false
local i = moreArgs + acks + 1
while i <= #ARGV do
  local op, member = ARGV[i], ARGV[i + 1]
  i = i + 2
  local a, cause, tally, failure, id, at, marker, text, _
  if op == 'S' then
    id = ARGV[i]
    i = i + 2
  elseif op == 'R' or op == 'N' or op == 'D' then
    a, cause, tally, failure, id, at, _, _, marker, text = unpack(ARGV, i, i + 9)
    i = i + 10
  end
  local answer = 'O'
  if redis.call('SISMEMBER', processing, member) == 0 then
    answer = 'F'
  else
    local entry = idOf(member)
    local attempts, fence, deaths, before = marked(entry)
    -- Includes the delivery under way.
    attempts, fence = attempts + 1, fence + 1
    local isOver = cancels and string.find('RNLU', op, 1, true) and type(redis.pcall('ZSCORE', cancelled, member .. ' ' .. consumer)) == 'string'
    if isOver and not id then
      text, failure, marker = read({entry})[1], '', '0'
      if text then id, at, tally = headOf(text, entry, before) end
      isOver = text
    end
    if isOver then op, a, cause, answer = 'D', '${ended.reason}', '${ended.cause}', 'C' end
    if op == 'D' then
      text = text ~= '' and text or read({entry})[1]
      if text then
        deadLetter(a, cause, attempts, fence, id, at, entry, consumer, fieldsOf(parsed(text)), 1,
          timed(tally, now), failure)
        if marker ~= '0' then redis.call('PEXPIRE', KEYS[moreKeys + marker], ttl) end
        deadLettered = true
      else
        answer = 'G'
      end
    elseif op == 'R' or op == 'N' then
      if op == 'N' then redis.call('HSET', state, 'newer', string.format('%.0f ', now) .. cause) end
      mark(entry, op == 'N' and attempts - 1 or attempts, fence, deaths, timed(tally, now), cause)
      a = tonumber(a)
      if a > 0 then
        redis.call('ZADD', waiting, now + a, entry)
        soonest = math.min(soonest or a, a)
      else
        free(entry, deaths)
        ready = true
      end
    elseif op == 'L' or op == 'U' then
      mark(entry, op == 'L' and attempts - 1 or attempts, fence, deaths, before)
      putBack(entry, deaths)
      ready = true
    end
    if answer ~= 'G' then
      redis.call('SREM', processing, member)
      if op == 'A' or op == 'S' or op == 'D' then
        redis.call('HDEL', marks, entry)
        forget({entry})
        ${source.frees === true ? "if id and id ~= entry then freed({entry}, {id}, group) end" : ""}
      end
    end
  end
  answers[#answers + 1] = answer
end
-- A consumer that takes what is ready does not check what is due.
if ready then tell(0) end
if deadLettered and isHooked() then tell(1) end
if soonest then tell(soonest) end
return {'OK', table.concat(answers), deadLettered and keepDead(maxCount, maxAgeMillis, now) or 0}
`
  })

export const make = (source: Source) => ({
  take: take(source),
  settle: settle(source)
})
