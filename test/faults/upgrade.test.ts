/**
 * A rolling upgrade: an older build and this one on the same Redis at the same time. Each handles what the other has
 * published, retried, dead-lettered, held when it was killed, and committed. The number is that of the fault matrix.
 *
 * The older build runs its own programs, and three files of this folder, which speak the API of both. The day one of them needs what
 * that build does not have, name a newer commit here, and a new wire version where keys and fields have changed.
 */
import { execFile, spawnSync } from "node:child_process"
import { cpSync } from "node:fs"
import { join } from "node:path"
import { promisify } from "node:util"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { Effect, Exit, Layer, Schedule, Scope } from "effect"
import { Inspector, Producer } from "waybill"
import { IoRedis } from "waybill/redis"
import * as Checkout from "../../scripts/Checkout.ts"
import { sampled } from "../Sample.ts"
import * as Fixture from "./Fixture.ts"
import * as Ledger from "./Ledger.ts"
import type { OperatorOrders } from "./operator.ts"
import * as Pattern from "./Pattern.ts"
import { ask, many, settled } from "./Verdict.ts"

const older = "0f878d4"
/** What that build lacks, or has without the places to die at. */
const programs = ["Pattern.ts", "ledger-worker.ts", "operator.ts"]

const directions = [
  ["older", "newer"],
  ["newer", "older"]
] as const

const isThere = spawnSync("git", ["cat-file", "-e", `${older}^{commit}`], { stdio: "ignore" }).status === 0
if (!isThere) console.log(`E38 is skipped: this clone does not have the commit ${older}`)

