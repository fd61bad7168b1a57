/**
 * Inspector beside somebody who counts for himself, over histories drawn from a seed: WAYBILL_SEED repeats them. What
 * happens by itself in between (heartbeats, promotion, takeover, trimming) changes both; they are compared when nothing did.
 */
import { assert, describe, it } from "@effect/vitest"
import { freeze, RedisServer } from "@waybill/testing"
import { Cause, Context, Duration, Effect, Exit, Layer, Option, Random, References, Scope } from "effect"
import type { Redis } from "ioredis"
import { type Delivery, Inspector, Settlement, Transport } from "waybill"
import { MemoryExactlyOnce, MemoryKeyspace, MemoryLists, MemoryStreams } from "waybill/memory"
import {
  IoRedis,
  RedisExactlyOnce,
  RedisInspector,
  RedisKeyspace,
  RedisLists,
  RedisPubSub,
  RedisStreams
} from "waybill/redis"
import { drawing } from "../faults/Verdict.ts"
import { sampled } from "../Sample.ts"
import { becomes, client, outgoing } from "./Fixture.ts"
import * as Model from "./Model.ts"

type Services = Transport.AtMostOnce | Inspector.Inspector
type Look = Effect.Success<typeof Inspector.Inspector>

interface Subject {
  readonly pattern: Model.Pattern
  readonly layer: Layer.Layer<Services, never, IoRedis.IoRedis>
  readonly stores: boolean
  readonly groups: ReadonlyArray<string>
  /** A read that waits on the server when a take ends brings one more delivery, which the next take hands out. */
  readonly readsAhead: boolean
  /** What another program does to publish. */
  readonly foreign: (redis: Redis, base: string, name: string) => Promise<unknown>
}

const poll = { pollInterval: "50 millis" } as const
/** A dead consumer is found within the test, and a living one may well lose its lease on a slow machine: the counts must agree. */
const lease = Duration.millis(500)

/** Ages are told by two clocks that each count in milliseconds. */
const slackMillis = 20

const inbox: Subject["foreign"] = (redis, base, name) => redis.rpush(`${base}:inbox`, name)

interface Twin extends Subject {
  readonly twin: Layer.Layer<Services>
}

const subjects: ReadonlyArray<Twin> = [
  {
    pattern: "streams",
    layer: RedisStreams.layer(poll),
    twin: MemoryStreams.layer(),
    stores: true,
    groups: ["g", "h"],
    readsAhead: true,
    foreign: (redis, base, name) => redis.xadd(`${base}:stream`, "*", "payload", name)
  },
  {
    pattern: "lists",
    layer: RedisLists.layer(poll),
    twin: MemoryLists.layer(),
    stores: true,
    groups: ["g"],
    readsAhead: false,
    foreign: inbox
  },
  {
    pattern: "exactly-once",
    layer: RedisExactlyOnce.layer(poll),
    twin: MemoryExactlyOnce.layer(),
    stores: true,
    groups: ["g"],
    readsAhead: false,
    foreign: inbox
  },
  {
    pattern: "keyspace",
    layer: RedisKeyspace.layer({ ...poll, notifications: "enable" }),
    twin: MemoryKeyspace.layer(),
    stores: true,
    groups: ["g", "h"],
    readsAhead: false,
    foreign: (redis, base, name) => redis.set(`${base}:message:${name}`, name, "EX", 3600)
  }
]

/** It stores no messages: what there is to see is what its subscribers tell, and their dead letters. */
const unstored: Subject = {
  pattern: "pubsub",
  layer: RedisPubSub.layer(),
  // It tells nothing from then on, like a process that is stopped.
  stores: false,
  groups: ["g", "h"],
  readsAhead: false,
  foreign: (redis, base, name) => redis.publish(`${base}:channel`, name)
}

/** All items of all pages, three at a time. */
const allPages = <A extends { readonly position: string }>(
  read: (page: Inspector.Page) => Effect.Effect<ReadonlyArray<A>, Transport.TransportError>
) =>
  Effect.gen(function* () {
    const items: Array<A> = []
    for (;;) {
      const page = yield* read({ after: Option.fromNullishOr(items.at(-1)?.position), limit: 3 })
      if (page.length === 0) return items
      items.push(...page)
    }
  })

