/**
 * Messages of a stream that have their ids to themselves until every group has settled them.
 *
 * The hash `unique` has, by id, the entry, and the groups that keep the message elsewhere: it waits there for its next attempt.
 * Whether a message is settled shows in the groups themselves, so a field that was left behind blocks no id. Such a message has a
 * field `unique`: after the first attempt it holds the id of the first entry.
 *
 * @module
 */
/**
 * `isOpen(place, except, first)`: whether some group, apart from `except`, has yet to settle the message. While there is no group, it is
 * open as long as it is stored. A user who may not look at groups still publishes: then it is open until a consumer has freed the id.
 * `first`: where the stream begins, if known; then no entry is loaded.
 * Uses `less`, `of`, and the local `stream`, the key.
 */
export const opens = /* lua */ `
local readers
local function isOpen(place, except, first)
  local entry, kept = string.match(place, '^(%d+%-%d+)(.*)$')
  if not entry then return false end
  readers = readers or redis.pcall('XINFO', 'GROUPS', stream)
  if readers.err then return not string.find(readers.err, 'no such key', 1, true) end
  local there
  local function isStored()
    if first then return not less(entry, first) end
    there = there or redis.pcall('XRANGE', stream, entry, entry)
    return there.err or #there > 0
  end
  if #readers == 0 then return isStored() end
  for _, flat in ipairs(readers) do
    local mine = of(flat)
    local name = mine['name']
    if name ~= except then
      if string.find(kept .. ' ', ' ' .. name .. ' ', 1, true) then return true end
      if less(mine['last-delivered-id'], entry) then
        if isStored() then return true end
      elseif mine['pending'] > 0 then
        local held = redis.pcall('XPENDING', stream, name, entry, entry, 1)
        if held.err or #held > 0 then return true end
      end
    end
  end
  return false
end
-- The place without the name of this group, and whether it was there.
local function without(place, group)
  local at = string.find(place .. ' ', ' ' .. group .. ' ', 1, true)
  if not at then return place end
  return string.sub(place, 1, at - 1) .. string.sub(place, at + 1 + #group), true
end
`

/**
 * `uniqueAt(fields, from)`: the index of the value of the field `unique`, or nil.
 * `keep(id, first)`: the group keeps the message elsewhere. `first`: its first entry.
 * `free(id, first)`: the group has settled it. If it was the last one, the id is free.
 * `freeAll(ids, firsts)`: the same for many.
 *
 * They use the locals `stream` and `unique`, the keys, and `group`.
 */
export const freeing = /* lua */ `${opens}
local function uniqueAt(fields, from)
  for f = from, #fields - 1, 2 do if fields[f] == 'unique' then return f + 1 end end
end
local function placed(id, first)
  local place = redis.call('HGET', unique, id)
  if place and string.match(place, '^%S+') == first then return place, without(place, group) end
end
local function keep(id, first)
  local place, _, isKept = placed(id, first)
  if place and not isKept then redis.call('HSET', unique, id, place .. ' ' .. group) end
end
local function free(id, first)
  local place, rest, isKept = placed(id, first)
  if not place then return end
  if not isOpen(rest, group) then redis.call('HDEL', unique, id)
  elseif isKept then redis.call('HSET', unique, id, rest) end
end
local function freeAll(ids, firsts)
  local places, gone = redis.call('HMGET', unique, unpack(ids)), {}
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  -- The caller's group is the only one.
  local alone = not groups.err and #groups == 1
  local n = 0
  for i = 1, #ids do
    if alone and places[i] == firsts[i] then
      n = n + 1
      gone[n] = ids[i]
    elseif places[i] then free(ids[i], firsts[i]) end
  end
  if n > 0 then redis.call('HDEL', unique, unpack(gone)) end
end
`
