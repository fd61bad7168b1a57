/**
 * Runs measures: each contender in its process, one at a time, round by round in turn, on a Redis server that is empty
 * before every round. Tells as it goes.
 */
import { RedisServer } from "@waybill/testing"
import { Console, Effect } from "effect"
import { Redis } from "ioredis"
import * as Contender from "./Contender.ts"
import type { Measure, Plan, Sample } from "./Measure.ts"

export interface Options {
  readonly quick: boolean
  /** Where the contenders write CPU profiles, if anywhere. */
  readonly profile: string | undefined
}

/** The results of one measure. */
export const run = Effect.fnUntraced(function* (measure: Measure, { profile, quick }: Options) {
  const plan = quick ? measure.quick : measure.full
  const server = yield* RedisServer.make()
  const redis = yield* Effect.acquireRelease(
    Effect.sync(() => new Redis(server.port, "127.0.0.1")),
    (redis) => Effect.sync(() => redis.disconnect())
  )
  yield* Console.error(`${measure.title}: ${plan.messages.toLocaleString("en-US")} messages`)
  const contenders = yield* Effect.forEach(measure.contenders, (name) =>
    Contender.make({ measure: measure.name, name, port: server.port, profile })
  )
  const samples: Record<string, Array<Sample>> = {}
  for (let round = 1 - plan.warmups; round <= plan.rounds; round++) {
    const told: Array<string> = []
    for (const contender of inTurn(contenders, round)) {
      yield* Effect.promise(() => redis.flushall("SYNC"))
      const sample = yield* contender.round({ messages: plan.fewer?.[contender.name] ?? plan.messages })
      if (round > 0) (samples[contender.name] ??= []).push(sample)
      told.push(`${contender.name} ${measure.describe(sample)}`)
    }
    yield* Console.error(`  ${nameOf(round, plan)}: ${told.toSorted().join("   ")}`)
  }
  return measure.judge(samples)
}, Effect.scoped)

/** Nobody is always the one who runs after the slowest. */
const inTurn = <A>(contenders: ReadonlyArray<A>, round: number): ReadonlyArray<A> => {
  const start = Math.abs(round) % contenders.length
  return [...contenders.slice(start), ...contenders.slice(0, start)]
}

const nameOf = (round: number, { rounds }: Plan): string => (round > 0 ? `round ${round} of ${rounds}` : "warm-up")
