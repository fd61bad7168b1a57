/** Limits hold whether there is traffic or not, alike on every pattern and in memory. */
import { assert, describe, it } from "@effect/vitest"
import { freeze, RedisServer } from "@waybill/testing"
import { Context, Duration, Effect, Exit, Layer, Option, Random, References, Schedule, Scope } from "effect"
import { Commit, DeadLetters, Inspector, Settlement, Topic, Transport } from "waybill"
import { MemoryExactlyOnce, MemoryKeyspace, MemoryLists, MemoryPubSub, MemoryStreams } from "waybill/memory"
import {
  IoRedis,
  RedisExactlyOnce,
  RedisInspector,
  RedisKeyspace,
  RedisLists,
  RedisPubSub,
  RedisStreams
} from "waybill/redis"
import { becomes, client, outgoing } from "./Fixture.ts"

type Ports = Transport.AtMostOnce | Inspector.Inspector

interface Cap {
  readonly prefix: string
  readonly deadLetters: { readonly maxAge?: Duration.Input; readonly maxCount?: number }
  readonly topics?: Readonly<Record<string, Pick<Cap, "deadLetters">>>
}

interface Case {
  readonly name: string
  readonly inMemory: boolean
  readonly layer: (cap: Cap) => Layer.Layer<Ports, never, IoRedis.IoRedis>
}

const ttl = Duration.minutes(5)

const patterns: ReadonlyArray<Case> = [
  { name: "RedisStreams", inMemory: false, layer: RedisStreams.layer },
  { name: "RedisLists", inMemory: false, layer: RedisLists.layer },
  { name: "RedisExactlyOnce", inMemory: false, layer: RedisExactlyOnce.layer },
  {
    name: "RedisKeyspace",
    inMemory: false,
    layer: (cap) => RedisKeyspace.layer({ ...cap, ttl, notifications: "enable" })
  },
  { name: "RedisPubSub", inMemory: false, layer: RedisPubSub.layer },
  { name: "MemoryStreams", inMemory: true, layer: MemoryStreams.layer },
  { name: "MemoryLists", inMemory: true, layer: MemoryLists.layer },
  { name: "MemoryExactlyOnce", inMemory: true, layer: MemoryExactlyOnce.layer },
  { name: "MemoryKeyspace", inMemory: true, layer: (cap) => MemoryKeyspace.layer({ ...cap, ttl }) },
  { name: "MemoryPubSub", inMemory: true, layer: MemoryPubSub.layer }
]

const page = { after: Option.none<string>(), limit: 10 }

/** The ports of one layer, and an inspector like that of the command: it knows nothing but the prefix. */
const fixture = Effect.fnUntraced(
  function* <P>(inMemory: boolean, layer: (prefix: string) => Layer.Layer<Ports | P, never, IoRedis.IoRedis>) {
    const { url } = yield* RedisServer.RedisServer
    const prefix = `limits${(yield* Random.nextIntBetween(0, 2 ** 40)).toString(36)}`
    const redis = IoRedis.layer({ url })
    const context = yield* Layer.build(Layer.provide(layer(prefix), redis))
    const inspector = Context.get(context, Inspector.Inspector)
    const transport = Context.get(context, Transport.AtMostOnce)
    const operator = inMemory
      ? inspector
      : Context.get(
          yield* Layer.build(RedisInspector.layer({ prefix }).pipe(Layer.provide(redis))),
          Inspector.Inspector
        )
    const join = (options: Partial<Transport.Subscription> = {}) =>
      transport.receive({
        topic: "t",
        group: "g",
        start: "earliest",
        lease: Duration.seconds(10),
        maxDeliveries: 5,
        shutdown: Duration.seconds(2),
        ...options
      })
    const figures = Effect.map(operator.describe("t"), ({ groups: [group] }) => ({
      deadLetters: group?.deadLetters,
      dropped: group?.deadLettersDropped
    }))
    return { context, prefix, inspector, operator, transport, join, figures }
  },
  Effect.provideService(References.MinimumLogLevel, "None")
)

