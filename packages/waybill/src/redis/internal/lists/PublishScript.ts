import type { Script } from "../connection/Script.ts"
import { shape } from "../publish/Publisher.ts"
import type { TopicKeys } from "../wire/Keys.ts"
import { clock, mismatch, writes } from "../wire/Lua.ts"
/**
 * Publishing a batch into a queue: all of it or none, and once however often the script runs for it. The notification
 * leaves in the same step.
 *
 * @module
 */
import { records } from "../wire/PackedMessage.ts"
import { disagreement, levels } from "./ListSource.ts"

export const keysOf = (keys: TopicKeys, publisher: string): ReadonlyArray<string> => [
  keys.high,
  keys.normal,
  keys.low,
  keys.bodies,
  keys.meta,
  keys.publisher(publisher),
  keys.delayed,
  keys.delayedBodies,
  keys.wake
]

/**
 * `incoming(shape, arg, now, order)`: the record of the message whose payload is ARGV[arg], the number of its list, its id,
 * when it is due if that is not yet, and the next argument. Uses `record` and `levelOf`.
 */
export const incoming = `
local function incoming(shape, arg, now, order)
  local band, payload, id, headers, key, version, due = bit.band, ARGV[arg], nil, nil, nil, nil, nil
  arg = arg + 1
  if band(shape, ${shape.id}) ~= 0 then id = ARGV[arg]; arg = arg + 1 end
  if band(shape, ${shape.headers}) ~= 0 then headers = ARGV[arg]; arg = arg + 1 end
  if band(shape, ${shape.key}) ~= 0 then key = ARGV[arg]; arg = arg + 1 end
  if band(shape, ${shape.version}) ~= 0 then version = ARGV[arg]; arg = arg + 1 end
  if band(shape, ${shape.after + shape.at}) ~= 0 then
    due = tonumber(ARGV[arg])
    if band(shape, ${shape.after}) ~= 0 then due = now + due end
    if due <= now then due = nil end
    arg = arg + 1
  end
  return record(payload, id, headers, key, version), order == 'priority' and levelOf(headers) or 2, id, due, arg
end
`

/**
 * Stores messages, or answers what it answered before when the batch was stored already.
 *
 * | KEYS | |
 * |---|---|
 * | 1, 2, 3 | ready lists: high, normal, low |
 * | 4 | bodies |
 * | 5 | meta |
 * | 6 | publisher: the number of its last batch and the answer to it |
 * | 7, 8 | delayed, and their bodies |
 * | 9 | the channel `wake` |
 * | 10... | for each message with an id: the marker that it was stored |
 *
 * | ARGV | |
 * |---|---|
 * | 1, 2 | pattern and wire version |
 * | 3 | number of the batch, growing |
 * | 4 | how long the answer is kept, ms |
 * | 5 | how long message ids are remembered, ms |
 * | 6 | the order of the queue, or `any`. `priority`: the header of that name decides on the list |
 * | 7 | the shapes: one character a message |
 * | 8... | for each message: payload, then what its shape says, in the order of the bits |
 *
 * | reply | |
 * |---|---|
 * | `OK`, answers, new | answers joined by commas: the id of the message; `+` when the caller gave it; `=` for a duplicate. new = 1: the topic was not there before |
 * | `CONFLICT`, pattern, wire | the topic was opened as something else |
 * | `STALE` | a later batch of this publisher was stored already: this one was given up, and changes nothing |
 * | `WRONGTYPE`, key, found | |
 */
