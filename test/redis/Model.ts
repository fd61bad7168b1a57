/**
 * What Inspector should say, counted by plain commands from the keys that docs/wire-format.md, docs/lists.md,
 * docs/keyspace.md and docs/pubsub.md name. Nothing here knows a script or a module of the library.
 */
import type { Redis } from "ioredis"

export type Pattern = "streams" | "lists" | "exactly-once" | "keyspace" | "pubsub"

export interface GroupModel {
  readonly lag: number
  readonly pending: number
  readonly waiting: number
  readonly nextRetryAt: number | "soon" | "none"
  readonly deadLettersDropped: number
  readonly paused: boolean
  readonly consumers: ReadonlyArray<string>
  /** One a message that is held, by the place where it lies; none where only their number is known. */
  readonly held: ReadonlyArray<string>
  readonly letters: ReadonlyArray<string>
  /** When those are due that are not due soon. */
  readonly due: ReadonlyArray<number>
}

export interface Model {
  readonly depth: number
  readonly delayed: number
  readonly nextDelayedAt: number | "soon" | "none"
  readonly messages: ReadonlyArray<string>
  readonly groups: Readonly<Record<string, GroupModel>>
}

/** Instants nearer than this are not told apart: they pass while one looks. */
const soonMillis = 600_000

export const instant = (at: number | undefined, now: number): number | "soon" | "none" =>
  at === undefined ? "none" : at > now + soonMillis ? at : "soon"

export const later = (dues: ReadonlyArray<number>, now: number): ReadonlyArray<number> =>
  dues.filter((due) => due > now + soonMillis).toSorted((a, b) => a - b)

export const counted = (counts: Readonly<Record<string, number>>): ReadonlyArray<string> =>
  Object.entries(counts)
    .map(([name, count]) => `${name}: ${count}`)
    .toSorted()

export const serverNow = async (redis: Redis): Promise<number> => {
  const [seconds, micros] = await redis.time()
  return Number(seconds) * 1000 + Math.floor(Number(micros) / 1000)
}

const scoresOf = async (redis: Redis, key: string): Promise<ReadonlyArray<number>> =>
  (await redis.zrange(key, "0", "-1", "WITHSCORES")).filter((_, i) => i % 2 === 1).map(Number)

/** The replies of XINFO GROUPS as records; nothing when there is no stream. */
const groupsOf = async (redis: Redis, key: string): Promise<ReadonlyArray<Record<string, unknown>>> => {
  if ((await redis.exists(key)) === 0) return []
  // A list of names and values for each group, says the server.
  const replies = (await redis.xinfo("GROUPS", key)) as ReadonlyArray<ReadonlyArray<unknown>>
  return replies.map((flat) =>
    Object.fromEntries(flat.flatMap((name, i) => (i % 2 === 0 ? [[String(name), flat[i + 1]]] : [])))
  )
}

const entriesOf = async (redis: Redis, key: string, from = "-") =>
  (await redis.xrange(key, from, "+")).map(([id]) => id)

interface Source {
  readonly lag: number
  readonly held: ReadonlyArray<readonly [consumer: string, place: string]>
  /** How many may be taken again at once. */
  readonly again: number
}

const streamSource = async (redis: Redis, base: string, group: string): Promise<Source> => {
  const held: Array<readonly [string, string]> = []
  let again = 0
  let lag = 0
  for (const [source, key] of [`${base}:stream`, `${base}:group:${group}:retry`].entries()) {
    const found = (await groupsOf(redis, key)).find(({ name }) => name === group)
    const ahead = await entriesOf(redis, key, found === undefined ? "-" : `(${String(found["last-delivered-id"])}`)
    if (source === 0) lag = ahead.length
    else again += ahead.length
    if (found === undefined) continue
    // Entry, consumer, idle time and count of each, says the server.
    const rows = (await redis.xpending(key, group, "-", "+", 100_000)) as ReadonlyArray<readonly [string, string]>
    for (const [entry, consumer] of rows) {
      if (consumer === "(released)") again++
      else held.push([consumer, `${source}${entry}`])
    }
  }
  return { lag, held, again }
}

const claimsSource = async (redis: Redis, base: string, group: string, lag: number): Promise<Source> => {
  const mine = `${base}:group:${group}`
  const held: Array<readonly [string, string]> = []
  for (const key of await redis.keys(`${mine}:processing:*`)) {
    const consumer = key.slice(`${mine}:processing:`.length)
    for (const member of await redis.smembers(key)) held.push([consumer, member])
  }
  return { lag, held, again: (await redis.llen(`${mine}:returned`)) + (await redis.llen(`${mine}:suspects`)) }
}

/** What each subscriber has told: how many it holds, how many wait, and when the first of these is due. */
const toldBy = async (redis: Redis, mine: string, living: ReadonlyArray<string>) => {
  const told = await Promise.all(living.map((name) => redis.hget(`${mine}:state`, `held:${name}`)))
  return living.map((name, i) => {
    const [held = 0, waits = 0, due = -1] = (told[i] ?? "0 0 -1").split(" ").map(Number)
    return { name, held, waits, due }
  })
}