/** What Inspector says, in the words of the model. */
const told = Effect.fnUntraced(function* (inspector: Look, topic: string, redis: Redis) {
  const info = yield* inspector.describe(topic)
  const now = yield* Effect.promise(() => Model.serverNow(redis))
  const groups: Record<string, Model.GroupModel> = {}
  for (const found of info.groups) {
    const { consumers, deadLettersDropped, group, lag, nextRetryAt, oldestPendingMillis, paused, pending } = found
    const held = yield* allPages((page) => inspector.pending(topic, group, page))
    const waiting = yield* allPages((page) => inspector.waiting(topic, group, page))
    const letters = yield* allPages((page) =>
      Effect.map(inspector.deadLetters(topic, group, page), (letters) =>
        letters.map((letter) => ({ ...letter, position: letter.entry }))
      )
    )
    assert.strictEqual(letters.length, found.deadLetters, "dead letters, counted and read")
    if (info.pattern !== "pubsub") assert.strictEqual(waiting.length, found.waiting, "what waits, counted and read")
    if (pending === 0) assert.strictEqual(oldestPendingMillis, 0, "the age of nothing")
    groups[group] = {
      lag,
      pending,
      waiting: found.waiting,
      nextRetryAt: Model.instant(nextRetryAt, now),
      deadLettersDropped,
      paused,
      consumers: Model.counted(Object.fromEntries(consumers.map(({ consumer, pending }) => [consumer, pending]))),
      held: held.map(({ position }) => position).toSorted(),
      letters: letters.map(({ entry }) => entry),
      due: Model.later(
        waiting.map(({ dueAt }) => dueAt),
        now
      )
    }
  }
  const messages = yield* allPages((page) => inspector.messages(topic, page))
  const model: Model.Model = {
    depth: info.depth,
    delayed: info.delayed,
    nextDelayedAt: Model.instant(info.nextDelayedAt, now),
    messages: messages.map(({ position }) => position),
    groups
  }
  const oldest = new Map(info.groups.map(({ group, oldestPendingMillis }) => [group, oldestPendingMillis]))
  return { model, published: info.published, oldest }
})

type Read = typeof Model.read

/** Compares when the model was the same before and behind. */
const agree = Effect.fnUntraced(function* (
  read: Read,
  redis: Redis,
  { pattern }: Subject,
  inspector: Look,
  topic: string,
  stored: number,
  context: string
) {
  const base = `{waybill:${topic}}`
  const look = Effect.promise(() => read(redis, pattern, base))
  const now = Effect.promise(() => Model.serverNow(redis))
  const since = (group: string) => Effect.promise(() => Model.oldestSince(redis, pattern, base, group))
  for (let left = 200; ; left--) {
    const before = yield* look
    const groups = Object.keys(before.groups)
    const from = yield* now
    const sinceBefore = yield* Effect.forEach(groups, since)
    const found = yield* Effect.exit(told(inspector, topic, redis))
    const sinceBehind = yield* Effect.forEach(groups, since)
    const to = yield* now
    const behind = yield* look
    if (JSON.stringify(before) !== JSON.stringify(behind)) {
      assert.isAbove(left, 0, `${context}: it never stands still`)
      continue
    }
    const { oldest, published, model } = yield* found
    assert.deepStrictEqual(model, before, context)
    groups.forEach((group, i) => {
      const [first, last] = [sinceBefore[i], sinceBehind[i]]
      const age = oldest.get(group) ?? Number.NaN
      if (first === undefined && last === undefined) return assert.strictEqual(age, 0, `${context}: the age of nothing`)
      // A beat that came in between may have moved it by what two clocks differ, or more: then nothing is known.
      if (first === undefined || last === undefined || Math.abs(first - last) > slackMillis) return
      assert.isAtLeast(age, from - first - slackMillis, `${context}: the oldest of ${group}`)
      assert.isAtMost(age, to - first + slackMillis, `${context}: the oldest of ${group}`)
    })
    if (pattern === "keyspace" && left > 0 && published !== stored - before.delayed) {
      // A key that somebody else wrote is a message once its event has been heard.
      yield* Effect.sleep("20 millis")
      continue
    }
    if (published !== undefined) assert.strictEqual(published, stored - before.delayed, `${context}: published`)
    return before
  }
})

