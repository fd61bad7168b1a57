/**
 * What the fault tests have to know of each pattern: its layer, and how to look into Redis past it.
 */
import type { History } from "@waybill/testing"
import { Context, Effect, Layer } from "effect"
import type { Redis } from "ioredis"
import type { Inspector, Transport } from "waybill"
import { IoRedis, RedisExactlyOnce, RedisKeyspace, RedisLists, RedisStreams } from "waybill/redis"
import { group, Job } from "./Jobs.ts"

/** Those that deliver at least once and keep what they are told to. */
export const patterns = ["streams", "lists", "exactly-once", "keyspace"] as const

export type Name = (typeof patterns)[number]

export class Pattern extends Context.Service<
  Pattern,
  {
    readonly name: Name
    /** Where everything is. */
    readonly remains: (redis: Redis) => Effect.Effect<History.Remains>
    /** Nothing is undelivered, pending or waiting. */
    readonly idle: (redis: Redis) => Effect.Effect<boolean>
    /** How many messages are stored. */
    readonly depth: (redis: Redis) => Effect.Effect<number>
  }
>()("waybill/test/Pattern") {}

type Services = Transport.AtMostOnce | Transport.AtLeastOnce | Inspector.Inspector

const layers: Record<Name, () => Layer.Layer<Services, never, IoRedis.IoRedis>> = {
  streams: () => RedisStreams.layer(),
  lists: () => RedisLists.layer(),
  "exactly-once": () => RedisExactlyOnce.layer(),
  keyspace: () => RedisKeyspace.layer({ notifications: "enable" })
}

/** The pattern on connections of its own to a server. */
export const on = (name: Name, url: string, connectionName = "test") =>
  layers[name]().pipe(Layer.provideMerge(IoRedis.layer({ url, connectionName })))

/** Runs commands of a plain client; a failure is a defect of the test. */
export const ask = <A>(f: () => Promise<A>): Effect.Effect<A> => Effect.promise(f)

const tag = `{waybill:${Job.name}}`
const mine = `${tag}:group:${group}`

/** What docs/wire-format.md calls the keys of a topic and of a group. */
export const streamKeys = {
  stream: `${tag}:stream`,
  meta: `${tag}:meta`,
  delayed: `${tag}:delayed`,
  delayedBodies: `${tag}:delayed-bodies`,
  groups: `${tag}:groups`,
  retry: `${mine}:retry`,
  waiting: `${mine}:waiting`,
  waitingBodies: `${mine}:waiting-bodies`,
  dead: `${mine}:dead`,
  consumers: `${mine}:consumers`,
  released: `${mine}:released`,
  state: `${mine}:state`
}

/** What docs/lists.md calls them; the keys of exactly-once are the same. */
export const listKeys = {
  ready: `${tag}:ready`,
  readyHigh: `${tag}:ready:high`,
  readyLow: `${tag}:ready:low`,
  bodies: `${tag}:bodies`,
  inbox: `${tag}:inbox`,
  meta: `${tag}:meta`,
  delayed: `${tag}:delayed`,
  delayedBodies: `${tag}:delayed-bodies`,
  groups: `${tag}:groups`,
  waiting: `${mine}:waiting`,
  returned: `${mine}:returned`,
  suspects: `${mine}:suspects`,
  marks: `${mine}:marks`,
  dead: `${mine}:dead`,
  consumers: `${mine}:consumers`,
  state: `${mine}:state`
}

/** What docs/wire-format.md calls those of the keyspace pattern; what is not here is called as in lists. */
export const keyspaceKeys = {
  numbers: `${tag}:numbers`,
  meta: `${tag}:meta`,
  delayed: `${tag}:delayed`,
  delayedBodies: `${tag}:delayed-bodies`,
  groups: `${tag}:groups`,
  position: `${mine}:position`,
  restored: `${mine}:restored`,
  waiting: `${mine}:waiting`,
  returned: `${mine}:returned`,
  suspects: `${mine}:suspects`,
  marks: `${mine}:marks`,
  dead: `${mine}:dead`,
  consumers: `${mine}:consumers`,
  state: `${mine}:state`
}

