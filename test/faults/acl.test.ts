/**
 * E21, the other way round: under the line of docs/permissions.md a pattern does all of its work and the server denies
 * nothing, and there is nothing in the line that it could do without.
 */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { freeze, RedisServer } from "@waybill/testing"
import {
  Cause,
  Context,
  Data,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  Option,
  Schedule,
  Schema,
  type Scope
} from "effect"
import { Redis } from "ioredis"
import { Commit, Consumer, Inspector, Producer, Topic, Transport } from "waybill"
import { IoRedis, RedisExactlyOnce, RedisKeyspace, RedisLists, RedisPubSub, RedisStreams } from "waybill/redis"
import { sampled } from "../Sample.ts"

const page = readFileSync(join(import.meta.dirname, "../../docs/permissions.md"), "utf8")

/** The words of the line below the heading of a pattern, without `ACL SETUSER`. */
const lineOf = (pattern: string): ReadonlyArray<string> => {
  const [, line] = new RegExp(`^## ${pattern}\\n[^#]*?\`\`\`\\nACL SETUSER ([^\`]+)\`\`\``, "m").exec(page) ?? []
  if (line === undefined) throw new Error(`docs/permissions.md has no line for ${pattern}`)
  return line.trim().split(/\s+/)
}

class Failed extends Schema.TaggedError<Failed>()("Failed", {}) {}
class Later extends Schema.TaggedError<Later>()("Later", {}) {}

const payload = Schema.Literals(["work", "hold", "retry", "wait", "die"])
/** Every pattern will do. */
const Task = Topic.make("tasks", { payload, guarantee: "at-most-once" })
const CommittedTask = Topic.make("tasks", { payload, guarantee: "transactional" })
type Act = "work" | "hold" | "retry" | "wait" | "die"
const group = "workers"
const lease = Duration.millis(300)
/** So long that what is found only by polling is late. */
const pollInterval = "30 seconds"
const patience = "12 seconds"

/** Where the handlers work. */
class Desk {
  readonly done = new Set<string>()
  readonly holding = Deferred.makeUnsafe<void>()
  readonly released = Deferred.makeUnsafe<void>()
  repaired = false

  handle(act: Act, { attempt, id }: { readonly attempt: number; readonly id: string }) {
    return Effect.gen({ self: this }, function* () {
      if (act === "hold") {
        yield* Deferred.succeed(this.holding, undefined)
        yield* Deferred.await(this.released)
      }
      if (act === "wait") return yield* new Later()
      if ((act === "die" && !this.repaired) || (act === "retry" && attempt === 1)) return yield* new Failed()
      this.done.add(id)
    })
  }

  has(count: number) {
    return waitFor(
      `${count} done`,
      Effect.sync(() => this.done.size >= count)
    )
  }
}

const again = {
  Failed: Consumer.retry(Schedule.spaced("1 millis").pipe(Schedule.upTo({ times: 1 }))),
  Later: Consumer.retry(Schedule.spaced("1 hour").pipe(Schedule.upTo({ times: 1 })))
}
const declared = { group, lease, concurrency: 4, shutdown: "1 second" } as const
const counted = Commit.hash("counted")

type Services = Transport.AtMostOnce | Inspector.Inspector

/** One process: what it offers, and the consumer that it runs. */
interface Office {
  readonly services: Context.Context<Services>
  readonly work: (desk: Desk) => Effect.Effect<never, Transport.TransportError>
}

interface Pattern {
  readonly open: (url: string, prefix: string) => Effect.Effect<Office, Transport.TransportError, Scope.Scope>
  readonly stores: boolean
  /** Prefixes to play it again under, for what the layer may be told. */
  readonly prefixes?: ReadonlyArray<string>
}

const build = <S>(layer: Layer.Layer<S, never, IoRedis.IoRedis>, url: string) =>
  Layer.build(layer.pipe(Layer.provide(IoRedis.layer({ url }))))

const simply = (desk: Desk) =>
  Consumer.run(
    Consumer.make(Task, declared).pipe(
      Consumer.process((act, delivery) => desk.handle(act, delivery)),
      Consumer.onFailure(again)
    )
  )

/** Prefixes for the orders of a queue that are not the default. */
const orders = ["shop-priority", "shop-lifo"]
const orderOf = (prefix: string) => (prefix === "shop-priority" ? "priority" : prefix === "shop-lifo" ? "lifo" : "fifo")

