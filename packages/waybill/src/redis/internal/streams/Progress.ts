/**
 * The progress of a group: up to where it was given messages, and which of them it has not settled. The server keeps that in the
 * group, and `XGROUP DESTROY` deletes it; so it is also recorded in the state of the group, and a lost group continues from there.
 *
 * @module
 */
import { infos } from "../wire/Lua.ts"

/** The owner of entries that were handed back: not a process, and always considered dead, so that the next claim finds them. */
export const nobody = "(released)"

/** `sources`: the keys of the streams by source. Uses the locals `stream` and `retry`, the keys. */
export const sources = /* lua */ `
local sources = {[0] = stream, retry}
`

/**
 * `sweeping(swept, now)`: whether it is time to check every consumer of the group, last done at `swept`. The cost grows with their
 * number, so the group does it once a lease, `lease`.
 */
export const sweeping = /* lua */ `
local function sweeping(swept, now)
  swept = tonumber(swept) or 0
  return now < swept or now - swept >= lease / 2
end
`

/**
 * `note(now, empty)`: records the progress of the group on both streams. `empty`: by source, the previous record if nothing is
 * pending; an unchanged record is not written. Of many pending entries the first thousand are recorded; later deliveries count as
 * not delivered yet. Nothing is recorded for a group that is on neither stream: it was removed, or is lost.
 *
 * It uses the locals `state`, the key, `group`, `sources`, `ask` and `of`.
 */
export const noting = /* lua */ `${infos}
local function note(now, empty)
  local there = false
  for source = 0, 1 do
    local mine = infoOf(sources[source], group)
    if mine then
      local before = empty and empty[source]
      local rows = before and {} or ask('XPENDING', sources[source], group, '-', '+', 1000)
      local noted, place = {mine['last-delivered-id']}, {}
      if #rows == 1000 then noted[1] = rows[1000][1] end
      for _, row in ipairs(rows) do
        local entries = place[row[2]]
        if not entries then
          entries = {}
          place[row[2]] = entries
          noted[#noted + 1] = row[2]
          noted[#noted + 1] = entries
        end
        entries[#entries + 1] = row[1]
        entries[#entries + 1] = row[4]
      end
      local packed = cmsgpack.pack(noted)
      if packed ~= before then
        there = true
        redis.call('HSET', state, 'progress:' .. source, packed)
      end
    end
  end
  if there then redis.call('HSET', state, 'noted', string.format('%.0f', now)) end
end
`

/**
 * `progressOf(source, last)`: the record of a group that is missing on a stream whose last entry is `last`, and the entries after
 * it, which may have been delivered later. nil if nothing was recorded, or the stream was lost as well.
 * `restore(source, progress)`: gives the group, recreated at `progress.at`, its pending entries back, each to its consumer and with
 * its count. Entries that may have been delivered later come again, with a larger fence, unless they are known to have ended:
 * they wait for their next attempt, are dead letters, or this consumer has settled them.
 *
 * They use the locals of `join`, `ask` and `less`.
 */
export const restoring = /* lua */ `
local function progressOf(source, last)
  local key = sources[source]
  if ask('XPENDING', key, group) then return end
  local packed = redis.call('HGET', state, 'progress:' .. source)
  local ok, noted = pcall(cmsgpack.unpack, packed or '')
  if not packed or not ok or type(noted) ~= 'table' or not string.find(tostring(noted[1]), '^%d+%-%d+$') then return end
  -- A build that does not record the progress still records a mark; if that is further, everything before it is settled.
  local mark = source == 0 and redis.call('HGET', state, 'mark')
  local at, floor, unsure = noted[1], mark or '0-0', {}
  if less(at, floor) then at = floor end
  if less(last, at) then return end
  local bytes = 0
  while bytes < 4194304 and #unsure < 2000 do
    local entries = redis.call('XRANGE', key, '(' .. at, '+', 'COUNT', 16)
    for _, entry in ipairs(entries) do
      at = entry[1]
      unsure[#unsure + 1] = at
      for _, field in ipairs(entry[2]) do bytes = bytes + #field end
    end
    if #entries < 16 then break end
  end
  return {at = at, floor = floor, noted = noted, unsure = unsure}
end
local deadLettered
local function isOver(member)
  if over[member] or redis.call('ZSCORE', waiting, member) then return true end
  if not deadLettered then
    deadLettered = {}
    local from, bytes, count = redis.call('HGET', state, 'noted') or '+', 0, 0
    while bytes < 4194304 and count < 2000 do
      local letters = redis.call('XRANGE', dead, from, '+', 'COUNT', 16)
      for _, letter in ipairs(letters) do
        local f = letter[2]
        if f[13] == 'origin' then deadLettered[f[14]] = true end
        for _, field in ipairs(f) do bytes = bytes + #field end
        from = '(' .. letter[1]
      end
      count = count + #letters
      if #letters < 16 then break end
    end
  end
  return deadLettered[member]
end
local function restore(source, progress)
  local noted = progress.noted
  local function give(entry, owner, count)
    local member = source .. entry
    if isOver(member) then return end
    local uncounted = tonumber(redis.call('HGET', released, member) or '0')
    if held[member] and held[member] >= count then
      owner, count = consumer, held[member]
      held[member] = nil
    elseif count == 0 or (owner == consumer and uncounted < count) then
      -- Its owner and outcome are unknown: the delivery is not an attempt.
      owner, count, uncounted = '${nobody}', math.max(count, uncounted + 1), uncounted + 1
      redis.call('HSET', released, member, uncounted)
    elseif uncounted >= count then
      owner, count = '${nobody}', uncounted
    end
    redis.call('XCLAIM', sources[source], group, owner, 0, entry, 'RETRYCOUNT', count, 'FORCE', 'JUSTID')
  end
  for i = 2, #noted, 2 do
    local owner, entries = noted[i], noted[i + 1]
    for j = 1, #entries, 2 do
      if less(progress.floor, entries[j]) then give(entries[j], owner, entries[j + 1]) end
    end
  end
  for _, entry in ipairs(progress.unsure) do give(entry, '${nobody}', 0) end
end
`
