/**
 * The dead letters of a group, whatever its pattern: how they are added, kept, counted, read and redriven.
 *
 * Consumers decide how long they are kept. They record it in the state of the group, so that reading and redriving apply it
 * even if nothing has dropped the expired ones yet.
 *
 * @module
 */
import {
  bytes,
  type Definition,
  type Kind,
  listOf,
  make,
  number,
  row,
  type Shaped,
  text
} from "../connection/Script.ts"
import { keys } from "../wire/Keys.ts"
import { clock, paging, tallies, weighing } from "../wire/Lua.ts"
import { pageArgs } from "./Figures.ts"
import { forgetLimit, places } from "./MessagePlaces.ts"

/**
 * `deadLetter(...)`: adds a dead letter. Its own eight pairs come first, followed by the unchanged fields of the message, whatever
 * their names. Between the two is the part of its tally that outlasts the message, and then its failure, as JSON
 * (DeadLetterEntry.ts). Both are also there, empty, if the first field of the message could be mistaken for one of them.
 *
 * It uses `tallies` and the locals `dead` and `deadIds`, the keys.
 */
export const deadLettering = /* lua */ `${places}
local function deadLetter(reason, cause, attempts, fence, id, at, origin, consumer, raw, from, tally, failure)
  local lasts = lasting(tally)
  local head = {'reason', reason, 'cause', cause, 'attempts', attempts, 'fence', fence, 'id', id, 'at', at,
    'origin', origin, 'consumer', consumer}
  if lasts or raw[from] == 'tally' then
    head[17] = 'tally'
    head[18] = lasts or '0;0;'
  end
  if failure ~= '' or raw[from] == 'failure' then
    head[#head + 1] = 'failure'
    head[#head + 1] = failure
  end
  local entry = add(dead, head, raw, from)
  index(deadIds, scoreOf(entry), id)
  return entry
end
`

/**
 * `keepDead(max, age, now)`: applies the cap; how many dead letters it dropped, some thousand at most. They are counted in
 * the state of the group, and the age is recorded there for readers.
 *
 * It uses `places`, and the locals `dead`, `deadIds` and `state`, the keys.
 */
export const keeping = /* lua */ `
local function keepDead(max, age, now)
  if redis.call('XLEN', dead) == 0 then return 0 end
  local function cut(strategy, threshold)
    local most = 5000
    local count = redis.call('XTRIM', dead, strategy, '~', threshold, 'LIMIT', most)
    -- Redis stops before it exceeds the limit, by less than a node.
    if count >= most - 128 then return count end
    return count + redis.call('XTRIM', dead, strategy, threshold)
  end
  local dropped = cut('MAXLEN', max) + cut('MINID', string.format('%.0f', math.max(0, now - age)))
  if dropped > 0 then
    redis.call('HINCRBY', state, 'dropped', dropped)
    local first = redis.call('XRANGE', dead, '-', '+', 'COUNT', 1)[1]
    for _ = 0, dropped, ${forgetLimit} do forgetBefore(deadIds, first and first[1]) end
  end
  local noted = string.format('%.0f', age)
  if redis.call('HGET', state, 'max-age') ~= noted then redis.call('HSET', state, 'max-age', noted) end
  return dropped
end
`

/**
 * `keptSince(state, now)`: the id from which on dead letters count: older ones are gone, whether or not they have been dropped
 * yet.
 * `isKept(entry, since)`
 */
export const aging = /* lua */ `
local function keptSince(state, now)
  local age = tonumber(redis.call('HGET', state, 'max-age') or '')
  return age and math.max(0, now - age) or 0
end
local function isKept(entry, since)
  return tonumber(string.match(entry, '^%d+')) >= since
end
`

/** `deadCount(dead, state, now)`: how many dead letters there are, and 1 if some of them are too old to count. */
export const counting = /* lua */ `${aging}
local function deadCount(dead, state, now)
  local count = redis.call('XLEN', dead)
  if count == 0 then return 0, 0 end
  local since = keptSince(state, now)
  if isKept(redis.call('XRANGE', dead, '-', '+', 'COUNT', 1)[1][1], since) then return count, 0 end
  if not isKept(redis.call('XREVRANGE', dead, '+', '-', 'COUNT', 1)[1][1], since) then return 0, 0 end
  return count, 1
end
`

