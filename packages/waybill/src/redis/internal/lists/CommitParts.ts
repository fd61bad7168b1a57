/**
 * Commits of deliveries from a queue: the group's claims determine ownership.
 *
 * @module
 */
import { commitScript } from "../commit/CommitScript.ts"
import { keys } from "../wire/Keys.ts"
import { freeing } from "./ListSource.ts"
import { storage } from "./ListStorage.ts"

/** Arguments of a delivery: its member in the processing set; and the id of its message, if it has one of its own, or "". */
export const commit = commitScript({
  storage,
  keys: keys("bodies", "processing", "marks", "unique", "named"),
  args: {},
  delivery: 2,
  lua: /* lua */ `${freeing}
local left, ids, marked = {}, {}, {}
local guards = redis.call('EXISTS', unique, named) > 0
local members = {}
for d = 1, deliveries do members[d] = ARGV[moreArgs + 2 * d - 1] end
local owned = redis.call('SMISMEMBER', processing, unpack(members))
local function owns(i)
  return owned[(i - moreArgs + 1) / 2] == 1
end
local function leave(i)
  local member = ARGV[i]
  local id = string.match(member, '^(.*)#%d+$')
  left[#left + 1] = member
  ids[#ids + 1] = id or member
  if id then marked[#marked + 1] = id end
  if guards and ARGV[i + 1] ~= '' then freed({id or member}, {ARGV[i + 1]}) end
end
local function leaving()
  if #left == 0 then return end
  redis.call('SREM', processing, unpack(left))
  if #marked > 0 then redis.call('HDEL', marks, unpack(marked)) end
  redis.call('HDEL', bodies, unpack(ids))
end
`
})
