/**
 * Commits of deliveries from a stream: its group's list of pending entries determines ownership.
 *
 * @module
 */
import { commitScript } from "../commit/CommitScript.ts"
import { keys } from "../wire/Keys.ts"
import { ask, ids, maps } from "../wire/Lua.ts"
import { sources } from "./Progress.ts"
import { storage } from "./StreamStorage.ts"
import { freeing } from "./UniqueIds.ts"

/**
 * Arguments of a delivery: source, entry, count; count 0: the group was lost with the entry, so there is no ownership to check. After
 * the count follow, of a message that has its id to itself, a space, its first entry, a space and the id.
 */
export const commit = commitScript({
  storage,
  keys: keys("stream", "retry", "released", "unique"),
  args: { group: "text", consumer: "text" },
  delivery: 3,
  lua: /* lua */ `${ask}${ids}${maps}${sources}${freeing}
local acked, uncounted, freed = {[0] = {}, {}}, {}, {}
-- Of the delivery that was asked for last.
local count, own
local function owns(i)
  count, own = tonumber(ARGV[i + 2]), nil
  if not count then
    own = ARGV[i + 2]
    count = tonumber(string.match(own, '^%d+'))
  end
  if count == 0 then return true end
  local owned = ask('XPENDING', sources[tonumber(ARGV[i])], group, ARGV[i + 1], ARGV[i + 1], 1, consumer)
  return owned and #owned == 1 and owned[1][4] == count
end
local function leave(i)
  local entry = ARGV[i + 1]
  if count > 0 then
    local some = acked[tonumber(ARGV[i])]
    some[#some + 1] = entry
  end
  if count > 1 then
    uncounted[#uncounted + 1] = ARGV[i] .. entry
    uncounted[#uncounted + 1] = '!' .. ARGV[i] .. entry
  end
  if own then freed[#freed + 1] = own end
end
local function leaving()
  for source = 0, 1 do
    if #acked[source] > 0 then redis.call('XACK', sources[source], group, unpack(acked[source])) end
  end
  if #uncounted > 0 then redis.call('HDEL', released, unpack(uncounted)) end
  for _, own in ipairs(freed) do
    local first, id = string.match(own, ' (%S+) (.*)$')
    if id then free(id, first) end
  end
end
`
})
