/**
 * A sixth pattern, for tests: a queue in a sorted set, the message with the nearest deadline first. The header `deadline` is in
 * milliseconds since the epoch; without it, the time of publishing counts.
 */
import * as ClaimsPattern from "../../../packages/waybill/src/redis/internal/claims/ClaimsPattern.ts"
import { make as makeScripts } from "../../../packages/waybill/src/redis/internal/claims/Scripts.ts"
import type { Pattern } from "../../../packages/waybill/src/redis/internal/Pattern.ts"
import { shape } from "../../../packages/waybill/src/redis/internal/publish/Publisher.ts"
import { clock, mismatch, writes } from "../../../packages/waybill/src/redis/internal/wire/Lua.ts"
import { records } from "../../../packages/waybill/src/redis/internal/wire/PackedMessage.ts"

const name = "sorted-sets"

/** The score of a message with these headers. */
const deadlines = `
local function deadlineOf(headers, now)
  local ok, parsed = pcall(cjson.decode, headers or '')
  return ok and type(parsed) == 'table' and tonumber(parsed.deadline) or now
end
`

const scripts = makeScripts({
  pattern: name,
  keys: { normal: "zset", bodies: "hash", delayed: "zset", delayedBodies: "hash", meta: "hash" },
  fleeting: ["normal", "bodies", "delayed", "delayedBodies"],
  lua: `${deadlines}
local function open(group, start)
  local owner = redis.call('HGET', meta, 'group')
  if owner and owner ~= group then return {'OWNED', owner, group} end
  if owner then return end
  redis.call('HSET', meta, 'group', group)
  if start == 'latest' then redis.call('UNLINK', normal, bodies) end
end
local function probe()
  redis.call('ZRANGE', normal, 1, 0)
  redis.call('HEXISTS', bodies, '')
end
local function fresh(n)
  local ids = redis.call('ZRANGE', normal, 0, n - 1)
  if #ids > 0 then redis.call('ZREM', normal, unpack(ids)) end
  return ids
end
local function pressing()
end
local function read(ids)
  return redis.call('HMGET', bodies, unpack(ids))
end
local function forget(ids)
  redis.call('HDEL', bodies, unpack(ids))
end
local function restore(id, text)
  redis.call('HSET', bodies, id, text)
end
local function promote(now, limit)
  local ids = redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, limit)
  if #ids > 0 then
    for i, text in ipairs(bodiesOf(delayedBodies, ids)) do
      redis.call('HSET', bodies, ids[i], text)
      redis.call('ZADD', normal, deadlineOf(parsed(text).headers, now), ids[i])
    end
    redis.call('ZREM', delayed, unpack(ids))
    redis.call('HDEL', delayedBodies, unpack(ids))
  end
  local head = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2]
  return #ids, head and tonumber(head)
end
local function backlog()
  return redis.call('ZCARD', normal)
end
local function peek(from, limit, newest)
  local place = from and redis.call('ZRANK', normal, from)
  if newest then
    if from and not place then return {} end
    local stop = (place or redis.call('ZCARD', normal)) - 1
    return stop < 0 and {} or redis.call('ZRANGE', normal, math.max(0, stop - limit + 1), stop)
  end
  local start = place and place + 1 or 0
  return redis.call('ZRANGE', normal, start, start + limit - 1)
end
local function outlook()
  local later = redis.call('ZCARD', delayed)
  local head = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2]
  return redis.call('HLEN', bodies), later, head and tonumber(head),
    (tonumber(redis.call('HGET', meta, 'last')) or 0) - later
end
`
})

const publish = {
  name: `waybill/${name}/publish`,
  lua: `${writes}${mismatch}${clock}${records}${deadlines}
local ready, bodies, meta, publisher, delayed, delayedBodies, wake = unpack(KEYS, 1, 7)
local wrong = mismatch(ready, 'zset') or mismatch(bodies, 'hash') or mismatch(meta, 'hash') or mismatch(publisher, 'string')
  or mismatch(delayed, 'zset') or mismatch(delayedBodies, 'hash')
if wrong then return wrong end
local opened = redis.call('HMGET', meta, 'pattern', 'wire')
if opened[1] and (opened[1] ~= ARGV[1] or opened[2] ~= ARGV[2]) then return {'CONFLICT', opened[1], opened[2] or ''} end
local before = redis.call('GET', publisher) or ''
local batch = string.match(before, '^%d+')
if batch == ARGV[3] then return {'OK', string.sub(before, #batch + 2), 0} end
if batch and tonumber(batch) > tonumber(ARGV[3]) then return {'STALE'} end
redis.call('HSET', meta, 'pattern', ARGV[1], 'wire', ARGV[2])
local now, answers, arg, marker, soonest = clock(), {}, 8, 8, nil
local function next_()
  arg = arg + 1
  return ARGV[arg - 1]
end
for i = 1, #ARGV[7] do
  local shape = string.byte(ARGV[7], i) - 48
  local function given(bit_)
    if bit.band(shape, bit_) ~= 0 then return next_() end
  end
  local payload = next_()
  local id, headers, key, version = given(${shape.id}), given(${shape.headers}), given(${shape.key}), given(${shape.version})
  local after, at = given(${shape.after}), given(${shape.at})
  local due = after and now + tonumber(after) or tonumber(at)
  local seen
  if id then seen, marker = KEYS[marker], marker + 1 end
  if seen and redis.call('EXISTS', seen) == 1 then
    answers[i] = '='
  else
    local entry = string.format('%015.0f', redis.call('HINCRBY', meta, 'last', 1))
    local text = record(payload, id, headers, key, version, string.format('%.0f', now))
    if due and due > now then
      redis.call('HSET', delayedBodies, entry, text)
      redis.call('ZADD', delayed, due, entry)
      soonest = math.min(soonest or due, due)
    else
      redis.call('HSET', bodies, entry, text)
      redis.call('ZADD', ready, deadlineOf(headers, now), entry)
    end
    answers[i] = id and '+' or entry
    if seen then redis.call('SET', seen, '1', 'PX', ARGV[5]) end
  end
end
local answer = table.concat(answers, ',')
redis.call('SET', publisher, ARGV[3] .. ' ' .. answer, 'PX', ARGV[4])
redis.pcall('PUBLISH', wake, '0')
if soonest then redis.pcall('PUBLISH', wake, string.format('%.0f', soonest - now)) end
return {'OK', answer, opened[1] and 0 or 1}
`
}

export const make = (): Pattern<"at-least-once"> =>
  ClaimsPattern.make({
    name,
    guarantee: "at-least-once",
    scripts,
    expires: false,
    publishing: ({ bodies, delayed, delayedBodies, meta, normal, publisher, seen, wake }) => ({
      script: publish,
      keys: (id) => [normal, bodies, meta, publisher(id), delayed, delayedBodies, wake],
      seen,
      setting: ""
    })
  })