/** Message ids by place. In waiting bodies the id comes first; everywhere else it is a field, or the entry's own. */
const lookup = `
local stream, retry, group = KEYS[1], KEYS[2], ARGV[1]
local function idOf(entry, fields)
  for i = 1, #fields, 2 do if fields[i] == 'id' then return fields[i + 1] end end
  return entry
end
local undelivered, pending, waiting, dead = {}, {}, {}, {}
local function look(key, later)
  local groups = redis.pcall('XINFO', 'GROUPS', key)
  local after
  if not groups.err then
    for _, g in ipairs(groups) do if g[2] == group then after = g[8] end end
  end
  for _, e in ipairs(redis.call('XRANGE', key, after and '(' .. after or '-', '+')) do later[#later + 1] = idOf(e[1], e[2]) end
  if not after then return end
  for _, p in ipairs(redis.call('XPENDING', key, group, '-', '+', 1000000)) do
    local there = redis.call('XRANGE', key, p[1], p[1])[1]
    pending[#pending + 1] = there and idOf(p[1], there[2]) or p[1]
  end
end
look(stream, undelivered)
look(retry, waiting)
for _, body in ipairs(redis.call('HVALS', KEYS[3])) do undelivered[#undelivered + 1] = idOf('delayed', cmsgpack.unpack(body)) end
for _, body in ipairs(redis.call('HVALS', KEYS[4])) do waiting[#waiting + 1] = cmsgpack.unpack(body)[1] end
for _, e in ipairs(redis.call('XRANGE', KEYS[5], '-', '+')) do dead[#dead + 1] = idOf(e[1], e[2]) end
return {undelivered, pending, waiting, dead}
`

/** Nothing undelivered, pending or waiting: 1. */
const idle = `
for i = 1, 2 do
  local groups = redis.pcall('XINFO', 'GROUPS', KEYS[i])
  if groups.err then return 0 end
  local last
  local info = redis.call('XINFO', 'STREAM', KEYS[i])
  for j = 1, #info, 2 do if info[j] == 'last-generated-id' then last = info[j + 1] end end
  local found = 0
  for _, g in ipairs(groups) do
    if g[2] == ARGV[1] then
      found = 1
      if g[6] > 0 or g[8] ~= last then return 0 end
    end
  end
  if found == 0 then return 0 end
end
return redis.call('ZCARD', KEYS[3]) + redis.call('ZCARD', KEYS[4]) == 0 and 1 or 0
`

const found = (reply: unknown): History.Remains => {
  const [undelivered, pending, waiting, deadLetters] = reply as [string[], string[], string[], string[]]
  return { group, undelivered, pending, waiting, deadLetters }
}

const streams = Pattern.of({
  name: "streams",
  remains: (redis) => {
    const { dead, delayedBodies, retry, stream, waitingBodies } = streamKeys
    return Effect.map(
      ask(() => redis.eval(lookup, 5, stream, retry, delayedBodies, waitingBodies, dead, group)),
      found
    )
  },
  idle: (redis) => {
    const { delayed, retry, stream, waiting } = streamKeys
    return Effect.map(
      ask(() => redis.eval(idle, 4, stream, retry, delayed, waiting, group)),
      (answer) => answer === 1
    )
  },
  depth: (redis) => ask(() => redis.xlen(streamKeys.stream))
})

/** The id of a message is in its record, after the lengths, when a producer gave one; otherwise it is its entry's. */
const lookupLists = `
local function idOf(entry, record)
  record = record or redis.call('HGET', KEYS[4], entry)
  if not record then return entry end
  local length, from = string.match(record, '^[13579;=?](%d+),[%d,]*\\n()')
  return length and string.sub(record, from, from + length - 1) or entry
end
local undelivered, pending, waiting, dead = {}, {}, {}, {}
for k = 1, 3 do
  for _, entry in ipairs(redis.call('LRANGE', KEYS[k], 0, -1)) do undelivered[#undelivered + 1] = idOf(entry) end
end
for _, record in ipairs(redis.call('HVALS', KEYS[5])) do undelivered[#undelivered + 1] = idOf('delayed', record) end
for _, body in ipairs(redis.call('LRANGE', KEYS[6], 0, -1)) do undelivered[#undelivered + 1] = body end
for k = 7, 8 do
  for _, entry in ipairs(redis.call('LRANGE', KEYS[k], 0, -1)) do waiting[#waiting + 1] = idOf(entry) end
end
for _, entry in ipairs(redis.call('ZRANGE', KEYS[9], 0, -1)) do waiting[#waiting + 1] = idOf(entry) end
for _, e in ipairs(redis.call('XRANGE', KEYS[10], '-', '+')) do dead[#dead + 1] = e[2][10] end
for k = 11, #KEYS do
  for _, member in ipairs(redis.call('SMEMBERS', KEYS[k])) do
    pending[#pending + 1] = idOf(string.match(member, '^(.*)#%d+$') or member)
  end
end
return {undelivered, pending, waiting, dead}
`

