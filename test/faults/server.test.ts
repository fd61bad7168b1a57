/**
 * The server is killed under its consumers. The numbers are those of the fault matrix.
 */
import { readdirSync, statSync, truncateSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Deferred, Effect, Logger, Random, Schedule } from "effect"
import { sampled } from "../Sample.ts"
import * as Fixture from "./Fixture.ts"
import { patterns } from "./Pattern.ts"
import { Failed, type Name, person, story, storing } from "./Storing.ts"
import { ask, client, many, seeded, settled } from "./Verdict.ts"

describe.each(sampled("killed servers", patterns, 2))("a server that is killed, %s", (pattern) => {
  it.live(
    "E5 SIGKILL with its log on disk: everything that was accepted is there, and everybody comes back",
    () =>
      Effect.gen(function* () {
        const { workers, spawn, publish, server, verdict } = yield* Fixture.make
        const orders = { every: 20, concurrency: 8, lease: "2 seconds" }
        const pair = [yield* spawn(orders), yield* spawn(orders)] as const
        const moments = yield* seeded("E5", Effect.replicateEffect(Random.nextIntBetween(5, 20), 3))
        const outage = Effect.fnUntraced(function* (millis: number) {
          workers.recorder.record({ _tag: "Fault", fault: "Unreachable", target: "*" })
          const before = pair.map((worker) => worker.said("Reconnected"))
          yield* server.kill
          yield* Effect.sleep(millis)
          yield* server.start
          for (const [i, worker] of pair.entries()) yield* worker.says("Reconnected", (before[i] ?? 0) + 1)
        })
        const hurting = Effect.gen(function* () {
          let twenties = 0
          for (const [i, more] of moments.entries()) {
            twenties += more
            // Whoever comes to it first: how they share the work is nobody's promise.
            yield* Effect.raceFirst(pair[0].handles(twenties * orders.every), pair[1].handles(twenties * orders.every))
            // The last one is longer than the lease: nobody could renew.
            yield* outage(i === 2 ? 2500 : 0)
          }
        })
        const producing = Effect.forEach(
          Array.from({ length: 80 }, (_, i) => many(`batch-${i}`, 50, { act: "work", millis: 2 })),
          publish,
          { discard: true }
        )
        yield* Effect.all([producing, hurting], { concurrency: 2, discard: true })
        const { report, text } = yield* verdict()
        console.log(`E5 ${text}`)
        assert.strictEqual(report.counts.published, 4000)
        for (const worker of pair) assert.isAtLeast(worker.said("Reconnected"), 3)
      }).pipe(Fixture.run({ pattern, appendonly: "always" })),
    120_000
  )

  it.live("E8 SIGKILL with nothing on disk: groups are made again, the loss is told, and the work goes on", () =>
    Effect.gen(function* () {
      const { workers, spawn, publish, redis, server, verdict } = yield* Fixture.make
      const worker = yield* spawn({ concurrency: 4, every: 4 })
      yield* publish([...many("slow", 4, { act: "work", millis: 800 }), ...many("gone", 100, { act: "work" })])
      yield* worker.handles(4)
      workers.recorder.record({ _tag: "Fault", fault: "StateLost", target: "*" })
      yield* server.kill
      yield* server.start
      yield* Effect.timeout(worker.says("GroupRecreated"), "20 seconds")
      yield* publish(many("after", 100, { act: "work" }))
      yield* settled(redis)
      const { text } = yield* verdict()
      console.log(`E8 ${text}`)
      const after = (yield* workers.history).filter(({ fact }) => fact._tag === "Ended" && fact.id.startsWith("after-"))
      assert.strictEqual(after.length, 100)
    }).pipe(Fixture.run({ pattern }))
  )
})

const bodies = (name: string, count: number) => Array.from({ length: count }, (_, i) => `${name}-${i}`)

/** Where a log is cut, by its size when two consumers held messages, and when all of the rest had been written. */
type Cut = (log: { readonly begun: number; readonly marked: number; readonly end: number }) => Effect.Effect<number>

/**
 * The server dies with messages settled, in hand, accepted and on their way to be settled, and comes back with its log, of
 * which something may be cut off. Answers what is wrong with what was handled.
 */