describe.skipIf(!isThere)("a rolling upgrade", () => {
  const scope = Scope.makeUnsafe()
  const folders = { older: "", newer: import.meta.dirname }
  beforeAll(async () => {
    const checkout = await Effect.runPromise(Scope.provide(Checkout.make(older), scope))
    folders.older = join(checkout, "test/faults")
    for (const name of programs) cpSync(join(folders.newer, name), join(folders.older, name))
  }, 300_000)
  afterAll(() => Effect.runPromise(Scope.close(scope, Exit.void)))

  describe.each(sampled("upgrade, patterns", Pattern.patterns, 2))("a rolling upgrade, %s", (pattern) => {
    it.live.each(sampled(`upgrade ${pattern}`, directions, 1))(
      "E38 what the %s build leaves the %s one takes up, and both work beside each other",
      ([one, other]) =>
        Effect.gen(function* () {
          const {
            workers,
            pattern: { remains },
            redis,
            server,
            verdict
          } = yield* Fixture.make
          const spawn = (build: keyof typeof folders) =>
            workers.spawn(`${folders[build]}/waybill-worker.ts` as `/${string}`, {
              url: server.url,
              pattern,
              concurrency: 4,
              prefetch: 16,
              maxDeliveries: 10,
              every: 10
            })
          const operate = (build: keyof typeof folders, orders: Omit<OperatorOrders, "url" | "pattern">) =>
            ask(() =>
              promisify(execFile)(process.execPath, [
                join(folders[build], "operator.ts"),
                JSON.stringify({ ...orders, url: server.url, pattern })
              ])
            )
          const publish = Effect.fnUntraced(function* (
            build: keyof typeof folders,
            jobs: ReturnType<typeof many>,
            delayMillis?: number
          ) {
            for (const [id] of jobs) workers.recorder.record({ _tag: "Publishing", id })
            yield* operate(build, { jobs, ...(delayMillis === undefined ? {} : { delayMillis }) })
            for (const [id] of jobs) workers.recorder.record({ _tag: "Published", id })
          })
          const work = (name: string) => [
            ...many(`${name}-work`, 60, { act: "work", millis: 5 }),
            ...many(`${name}-retry`, 10, { act: "fail", times: 2 }),
            ...many(`${name}-dead`, 3, { act: "fail" }),
            [`${name}-hang`, { act: "hang" }] as const
          ]
          yield* publish(one, work("first"))
          yield* publish(one, many("first-later", 5, { act: "work" }), 2000)
          // The same ids again from the other build: stored once.
          yield* publish(other, many("first-work", 60, { act: "work", millis: 5 }))

          const victim = yield* spawn(other)
          yield* victim.says("began first-hang")
          yield* victim.kill
          const heir = yield* spawn(one)
          yield* heir.says("began first-hang")
          yield* settled(redis)
          yield* publish(other, work("second"))
          yield* publish(other, many("second-later", 5, { act: "work" }), 500)
          yield* heir.says("began second-hang")
          const successor = yield* spawn(other)
          yield* heir.kill
          yield* successor.says("began second-hang")
          yield* spawn(one)
          for (const build of [one, other]) yield* publish(build, many(`by-${build}`, 100, { act: "work", millis: 5 }))
          const { letters, report } = yield* verdict()
          const dead = ["first", "second"].flatMap((name) => many(`${name}-dead`, 3, { act: "fail" }).map(([id]) => id))
          assert.deepStrictEqual(letters.map(({ id }) => id).toSorted(), dead)
          assert.strictEqual(report.counts.published, 358)

          // Sent back by one, they fail with the other as before.
          for (const [back, handles] of [
            [one, other],
            [other, one]
          ] as const) {
            yield* operate(back, { redrive: true })
            assert.deepStrictEqual((yield* remains(redis)).deadLetters, [])
            const worker = yield* spawn(handles)
            yield* settled(redis)
            assert.deepStrictEqual((yield* remains(redis)).deadLetters.toSorted(), dead)
            yield* worker.terminate
            yield* worker.gone
          }
        }).pipe(Fixture.run({ pattern })),
      400_000
    )
  })

  describe.each(sampled("upgrade, ledgers", ["streams", "exactly-once"] as const, 1))(
    "a ledger of two builds, %s",
    (pattern) => {
      it.live(
        "E38 a commit that one build has applied is known to the other: every transfer is applied once",
        () =>
          Effect.gen(function* () {
            const { workers, server } = yield* Fixture.make
            const spawn = (build: keyof typeof folders, failpoint?: string) =>
              workers.spawn(
                `${folders[build]}/ledger-worker.ts` as `/${string}`,
                { url: server.url, pattern },
                failpoint
              )
            const transfers = new Map(
              Array.from({ length: 2000 }, (_, i) => [`t-${i}`, { from: i % 7, to: 7 + (i % 11), cents: 1 + (i % 97) }])
            )
            yield* Effect.gen(function* () {
              const all = [...transfers]
              const publish = (some: typeof all) =>
                Producer.publishAll(
                  Ledger.Transfers,
                  some.map(([, transfer]) => transfer),
                  (_, i) => ({ id: some[i]![0] })
                )
              // Ids are remembered for a millisecond: what is published twice is there twice.
              for (let from = 0; from < all.length; from += 500) yield* publish(all.slice(from, from + 500))
              yield* publish(all.filter((_, i) => i % 10 === 0))
              for (const moment of ["sent", "replied"] as const) {
                for (const build of ["older", "newer"] as const) {
                  // Its fate may come before it is ready.
                  const worker = yield* Effect.option(spawn(build, Ledger.failpointOf("commit", moment, 2)))
                  if (worker._tag === "Some") yield* worker.value.gone
                }
              }
              yield* Effect.all([spawn("older"), spawn("newer")])
              const figures = Effect.flatMap(Inspector.Inspector, (inspector) =>
                inspector.describe(Ledger.Transfers.name)
              )
              yield* figures.pipe(
                Effect.repeat({
                  until: ({ groups: [found] }) => found !== undefined && found.lag === 0 && found.pending === 0,
                  schedule: Schedule.spaced("50 millis")
                }),
                Effect.timeout("60 seconds")
              )
              assert.deepStrictEqual(Ledger.complaints(transfers, yield* Ledger.read), [])
            }).pipe(Effect.provide(Ledger.layerOf(pattern).pipe(Layer.provide(IoRedis.layer({ url: server.url })))))
          }).pipe(Fixture.run({ pattern })),
        400_000
      )
    }
  )
})