interface Joined {
  readonly group: string
  readonly receiver: Transport.Receiver
  readonly scope: Scope.Closeable
  readonly held: Array<Delivery.Delivery>
}

const joining = (topic: string, group: string, lease: Duration.Duration) => ({
  topic,
  group,
  start: "earliest" as const,
  lease,
  maxDeliveries: 3,
  shutdown: Duration.seconds(1)
})

const settlements = [
  Settlement.ack,
  Settlement.retry(Duration.hours(1), "cause"),
  Settlement.retry(Duration.zero, "cause"),
  Settlement.deadLetter("Broken", "cause"),
  Settlement.release
]

/** One history on a server of its own; answers what was done how often. */
const history = Effect.fnUntraced(
  function* (subject: Subject, steps: number, read: Read = Model.read) {
    const draw = yield* drawing(`inspector, ${subject.pattern}`)
    const below = (count: number) => Effect.map(draw(Random.next), (x) => Math.floor(x * count))
    const one = <A>(items: ReadonlyArray<A>) => Effect.map(below(items.length), (i) => items[i])
    const { url } = yield* RedisServer.make()
    const redis = yield* client(url)
    const context = yield* Layer.build(
      Layer.mergeAll(
        subject.layer,
        Layer.effect(Elsewhere, Effect.provide(Inspector.Inspector, RedisInspector.layer()))
      ).pipe(Layer.provide(IoRedis.layer({ url })))
    )
    const transport = Context.get(context, Transport.AtMostOnce)
    // The one that tools use, on topics of any pattern.
    const inspector = Context.get(context, Elsewhere)
    const topic = "t"
    const base = `{waybill:${topic}}`
    const done: Record<string, number> = {}
    const members: Array<Joined> = []
    let stored = 0

    const join = Effect.fnUntraced(function* (group: string) {
      const scope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
      const receiver = yield* Scope.provide(transport.receive(joining(topic, group, lease)), scope)
      members.push({ group, receiver, scope, held: [] })
    })

    const deeds: Record<string, () => Effect.Effect<unknown, Transport.TransportError, Scope.Scope>> = {
      publish: Effect.fnUntraced(function* () {
        const drafts = yield* Effect.forEach(Array.from({ length: 1 + (yield* below(4)) }), (_, i) =>
          // Without a store nothing has an id of its own, and nothing can be delayed.
          Effect.map(subject === unstored ? Effect.succeed(3) : below(4), (kind) =>
            outgoing({
              body: "b",
              ...(kind === 0 ? { id: `m${stored + i}` } : {}),
              ...(kind === 1 ? { due: { _tag: "After", delay: Duration.hours(1) } as const } : {}),
              ...(kind === 2 ? { due: { _tag: "After", delay: Duration.millis(30) } as const } : {})
            })
          )
        )
        const [first, ...rest] = drafts
        assert(first !== undefined)
        yield* transport.publish(topic, [first, ...rest])
        stored += drafts.length
      }),
      foreign: () =>
        // Where nobody listens nobody hears of it, as the page on the pattern says.
        subject.pattern === "keyspace" && members.length === 0
          ? Effect.void
          : Effect.promise(() => subject.foreign(redis, base, `f${stored++}`)),
      join: () =>
        Effect.flatMap(one(subject.groups), (group) => (members.length < 5 ? join(group ?? "g") : Effect.void)),
      take: Effect.fnUntraced(function* () {
        const member = yield* one(members)
        if (member === undefined) return
        const taken = yield* Effect.timeoutOption(member.receiver.take(1 + (yield* below(5))), "150 millis")
        if (Option.isSome(taken)) member.held.push(...taken.value)
      }),
      settle: Effect.fnUntraced(function* () {
        const member = yield* one(members.filter(({ held }) => held.length > 0))
        const [first, ...rest] = member?.held.splice(0, 1 + (yield* below(3))) ?? []
        if (member === undefined || first === undefined) return
        const settlement = (yield* one(settlements)) ?? Settlement.ack
        yield* member.receiver.settle([[first, settlement], ...rest.map((delivery) => [delivery, settlement] as const)])
      }),
      leave: Effect.fnUntraced(function* () {
        const member = yield* one(members)
        if (member === undefined) return
        members.splice(members.indexOf(member), 1)
        yield* Scope.close(member.scope, Exit.void)
      }),
      die: Effect.fnUntraced(function* () {
        const member = yield* one(members)
        if (member === undefined) return
        members.splice(members.indexOf(member), 1)
        if (subject.stores) yield* freeze(member.receiver)
      }),
      redrive: Effect.fnUntraced(function* () {
        const group = (yield* one(subject.groups)) ?? "g"
        const letters = yield* inspector.deadLetters(topic, group, {
          after: Option.none(),
          limit: 1 + (yield* below(3))
        })
        yield* inspector.redrive(
          topic,
          group,
          letters.map(({ entry }) => entry)
        )
      }),
      discard: Effect.fnUntraced(function* () {
        const group = (yield* one(subject.groups)) ?? "g"
        const letters = yield* inspector.deadLetters(topic, group, { after: Option.none(), limit: 1 })
        yield* inspector.discard(
          topic,
          group,
          letters.map(({ entry }) => entry)
        )
      }),
      pause: () => Effect.flatMap(one(subject.groups), (group) => inspector.pause(topic, group ?? "g")),
      resume: () => Effect.forEach(subject.groups, (group) => inspector.resume(topic, group)),
      pass: () => Effect.flatMap(below(800), (millis) => Effect.sleep(millis))
    }
    const often = ["publish", "publish", "take", "take", "take", "take", "settle", "settle", "settle", "resume"]
    const names = [...often, ...Object.keys(deeds)]

    for (const group of subject.groups) yield* join(group)
    for (let step = 0; step < steps; step++) {
      const name = (yield* one(names)) ?? "publish"
      yield* deeds[name]!()
      done[name] = (done[name] ?? 0) + 1
      yield* agree(read, redis, subject, inspector, topic, stored, `step ${step}, ${name}`)
    }
    return done
  },
  Effect.scoped,
  Effect.provideService(References.MinimumLogLevel, "None")
)