/**
 * `letterOf(f)`: what a dead letter says about its message: the index where its fields begin, and its head by name,
 * without a head if another program wrote it. `head.partial`: part of its commit was applied. Letters of older builds only say so
 * in words.
 */
export const letterHeads = /* lua */ `${tallies}
local function letterOf(f)
  if f[1] ~= 'reason' or f[7] ~= 'fence' or f[9] ~= 'id' or f[11] ~= 'at' or f[13] ~= 'origin' then return 1 end
  local from = isTally(f[17], f[18]) and 19 or 17
  local partial = from == 19 and isPartial(f[18])
    or f[2] == 'PartialCommit' and string.find(f[4], 'nothing of the commit will be applied again', 1, true)
  if f[from] == 'failure' and (f[from + 1] == '' or string.sub(f[from + 1], 1, 8) == '{"tag":"') then from = from + 2 end
  return from, {fence = f[8], id = f[10], at = f[12], origin = f[14], partial = partial}
end
`

/** Reply of a script that moves or deletes dead letters: how many there were, of how many it passed. The rest is for the next call. */
export const moved = { count: number, passed: number }

export type Moved = Shaped<typeof moved>

/**
 * The script that redrives dead letters to their group: a letter leaves in the same step, so that redriving it twice does it once.
 * `lua` defines `back(entry, f, from, head)`, which takes a letter's fields and what `letterOf` says about them, and returns whether
 * the message is on its way; `done` runs afterwards if some are.
 *
 * Further arguments: the entries.
 */
export const redriving = <const K extends Readonly<Record<string, Kind>>>(
  script: Pick<Definition<K>, "name" | "keys" | "announces" | "lua"> & { readonly done?: string }
) =>
  make({
    ...script,
    mode: "drains",
    replies: { OK: moved },
    lua: /* lua */ `${clock}${aging}${weighing}${letterHeads}${places}${script.lua}
touch()
local since, count, passed = keptSince(state, clock()), 0, 0
while passed < #ARGV and room() do
  passed = passed + 1
  local entry = ARGV[passed]
  local letter = isKept(entry, since) and redis.call('XRANGE', dead, entry, entry)[1]
  if letter then
    local from, head = letterOf(weigh(letter[2]))
    if back(entry, letter[2], from, head) then
      redis.call('XDEL', dead, entry)
      if head then unindex(deadIds, head.id, entry) end
      count = count + 1
    end
  end
end
${script.done === undefined ? "" : `if count > 0 then ${script.done} end`}
return {'OK', count, passed}
`
  })

/** One page of the dead letters of a group, oldest first. */
export const letters = make({
  name: "waybill/letters",
  mode: "reads",
  keys: keys("dead", "state"),
  args: pageArgs,
  bytes: true,
  replies: {
    OK: {
      /** As in replies of XRANGE. */
      letters: listOf(row({ entry: text, fields: listOf(bytes) }))
    }
  },
  lua: /* lua */ `${clock}${aging}${weighing}${paging}
touch()
local since = keptSince(state, clock())
local start = from ~= '' and isKept(from, since) and '(' .. from or string.format('%.0f', since)
return {'OK', page(dead, start, limit)}
`
})

/** Drops expired dead letters. */
export const expire = make({
  name: "waybill/expire",
  mode: "drains",
  keys: keys("dead", "deadIds", "state"),
  replies: {
    OK: {
      /** Some thousand at most: as many may be left. */
      dropped: number
    }
  },
  lua: /* lua */ `${clock}${places}${keeping}
touch()
local age = tonumber(redis.call('HGET', state, 'max-age') or '')
return {'OK', age and keepDead(redis.call('XLEN', dead), age, clock()) or 0}
`
})

/**
 * `unclaimed(now)`: 1 if hooks of the group have something to claim: letters after those that they were given, or claims that have
 * expired; or if it is not recorded which they were given. Uses the locals `dead` and `state`, the keys.
 */
