/**
 * E21, for every command that the library uses, on every pattern that keeps messages: a user without it is told which one
 * it lacks, or does without it. Nothing is half done, and whoever has it finishes the work.
 */
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { freeze, RedisServer } from "@waybill/testing"
import { type Context, Duration, Effect, Exit, Fiber, Layer, Logger, Option, Schedule, Schema } from "effect"
import { Redis } from "ioredis"
import { Consumer, Inspector, Producer, Topic, Transport } from "waybill"
import { IoRedis, RedisExactlyOnce, RedisKeyspace, RedisLists, RedisStreams } from "waybill/redis"
import { sampled } from "../Sample.ts"

type Services = Transport.AtMostOnce | Transport.AtLeastOnce | Inspector.Inspector

interface Pattern {
  readonly layer: (prefix: string) => Layer.Layer<Services, never, IoRedis.IoRedis>
  /** Where its scripts are, below `redis/internal`. */
  readonly folders: ReadonlyArray<string>
}

const pollInterval = "50 millis"

/** What every pattern that stores messages runs. */
const shared = [".", "commit", "connection", "group", "inspect", "publish", "wire"]

const patterns: Record<string, Pattern> = {
  RedisStreams: {
    layer: (prefix) => RedisStreams.layer({ prefix, pollInterval }),
    folders: [...shared, "streams"]
  },
  RedisLists: {
    layer: (prefix) => RedisLists.layer({ prefix, pollInterval }),
    folders: [...shared, "claims", "lists"]
  },
  RedisExactlyOnce: {
    layer: (prefix) => RedisExactlyOnce.layer({ prefix, pollInterval }),
    folders: [...shared, "claims", "lists"]
  },
  RedisKeyspace: {
    layer: (prefix) => RedisKeyspace.layer({ prefix, pollInterval, notifications: "enable" }),
    folders: [...shared, "claims", "keyspace"]
  }
}

const internal = join(import.meta.dirname, "../../packages/waybill/src/redis/internal")

