import type { Script } from "../connection/Script.ts"
/**
 * Publishing a batch: all of it or none, and once however often the script runs for it.
 *
 * @module
 */
import { shape } from "../publish/Publisher.ts"
import { announce, clock, ids, mismatch, shorten, unseen, writes } from "../wire/Lua.ts"

/**
 * `fieldsOf(shape, arg)`: the fields of a message whose payload is ARGV[arg], its id, when it is due if that is not yet, and
 * the next argument.
 * `delay(meta, delayed, bodies, channel, fields, id, due)`: keeps a message until it is due; the answer that a publish script gives.
 * `announced()`: called once, after the last message: who waits on the channels learns when the first delayed one is due.
 */
export const fieldsOf = `
local instant
local function fieldsOf(shape, arg)
  local band, fields, id, due = bit.band, {'payload', ARGV[arg]}, nil, nil
  arg = arg + 1
  if band(shape, ${shape.id}) ~= 0 then id = ARGV[arg]; arg = arg + 1; fields[3] = 'id'; fields[4] = id end
  if band(shape, ${shape.headers}) ~= 0 then fields[#fields + 1] = 'headers'; fields[#fields + 1] = ARGV[arg]; arg = arg + 1 end
  if band(shape, ${shape.key}) ~= 0 then fields[#fields + 1] = 'key'; fields[#fields + 1] = ARGV[arg]; arg = arg + 1 end
  if band(shape, ${shape.version}) ~= 0 then fields[#fields + 1] = 'v'; fields[#fields + 1] = ARGV[arg]; arg = arg + 1 end
  if band(shape, ${shape.after + shape.at}) ~= 0 then
    instant = instant or clock()
    due = tonumber(ARGV[arg])
    if band(shape, ${shape.after}) ~= 0 then due = instant + due end
    if due <= instant then due = nil end
    arg = arg + 1
  end
  return fields, id, due, arg
end
local soonest = {}
local function delay(meta, delayed, bodies, channel, fields, id, due)
  local number = redis.call('HINCRBY', meta, 'delayed', 1)
  local answer = '+'
  if not id then
    answer = string.format('%.0f-d%d', instant, number)
    fields[#fields + 1] = 'id'
    fields[#fields + 1] = answer
  end
  fields[#fields + 1] = 'at'
  fields[#fields + 1] = string.format('%.0f', instant)
  -- Padded, so that messages which are due in the same millisecond keep their order.
  local member = string.format('%012d', number)
  redis.call('HSET', bodies, member, cmsgpack.pack(fields))
  redis.call('ZADD', delayed, due, member)
  soonest[channel] = math.min(soonest[channel] or due, due)
  return answer
end
local function announced()
  for channel, due in pairs(soonest) do announce(channel, due - instant) end
end
`

/**
 * Stores messages, or answers what it answered before when the batch was stored already.
 *
 * | KEYS | |
 * |---|---|
 * | 1 | stream |
 * | 2 | meta |
 * | 3 | publisher: the number of its last batch and the answer to it |
 * | 4, 5 | delayed, and their bodies |
 * | 6 | the channel `wake` |
 * | 7... | for each message with an id: the marker that it was stored |
 *
 * | ARGV | |
 * |---|---|
 * | 1, 2 | pattern and wire version |
 * | 3 | number of the batch, growing |
 * | 4 | how long the answer is kept, ms |
 * | 5 | how long message ids are remembered, ms |
 * | 6 | greatest length of the stream, or "" |
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
  name: "waybill/publish",
  lua: `${writes}${mismatch}${clock}${announce}${ids}${unseen}${shorten}${fieldsOf}
local stream, meta, publisher, delayed, bodies = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local shapes = ARGV[7]
local last = redis.pcall('GETRANGE', publisher, 0, 19)
-- Who published here lately has had its keys and permissions looked at. Messages that are due later need more of them.
local known = type(last) == 'string' and last ~= '' and redis.call('EXISTS', meta) == 1
if not known or string.find(shapes, '[@-o]') then
  -- permissions
  local wrong = mismatch(stream, 'stream') or mismatch(meta, 'hash') or mismatch(publisher, 'string')
    or mismatch(delayed, 'zset') or mismatch(bodies, 'hash')
  if wrong then return wrong end
  if type(last) == 'table' then error(last) end
  local opened = redis.call('HMGET', meta, 'pattern', 'wire')
  known = opened[1]
  if known and (opened[1] ~= ARGV[1] or opened[2] ~= ARGV[2]) then
    return {'CONFLICT', opened[1], opened[2] or ''}
  end
end
if last ~= '' then
  local number = string.match(last, '^%d+')
  if number == ARGV[3] then
    return {'OK', string.sub(redis.call('GET', publisher), #number + 2), 0}
  end
  if tonumber(number) > tonumber(ARGV[3]) then return {'STALE'} end
end
if not known then redis.call('HSET', meta, 'pattern', ARGV[1], 'wire', ARGV[2]) end

local call, byte = redis.call, string.byte
-- The first entry is the first write: what it cannot be written to is named.
local append = redis.pcall
local answers = {}
local arg, marker = 8, 7
for i = 1, #shapes do
  local shape = byte(shapes, i) - 48
  if shape == 0 then
    local entry = append('XADD', stream, '*', 'payload', ARGV[arg])
    if append ~= call then
      if entry.err then return mismatch(stream, 'stream') or error(entry) end
      append = call
    end
    answers[i] = entry
    arg = arg + 1
  else
    local fields, id, due
    fields, id, due, arg = fieldsOf(shape, arg)
    local seen
    if id then seen = KEYS[marker]; marker = marker + 1 end
    if seen and call('EXISTS', seen) == 1 then
      answers[i] = '='
    else
      if due then
        answers[i] = delay(meta, delayed, bodies, KEYS[6], fields, id, due)
      else
        local entry = append('XADD', stream, '*', unpack(fields))
        if append ~= call then
          if entry.err then return mismatch(stream, 'stream') or error(entry) end
          append = call
        end
        answers[i] = id and '+' or entry
      end
      if seen then call('SET', seen, '1', 'PX', ARGV[5]) end
    end
  end
end
if ARGV[6] ~= '' then shorten(stream, meta, ARGV[6]) end
local answer = table.concat(answers, ',')
call('SET', publisher, ARGV[3] .. ' ' .. answer, 'PX', ARGV[4])
announced()
return {'OK', answer, known and 0 or 1}
`
}
