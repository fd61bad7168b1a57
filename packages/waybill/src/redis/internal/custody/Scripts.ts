/**
 * What custody does in Redis: members join, live, take, settle and leave; what the dead held goes to others. Each step
 * is one script, made once for each pattern, with the Lua of the pattern's source in front.
 *
 * Who holds a message is who has it in its set `processing:<consumer>`, under its id and fence (`id` for the first delivery,
 * `id#fence` for later ones): a settlement whose member is not there comes too late, and changes nothing. A consumer
 * whose heartbeat has run out loses its whole set in one step.
 *
 * `marks` has a field for what came back at least once and only for that: attempts, fence and deaths up to now, then the
 * cause of the last failure, with a colon between. It is written when a delivery ends, so the delivery on its way is one more of each.
 *
 * KEYS begin with those of the source; `+1` in the tables below is the first after them.
 *
 * @module
 */
import type { Script } from "../Script.ts"
import { add, clock, deadLetters, drains, may, mismatch, reads } from "../ScriptParts.ts"
import { records } from "./Record.ts"
import type { Source } from "./Source.ts"

export interface CustodyScripts {
  readonly join: Script
  readonly beat: Script
  readonly take: Script
  readonly settle: Script
  readonly vacate: Script
  readonly redrive: Script
  readonly overview: Script
  readonly describe: Script
  readonly messages: Script
  readonly pending: Script
  readonly waiting: Script
}

/** Two consumers have died with it: a consumer gets one such at a time. */
export const suspicious = 2

/**
 * `marked(id)`: attempts, fence and deaths until now.
 * `mark(id, attempts, fence, deaths, cause)`: notes them.
 * `idOf(member)`: the id in a member of a processing set.
 * `free(id, deaths)`: lets others have it, after what came back before. A suspect waits in a list of its own.
 * `putBack(id, deaths)`: the same, before everything else: for what was handed out and not finished. The last comes first.
 * `wake(millis)`: tells whoever listens; a hint, so that a missing permission does not matter.
 *
 * They use the locals `marks`, `returned`, `suspects` and `channel`.
 */
const marking = `
local function marked(id)
  local a, f, d = string.match(redis.call('HGET', marks, id) or '', '^(%d+):(%d+):(%d+)')
  return tonumber(a) or 0, tonumber(f) or 0, tonumber(d) or 0
end
local function mark(id, attempts, fence, deaths, cause)
  redis.call('HSET', marks, id, attempts .. ':' .. fence .. ':' .. deaths .. ':' .. (cause or ''))
end
local function idOf(member)
  return string.match(member, '^(.*)#%d+$') or member
end
local function putBack(id, deaths)
  redis.call('LPUSH', deaths >= ${suspicious} and suspects or returned, id)
end
local function free(id, deaths)
  redis.call('RPUSH', deaths >= ${suspicious} and suspects or returned, id)
end
local function wake(millis)
  redis.pcall('PUBLISH', channel, string.format('%.0f', millis))
end
`

/** `nth(id)`: for putting ids that lay in a set into the order in which they were made, as far as their last number tells. */
const nth = `
local function nth(id)
  return tonumber(string.match(id, '%d+$') or '0')
end
`