export const unclaiming = /* lua */ `
local function unclaimed(now)
  local given = redis.call('HMGET', state, 'hook', 'hooked')
  if not given[1] or #redis.call('XRANGE', dead, '(' .. given[1], '+', 'COUNT', 1) > 0 then return 1 end
  for _, expires in pairs(given[2] and cmsgpack.unpack(given[2]) or {}) do
    if expires <= now then return 1 end
  end
  return 0
end
`

/** `isHooked()`: whether the group has had a hook: then those that have one are told of dead letters at once. Uses `state`. */
export const hooking = /* lua */ `
local function isHooked()
  return redis.call('HEXISTS', state, 'hook') == 1
end
`

/** How many claims a group may have: they are read and written together. */
const maxClaims = 256

/**
 * Hands dead letters to hooks. The state of the group records up to which one they were handed out, `hook`, and until when each
 * unconfirmed one is claimed, `hooked`.
 *
 * Further arguments: the entries that were handled, and then those that are being handled.
 */
export const claim = make({
  name: "waybill/claim-letters",
  mode: "drains",
  keys: keys("dead", "state"),
  args: {
    /** How many of the further arguments were handled. */
    handled: "number",
    limit: "number",
    /** How long claims last, ms. */
    lease: "number",
    /** Where to begin if nothing is recorded; "": behind the last letter. */
    from: "text"
  },
  bytes: true,
  replies: { OK: { position: text, letters: listOf(row({ entry: text, fields: listOf(bytes) })) } },
  lua: /* lua */ `${clock}${aging}${weighing}
touch()
local now = clock()
local recorded = redis.call('HMGET', state, 'hook', 'hooked')
local since, letters, count = keptSince(state, now), {}, 0
local position = recorded[1] or from
if position == '' then
  local last = redis.call('XREVRANGE', dead, '+', '-', 'COUNT', 1)[1]
  position = last and last[1] or '0-0'
end
local claims = recorded[2] and cmsgpack.unpack(recorded[2]) or {}
for i = moreArgs + 1, #ARGV do
  if i <= moreArgs + handled then claims[ARGV[i]] = nil
  elseif claims[ARGV[i]] then claims[ARGV[i]] = now + lease end
end
local function give(letter)
  claims[letter[1]] = now + lease
  letters[#letters + 1] = weigh(letter)
end
local due = {}
for entry, expires in pairs(claims) do
  count = count + 1
  if expires <= now then due[#due + 1] = entry end
end
for _, entry in ipairs(due) do
  if #letters == limit or not room() then break end
  local letter = isKept(entry, since) and redis.call('XRANGE', dead, entry, entry)[1]
  if letter then give(letter) else claims[entry], count = nil, count - 1 end
end
while #letters < limit and count < ${maxClaims} and room() do
  local start = isKept(position, since) and '(' .. position or string.format('%.0f', since)
  local letter = redis.call('XRANGE', dead, start, '+', 'COUNT', 1)[1]
  if not letter then break end
  position, count = letter[1], count + 1
  give(letter)
end
if position ~= recorded[1] then redis.call('HSET', state, 'hook', position) end
if next(claims) then
  local packed = cmsgpack.pack(claims)
  if packed ~= recorded[2] then redis.call('HSET', state, 'hooked', packed) end
elseif recorded[2] then redis.call('HDEL', state, 'hooked') end
return {'OK', position, letters}
`
})

/** Deletes dead letters for good. Further arguments: their entries. */
export const discard = make({
  name: "waybill/discard",
  mode: "drains",
  keys: keys("dead", "deadIds", "state"),
  replies: { OK: moved },
  lua: /* lua */ `${clock}${aging}${weighing}${letterHeads}${places}
touch()
local since, count, passed = keptSince(state, clock()), 0, 0
while passed < #ARGV and room() do
  passed = passed + 1
  local entry = ARGV[passed]
  local letter = redis.call('XRANGE', dead, entry, entry)[1]
  if letter then
    local _, head = letterOf(weigh(letter[2]))
    redis.call('XDEL', dead, entry)
    if head then unindex(deadIds, head.id, entry) end
    if isKept(entry, since) then count = count + 1 end
  end
end
return {'OK', count, passed}
`
})
