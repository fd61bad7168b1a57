/**
 * The end of every fault test: wait until nothing is left to do, look into Redis past the library, and hold it against
 * the history.
 */
import { assert } from "@effect/vitest"
import { History } from "@waybill/testing"
import { Data, Effect, Option, Random, Schedule, type Scope, Struct } from "effect"
import { Redis } from "ioredis"
import { Inspector, Producer } from "waybill"
import { becomes } from "../redis/Fixture.ts"
import { group, Job } from "./Jobs.ts"
import { ask, Pattern } from "./Pattern.ts"

export { ask, streamKeys as keys } from "./Pattern.ts"

export class NotSettled extends Data.TaggedError("NotSettled")<{ readonly message: string }> {}

/** A client of the test's own, which knows nothing of Waybill. */
export const client = (url: string): Effect.Effect<Redis, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const redis = new Redis(url, { maxRetriesPerRequest: null })
      redis.on("error", () => {})
      return redis
    }),
    (redis) => Effect.sync(() => redis.disconnect())
  )

/** Waits until the group has nothing left to do; after `within` seconds it says what is left. */
export const settled = (redis: Redis, within = 45): Effect.Effect<void, NotSettled, Pattern> =>
  Pattern.use((pattern) => pattern.idle(redis)).pipe(
    Effect.repeat({ until: (idle) => idle, schedule: Schedule.spaced("50 millis") }),
    Effect.timeoutOrElse({
      duration: `${within} seconds`,
      orElse: () =>
        Effect.flatMap(
          Pattern.use((pattern) => pattern.remains(redis)),
          (rest) => Effect.fail(new NotSettled({ message: told(rest, within) }))
        )
    }),
    Effect.asVoid
  )

/** Waits until the server has no connection of a worker or a member left. */
export const disconnected = (redis: Redis): Effect.Effect<void, NotSettled> =>
  Effect.map(
    ask(() => redis.client("LIST")),
    (list) =>
      String(list)
        .split("\n")
        .filter((line) => /name=(?:worker|member)-/.test(line))
  ).pipe(
    Effect.repeat({ until: (open) => open.length === 0, schedule: Schedule.spaced("20 millis") }),
    Effect.timeoutOrElse({
      duration: "30 seconds",
      orElse: () => Effect.fail(new NotSettled({ message: "those who have left are still connected" }))
    }),
    Effect.asVoid
  )

const told = (rest: History.Remains, within: number): string =>
  (["undelivered", "pending", "waiting"] as const).reduce(
    (text, place) => `${text} ${rest[place].length} ${place} (${rest[place].slice(0, 5)})`,
    `after ${within} s there are still`
  )

const noFigures = { delayed: 0, lag: 0, pending: 0, waiting: 0, deadLetters: 0, consumers: [] }

/**
 * Holds the history against Redis, and the Inspector against both. All consumers must have left.
 */
export const judge = Effect.fnUntraced(function* (
  redis: Redis,
  events: ReadonlyArray<History.Event>,
  promises?: History.Promises
) {
  const rest = yield* (yield* Pattern).remains(redis)
  const report = History.check(events, [rest], promises)
  const text = History.render(report)
  if (report.violations.length > 0) {
    const ids = [...new Set(report.violations.map((violation) => violation.id))].slice(0, 3)
    assert.fail([text, ...ids.map((id) => `${id}:\n${History.trace(events, id)}`)].join("\n"))
  }

  const inspector = yield* Inspector.Inspector
  const figures = Effect.map(inspector.describe(Job.name), ({ delayed, groups }) => {
    const found = groups.find((info) => info.group === group)
    return { delayed, ...Struct.pick(found ?? noFigures, ["lag", "pending", "waiting", "deadLetters", "consumers"]) }
  })
  // Who was killed counts as alive until its lease ends.
  yield* becomes("what Inspector says", figures, { ...noFigures, deadLetters: rest.deadLetters.length })
  const letters = yield* inspector.deadLetters(Job.name, group, { after: Option.none(), limit: 1000 })
  assert.deepStrictEqual(letters.map((letter) => letter.id).toSorted(), rest.deadLetters.toSorted())
  return { report, text, letters }
})

/** Publishes until the receipts are there: the ids make it safe to ask again. */
export const publish = Effect.fnUntraced(function* (
  recorder: History.Recorder,
  jobs: ReadonlyArray<readonly [id: string, job: Job]>
) {
  for (const [id] of jobs) recorder.record({ _tag: "Publishing", id })
  yield* Producer.publishAll(
    Job,
    jobs.map(([, job]) => job),
    (_, i) => ({ id: jobs[i]![0] })
  ).pipe(
    Effect.retry({
      while: (error) => error._tag === "TransportError" && !error.reason.permanent,
      schedule: Schedule.spaced("50 millis")
    })
  )
  for (const [id] of jobs) recorder.record({ _tag: "Published", id })
})

/** `count` times the same job, under ids of their own. */
export const many = (name: string, count: number, job: Job): Array<readonly [id: string, job: Job]> =>
  Array.from({ length: count }, (_, i) => [`${name}-${i}`, job])

/**
 * Chance that can be repeated: drawn from WAYBILL_SEED, from the one given, or from a new seed, which is printed either
 * way. Only what the test does is drawn from it, never what the library does.
 */
export const drawing = (name: string, given?: string): Effect.Effect<<A>(draw: Effect.Effect<A>) => Effect.Effect<A>> =>
  Effect.gen(function* () {
    const seed = process.env.WAYBILL_SEED ?? given ?? String(yield* Random.nextIntBetween(1, 1_000_000_000))
    console.log(`${name}: WAYBILL_SEED=${seed}`)
    const random = yield* Random.Random.pipe(Random.withSeed(seed))
    return Effect.provideService(Random.Random, random)
  })

/** The same for a test that draws once. */
export const seeded = <A>(name: string, draw: Effect.Effect<A>, given?: string): Effect.Effect<A> =>
  Effect.flatMap(drawing(name, given), (from) => from(draw))