export const make = (source: Source): CustodyScripts => {
  const at = (n: number) => `KEYS[${source.keys + n}]`
  const name = (step: string) => `waybill/${source.pattern}/${step}`

  /**
   * | KEYS | |
   * |---|---|
   * | +1, +2 | meta, groups |
   * | +3, +4 | consumers, state |
   * | +5 to +10 | processing of the consumer, returned, suspects, marks, waiting, dead letters |
   *
   * | ARGV | |
   * |---|---|
   * | 1, 2 | pattern and wire version |
   * | 3, 4 | group, consumer |
   * | 5 | `earliest` or `latest` |
   * | 6 | lease, ms |
   *
   * | reply | |
   * |---|---|
   * | `OK`, known | known = 1: the group was there |
   * | `CONFLICT`, pattern, wire | the topic was opened as something else |
   * | `WRONGTYPE`, key, found | |
   * | what `open` refuses with | |
   */
  const join: Script = {
    name: name("join"),
    lua: `${drains}${mismatch}${clock}${records}${source.lua}
local meta, groups, consumers, state = ${at(1)}, ${at(2)}, ${at(3)}, ${at(4)}
local wrong = foreign() or mismatch(meta, 'hash') or mismatch(groups, 'set') or mismatch(consumers, 'zset')
  or mismatch(state, 'hash') or mismatch(${at(5)}, 'set') or mismatch(${at(6)}, 'list') or mismatch(${at(7)}, 'list')
  or mismatch(${at(8)}, 'hash') or mismatch(${at(9)}, 'zset') or mismatch(${at(10)}, 'stream')
if wrong then return wrong end
local opened = redis.call('HMGET', meta, 'pattern', 'wire')
if opened[1] and (opened[1] ~= ARGV[1] or opened[2] ~= ARGV[2]) then return {'CONFLICT', opened[1], opened[2] or ''} end
local known = redis.call('SISMEMBER', groups, ARGV[3]) == 1
local refused = open(ARGV[3], ARGV[5], known)
if refused then return refused end
if not opened[1] then redis.call('HSET', meta, 'pattern', ARGV[1], 'wire', ARGV[2]) end
redis.call('SADD', groups, ARGV[3])
redis.call('ZADD', consumers, clock() + tonumber(ARGV[6]), ARGV[4])
return {'OK', known and 1 or 0}
`
  }

  /**
   * Says that the consumer lives, brings in what is due, and looks around.
   *
   * | KEYS | |
   * |---|---|
   * | +1 | groups |
   * | +2, +3 | consumers, state |
   * | +4 to +8 | waiting, returned, suspects; marks and dead letters, only to see what they are |
   * | +9 | the channel `wake` |
   *
   * | ARGV | |
   * |---|---|
   * | 1, 2 | group, consumer |
   * | 3 | lease, ms |
   * | 4 | how many may be moved of each kind |
   * | 5 | for how long the oldest delivery has been held, ms, or "" |
   *
   * | reply | |
   * |---|---|
   * | `OK`, alive, paused, more, next, backlog, dead | alive = 0: the heartbeat had run out. more = 1: there is more to move. next: ms until something is due, -1 when nothing waits. backlog: how many could be taken now. dead: names of consumers whose heartbeat has run out |
   * | `NOGROUP` | nothing was done |
   * | `WRONGTYPE`, key, found | |
   */
  const beat: Script = {
    name: name("beat"),
    lua: `${drains}${mismatch}${clock}${records}${source.lua}
local groups, consumers, state, waiting, returned, suspects, channel =
  ${at(1)}, ${at(2)}, ${at(3)}, ${at(4)}, ${at(5)}, ${at(6)}, ${at(9)}
local consumer, limit = ARGV[2], tonumber(ARGV[4])
local wrong = foreign() or mismatch(groups, 'set') or mismatch(consumers, 'zset') or mismatch(state, 'hash')
  or mismatch(waiting, 'zset') or mismatch(returned, 'list') or mismatch(suspects, 'list')
  or mismatch(${at(7)}, 'hash') or mismatch(${at(8)}, 'stream')
if wrong then return wrong end
if redis.call('SISMEMBER', groups, ARGV[1]) == 0 then return {'NOGROUP'} end
local now = clock()
local until_ = redis.call('ZSCORE', consumers, consumer)
local alive = until_ and tonumber(until_) > now
redis.call('ZADD', consumers, now + tonumber(ARGV[3]), consumer)
if ARGV[5] ~= '' then redis.call('HSET', state, 'oldest:' .. consumer, string.format('%.0f', now - tonumber(ARGV[5])))
else redis.call('HDEL', state, 'oldest:' .. consumer) end

local again = redis.call('ZRANGEBYSCORE', waiting, '-inf', now, 'LIMIT', 0, limit)
if #again > 0 then
  redis.call('RPUSH', returned, unpack(again))
  redis.call('ZREM', waiting, unpack(again))
end
local moved, due = promote(now, limit)
if #again + moved > 0 then redis.pcall('PUBLISH', channel, '0') end
local head = redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')[2]
if head and (not due or tonumber(head) < due) then due = tonumber(head) end
return {'OK', alive and 1 or 0, redis.call('HEXISTS', state, 'paused'), (#again == limit or moved == limit) and 1 or 0,
  due and math.max(0, due - now) or -1,
  redis.call('LLEN', returned) + redis.call('LLEN', suspects) + backlog(),
  redis.call('ZRANGEBYSCORE', consumers, '-inf', now, 'LIMIT', 0, 16)}
`
  }

  /**
   * Gives the consumer what came back, then what is new. A whole batch is a few strings: taking a reply of thousands of
   * small ones apart would cost more than all the rest.
   *
   * | KEYS | |
   * |---|---|
   * | +1, +2 | consumers, state |
   * | +3 to +6 | processing of the consumer, returned, suspects, marks |
   *
   * | ARGV | |
   * |---|---|
   * | 1 | consumer |
   * | 2 | how many at most, up to 1000 |
   * | 3 | 1: one of them may be a suspect |
   * | 4 | 1: an answer was lost, say in any case how many are gone |
   *
   * | reply | |
   * |---|---|
   * | `OK`, members, lengths, attempts, records, suspect, gone, holes | members: with a blank between, those that came back first. lengths: of their records in bytes, the same way. attempts: of those that came back. records: all in one. suspect = 1: the first is one. gone: how many ids this consumer was due since it joined that stood for nothing any more, -1 when none was added. holes: where they were, as pairs: before which of the members, from 1, and how many |
   * | `EXPIRED` | the heartbeat has run out: what it took now could be taken from it in the same moment |
   * | `PAUSED` | |
   * | `WRONGTYPE`, key, found | |
   */
  const take: Script = {
    name: name("take"),
    lua: `${drains}${mismatch}${clock}${records}${may}${source.lua}
local consumers, state, processing, returned, suspects, marks = ${at(1)}, ${at(2)}, ${at(3)}, ${at(4)}, ${at(5)}, ${at(6)}
local consumer, max = ARGV[1], tonumber(ARGV[2])
local wrong = foreign() or mismatch(consumers, 'zset') or mismatch(state, 'hash') or mismatch(processing, 'set')
  or mismatch(returned, 'list') or mismatch(suspects, 'list') or mismatch(marks, 'hash')
if wrong then return wrong end
may('SADD', processing, '')
local now = clock()
local until_ = redis.call('ZSCORE', consumers, consumer)
if not until_ or tonumber(until_) <= now then return {'EXPIRED'} end
if redis.call('HEXISTS', state, 'paused') == 1 then return {'PAUSED'} end

local again = ARGV[3] == '1' and redis.call('LPOP', suspects, 1) or {}
local suspect = #again
if max > suspect then
  for _, id in ipairs(redis.call('LPOP', returned, max - suspect) or {}) do again[#again + 1] = id end
end
local members, lengths, attempts, found, gone, holes = {}, {}, {}, {}, 0, {}
local function hole(count)
  local place = #members + 1
  gone = gone + count
  if holes[#holes - 1] == place then holes[#holes] = holes[#holes] + count
  else
    holes[#holes + 1] = place
    holes[#holes + 1] = count
  end
end
if #again > 0 then
  local stored, known = read(again), redis.call('HMGET', marks, unpack(again))
  for i = 1, #again do
    local id, text = again[i], stored[i]
    if text then
      local a, f = string.match(known[i] or '', '^(%d+):(%d+)')
      a, f = tonumber(a) or 0, tonumber(f) or 0
      local n = #members + 1
      members[n] = f == 0 and id or id .. '#' .. f + 1
      attempts[n] = a + 1
      found[n] = text
      lengths[n] = #text
    else
      if i == 1 then suspect = 0 end
      hole(1)
      redis.call('HDEL', marks, id)
    end
  end
end
if max > #again then
  local new, missing = fresh(max - #again)
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
    else
      hole(1)
    end
  end
  if missing and missing[#new + 1] then hole(missing[#new + 1]) end
end
local sum = -1
if gone > 0 then sum = redis.call('HINCRBY', state, 'gone:' .. consumer, gone)
elseif ARGV[4] == '1' then sum = tonumber(redis.call('HGET', state, 'gone:' .. consumer)) or 0 end
if #members > 0 then
  if redis.call('EXISTS', processing) == 0 then
    redis.call('HSET', state, 'oldest:' .. consumer, string.format('%.0f', now))
  end
  redis.call('SADD', processing, unpack(members))
end
return {'OK', table.concat(members, ' '), table.concat(lengths, ' '), table.concat(attempts, ' '), table.concat(found),
  suspect, sum, table.concat(holes, ' ')}
`
  }

  /**
   * Ends deliveries, each in its own way. Plain acks of first deliveries stand in front: they are many.
   *
   * | KEYS | |
   * |---|---|
   * | +1 to +5 | processing of the consumer, returned, suspects, marks, waiting |
   * | +6, +7 | dead letters, state |
   * | +8 | the channel `wake` |
   *
   * | ARGV | |
   * |---|---|
   * | 1 | consumer |
   * | 2, 3 | cap of the dead letters: how many, and for how long in ms |
   * | 4 | number of plain acks |
   * | 5... | their members, which are ids |
   * | then | for each other delivery: operation, member; for `R`: delay in ms, cause; for `D`: reason, cause, message id, published at, record or "" |
   *
   * Operations: `A` ack; `R` retry; `D` dead letter; `L` release. The record is read here; the caller sends it only
   * after `G`.
   *
   * | reply | |
   * |---|---|
   * | `OK`, answers, dropped | one character a delivery: `O` done, `F` not the consumer's (any more), `G` the record is gone, send it. dropped: dead letters the cap dropped |
   * | `WRONGTYPE`, key, found | nothing was done |
   */
  const settle: Script = {
    name: name("settle"),
    lua: `${drains}${mismatch}${clock}${add}${may}${records}${source.lua}
local processing, returned, suspects, marks, waiting, dead, state, channel =
  ${at(1)}, ${at(2)}, ${at(3)}, ${at(4)}, ${at(5)}, ${at(6)}, ${at(7)}, ${at(8)}
local consumer, acks = ARGV[1], tonumber(ARGV[4])
local steps = #ARGV > 4 + acks
local wrong = foreign() or mismatch(processing, 'set')
if steps then
  wrong = wrong or mismatch(returned, 'list') or mismatch(suspects, 'list') or mismatch(marks, 'hash')
    or mismatch(waiting, 'zset') or mismatch(dead, 'stream') or mismatch(state, 'hash')
end
if wrong then return wrong end
may('SREM', processing, '')
local answers = {}
if acks > 0 then
  local held = redis.call('SMISMEMBER', processing, unpack(ARGV, 5, 4 + acks))
  local stale = false
  for i = 1, acks do
    if held[i] == 1 then answers[i] = 'O' else answers[i], stale = 'F', true end
  end
  local ids = {unpack(ARGV, 5, 4 + acks)}
  if stale then
    ids = {}
    for i = 1, acks do if held[i] == 1 then ids[#ids + 1] = ARGV[4 + i] end end
  end
  if #ids > 0 then
    redis.call('SREM', processing, unpack(ids))
    forget(ids)
  end
end
if not steps then return {'OK', table.concat(answers), 0} end
${marking}${deadLetters}
local released = {}
local now, soonest, buried = clock(), nil, false
local i = 5 + acks
while i <= #ARGV do
  local op, member = ARGV[i], ARGV[i + 1]
  i = i + 2
  local a, cause, id, at, text
  if op == 'R' then
    a, cause = tonumber(ARGV[i]), ARGV[i + 1]
    i = i + 2
  elseif op == 'D' then
    a, cause, id, at, text = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
    i = i + 5
  end
  local answer = 'O'
  if redis.call('SISMEMBER', processing, member) == 0 then
    answer = 'F'
  else
    local entry = idOf(member)
    local attempts, fence, deaths = marked(entry)
    -- What the delivery on its way counts.
    attempts, fence = attempts + 1, fence + 1
    if op == 'D' then
      text = text ~= '' and text or read({entry})[1]
      if text then
        bury(a, cause, attempts, fence, id, at, entry, consumer, fieldsOf(parsed(text)), 1)
        buried = true
      else
        answer = 'G'
      end
    elseif op == 'R' then
      mark(entry, attempts, fence, 0, cause)
      if a > 0 then redis.call('ZADD', waiting, now + a, entry) else free(entry, 0) end
      soonest = math.min(soonest or a, a)
    elseif op == 'L' then
      mark(entry, attempts - 1, fence, deaths)
      released[#released + 1] = {entry, deaths}
      soonest = 0
    end
    if answer == 'O' then
      redis.call('SREM', processing, member)
      if op == 'A' or op == 'D' then
        redis.call('HDEL', marks, entry)
        forget({entry})
      end
    end
  end
  answers[#answers + 1] = answer
end
for n = #released, 1, -1 do putBack(released[n][1], released[n][2]) end
if soonest then wake(soonest) end
return {'OK', table.concat(answers), buried and keepDead(ARGV[2], tonumber(ARGV[3]), now) or 0}
`
  }

  /**
   * Takes everything from consumers: from the caller, which leaves and has finished none of it, or from those whose
   * heartbeat has run out. What too many have died with becomes a dead letter.
   *
   * | KEYS | |
   * |---|---|
   * | +1, +2 | consumers, state |
   * | +3 to +6 | returned, suspects, marks, dead letters |
   * | +7 | the channel `wake` |
   * | +8... | processing of each consumer |
   *
   * | ARGV | |
   * |---|---|
   * | 1 | `leave` or `dead` |
   * | 2 | how many deliveries at most |
   * | 3 | how often a message may be delivered to consumers that die |
   * | 4, 5 | cap of the dead letters: how many, and for how long in ms |
   * | 6... | the consumers |
   *
   * | reply | |
   * |---|---|
   * | `OK`, moved, from, buried, dropped, more | moved: how many went to others. from: whose. buried: member, attempts, record, of each dead letter. dropped: dead letters the cap dropped. more = 1: call again |
   * | `WRONGTYPE`, key, found | |
   */
  const vacate: Script = {
    name: name("vacate"),
    lua: `${drains}${mismatch}${clock}${add}${records}${source.lua}
local consumers, state, returned, suspects, marks, dead, channel =
  ${at(1)}, ${at(2)}, ${at(3)}, ${at(4)}, ${at(5)}, ${at(6)}, ${at(7)}
local leaving, limit, most = ARGV[1] == 'leave', tonumber(ARGV[2]), tonumber(ARGV[3])
local wrong = foreign() or mismatch(consumers, 'zset') or mismatch(state, 'hash') or mismatch(returned, 'list')
  or mismatch(suspects, 'list') or mismatch(marks, 'hash') or mismatch(dead, 'stream')
for i = 6, #ARGV do wrong = wrong or mismatch(KEYS[${source.keys} + 2 + i], 'set') end
if wrong then return wrong end
${marking}${deadLetters}${nth}
local now = clock()
local moved, from, buried, done = 0, {}, {}, 0
for i = 6, #ARGV do
  local consumer, processing = ARGV[i], KEYS[${source.keys} + 2 + i]
  local until_ = redis.call('ZSCORE', consumers, consumer)
  -- It may have come back to life since the caller looked.
  if leaving or (until_ and tonumber(until_) <= now) then
    local before = moved + #buried
    local members = redis.call('SMEMBERS', processing)
    local order = {}
    for m, member in ipairs(members) do order[member] = nth(idOf(member)) end
    table.sort(members, function(a, b)
      if order[a] ~= order[b] then return order[a] > order[b] end
      return a > b
    end)
    -- The newest first, so that the oldest ends up in front, also when it takes several calls.
    for m, member in ipairs(members) do
      if done >= limit then break end
      done = done + 1
      local id = idOf(member)
      local attempts, fence, deaths = marked(id)
      if leaving then
        mark(id, attempts, fence + 1, deaths)
        putBack(id, deaths)
        moved = moved + 1
      elseif deaths + 1 < most then
        mark(id, attempts + 1, fence + 1, deaths + 1)
        putBack(id, deaths + 1)
        moved = moved + 1
      else
        local text = read({id})[1]
        if text then
          local message = parsed(text)
          bury('CrashLoop', 'delivered ' .. deaths + 1 .. ' times to consumers that died or stalled', attempts + 1,
            fence + 1, message.id or id, message.at or string.match(id, '^%d+') or '0', id, consumer, fieldsOf(message), 1)
          buried[#buried + 1] = {member, attempts + 1, text}
          redis.call('HDEL', marks, id)
          forget({id})
        else
          -- Whoever takes next counts it among those that are gone.
          putBack(id, deaths)
          moved = moved + 1
        end
      end
      redis.call('SREM', processing, member)
    end
    if moved + #buried > before and not leaving then from[#from + 1] = consumer end
    if redis.call('EXISTS', processing) == 0 then
      redis.call('ZREM', consumers, consumer)
      redis.call('HDEL', state, 'oldest:' .. consumer, 'gone:' .. consumer)
    end
  end
end
if moved > 0 then wake(0) end
return {'OK', moved, from, buried, #buried > 0 and keepDead(ARGV[4], tonumber(ARGV[5]), now) or 0,
  done >= limit and 1 or 0}
`
  }

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
   * | `OK`, lag, pending, oldest, waiting, next, dead, dropped, paused, consumers, reached | oldest: ms. next: when the next retry is due, -1 when none waits. consumers: name, pending, name, pending... of the living. reached: the last id that the group was given, "" where the source does not know |
   * | `WRONGTYPE`, key, found | |
   */
  const describe: Script = {
    name: name("describe"),
    lua: `${reads}${mismatch}${clock}${records}${source.lua}
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
  end
end
local again = redis.call('LLEN', returned) + redis.call('LLEN', suspects)
local next = redis.call('ZRANGE', waiting, 0, 0, 'WITHSCORES')[2]
next = again > 0 and now or next and tonumber(next) or -1
local lag, reached = backlog()
return {'OK', lag, pending, oldest, redis.call('ZCARD', waiting) + again, next, redis.call('XLEN', dead),
  tonumber(redis.call('HGET', state, 'dropped') or '0'), redis.call('HEXISTS', state, 'paused'), living, reached or ''}
`
  }

  /**
   * Sends dead letters back to their group: the same message under its old id, attempts counted anew, the fence going on.
   *
   * | KEYS | |
   * |---|---|
   * | +1 to +3 | dead letters, returned, marks |
   * | +4 | the channel `wake` |
   *
   * | ARGV | |
   * |---|---|
   * | 1... | their entries |
   *
   * | reply | |
   * |---|---|
   * | `OK`, count | how many were there |
   * | `WRONGTYPE`, key, found | |
   */
  const redrive: Script = {
    name: name("redrive"),
    lua: `${drains}${mismatch}${clock}${records}${source.lua}
local dead, returned, marks, channel = ${at(1)}, ${at(2)}, ${at(3)}, ${at(4)}
local suspects = returned
local wrong = foreign() or mismatch(dead, 'stream') or mismatch(returned, 'list') or mismatch(marks, 'hash')
if wrong then return wrong end
${marking}
local count = 0
for i = 1, #ARGV do
  local letter = redis.call('XRANGE', dead, ARGV[i], ARGV[i])[1]
  if letter then
    local f = letter[2]
    -- A letter that somebody else wrote has an id of its own; the entry is one.
    local id, fence, from, message, at = 'letter-' .. ARGV[i], 0, 1, nil, nil
    if f[1] == 'reason' and f[7] == 'fence' and f[9] == 'id' and f[11] == 'at' and f[13] == 'origin' then
      id, fence, from = f[14], tonumber(f[8]) or 0, 17
      if f[10] ~= id then message = f[10] end
      if f[12] ~= string.match(id, '^(%d+)-') then at = f[12] end
    end
    local of = {}
    for n = from, #f - 1, 2 do of[f[n]] = f[n + 1] end
    restore(id, record(of.payload or '', message, of.headers, of.key, of.v, at))
    mark(id, 0, fence, 0)
    redis.call('RPUSH', returned, id)
    redis.call('XDEL', dead, ARGV[i])
    count = count + 1
  end
end
if count > 0 then wake(0) end
return {'OK', count}
`
  }

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
  const overview: Script = {
    name: name("overview"),
    lua: `${reads}${mismatch}${clock}${records}${source.lua}
local wrong = foreign() or mismatch(${at(1)}, 'hash') or mismatch(${at(2)}, 'set')
if wrong then return wrong end
local names = redis.call('SMEMBERS', ${at(2)})
table.sort(names)
local depth, delayed, next, published = outlook()
return {'OK', redis.call('HGET', ${at(1)}, 'pattern') or '', depth, delayed, next or -1, names, published or -1}
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
    lua: `${reads}${mismatch}${clock}${records}${source.lua}
local wrong = foreign()
if wrong then return wrong end
local ids, rows = peek(ARGV[1] ~= '' and ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1'), {}
local found = #ids > 0 and read(ids)
for i, id in ipairs(ids) do if found[i] then rows[#rows + 1] = {id, found[i]} end end
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
    lua: `${reads}${mismatch}${clock}${records}${source.lua}
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
  if #rows == tonumber(ARGV[2]) then break end
  if from == '' or before(from, member) then
    local id = idOf(member)
    local since = redis.call('HGET', state, 'oldest:' .. of[member])
    rows[#rows + 1] = {member, of[member], since and math.max(0, now - tonumber(since)) or 0, marked(id) + 1,
      read({id})[1] or '0'}
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
   * | `OK`, rows | rows: position, id, due, attempts, cause, record |
   * | `WRONGTYPE`, key, found | |
   */
  const waiting: Script = {
    name: name("waiting"),
    lua: `${reads}${mismatch}${clock}${records}${source.lua}
local waiting, returned, suspects, marks = ${at(1)}, ${at(2)}, ${at(3)}, ${at(4)}
local wrong = foreign() or mismatch(waiting, 'zset') or mismatch(returned, 'list') or mismatch(suspects, 'list')
  or mismatch(marks, 'hash')
if wrong then return wrong end
local now, limit, rows = clock(), tonumber(ARGV[2]), {}
local part, place = string.sub(ARGV[1], 1, 1), string.sub(ARGV[1], 2)
local function row(position, id, due)
  local attempts, cause = string.match(redis.call('HGET', marks, id) or '', '^(%d+):%d+:%d+:(.*)$')
  rows[#rows + 1] = {position, id, due, tonumber(attempts) or 0, cause or '', read({id})[1] or '0'}
end
for _, of in ipairs({{'a', returned}, {'b', suspects}}) do
  local letter, list = of[1], of[2]
  if part <= letter and #rows < limit then
    local after = part == letter and place ~= '' and redis.call('LPOS', list, place)
    local from = after and after + 1 or 0
    for _, id in ipairs(redis.call('LRANGE', list, from, from + limit - #rows - 1)) do row(letter .. id, id, now) end
  end
end
if #rows < limit then
  local rank = 0
  if part == 'c' then
    local score, id = string.match(place, '^(%-?%d+):(.*)$')
    rank = redis.call('ZRANK', waiting, id)
    rank = rank and rank + 1 or redis.call('ZCOUNT', waiting, '-inf', '(' .. score)
  end
  local page = redis.call('ZRANGE', waiting, rank, rank + limit - #rows - 1, 'WITHSCORES')
  for i = 1, #page, 2 do
    local due = string.format('%.0f', tonumber(page[i + 1]))
    row('c' .. due .. ':' .. page[i], page[i], tonumber(due))
  end
end
return {'OK', rows}
`
  }

  return { join, beat, take, settle, vacate, redrive, overview, describe, messages, pending, waiting }
}