describe.concurrent("options of single topics", () => {
  it.live.each(patterns)("$name: a topic has its own cap of dead letters, and others that of the layer", (pattern) =>
    Effect.gen(function* () {
      const { inMemory, layer } = pattern
      const { join, operator, transport } = yield* fixture(inMemory, (prefix) =>
        layer({ prefix, deadLetters: { maxCount: 3 }, topics: { t: { deadLetters: { maxCount: 1 } } } })
      )
      for (const [topic, kept] of [
        ["t", 1],
        ["u", 2]
      ] as const) {
        const receiver = yield* join({ topic })
        for (const body of ["first", "second"]) {
          yield* transport.publish(topic, [outgoing(body)])
          const [delivery] = yield* receiver.take(1)
          yield* receiver.settle([[delivery, Settlement.deadLetter("Bad", "cause")]])
        }
        yield* becomes(
          `dead letters of ${topic}`,
          Effect.map(operator.describe(topic), ({ groups: [group] }) => group?.deadLetters),
          kept
        )
      }
    }).pipe(Effect.scoped, Effect.provide(RedisServer.layer()))
  )
})

describe.concurrent("case F1: dead letters that are too old", () => {
  it.live.each(patterns)(
    "$name: are neither listed nor counted nor sent back nor deleted, although none has died since",
    ({ inMemory, layer }) =>
      Effect.gen(function* () {
        const maxAge = Duration.seconds(8)
        const { figures, inspector, join, operator, transport } = yield* fixture(inMemory, (prefix) =>
          layer({ prefix, deadLetters: { maxAge } })
        )
        const deadLetter = Effect.fnUntraced(function* (body: string) {
          const receiver = yield* join()
          yield* transport.publish("t", [outgoing(JSON.stringify(body))])
          const [delivery] = yield* receiver.take(1)
          yield* receiver.settle([[delivery, Settlement.deadLetter("Bad", "cause")]])
        }, Effect.scoped)
        yield* deadLetter("old")
        yield* deadLetter("older friend")
        yield* Effect.sleep("5 seconds")
        yield* deadLetter("young")
        const all = yield* operator.deadLetters("t", "g", page)
        assert.deepStrictEqual(
          all.map(({ body }) => String(body)),
          ['"old"', '"older friend"', '"young"']
        )
        yield* Effect.sleep("3.4 seconds")
        // Nobody lives who could have dropped them.
        const [old, friend, young] = all.map(({ entry }) => entry)
        for (const each of [operator, inspector]) {
          const listed = yield* each.deadLetters("t", "g", page)
          assert.deepStrictEqual(
            listed.map(({ body }) => String(body)),
            ['"young"']
          )
          const after = yield* each.deadLetters("t", "g", { ...page, after: Option.some(old!) })
          assert.strictEqual(after.length, 1)
        }
        assert.strictEqual(yield* operator.discard("t", "g", [friend!]), 0)
        assert.strictEqual(yield* operator.redrive("t", "g", [old!]), 0)
        const { deadLetters } = yield* figures
        assert.strictEqual(deadLetters, 1)
        yield* join()
        assert.strictEqual(yield* operator.redrive("t", "g", [old!]), 0)
        const report = yield* DeadLetters.redrive(Topic.byName("t"), "g", { dryRun: true }).pipe(
          Effect.provideService(Inspector.Inspector, operator)
        )
        assert.deepStrictEqual(report, { examined: 1, selected: 1, done: 0 })
        assert.strictEqual(yield* operator.redrive("t", "g", [young!]), 1)
      }).pipe(Effect.scoped, Effect.provide(RedisServer.layer()))
  )

  it.live.each(patterns.filter(({ inMemory }) => !inMemory))(
    "$name: are dropped and reported by consumers that have nothing else to do",
    ({ layer }) =>
      Effect.gen(function* () {
        const { context, figures, join, transport } = yield* fixture(false, (prefix) =>
          layer({ prefix, deadLetters: { maxAge: "1 second" } })
        )
        const events: Array<number> = []
        yield* Context.get(context, Transport.AtMostOnce).lifecycle.listen((event) => {
          if (event._tag === "DeadLettersDropped") events.push(event.count)
        })
        const receiver = yield* join()
        yield* transport.publish("t", [outgoing("a")])
        const [delivery] = yield* receiver.take(1)
        yield* receiver.settle([[delivery, Settlement.deadLetter("Bad", "cause")]])
        yield* Effect.forkChild(receiver.take(1))
        yield* becomes(
          "events",
          Effect.sync(() => events),
          [1]
        )
        assert.deepStrictEqual(yield* figures, { deadLetters: 0, dropped: 1 })
      }).pipe(
        Effect.provideService(References.MinimumLogLevel, "None"),
        Effect.scoped,
        Effect.provide(RedisServer.layer())
      )
  )
})

