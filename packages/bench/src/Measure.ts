/**
 * A measure consists of rounds and a judgement. A round runs one contender in a process of its own, on an empty store; the
 * judgement compares the samples of all rounds of all contenders, and is pure.
 */
import { Effect, type Scope } from "effect"
import type { Result } from "./Report.ts"

/** The result of one round: named numbers. */
export type Sample = Readonly<Record<string, number>>

/** The rounds of each contender, in the order they ran: the n-th round of one ran beside the n-th of another. */
export type Samples<Name extends string = string, A extends Sample = Sample> = Readonly<Record<Name, ReadonlyArray<A>>>

/** The work in one round. */
export interface Size {
  readonly messages: number
}

/** The work in all: `rounds` that count, after `warmups` that do not. */
export interface Plan<Name extends string = string> extends Size {
  readonly warmups: number
  readonly rounds: number
  /**
   * A smaller number for contenders so slow that a round of `messages` would take too long: rates are compared, not
   * times.
   */
  readonly fewer?: Partial<Readonly<Record<Name, number>>>
}

export interface Measure {
  /** The word for `--only`. */
  readonly name: string
  readonly title: string
  readonly full: Plan
  readonly quick: Plan
  readonly contenders: ReadonlyArray<string>
  /** The contenders that are this library and report a `rate`: another commit can be compared on them. */
  readonly own: ReadonlyArray<string>
  /** One round of one contender, in the contender's process. */
  readonly round: (contender: string, port: number, size: Size) => Effect.Effect<Sample, unknown>
  /** A short description of a sample. */
  readonly describe: (sample: Sample) => string
  readonly judge: (samples: Samples) => ReadonlyArray<Result>
}

/** How a contender's round begins: with an empty store and its connections made. */
export type Make<P> = (port: number) => Effect.Effect<P, unknown, Scope.Scope>

export const make = <Name extends string, P, A extends Sample>(options: {
  readonly name: string
  readonly title: string
  readonly full: Plan<NoInfer<Name>>
  readonly quick: Plan<NoInfer<Name>>
  /** Each is loaded only in the process that needs it. */
  readonly contenders: Readonly<Record<Name, () => Promise<Make<P>>>>
  readonly own?: ReadonlyArray<NoInfer<Name>>
  readonly round: (peer: P, size: Size) => Effect.Effect<A, unknown, Scope.Scope>
  readonly describe: (sample: NoInfer<A>) => string
  readonly judge: (samples: Samples<NoInfer<Name>, NoInfer<A>>) => ReadonlyArray<Result>
}): Measure => {
  const { contenders, describe, full, judge, name, own = [], quick, round, title } = options
  return {
    name,
    title,
    full,
    quick,
    contenders: Object.keys(contenders),
    own,
    round: (contender, port, size) =>
      Effect.gen(function* () {
        // The name is one of `contenders` above.
        const makePeer = yield* Effect.promise(contenders[contender as Name])
        return yield* round(yield* makePeer(port), size)
      }).pipe(Effect.scoped),
    // Samples come from `round` above, through another process.
    describe: (sample) => describe(sample as A),
    judge: (samples) => judge(samples as Samples<Name, A>)
  }
}

/** One field of all rounds. */
export const valuesOf = <A extends Sample>(samples: ReadonlyArray<A>, field: keyof A & string): ReadonlyArray<number> =>
  // The field is one of the sample's.
  samples.map((sample) => sample[field]!)
