/**
 * Commits of deliveries from a stream: whose a delivery is, its group's list of pending entries says.
 *
 * @module
 */
import { commitScript } from "../commit/CommitScript.ts"
import { keys } from "../wire/Keys.ts"
import { announce, ask, ids, shorten, unseen } from "../wire/Lua.ts"
import { sources } from "./Progress.ts"
import { fieldsOf } from "./PublishScript.ts"

/**
 * Arguments of a delivery: source, entry, count; count 0: the group was lost and the entry with it, there is no owner to ask for.
 *
 * The keys of a topic: stream, meta, delayed, their bodies, the channel `wake`.
 */
export const commit = commitScript({
  keys: keys("stream", "retry", "released"),
  args: {
    group: "text",
    consumer: "text",
    pattern: "text",
    wire: "text",
    /** How long message ids are remembered, ms. */
    remembered: "text",
    /** Greatest length of a stream, or "". */
    maxLength: "text"
  },
  delivery: 3,
  lua: /* lua */ `${ask}${announce}${ids}${unseen}${shorten}${fieldsOf}${sources}
local acked, uncounted = {[0] = {}, {}}, {}
local function owns(i)
  local count = tonumber(ARGV[i + 2])
  if count == 0 then return true end
  local owned = ask('XPENDING', sources[tonumber(ARGV[i])], group, ARGV[i + 1], ARGV[i + 1], 1, consumer)
  return owned and #owned == 1 and owned[1][4] == count
end
local function leave(i)
  local source, entry, count = tonumber(ARGV[i]), ARGV[i + 1], tonumber(ARGV[i + 2])
  if count > 0 then acked[source][#acked[source] + 1] = entry end
  if count > 1 then
    uncounted[#uncounted + 1] = ARGV[i] .. entry
    uncounted[#uncounted + 1] = '!' .. ARGV[i] .. entry
  end
end
local function leaving()
  for source = 0, 1 do
    if #acked[source] > 0 then redis.call('XACK', sources[source], group, unpack(acked[source])) end
  end
  if #uncounted > 0 then redis.call('HDEL', released, unpack(uncounted)) end
  announced()
end
local function objection(base)
  local wrong = mismatch(KEYS[base], 'stream') or mismatch(KEYS[base + 1], 'hash') or mismatch(KEYS[base + 2], 'zset')
    or mismatch(KEYS[base + 3], 'hash')
  if wrong then return wrong[2] .. ' is a ' .. wrong[3] end
  local opened = redis.call('HMGET', KEYS[base + 1], 'pattern', 'wire')
  if opened[1] and (opened[1] ~= pattern or opened[2] ~= wire) then
    return 'the topic is ' .. opened[1] .. ', wire version ' .. (opened[2] or '')
  end
end
local function append(base, shape, arg, seen)
  if seen and redis.call('EXISTS', seen) == 1 then return '=' end
  local target, meta = KEYS[base], KEYS[base + 1]
  local fields, id, due = fieldsOf(shape, arg)
  local answer
  if due then answer = delay(meta, KEYS[base + 2], KEYS[base + 3], KEYS[base + 4], fields, id, due)
  else answer = redis.pcall('XADD', target, '*', unpack(fields)) end
  if type(answer) == 'table' then return answer end
  local opened = redis.call('HSETNX', meta, 'pattern', pattern) == 1
  if opened then redis.call('HSET', meta, 'wire', wire) end
  if seen then redis.call('SET', seen, '1', 'PX', remembered) end
  if maxLength ~= '' then shorten(target, meta, maxLength) end
  return id and '+' or answer, opened
end
`
})
