/**
 * A sixth pattern, for tests: a queue in a sorted set, the message with the nearest deadline first. The header `deadline` is in
 * milliseconds since the epoch; without it, the time of publishing counts.
 */
import * as ClaimsPattern from "../../../packages/waybill/src/redis/internal/claims/ClaimsPattern.ts"
import { make as makeScripts } from "../../../packages/waybill/src/redis/internal/claims/Scripts.ts"
import type { Source } from "../../../packages/waybill/src/redis/internal/claims/Source.ts"
import type { Pattern } from "../../../packages/waybill/src/redis/internal/Pattern.ts"
import type { Storage } from "../../../packages/waybill/src/redis/internal/publish/PublishScript.ts"
import { records } from "../../../packages/waybill/src/redis/internal/wire/PackedMessage.ts"

const name = "sorted-sets"

/** The score of a message with these headers. */
const deadlines = `
local function deadlineOf(headers, now)
  local ok, parsed = pcall(cjson.decode, headers or '')
  return ok and type(parsed) == 'table' and tonumber(parsed.deadline) or now
end
`

const source: Source = {
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
      local due = tonumber(redis.call('ZSCORE', delayed, ids[i]))
      redis.call('ZADD', normal, deadlineOf(parsed(text).headers, due), ids[i])
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
local function clear(mark)
  local left, done = tonumber(mark) or backlog() + redis.call('ZCARD', delayed), 0
  for _, part in ipairs({{normal, bodies}, {delayed, delayedBodies}}) do
    local ids = done < left and redis.call('ZRANGE', part[1], 0, math.min(left, 1000) - done - 1) or {}
    if #ids > 0 then
      redis.call('ZREM', part[1], unpack(ids))
      redis.call('HDEL', part[2], unpack(ids))
    end
    done = done + #ids
  end
  return string.format('%.0f', left - done), done > 0 and left > done
end
local function close()
  redis.call('HDEL', meta, 'group')
end
local function handBack(id)
  local text = read({id})[1]
  if not text then return 0 end
  redis.call('ZADD', normal, deadlineOf(parsed(text).headers, 0), id)
  return #text
end
`,
  hands: true
}

const storage: Storage = {
  keys: { normal: "zset", bodies: "hash" },
  lua: `${records}${deadlines}`,
  opening: `
  local function packed(payload, id, headers, key, version)
    return record(payload, id, headers, key, version, format('%.0f', now()))
  end
  local function named()
    return format('%015.0f', call('HINCRBY', meta, 'last', 1))
  end
  local function stateOf() end
  local stored = false
  local function store(payload, id, headers, key, version)
    local entry = named()
    call('HSET', bodies, entry, packed(payload, id, headers, key, version))
    call('ZADD', normal, deadlineOf(headers, now()), entry)
    stored = true
    return entry
  end
  local function delay(payload, id, headers, key, version)
    local entry = named()
    return entry, entry, packed(payload, id, headers, key, version)
  end
  local function finish()
    if stored then announce(wake, 0) end
  end
`
}

export const make = (): Pattern<"at-least-once"> =>
  ClaimsPattern.make({
    name,
    guarantee: "at-least-once",
    scripts: makeScripts(source, storage),
    setting: "",
    expires: false
  })