/** Beside the inspector of the layer. */
class Elsewhere extends Context.Service<Elsewhere, Look>()("waybill/test/Elsewhere") {}

describe("Inspector agrees with an independent count", () => {
  const all = [...subjects, unstored].map((subject) => [subject.pattern, subject] as const)
  it.live.each(sampled("histories", all, 2))(
    "over a random history on %s",
    ([, subject]) => Effect.asVoid(history(subject, 100)),
    120_000
  )
})

/** What both of a pair of twins say, whatever their ids and positions look like. */
const figuresOf = Effect.fnUntraced(function* (inspector: Look, topic: string, readsAhead: boolean) {
  const info = yield* inspector.describe(topic)
  const idsOf = (messages: ReadonlyArray<{ readonly id: string }>) => messages.map(({ id }) => id).toSorted()
  const groups: Record<string, unknown> = {}
  for (const { consumers, deadLettersDropped, group, lag, paused, pending, unattendedMillis, waiting } of info.groups) {
    groups[group] = {
      paused,
      isUnattended: unattendedMillis !== undefined,
      deadLettersDropped,
      letters: idsOf(yield* inspector.deadLetters(topic, group, { after: Option.none(), limit: 1000 })),
      ...(readsAhead
        ? { open: lag + pending + waiting, consumers: consumers.length }
        : {
            lag,
            held: idsOf(yield* allPages((page) => inspector.pending(topic, group, page))),
            waits: idsOf(yield* allPages((page) => inspector.waiting(topic, group, page))),
            pending,
            waiting,
            consumers: consumers.map(({ pending }) => pending).toSorted()
          })
    }
  }
  const messages = yield* allPages((page) => inspector.messages(topic, page))
  return {
    delayed: info.delayed,
    // In a stream, what was released stays where it was published; in memory it does not.
    ...(readsAhead ? {} : { depth: info.depth, messages: messages.map(({ id }) => id) }),
    groups: Object.fromEntries(Object.entries(groups).toSorted(([a], [b]) => (a < b ? -1 : 1)))
  }
})