/** Every word in capitals between quotes. The server knows which of them are commands. */
const wordsOf = ({ folders }: Pattern): ReadonlyArray<string> => {
  const sources = folders.flatMap((folder) =>
    readdirSync(join(internal, folder))
      .filter((name) => name.endsWith(".ts"))
      .map((name) => readFileSync(join(internal, folder, name), "utf8"))
  )
  const words = sources.flatMap((source) => [...source.matchAll(/['"]([A-Z]{3,})['"]/g)].map(([, word = ""]) => word))
  return [...new Set(words)].toSorted()
}

/** Who is asked for a password cannot do without this, and no server denies it. */
const undeniable = ["AUTH"]

class Failed extends Schema.TaggedError<Failed>()("Failed", {}) {}

const Task = Topic.make("tasks", { payload: Schema.Literals(["work", "retry", "die"]) })
const group = "g"
const tasks = [
  ["1", "work"],
  ["2", "retry"],
  ["3", "die"],
  ["4", "work"],
  ["5", "retry"]
] as const
const lease = Duration.millis(300)

const consumer = (done: Set<string>) =>
  Consumer.make(Task, { group, lease, shutdown: "1 second" }).pipe(
    Consumer.process((act, { attempt, id }) =>
      act === "die" || (act === "retry" && attempt === 1)
        ? Effect.fail(new Failed())
        : Effect.sync(() => void done.add(id))
    ),
    Consumer.onFailure({ Failed: Consumer.retry(Schedule.spaced("1 millis").pipe(Schedule.upTo({ times: 1 }))) })
  )

const publishAll = Effect.forEach(tasks, ([id, act], i) =>
  Producer.publish(Task, act, { id, ...(i === 3 ? { delay: "1 millis" } : {}) })
)

const info = Inspector.Inspector.use((inspector) => inspector.describe(Task.name))

const idle = info.pipe(
  Effect.map(({ delayed, groups }) =>
    groups.reduce((sum, { lag, pending, waiting }) => sum + lag + pending + waiting, delayed)
  ),
  Effect.repeat({ until: (left) => left === 0, schedule: Schedule.spaced("20 millis") })
)

const first = { after: Option.none<string>(), limit: 10 }

/** All that an operator may do, one after the other. */
const steering: Record<
  string,
  (inspector: Inspector.Inspector["Service"]) => Effect.Effect<unknown, Transport.TransportError>
> = {
  topics: (inspector) => inspector.topics,
  describe: (inspector) => inspector.describe(Task.name),
  deadLetters: (inspector) => inspector.deadLetters(Task.name, group, first),
  pause: (inspector) => inspector.pause(Task.name, group),
  resume: (inspector) => inspector.resume(Task.name, group),
  redrive: (inspector) =>
    Effect.flatMap(inspector.deadLetters(Task.name, group, first), (letters) =>
      inspector.redrive(
        Task.name,
        group,
        letters.map(({ entry }) => entry)
      )
    )
}

const isRefusalOf = (denied: string, error: unknown): boolean =>
  error instanceof Transport.TransportError &&
  error.reason._tag === "NotPermitted" &&
  error.reason.command.toUpperCase().split(/[ |]/)[0] === denied

/** Runs `self`; when it is refused, answers so, and dies of any other failure. */
const refused = <A, E, R>(
  denied: string,
  what: string,
  self: Effect.Effect<A, E, R>
): Effect.Effect<boolean, never, R> =>
  Effect.flatMap(Effect.exit(self), (exit) => {
    if (Exit.isSuccess(exit)) return Effect.succeed(false)
    const error = Exit.findErrorOption(exit)
    return Option.isSome(error) && isRefusalOf(denied, error.value)
      ? Effect.succeed(true)
      : Effect.die(new Error(`${what} without ${denied}: ${String(exit.cause)}`))
  })

/** Answers what was refused. */
const trial = Effect.fnUntraced(function* (pattern: Pattern, port: number, admin: Redis, denied: string) {
  const user = `without-${denied}`
  yield* Effect.promise(() =>
    admin.call("ACL", "SETUSER", user, "reset", "on", ">secret", "~*", "&*", "+@all", `-${denied}`)
  )
  const built = (url: string) =>
    Layer.build(pattern.layer(denied.toLowerCase()).pipe(Layer.provide(IoRedis.layer({ url }))))
  const whole: Context.Context<Services> = yield* built(`redis://127.0.0.1:${port}`)
  const restricted = yield* built(`redis://${user}:secret@127.0.0.1:${port}`)
  const refusals: Array<string> = []
  const note = (what: string, isRefused: boolean) => {
    if (isRefused) refusals.push(what)
  }

  note("publish", yield* refused(denied, "publish", Effect.provideContext(publishAll, restricted)))
  // With ids of their own: what was stored is not stored again.
  yield* Effect.provideContext(publishAll, whole)

  const done = new Set<string>()
  const receiver = yield* Effect.provideContext(
    Transport.AtMostOnce.use((transport) =>
      transport.receive({
        topic: Task.name,
        group,
        start: "earliest",
        lease,
        maxDeliveries: 5,
        shutdown: Duration.seconds(1)
      })
    ),
    whole
  )
  yield* receiver.take(1)
  yield* freeze(receiver)

  const working = Effect.provideContext(Consumer.run(consumer(done)), restricted)
  note(
    "consume",
    yield* refused(denied, "consume", Effect.raceFirst(working, Effect.provideContext(idle, whole))).pipe(
      Effect.timeoutOrElse({ duration: "60 seconds", orElse: () => Effect.die(new Error(`stuck without ${denied}`)) })
    )
  )

  const finishing = yield* Effect.forkScoped(Effect.provideContext(Consumer.run(consumer(done)), whole))
  yield* Effect.provideContext(idle, whole).pipe(
    Effect.timeoutOrElse({
      duration: "60 seconds",
      orElse: () => Effect.die(new Error(`left undone after ${denied} was denied`))
    })
  )
  yield* Fiber.interrupt(finishing)
  assert.deepStrictEqual([...done].toSorted(), ["1", "2", "4", "5"], `without ${denied}`)
  const inspect = yield* Effect.provideContext(Inspector.Inspector, whole)
  const letters = yield* inspect.deadLetters(Task.name, group, first)
  assert.deepStrictEqual(
    letters.map(({ id }) => id),
    ["3"],
    `without ${denied}`
  )

  const inspector = yield* Effect.provideContext(Inspector.Inspector, restricted)
  for (const [what, steer] of Object.entries(steering)) note(what, yield* refused(denied, what, steer(inspector)))
  return refusals
}, Effect.scoped)

describe.each(sampled("permissions", Object.entries(patterns), 2))("E21 %s", (_, pattern) => {
  it.live(
    "each command denied, one at a time: the error names it, or it is done without",
    () =>
      Effect.gen(function* () {
        const server = yield* RedisServer.make()
        const admin = yield* Effect.acquireRelease(
          Effect.sync(() => new Redis(server.port)),
          (redis) => Effect.sync(() => redis.disconnect())
        )
        const words = wordsOf(pattern)
        const known = (yield* Effect.promise(() => admin.call("COMMAND", "INFO", ...words))) as ReadonlyArray<unknown>
        const commands = words.filter((word, i) => known[i] !== null && !undeniable.includes(word))
        assert.isAbove(commands.length, 20)
        const refusals = new Map(
          yield* Effect.forEach(
            commands,
            (denied) =>
              Effect.map(trial(pattern, server.port, admin, denied), (refusals) => [denied, refusals] as const),
            { concurrency: 6 }
          )
        )
        // What cannot be done without, whatever the pattern: a test in which nothing is refused proves nothing.
        for (const needed of ["EVALSHA", "ZADD", "HSET"]) assert.include(refusals.get(needed) ?? [], "consume", needed)
        assert.include(refusals.get("EVALSHA") ?? [], "publish")
      }).pipe(Effect.scoped, Effect.provide(Logger.layer([]))),
    300_000
  )
})