const subscribers = async (redis: Redis, mine: string, now: number): Promise<GroupModel> => {
  const living = await redis.zrangebyscore(`${mine}:consumers`, `(${now}`, "+inf")
  const told = await toldBy(redis, mine, living)
  const dues = told.flatMap(({ due }) => (due < 0 ? [] : [due]))
  const sum = (counts: ReadonlyArray<number>) => counts.reduce((a, b) => a + b, 0)
  const state = await redis.hgetall(`${mine}:state`)
  return {
    lag: 0,
    pending: sum(told.map(({ held }) => held)),
    waiting: sum(told.map(({ waits }) => waits)),
    nextRetryAt: instant(dues.length === 0 ? undefined : Math.min(...dues), now),
    deadLettersDropped: Number(state["dropped"] ?? 0),
    paused: state["paused"] !== undefined,
    consumers: counted(Object.fromEntries(told.map(({ held, name }) => [name, held]))),
    held: [],
    letters: await entriesOf(redis, `${mine}:dead`),
    due: []
  }
}

const numbersOf = async (redis: Redis, base: string): Promise<ReadonlyArray<number>> =>
  (await redis.keys(`${base}:message:#*`)).map((key) => Number(key.split("#")[1])).toSorted((a, b) => a - b)

/** When the first entry that each consumer holds was given to it last, by the server's own list. */
const givenLast = async (redis: Redis, key: string, group: string, now: number) => {
  const given = new Map<string, number>()
  if (!(await groupsOf(redis, key)).some(({ name }) => name === group)) return given
  // Entry, consumer, idle time and count of each, says the server.
  const rows = (await redis.xpending(key, group, "-", "+", 100_000)) as ReadonlyArray<readonly [string, string, number]>
  for (const [, consumer, idle] of rows) {
    if (consumer !== "(released)" && !given.has(consumer)) given.set(consumer, now - idle)
  }
  return given
}

/** Since when the oldest of what the group holds has been with its consumer, by what the consumers have noted. */
export const oldestSince = async (
  redis: Redis,
  pattern: Pattern,
  base: string,
  group: string
): Promise<number | undefined> => {
  const mine = `${base}:group:${group}`
  const now = await serverNow(redis)
  const state = await redis.hgetall(`${mine}:state`)
  const instants: Array<number> = []
  if (pattern === "pubsub") {
    const living = await redis.zrangebyscore(`${mine}:consumers`, `(${now}`, "+inf")
    for (const name of living) instants.push(Number(state[`held:${name}`]?.split(" ")[3] ?? -1))
  } else if (pattern === "streams") {
    for (const key of [`${base}:stream`, `${mine}:retry`]) {
      for (const [consumer, given] of await givenLast(redis, key, group, now)) {
        instants.push(given, Number(state[`oldest:${consumer}`] ?? -1))
      }
    }
  } else {
    const { held } = await claimsSource(redis, base, group, 0)
    for (const [consumer] of held) instants.push(Number(state[`oldest:${consumer}`] ?? -1))
  }
  const noted = instants.filter((instant) => instant >= 0)
  return noted.length === 0 ? undefined : Math.min(...noted)
}

/** What the topic is, looked at past the library. */
export const read = async (redis: Redis, pattern: Pattern, base: string): Promise<Model> => {
  const now = await serverNow(redis)
  const delayed = await scoresOf(redis, `${base}:delayed`)
  const names = new Set(await redis.smembers(`${base}:groups`))
  if (pattern === "pubsub") {
    const groups: Record<string, GroupModel> = {}
    for (const group of names) groups[group] = await subscribers(redis, `${base}:group:${group}`, now)
    return { depth: 0, delayed: 0, nextDelayedAt: "none", messages: [], groups }
  }
  let depth: number
  let messages: ReadonlyArray<string>
  let sourceOf: (group: string) => Promise<Source>
  if (pattern === "streams") {
    messages = await entriesOf(redis, `${base}:stream`)
    depth = messages.length
    for (const { name } of await groupsOf(redis, `${base}:stream`)) names.add(String(name))
    sourceOf = (group) => streamSource(redis, base, group)
  } else if (pattern === "keyspace") {
    const numbers = await numbersOf(redis, base)
    messages = numbers.map(String)
    depth = numbers.length
    sourceOf = async (group) => {
      const cursor = Number((await redis.hget(`${base}:group:${group}:position`, "cursor")) ?? 0)
      return claimsSource(redis, base, group, numbers.filter((number) => number > cursor).length)
    }
  } else {
    messages = await redis.lrange(`${base}:ready`, 0, -1)
    const inbox = await redis.llen(`${base}:inbox`)
    depth = (await redis.hkeys(`${base}:bodies`)).length + inbox
    const lag = messages.length + inbox
    sourceOf = (group) => claimsSource(redis, base, group, lag)
  }
  const groups: Record<string, GroupModel> = {}
  for (const group of [...names].toSorted()) {
    const mine = `${base}:group:${group}`
    const { again, held, lag } = await sourceOf(group)
    const due = await scoresOf(redis, `${mine}:waiting`)
    const state = await redis.hgetall(`${mine}:state`)
    const living = await redis.zrangebyscore(`${mine}:consumers`, `(${now}`, "+inf")
    const next = again > 0 ? now : due.length === 0 ? undefined : Math.min(...due)
    groups[group] = {
      lag,
      pending: held.length,
      waiting: due.length + again,
      nextRetryAt: instant(next, now),
      deadLettersDropped: Number(state["dropped"] ?? 0),
      paused: state["paused"] !== undefined,
      consumers: counted(
        Object.fromEntries(living.map((name) => [name, held.filter(([consumer]) => consumer === name).length]))
      ),
      held: held.map(([, place]) => place).toSorted(),
      letters: await entriesOf(redis, `${mine}:dead`),
      due: later(due, now)
    }
  }
  return {
    depth,
    delayed: delayed.length,
    nextDelayedAt: instant(delayed.length === 0 ? undefined : Math.min(...delayed), now),
    messages,
    groups
  }
}