interface Side {
  readonly transport: Effect.Success<typeof Transport.AtMostOnce>
  readonly inspector: Look
  readonly members: Map<string, Joined>
}

/** The same history on Redis and in memory: one consumer a group, which always takes all that there is. */
const twins = Effect.fnUntraced(
  function* (subject: Twin, steps: number) {
    const draw = yield* drawing(`twins, ${subject.pattern}`)
    const below = (count: number) => Effect.map(draw(Random.next), (x) => Math.floor(x * count))
    const one = <A>(items: ReadonlyArray<A>) => Effect.map(below(items.length), (i) => items[i])
    const { url } = yield* RedisServer.make()
    const topic = "t"
    const sideOf = (layer: Layer.Layer<Services>) =>
      Effect.map(Layer.build(layer), (context): Side => ({
        transport: Context.get(context, Transport.AtMostOnce),
        inspector: Context.get(context, Inspector.Inspector),
        members: new Map()
      }))
    const onRedis = yield* sideOf(subject.layer.pipe(Layer.provide(Layer.orDie(IoRedis.layer({ url })))))
    const inMemory = yield* sideOf(subject.twin)
    const both = <A>(f: (side: Side) => Effect.Effect<A, Transport.TransportError, Scope.Scope>) =>
      Effect.forEach([onRedis, inMemory], f)
    let stored = 0

    const join = (group: string) =>
      both(
        Effect.fnUntraced(function* ({ members, transport }) {
          const scope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
          const receiver = yield* Scope.provide(transport.receive(joining(topic, group, Duration.minutes(1))), scope)
          members.set(group, { group, receiver, scope, held: [] })
        })
      )

    /** Does something to the dead letters of these ids. */
    const withLetters = Effect.fnUntraced(function* (group: string, deed: "redrive" | "discard") {
      const letters = yield* inMemory.inspector.deadLetters(topic, group, { after: Option.none(), limit: 1000 })
      const letter = yield* one(letters)
      yield* both(({ inspector }) =>
        Effect.gen(function* () {
          const letters = yield* inspector.deadLetters(topic, group, { after: Option.none(), limit: 1000 })
          yield* inspector[deed](
            topic,
            group,
            letters.flatMap(({ entry, id }) => (id === letter?.id ? [entry] : []))
          )
        })
      )
    })

    const deeds: Record<string, (group: string) => Effect.Effect<unknown, Transport.TransportError, Scope.Scope>> = {
      publish: Effect.fnUntraced(function* () {
        const [first, ...rest] = yield* Effect.forEach(Array.from({ length: 1 + (yield* below(4)) }), () =>
          Effect.map(below(4), (kind) =>
            outgoing({
              // Now and then one that was there before.
              id: `m${kind === 0 && stored > 0 ? stored - 1 : stored++}`,
              body: "b",
              ...(kind === 1 ? { due: { _tag: "After", delay: Duration.hours(1) } as const } : {})
            })
          )
        )
        assert(first !== undefined)
        yield* both(({ transport }) => transport.publish(topic, [first, ...rest]))
      }),
      take: Effect.fnUntraced(function* (group) {
        const info = yield* inMemory.inspector.describe(topic)
        const found = info.groups.find((candidate) => candidate.group === group)
        if (found === undefined || found.paused || !inMemory.members.has(group)) return
        const waiting = yield* inMemory.inspector.waiting(topic, group, { after: Option.none(), limit: 1000 })
        const far = waiting.filter(({ cause }) => cause === "an hour").length
        const count = found.lag + waiting.length - far
        yield* both(
          Effect.fnUntraced(function* ({ members }) {
            const member = members.get(group)!
            const before = member.held.length
            while (member.held.length < before + count) {
              member.held.push(...(yield* member.receiver.take(before + count - member.held.length)))
            }
          })
        )
      }),
      settle: Effect.fnUntraced(function* (group) {
        const ids = inMemory.members.get(group)?.held.map(({ id }) => id) ?? []
        const id = yield* one(ids)
        const settlement = yield* one([
          Settlement.ack,
          Settlement.retry(Duration.hours(1), "an hour"),
          Settlement.retry(Duration.zero, "cause"),
          Settlement.deadLetter("Broken", "cause"),
          Settlement.release
        ])
        if (id === undefined || settlement === undefined) return
        yield* both(
          Effect.fnUntraced(function* ({ members }) {
            const { held, receiver } = members.get(group)!
            const [delivery] = held.splice(
              held.findIndex((delivery) => delivery.id === id),
              1
            )
            assert(delivery?.id === id)
            assert.deepStrictEqual(yield* receiver.settle([[delivery, settlement]]), ["Settled"])
          })
        )
      }),
      leave: (group) =>
        both(({ members }) => {
          const member = members.get(group)
          members.delete(group)
          return member === undefined ? Effect.void : Scope.close(member.scope, Exit.void)
        }),
      join: (group) => (inMemory.members.has(group) ? Effect.void : join(group)),
      redrive: (group) => withLetters(group, "redrive"),
      discard: (group) => withLetters(group, "discard"),
      pause: (group) => both(({ inspector }) => inspector.pause(topic, group)),
      resume: (group) => both(({ inspector }) => inspector.resume(topic, group))
    }
    const often = [
      "publish",
      "publish",
      "take",
      "take",
      "settle",
      "settle",
      "settle",
      "settle",
      "settle",
      "join",
      "resume"
    ]
    const names = [...often, ...Object.keys(deeds)]

    for (const group of subject.groups) yield* join(group)
    for (let step = 0; step < steps; step++) {
      const name = (yield* one(names)) ?? "publish"
      yield* deeds[name]!((yield* one(subject.groups)) ?? "g")
      const expected = yield* figuresOf(inMemory.inspector, topic, subject.readsAhead)
      // What is settled by everybody is cut off a moment later.
      yield* becomes(`step ${step}, ${name}`, figuresOf(onRedis.inspector, topic, subject.readsAhead), expected)
    }
  },
  Effect.scoped,
  Effect.provideService(References.MinimumLogLevel, "None")
)