const total = Commit.counter("total")
const names = Commit.hash("names")

interface Committing {
  readonly name: string
  readonly inMemory: boolean
  readonly layer: (
    options: Cap & { readonly marker?: Duration.Input; readonly deduplicationWindow?: Duration.Input }
  ) => Layer.Layer<Ports, never, IoRedis.IoRedis>
}

const committing: ReadonlyArray<Committing> = [
  { name: "RedisStreams", inMemory: false, layer: RedisStreams.layer },
  { name: "RedisExactlyOnce", inMemory: false, layer: RedisExactlyOnce.layer },
  { name: "MemoryStreams", inMemory: true, layer: MemoryStreams.layer },
  { name: "MemoryExactlyOnce", inMemory: true, layer: MemoryExactlyOnce.layer }
]

describe.concurrent("a commit whose id is stored again", () => {
  it.live.each(committing)("$name: after the window for published ids, it is applied once", ({ inMemory, layer }) =>
    Effect.gen(function* () {
      const { join, transport } = yield* fixture(inMemory, (prefix) =>
        layer({ prefix, deadLetters: { maxAge: "1 hour" }, deduplicationWindow: 1 })
      )
      const receiver = yield* join()
      for (const body of ["first", "again"]) {
        yield* transport
          .publish("t", [outgoing({ body, id: "same" })])
          .pipe(Effect.repeat({ until: ([receipt]) => receipt?._tag === "Stored", schedule: Schedule.spaced(2) }))
        const [delivery] = yield* receiver.take(1)
        const answers = yield* receiver.settle([[delivery, Settlement.commit(Commit.make({ writes: [total.add(1)] }))]])
        assert.deepStrictEqual(answers, ["Settled"])
      }
      assert.strictEqual(yield* transport.records!.read({ name: "t" }, total.value), 1)
    }).pipe(Effect.scoped, Effect.provide(RedisServer.layer()))
  )
})

