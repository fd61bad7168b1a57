/**
 * Commits of deliveries from a queue: the group's claims determine ownership.
 *
 * @module
 */
import { commitScript } from "../commit/CommitScript.ts"
import { keys } from "../wire/Keys.ts"
import { storage } from "./ListStorage.ts"

/** Argument of a delivery: its member in the processing set. */
export const commit = commitScript({
  storage,
  keys: keys("bodies", "processing", "marks"),
  args: {},
  delivery: 1,
  lua: /* lua */ `
local left, ids, marked = {}, {}, {}
local owned = redis.call('SMISMEMBER', processing, unpack(ARGV, moreArgs + 1, moreArgs + deliveries))
local function owns(i)
  return owned[i - moreArgs] == 1
end
local function leave(i)
  local member = ARGV[i]
  local id = string.match(member, '^(.*)#%d+$')
  left[#left + 1] = member
  ids[#ids + 1] = id or member
  if id then marked[#marked + 1] = id end
end
local function leaving()
  if #left == 0 then return end
  redis.call('SREM', processing, unpack(left))
  if #marked > 0 then redis.call('HDEL', marks, unpack(marked)) end
  redis.call('HDEL', bodies, unpack(ids))
end
`
})