const everyPattern: Record<string, Pattern> = {
  RedisStreams: {
    open: (url, prefix) =>
      Effect.map(build(RedisStreams.layer({ prefix, pollInterval }), url), (services) => ({
        services,
        work: (desk) => Effect.provideContext(simply(desk), services)
      })),
    stores: true
  },
  RedisLists: {
    open: (url, prefix) =>
      Effect.map(build(RedisLists.layer({ prefix, order: orderOf(prefix), pollInterval }), url), (services) => ({
        services,
        work: (desk) => Effect.provideContext(simply(desk), services)
      })),
    stores: true,
    prefixes: orders
  },
  RedisExactlyOnce: {
    open: (url, prefix) =>
      Effect.map(build(RedisExactlyOnce.layer({ prefix, order: orderOf(prefix), pollInterval }), url), (services) => ({
        services,
        work: (desk) =>
          Consumer.make(CommittedTask, declared).pipe(
            Consumer.transactional((act, delivery) =>
              Effect.as(desk.handle(act, delivery), Commit.make({ writes: [counted.increment(act, 1)] }))
            ),
            Consumer.onFailure(again),
            Consumer.run,
            Effect.provideContext(services)
          )
      })),
    stores: true,
    prefixes: orders
  },
  RedisKeyspace: {
    open: (url, prefix) =>
      Effect.map(build(RedisKeyspace.layer({ prefix, pollInterval }), url), (services) => ({
        services,
        work: (desk) => Effect.provideContext(simply(desk), services)
      })),
    stores: true
  },
  RedisPubSub: {
    open: (url, prefix) =>
      Effect.map(build(RedisPubSub.layer({ prefix }), url), (services) => ({
        services,
        work: (desk) =>
          Consumer.make(Task, { ...declared, guarantee: "at-most-once" }).pipe(
            Consumer.process((act, delivery) => desk.handle(act, delivery)),
            Consumer.onFailure(again),
            Consumer.run,
            Effect.provideContext(services)
          )
      })),
    stores: false
  }
}

class TooLate extends Data.TaggedError("TooLate")<{ readonly what: string }> {}

const waitFor = <E>(what: string, check: Effect.Effect<boolean, E>): Effect.Effect<void, E | TooLate> =>
  check.pipe(
    Effect.repeat({ until: (is) => is, schedule: Schedule.spaced("20 millis") }),
    Effect.timeoutOrElse({ duration: patience, orElse: () => Effect.fail(new TooLate({ what })) }),
    Effect.asVoid
  )

const first = { after: Option.none<string>(), limit: 10 }