export const publish: Script = {
  name: "waybill/push",
  lua: `${writes}${mismatch}${clock}${records}${levels}${incoming}${disagreement}
local bodies, meta, publisher, delayed, delayedBodies, channel = KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local shapes = ARGV[7]
local opened, last
local function look()
  opened, last = redis.call('HMGET', meta, 'pattern', 'wire', 'order'), redis.call('GETRANGE', publisher, 0, 19)
  for k = 1, 3 do redis.call('LLEN', KEYS[k]) end
  redis.call('HEXISTS', bodies, '')
  if string.find(shapes, '[@-o]') then
    redis.call('ZRANGE', delayed, 1, 0)
    redis.call('HEXISTS', delayedBodies, '')
  end
end
local fine, why = pcall(look)
if not fine then
  return mismatch(KEYS[1], 'list') or mismatch(KEYS[2], 'list') or mismatch(KEYS[3], 'list') or mismatch(bodies, 'hash')
    or mismatch(meta, 'hash') or mismatch(publisher, 'string') or mismatch(delayed, 'zset')
    or mismatch(delayedBodies, 'hash') or error(why)
end
if opened[1] and (opened[1] ~= ARGV[1] or opened[2] ~= ARGV[2]) then return {'CONFLICT', opened[1], opened[2] or ''} end
local refused = disagreement(ARGV[6], opened[3])
if refused then return refused end
if last ~= '' then
  local number = string.match(last, '^%d+')
  if number == ARGV[3] then return {'OK', string.sub(redis.call('GET', publisher), #number + 2), 0} end
  if tonumber(number) > tonumber(ARGV[3]) then return {'STALE'} end
end
if not opened[1] then redis.call('HSET', meta, 'pattern', ARGV[1], 'wire', ARGV[2]) end
local order = ARGV[6]
if order == 'any' then order = opened[3] or 'priority'
elseif not opened[3] then redis.call('HSET', meta, 'order', order) end

local call, byte, format = redis.call, string.byte, string.format
local now = clock()
local prefix = format('%.0f-', now)
local number = tonumber(call('HGET', meta, 'last')) or 0
local answers = {}
local pairs_, lists, soonest = {}, {{}, {}, {}}, nil
local normal = lists[2]
local arg, marker = 8, 10
for i = 1, #shapes do
  local shape = byte(shapes, i) - 48
  if shape == 0 then
    number = number + 1
    local entry = prefix .. number
    pairs_[#pairs_ + 1] = entry
    pairs_[#pairs_ + 1] = '0' .. ARGV[arg]
    normal[#normal + 1] = entry
    answers[i] = entry
    arg = arg + 1
  else
    local text, to, id, due
    text, to, id, due, arg = incoming(shape, arg, now, order)
    local seen
    if id then seen = KEYS[marker]; marker = marker + 1 end
    if seen and call('EXISTS', seen) == 1 then
      answers[i] = '='
    else
      number = number + 1
      local entry = prefix .. number
      if due then
        local member = format('%d:%015.0f:%s', to, number, entry)
        call('HSET', delayedBodies, member, text)
        call('ZADD', delayed, due, member)
        soonest = math.min(soonest or due, due)
      else
        pairs_[#pairs_ + 1] = entry
        pairs_[#pairs_ + 1] = text
        local list = lists[to]
        list[#list + 1] = entry
      end
      answers[i] = id and '+' or entry
      if seen then call('SET', seen, '1', 'PX', ARGV[5]) end
    end
  end
end
call('HSET', meta, 'last', format('%.0f', number))
for from = 1, #pairs_, 2000 do call('HSET', bodies, unpack(pairs_, from, math.min(from + 1999, #pairs_))) end
for to, ids in ipairs(lists) do
  for from = 1, #ids, 2000 do call('RPUSH', KEYS[to], unpack(ids, from, math.min(from + 1999, #ids))) end
end
local answer = table.concat(answers, ',')
call('SET', publisher, ARGV[3] .. ' ' .. answer, 'PX', ARGV[4])
-- Hints: who may not send them is found by polling. Who takes what is ready does not look at what is due.
if #pairs_ > 0 then
  local urgency = #lists[1] > 0 and 1 or #lists[2] > 0 and 2 or 3
  redis.pcall('PUBLISH', channel, ARGV[6] == 'priority' and '0;' .. urgency or '0')
end
if soonest then redis.pcall('PUBLISH', channel, format('%.0f', soonest - now)) end
return {'OK', answer, opened[1] and 0 or 1}
`
}