const lists = Pattern.of({
  name: "lists",
  remains: (redis) => {
    const { bodies, dead, delayedBodies, inbox, ready, readyHigh, readyLow, returned, suspects, waiting } = listKeys
    return ask(async () => {
      const processing = await redis.keys(`${mine}:processing:*`)
      const keys = [
        readyHigh,
        ready,
        readyLow,
        bodies,
        delayedBodies,
        inbox,
        returned,
        suspects,
        waiting,
        dead,
        ...processing
      ]
      return found(await redis.eval(lookupLists, keys.length, ...keys))
    })
  },
  idle: (redis) =>
    ask(async () => {
      const left = await Promise.all([
        redis.hlen(listKeys.bodies),
        redis.hlen(listKeys.delayedBodies),
        redis.llen(listKeys.inbox)
      ])
      // A group that was lost with everything else has yet to be made again.
      return left.every((count) => count === 0) && (await redis.sismember(listKeys.groups, group)) === 1
    }),
  depth: (redis) => ask(() => redis.hlen(listKeys.bodies))
})

/** The same keys, and one thing more that it does with them. */
const exactlyOnce = Pattern.of({ ...lists, name: "exactly-once" })

/** What the group has still to read are the numbers behind its cursor; what it was given is held by number. */
const lookupKeyspace = `
local message = string.gsub(KEYS[1], 'numbers$', 'message:#')
local function idOf(entry, record)
  record = record or redis.call('GET', message .. entry) or redis.call('HGET', KEYS[4], entry)
  if not record then return entry end
  local length, from = string.match(record, '^[13579;=?](%d+),[%d,]*\\n()')
  return length and string.sub(record, from, from + length - 1) or entry
end
local undelivered, pending, waiting, dead = {}, {}, {}, {}
local base, last = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) %d+ (%d+)$')
local cursor = redis.call('HGET', KEYS[3], 'cursor') or base
for number = (cursor or 1) + 1, last or 0 do
  local entry = string.format('%.0f', number)
  local record = redis.call('GET', message .. entry)
  if record then undelivered[#undelivered + 1] = idOf(entry, record) end
end
for _, body in ipairs(redis.call('HVALS', KEYS[2])) do
  undelivered[#undelivered + 1] = idOf('delayed', string.match(body, '^%d+ (.*)$'))
end
for k = 5, 6 do
  for _, entry in ipairs(redis.call('LRANGE', KEYS[k], 0, -1)) do waiting[#waiting + 1] = idOf(entry) end
end
for _, entry in ipairs(redis.call('ZRANGE', KEYS[7], 0, -1)) do waiting[#waiting + 1] = idOf(entry) end
for _, e in ipairs(redis.call('XRANGE', KEYS[8], '-', '+')) do dead[#dead + 1] = e[2][10] end
for k = 9, #KEYS do
  for _, member in ipairs(redis.call('SMEMBERS', KEYS[k])) do
    pending[#pending + 1] = idOf(string.match(member, '^(.*)#%d+$') or member)
  end
end
return {undelivered, pending, waiting, dead}
`

const keyspace = Pattern.of({
  name: "keyspace",
  remains: (redis) => {
    const { dead, delayedBodies, numbers, position, restored, returned, suspects, waiting } = keyspaceKeys
    return ask(async () => {
      const processing = await redis.keys(`${mine}:processing:*`)
      const keys = [numbers, delayedBodies, position, restored, returned, suspects, waiting, dead, ...processing]
      return found(await redis.eval(lookupKeyspace, keys.length, ...keys))
    })
  },
  idle: (redis) =>
    ask(async () => {
      const { consumers, delayed, groups, numbers, position, returned, suspects, waiting } = keyspaceKeys
      const names = await redis.zrange(consumers, "0", "-1")
      const left = await Promise.all([
        redis.zcard(delayed),
        redis.zcard(waiting),
        redis.llen(returned),
        redis.llen(suspects),
        ...names.map((name) => redis.scard(`${mine}:processing:${name}`))
      ])
      const last = (await redis.get(numbers))?.split(" ")[2]
      return (
        left.every((count) => count === 0) &&
        (await redis.hget(position, "cursor")) === (last ?? null) &&
        (await redis.sismember(groups, group)) === 1
      )
    }),
  depth: (redis) =>
    ask(async () => {
      const [base = 0, , last = 0] = ((await redis.get(keyspaceKeys.numbers)) ?? "").split(" ").map(Number)
      return last - base
    })
})

const known: Record<Name, Pattern["Service"]> = { streams, lists, "exactly-once": exactlyOnce, keyspace }

export const layer = (name: Name) => Layer.succeed(Pattern, known[name])
