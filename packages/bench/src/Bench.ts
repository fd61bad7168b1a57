/**
 * Runs measures: each contender in its own process, one at a time, taking turns round by round, on a Redis server that is
 * empty before every round. Reports progress.
 */
import { RedisServer } from "@waybill/testing"
import { Console, Effect } from "effect"
import { client } from "./Client.ts"
import * as Contender from "./Contender.ts"
import { type Measure, type Plan, type Sample, valuesOf } from "./Measure.ts"
import { compare } from "./Report.ts"

export interface Options {
  readonly quick: boolean
  /** Where the contenders write CPU profiles, if anywhere. */
  readonly profile: string | undefined
}

interface Entrant {
  readonly name: string
  readonly label?: string
  readonly program?: string
}

/** The results of one measure. */
export const run = (measure: Measure, options: Options) =>
  Effect.map(
    rounds(
      measure,
      measure.contenders.map((name) => ({ name })),
      options.quick ? measure.quick : measure.full,
      options
    ),
    measure.judge
  )

/** How much slower than the other commit this one may be. */
const bar = { atLeast: 0.97 }

/** This library beside another commit of it, whose sources are in `checkout`; no other contenders. */
export const runAgainst = Effect.fnUntraced(function* (
  measure: Measure,
  other: { readonly commit: string; readonly checkout: string },
  options: Options
) {
  const program = Contender.programIn(other.checkout)
  const labelOf = (name: string) => `${name}@${other.commit}`
  const samples = yield* rounds(
    measure,
    measure.own.flatMap((name) => [{ name }, { name, label: labelOf(name), program }]),
    { ...(options.quick ? measure.quick : measure.full), rounds: options.quick ? 3 : 9 },
    options
  )
  return measure.own.map((name) =>
    compare({
      measure: measure.own.length > 1 ? `${measure.title}, ${name}` : measure.title,
      unit: "msgs/s",
      against: other.commit,
      ours: valuesOf(samples[name] ?? [], "rate"),
      theirs: valuesOf(samples[labelOf(name)] ?? [], "rate"),
      bar
    })
  )
})

/** The samples of each contender, by its label. */
const rounds = Effect.fnUntraced(function* (
  measure: Measure,
  entrants: ReadonlyArray<Entrant>,
  plan: Plan,
  { profile }: Options
) {
  const server = yield* RedisServer.make()
  const redis = yield* client(server.port)
  yield* Console.error(`${measure.title}: ${plan.messages.toLocaleString("en-US")} messages`)
  const contenders = yield* Effect.forEach(entrants, (entrant) =>
    Contender.make({ measure: measure.name, ...entrant, port: server.port, profile })
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
  return samples
}, Effect.scoped)

/** Rotates the order, so that no contender always runs after the slowest. */
const inTurn = <A>(contenders: ReadonlyArray<A>, round: number): ReadonlyArray<A> => {
  const start = Math.abs(round) % contenders.length
  return [...contenders.slice(start), ...contenders.slice(0, start)]
}

const nameOf = (round: number, { rounds }: Plan): string => (round > 0 ? `round ${round} of ${rounds}` : "warm-up")
