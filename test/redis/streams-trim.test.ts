/**
 * Trimming never removes what a group has not settled, whatever two groups do in whatever order, and in the end it
 * removes everything.
 */
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Duration, Effect, Exit, Random, Scope } from "effect"
import { type Delivery, Settlement, type Transport } from "waybill"
import { drawing } from "../faults/Verdict.ts"
import * as Fixture from "./Fixture.ts"

interface Party {
  readonly group: string
  scope: Scope.Closeable
  receiver: Transport.Receiver
  held: Array<Delivery.Delivery>
  readonly done: Set<string>
  readonly deadLettered: Set<string>
}

const steps = 250

const play = Effect.fnUntraced(function* (draw: <A>(drawn: Effect.Effect<A>) => Effect.Effect<A>) {
  const { inspector, join, key, publish, redis, settle } = yield* Fixture.make({ pollInterval: "10 millis" })
  const published = new Set<string>()
  const enter = Effect.fnUntraced(function* (group: string) {
    const scope = yield* Scope.make()
    return { scope, receiver: yield* Scope.provide(join({ group }), scope) }
  })
  const parties: Array<Party> = []
  for (const group of ["g", "h"]) {
    parties.push({ group, ...(yield* enter(group)), held: [], done: new Set(), deadLettered: new Set() })
  }
  yield* Effect.addFinalizer(() => Effect.forEach(parties, ({ scope }) => Scope.close(scope, Exit.void)))

  const takeSome = (party: Party, max: number) =>
    Effect.map(Effect.timeoutOption(party.receiver.take(max), 30), (taken) => {
      if (taken._tag === "Some") party.held.push(...taken.value)
    })
  /** Settles the first `count` that the party holds. */
  const settleSome = Effect.fnUntraced(function* (party: Party, count: number, settlement: Settlement.Settlement) {
    const some = party.held.splice(0, count)
    const answers = yield* settle(party.receiver, some, settlement)
    some.forEach(({ body }, i) => {
      if (answers[i] !== "Settled") return
      if (settlement._tag === "Ack") party.done.add(String(body))
      if (settlement._tag === "DeadLetter") party.deadLettered.add(String(body))
    })
  })

  for (let step = 0; step < steps; step++) {
    const party = parties[yield* draw(Random.nextIntBetween(0, 1))]!
    const dice = yield* draw(Random.nextIntBetween(0, 99))
    const count = yield* draw(Random.nextIntBetween(1, 40))
    if (dice < 30) {
      const [first, ...others] = Array.from({ length: count }, (_, i) => `${step}:${i}`)
      for (const body of [first!, ...others]) published.add(body)
      yield* publish(first!, ...others)
    } else if (dice < 55) {
      yield* takeSome(party, count)
    } else if (dice < 75) {
      yield* settleSome(party, count, Settlement.ack)
    } else if (dice < 85) {
      yield* settleSome(party, count, Settlement.retry(Duration.millis(count), "again"))
    } else if (dice < 90) {
      yield* settleSome(party, count, Settlement.release)
    } else if (dice < 93) {
      yield* settleSome(party, 1, Settlement.deadLetter("Bad", "cause"))
    } else if (dice < 96) {
      yield* Scope.close(party.scope, Exit.void)
      party.held = []
      Object.assign(party, yield* enter(party.group))
    } else {
      yield* Effect.sleep(15)
    }
  }

  for (const party of parties) {
    const open = Effect.map(inspector.describe("t"), ({ groups }) =>
      groups.reduce((sum, info) => (info.group === party.group ? sum + info.lag + info.pending + info.waiting : sum), 0)
    )
    while ((yield* open) > 0) {
      yield* takeSome(party, 100)
      yield* settleSome(party, party.held.length, Settlement.ack)
    }
    const missing = [...published].filter((body) => !party.done.has(body) && !party.deadLettered.has(body))
    assert.deepStrictEqual(missing, [], `group ${party.group} was to get every message`)
    const both = [...party.done].filter((body) => party.deadLettered.has(body))
    assert.deepStrictEqual(both, [], `no message of group ${party.group} ends twice`)
  }
  yield* Fixture.becomes(
    "length",
    Effect.promise(() => redis.xlen(key("stream"))),
    0
  )
  for (const { deadLettered, deadLetters, lag, pending, waiting } of (yield* inspector.describe("t")).groups.map(
    (info) => ({
      ...info,
      deadLettered: parties.find(({ group }) => group === info.group)!.deadLettered.size
    })
  )) {
    assert.deepStrictEqual(
      { deadLetters, lag, pending, waiting },
      { deadLetters: deadLettered, lag: 0, pending: 0, waiting: 0 }
    )
  }
})

describe("trimming", () => {
  it.live("keeps what a group has not settled, and in the end nothing", () =>
    Effect.gen(function* () {
      for (let game = 0; game < 3; game++) {
        const draw = yield* drawing(`trimming, game ${game}`)
        yield* Effect.scoped(play(draw))
      }
    }).pipe(Effect.scoped, Effect.provide(RedisServer.layer()))
  )

  it.live("does not stop in the middle of a long backlog", () =>
    Effect.gen(function* () {
      const { join, key, publish, redis, settle, take } = yield* Fixture.make({ pollInterval: "10 millis" })
      const receiver = yield* join()
      yield* Effect.promise(async () => {
        const pipeline = redis.pipeline()
        for (let i = 0; i < 50_000; i++) pipeline.xadd(key("stream"), "*", "payload", "settled".repeat(13))
        await pipeline.exec()
        // As if the group had settled all of them; nodes that are full by bytes do not add up to a round number.
        await redis.xgroup("SETID", key("stream"), "g", "$")
      })
      yield* publish("last")
      const bodies = new Set<unknown>()
      // A read that was waiting may have brought some of the first ones.
      while (!bodies.has("last")) {
        const taken = yield* take(receiver, 1)
        for (const { body } of taken) bodies.add(body)
        yield* settle(receiver, taken)
      }
      yield* Fixture.becomes(
        "length",
        Effect.promise(() => redis.xlen(key("stream"))),
        0
      )
    }).pipe(Effect.scoped, Effect.provide(RedisServer.layer()))
  )

  it.live("waits for a group that is registered and missing", () =>
    Effect.gen(function* () {
      const { join, key, publish, redis, settle, take } = yield* Fixture.make({ pollInterval: "10 millis" })
      const receiver = yield* join()
      yield* Effect.promise(() => redis.sadd(key("groups"), "comes back"))
      yield* publish("a")
      yield* settle(receiver, yield* take(receiver, 1))
      yield* Effect.sleep(300)
      assert.strictEqual(yield* Effect.promise(() => redis.xlen(key("stream"))), 1)
      const late = yield* join({ group: "comes back" })
      yield* settle(late, yield* take(late, 1))
      yield* Fixture.becomes(
        "length",
        Effect.promise(() => redis.xlen(key("stream"))),
        0
      )
    }).pipe(Effect.scoped, Effect.provide(RedisServer.layer()))
  )
})