describe.concurrent("case F1: a commit that was refused in part", () => {
  it.live.each(committing)(
    "$name: is never applied again, however late and by whatever way its message comes back",
    ({ inMemory, layer }) =>
      Effect.gen(function* () {
        const marker = Duration.millis(200)
        const { join, operator, transport } = yield* fixture(inMemory, (prefix) =>
          layer({ prefix, marker, deadLetters: { maxAge: "1 hour" } })
        )
        const lapse = Effect.sleep("400 millis")
        const lease = Duration.seconds(1)
        const receiver = yield* join({ lease, maxDeliveries: 2 })
        const one = Effect.map(receiver.take(1), ([delivery]) => delivery)
        const commit = (commit: Commit.Commit) =>
          Effect.flatMap(one, (delivery) => receiver.settle([[delivery, Settlement.commit(commit)]]))
        const again = commit(Commit.make({ writes: [total.add(1)] }))
        const redrive = Effect.gen(function* () {
          const [letter] = yield* operator.deadLetters("t", "g", page)
          assert.isDefined(letter)
          yield* lapse
          assert.strictEqual(yield* operator.redrive("t", "g", [letter!.entry]), 1)
          return letter!
        })
        const refused = Effect.gen(function* () {
          assert.deepInclude((yield* again)[0], { reason: "PartialCommit" })
          assert.strictEqual(yield* transport.records!.read({ name: "t" }, total.value), 1)
        })
        yield* transport.publish("t", [outgoing("names")])
        yield* commit(Commit.make({ writes: [names.set("ada", "Lovelace")] }))
        yield* transport.publish("t", [outgoing({ body: "twice", id: "m" })])
        const [first] = yield* commit(Commit.make({ writes: [total.add(1), names.increment("ada", 1)] }))
        assert.deepInclude(first, { reason: "PartialCommit" })

        assert.strictEqual((yield* redrive).reason, "PartialCommit")
        yield* lapse
        yield* refused
        // Again and again, after a retry, a release, a death, and a death of another kind.
        yield* redrive
        yield* receiver.settle([[yield* one, Settlement.retry(Duration.millis(300), "later")]])
        yield* receiver.settle([[yield* one, Settlement.release]])
        // Whatever a cause says, it is a cause.
        yield* receiver.settle([[yield* one, Settlement.retry(Duration.zero, "\x1f0;0;")]])
        yield* lapse
        yield* refused
        yield* redrive
        yield* receiver.settle([[yield* one, Settlement.deadLetter("CardDeclined", "cause")]])
        assert.strictEqual((yield* redrive).reason, "CardDeclined")
        const scope = yield* Scope.make()
        const fragile = yield* Scope.provide(join({ lease, maxDeliveries: 2 }), scope)
        const held = yield* fragile.take(1)
        assert.strictEqual(held.length, 1)
        yield* Scope.provide(freeze(fragile), scope)
        yield* lapse
        yield* refused
        yield* Scope.close(scope, Exit.void)
        yield* redrive
        yield* refused
      }).pipe(Effect.scoped, Effect.provide(RedisServer.layer())),
    30_000
  )

  it.live.each(committing.filter(({ inMemory }) => !inMemory))(
    "$name: is not applied again when its dead letter could not be written, for a year more than a marker lasts",
    ({ layer }) =>
      Effect.gen(function* () {
        const { join, prefix, transport } = yield* fixture(false, (prefix) =>
          layer({ prefix, marker: "200 millis", deadLetters: { maxAge: "1 hour" } })
        )
        const redis = yield* client((yield* RedisServer.RedisServer).url)
        const dead = `{${prefix}:t}:group:g:dead`
        const marker = `{${prefix}:t}:group:g:done:m`
        const receiver = yield* join()
        yield* transport.publish("t", [outgoing("names"), outgoing({ body: "twice", id: "m" })])
        const [first] = yield* receiver.take(1)
        yield* receiver.settle([[first, Settlement.commit(Commit.make({ writes: [names.set("ada", "Lovelace")] }))]])
        const [delivery] = yield* receiver.take(1)
        const partial = Settlement.commit(Commit.make({ writes: [total.add(1), names.increment("ada", 1)] }))
        yield* Effect.promise(() => redis.set(dead, "foreign"))
        const error = yield* Effect.flip(receiver.settle([[delivery, partial]]))
        assert.strictEqual(error.reason._tag, "WrongKeyType")
        // Nor does it stay for ever: the message may end in a way that tells no dead letter.
        const days = Effect.promise(async () => (await redis.pttl(marker)) / 86_400_000)
        assert.approximately(yield* days, 365, 0.1)
        yield* Effect.promise(() => redis.persist(marker))
        yield* Effect.flip(receiver.settle([[delivery, partial]]))
        assert.approximately(yield* days, 365, 0.1)
        yield* Effect.sleep("500 millis")
        yield* Effect.promise(() => redis.del(dead))
        const [refused] = yield* receiver.settle([
          [delivery, Settlement.commit(Commit.make({ writes: [total.add(1)] }))]
        ])
        assert.deepInclude(refused, { reason: "PartialCommit" })
        assert.strictEqual(yield* transport.records!.read({ name: "t" }, total.value), 1)
        // The letter knows now: the marker may lapse again.
        assert.isBelow(yield* days, 1)
      }).pipe(Effect.scoped, Effect.provide(RedisServer.layer()))
  )
})