describe("Inspector says the same on Redis and in memory", () => {
  it.live.each(subjects.map((subject) => [subject.pattern, subject] as const))(
    "over the same history: %s",
    ([, subject]) => twins(subject, 80),
    120_000
  )
})

const groupFigure =
  (falsify: (group: Model.GroupModel) => Partial<Model.GroupModel>): ((model: Model.Model) => Partial<Model.Model>) =>
  ({ groups }) => ({
    groups: Object.fromEntries(Object.entries(groups).map(([name, group]) => [name, { ...group, ...falsify(group) }]))
  })

describe("a reader with one figure that is false is noticed", () => {
  it.live.each([
    ["depth", ({ depth }: Model.Model) => ({ depth: depth + 1 })],
    ["delayed", ({ delayed }: Model.Model) => ({ delayed: delayed + 1 })],
    ["messages", ({ messages }: Model.Model) => ({ messages: [...messages, "0-1"] })],
    ["lag", groupFigure(({ lag }) => ({ lag: lag + 1 }))],
    ["pending", groupFigure(({ pending }) => ({ pending: pending + 1 }))],
    ["waiting", groupFigure(({ waiting }) => ({ waiting: waiting + 1 }))],
    ["dead letters", groupFigure(({ letters }) => ({ letters: [...letters, "0-1"] }))],
    ["paused", groupFigure(({ paused }) => ({ paused: !paused }))],
    ["consumers", groupFigure(({ consumers }) => ({ consumers: [...consumers, "somebody: 1"] }))]
  ] as const)(
    "%s",
    ([, falsify]) =>
      Effect.gen(function* () {
        const read: Read = async (redis, pattern, base) => {
          const model = await Model.read(redis, pattern, base)
          return { ...model, ...falsify(model) }
        }
        const exit = yield* Effect.exit(history(subjects[0]!, 3, read))
        assert.match(Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "nothing", /step \d, .*to deeply equal/)
      }),
    30_000
  )
})