const outage = Effect.fnUntraced(function* (pattern: Name, appendonly: "always" | "everysec", cut?: Cut) {
  const server = yield* RedisServer.make({ appendonly })
  const redis = yield* client(server.url)
  const [a, b] = [yield* person(pattern, server.url), yield* person(pattern, server.url)]
  const { steps, tell, until } = story()
  const gate = yield* Deferred.make<void>()
  const work = (who: string, member: typeof a) =>
    member.consume(
      (body, { attempt }) =>
        Effect.gen(function* () {
          yield* tell(who, `began ${body}`, attempt)
          if (body.startsWith("held")) yield* Deferred.await(gate)
          if (body === "held-retried" && attempt === 1) return yield* new Failed()
          yield* tell(who, `did ${body}`, attempt)
        }),
      // Nobody's lease ends here, however busy the machine is.
      { concurrency: 2, prefetch: 0, lease: "30 seconds" }
    )
  const publish = (some: ReadonlyArray<string>) => Effect.forEach(some, a.publish)
  const becomes = <A, E>(what: Effect.Effect<A, E>, is: (found: A) => boolean) =>
    what.pipe(
      Effect.repeat({ until: is, schedule: Schedule.spaced("10 millis") }),
      Effect.timeoutOrElse({ duration: "20 seconds", orElse: () => Effect.die(JSON.stringify(steps)) })
    )
  const settled = (member: typeof a, count: number) =>
    becomes(
      Effect.sync(() => member.events.filter(({ _tag }) => _tag === "Settled").length),
      (found) => found >= count
    )
  const folder = join(server.dir, "appendonlydir")
  const log = () => join(folder, readdirSync(folder).find((name) => name.endsWith(".incr.aof")) ?? "")
  // Under "everysec" the server may answer first and write a moment later.
  const size = becomes(
    ask(() => redis.info("persistence")),
    (info) => /^aof_buffer_length:0\r$/m.test(info)
  ).pipe(Effect.map(() => statSync(log()).size))

  yield* publish(bodies("kept", 5))
  yield* work("A", a)
  yield* settled(a, 5)
  yield* publish(["held-acked", "held-retried"])
  yield* until("A", "began held-acked")
  yield* until("A", "began held-retried")
  const begun = yield* size
  yield* publish([...bodies("settled", 5), "held-late-0", "held-late-1", ...bodies("owed", 5)])
  const marked = yield* size
  yield* work("B", b)
  yield* until("B", "began held-late-0")
  yield* until("B", "began held-late-1")
  yield* settled(b, 5)
  yield* publish(bodies("tail", 10))
  const end = yield* size
  // What is to be settled is on its way and does not arrive.
  yield* server.pause
  yield* Deferred.succeed(gate, undefined)
  for (const [who, body] of [
    ["A", "held-acked"],
    ["B", "held-late-0"],
    ["B", "held-late-1"]
  ] as const) {
    yield* until(who, `did ${body}`)
  }
  // By then they are sent. What is checked below holds as well when they are not.
  yield* Effect.sleep("50 millis")
  yield* server.kill
  if (cut !== undefined) truncateSync(log(), yield* cut({ begun, marked, end }))
  yield* server.start
  yield* publish(bodies("after", 5))
  yield* becomes(a.left, ([undone]) => undone === 0)

  const times = (body: string) => steps.filter(([, what]) => what === `did ${body}`).length
  const complaints: Array<string> = []
  const expect = (is: boolean, what: string, some: ReadonlyArray<string>) => {
    if (!is) complaints.push(`${what}: ${some.map((body) => `${body} ${times(body)}`).join(", ")}`)
  }
  const once = (body: string) => times(body) === 1
  const before = [...bodies("kept", 5), "held-acked", "held-retried"]
  expect(before.every(once), "once, whatever is cut", before)
  const handled = [...bodies("settled", 5), ...bodies("held-late", 2)]
  const accepted = [...handled, ...bodies("owed", 5), ...bodies("after", 5)]
  expect(
    accepted.every((body) => times(body) > 0),
    "accepted",
    accepted
  )
  if (cut === undefined) expect(handled.every(once), "once", handled)
  const tail = bodies("tail", 10)
  const missing = tail.findIndex((body) => times(body) === 0)
  expect(missing === -1 || (cut !== undefined && tail.slice(missing).every((body) => times(body) === 0)), "tail", tail)
  const attempts = steps.flatMap(([, what, attempt]) => (what.endsWith("held-retried") ? [[what, attempt]] : []))
  assert.deepStrictEqual(attempts, [
    ["began held-retried", 1],
    ["began held-retried", 2],
    ["did held-retried", 2]
  ])
  assert.deepStrictEqual(yield* a.left, [0, 0])
  return complaints
}, Effect.scoped)

// They wait for most of their time, and can do so at once.
describe.concurrent.each(sampled("logs on disk", storing, 2))("a log on disk, %s", (pattern) => {
  it.live.each(["always", "everysec"] as const)(
    "E5, E6 SIGKILL under appendfsync %s: nothing is missing, and what was on its way is settled once",
    (appendonly) =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* outage(pattern, appendonly), [])
      }).pipe(Effect.provide(Logger.layer([])))
  )

  it.live("E7 the tail of the log is cut anywhere: nothing else is missing, and the work goes on", () =>
    Effect.gen(function* () {
      const tail: Cut = ({ end, marked }) => seeded("E7", Random.nextIntBetween(marked, end))
      assert.deepStrictEqual(yield* outage(pattern, "everysec", tail), [])
    }).pipe(Effect.provide(Logger.layer([])))
  )

  it.live("a log that is cut further in front: the same check finds what is missing", () =>
    Effect.gen(function* () {
      const [complaint, ...others] = yield* outage(pattern, "everysec", ({ begun }) => Effect.succeed(begun))
      assert.match(complaint ?? "", /^accepted: .*owed-4 0/)
      assert.deepStrictEqual(others, [])
    }).pipe(Effect.provide(Logger.layer([])))
  )
})