/** Publish, consume, retry, delay, take over, reconnect, dead letter, pause, redrive, discard, inspect: all as one user. */
const play = Effect.fnUntraced(function* (
  pattern: Pattern,
  prefix: string,
  url: string,
  admin: Redis
): Effect.fn.Return<void, unknown, Scope.Scope> {
  const { open, stores } = pattern
  const desk = new Desk()
  const worker = yield* open(url, prefix)
  const office = yield* open(url, prefix)
  const publish = (id: string, act: Act, options: { readonly delay?: Duration.Input } = {}) =>
    Producer.publish(Task, act, { ...options, ...(stores ? { id } : {}) }).pipe(Effect.provideContext(office.services))
  const inspector = Context.get(office.services, Inspector.Inspector)
  const letters = inspector.deadLetters(Task.name, group, first)
  const { lifecycle, receive } = Context.get(worker.services, Transport.AtMostOnce)

  if (stores) {
    yield* publish("left", "work")
    const receiver = yield* receive({
      topic: Task.name,
      group,
      start: "earliest",
      lease,
      maxDeliveries: 5,
      shutdown: Duration.seconds(1)
    })
    yield* receiver.take(1)
    yield* freeze(receiver)
  }
  const started = yield* Deferred.make<void>()
  let reconnects = 0
  yield* lifecycle.listen((event) => {
    if (event._tag === "ConsumerStarted") Deferred.doneUnsafe(started, Effect.void)
    if (event._tag === "Reconnected") reconnects++
  })
  const working = yield* Effect.forkChild(worker.work(desk))
  const rest = Effect.gen(function* () {
    yield* Deferred.await(started)
    yield* publish("plain", "work")
    yield* publish("again", "retry")
    yield* publish("dead", "die")
    yield* publish("lost", "die")
    yield* publish("held", "hold")
    yield* desk.has(stores ? 3 : 2)
    yield* Deferred.await(desk.holding)
    yield* Effect.promise(() => admin.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
    yield* waitFor(
      "a new connection",
      Effect.sync(() => reconnects > 0)
    )
    // A beat later everything that is held was compared.
    yield* Effect.sleep(lease)
    yield* Deferred.succeed(desk.released, undefined)
    yield* desk.has(stores ? 4 : 3)
    yield* waitFor(
      "two dead letters",
      Effect.map(letters, ({ length }) => length === 2)
    )
    yield* inspector.pause(Task.name, group)
    if (stores) {
      yield* publish("cut", "work")
      yield* Effect.promise(() => admin.call("XTRIM", `{${prefix}:${Task.name}}:stream`, "MAXLEN", "0"))
    }
    yield* inspector.resume(Task.name, group)
    if (stores) {
      yield* publish("waiting", "wait")
      // Nobody polls: of a message of another process that is due later the consumer has to be told.
      yield* publish("later", "work", { delay: "200 millis" })
      yield* waitFor(
        "later is done",
        Effect.sync(() => desk.done.has("later"))
      )
    }
    const [kept, lost] = yield* letters
    yield* inspector.discard(Task.name, group, [lost!.entry])
    desk.repaired = true
    const before = desk.done.size
    yield* inspector.redrive(Task.name, group, [kept!.entry])
    yield* desk.has(before + 1)
    assert.include(yield* inspector.topics, Task.name)
    const { groups } = yield* inspector.describe(Task.name)
    assert.strictEqual(groups.find((info) => info.group === group)?.deadLetters, 0)
    if (!stores) return
    yield* inspector.messages(Task.name, first)
    yield* inspector.messages(Task.name, { before: Option.none(), limit: first.limit })
    yield* inspector.pending(Task.name, group, first)
    // A page behind what came back at once, which is a list but on streams.
    if (pattern !== everyPattern["RedisStreams"])
      yield* inspector.waiting(Task.name, group, { ...first, after: Option.some("a?") })
    const [waiting] = yield* inspector.waiting(Task.name, group, first)
    for (const gone of ["", "?"]) {
      yield* inspector.waiting(Task.name, group, { ...first, after: Option.some(`${waiting!.position}${gone}`) })
    }
  })
  yield* Effect.raceFirst(rest, Fiber.join(working))
  yield* Fiber.interrupt(working)
  // One that is too old to be listed is counted with a look at the newest.
  const dead = `{${prefix}:${Task.name}}:group:${group}:dead`
  yield* Effect.promise(() => admin.pipeline().del(dead).xadd(dead, "1-1", "id", "old").exec())
  yield* inspector.describe(Task.name)
}, Effect.scoped)

/** What is wrong under a line: the failure, or what the server has denied. Nothing is. */
const trial = Effect.fnUntraced(function* (pattern: Pattern, words: ReadonlyArray<string>) {
  const server = yield* RedisServer.make({ args: ["--notify-keyspace-events", "K$"] })
  const admin = yield* Effect.acquireRelease(
    Effect.sync(() => new Redis(server.port)),
    (redis) => Effect.sync(() => redis.disconnect())
  )
  yield* Effect.promise(() => admin.call("ACL", "SETUSER", ...words))
  const [user] = words
  const password = words.find((word) => word.startsWith(">"))?.slice(1)
  const url = `redis://${user}:${password}@127.0.0.1:${server.port}`
  const log = Effect.promise(() => admin.call("ACL", "LOG") as Promise<ReadonlyArray<ReadonlyArray<unknown>>>)
  const denials = Effect.map(log, (entries) =>
    entries.map((entry) => `denied: ${String(entry[3])} ${String(entry[7])}`)
  )
  const playing = Effect.forEach(["shop", ...(pattern.prefixes ?? [])], (prefix) =>
    play(pattern, prefix, url, admin)
  ).pipe(Effect.timeoutOrElse({ duration: "1 minute", orElse: () => Effect.fail(new TooLate({ what: "everything" })) }))
  const denied = denials.pipe(
    Effect.repeat({ until: ({ length }) => length > 0, schedule: Schedule.spaced("50 millis") })
  )
  const exit = yield* Effect.exit(Effect.raceFirst(playing, denied))
  return [...(yield* denials), ...(Exit.isSuccess(exit) ? [] : [Cause.pretty(exit.cause).split("\n")[0]!])]
}, Effect.scoped)

describe.each(sampled("lines of permissions", Object.entries(everyPattern), 2))(
  "E21 the line of docs/permissions.md, %s",
  (name, pattern) => {
    it.live(
      "case C10: is enough for everything, and without any of its words something is denied",
      () =>
        Effect.gen(function* () {
          const words = lineOf(name)
          assert.deepStrictEqual(yield* trial(pattern, words), [])
          const rights = words.filter((word) => /^[+~&]/.test(word))
          assert.isAbove(rights.length, 20)
          const found = yield* Effect.forEach(
            rights,
            (right) =>
              Effect.map(
                trial(
                  pattern,
                  words.filter((word) => word !== right)
                ),
                (wrong) => [right, wrong] as const
              ),
            { concurrency: 4 }
          )
          for (const [right, wrong] of found) console.log(`${name} without ${right}: ${wrong[0] ?? "nothing is wrong"}`)
          assert.deepStrictEqual(
            found.filter(([, wrong]) => wrong.length === 0).map(([right]) => right),
            []
          )
        }).pipe(Effect.provide(Logger.layer([]))),
      300_000
    )
  }
)
