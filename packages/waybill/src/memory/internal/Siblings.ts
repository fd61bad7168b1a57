/**
 * The other in-memory stores of the same program. Each build of a layer is a store of its own, so a program that uses
 * two of them for one topic by mistake would lose messages without an error. The log warns about it.
 *
 * A program is identified by its clock, so that each test under a `TestClock` is one of its own.
 *
 * @module
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

interface Program {
  readonly living: Set<Siblings>
  /** How many unsettled messages were lost with stores that were closed, by pattern and topic. */
  readonly lost: Map<string, number>
}

const programs = new WeakMap<Clock.Clock, Program>()

/** For how many topics losses are remembered. */
const lostLimit = 1000

const programOf = (clock: Clock.Clock): Program => {
  let program = programs.get(clock)
  if (program === undefined) programs.set(clock, (program = { living: new Set(), lost: new Map() }))
  return program
}

export interface SiblingsOptions {
  readonly pattern: string
  /** The name under which the program has the store: the same topic name under another is another topic. */
  readonly as: string | undefined
  /** Whether messages published to one topic are received by the other, if that takes more than equal names. */
  readonly fits?: (topic: string, other: string) => boolean
  /** The topics with unsettled messages, and how many, when the store is closed. */
  readonly unsettled: (now: number) => Iterable<readonly [topic: string, count: number]>
}

export class Siblings {
  readonly #options: SiblingsOptions
  readonly #program: Program
  readonly #topics = new Set<string>()

  constructor(options: SiblingsOptions, program: Program) {
    this.#options = options
    this.#program = program
  }

  /** The topic is used in this store. Warns once per topic if it is, or was, used in another one. */
  using<A, E, R>(topic: string, self: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return this.#topics.has(topic) ? self : Effect.andThen(this.#tell(topic), self)
  }

  /** The store is no longer used. */
  close(now: number): void {
    const { living, lost } = this.#program
    living.delete(this)
    for (const [topic, count] of this.#options.unsettled(now)) {
      const name = this.#nameOf(topic)
      lost.set(name, count + (lost.get(name) ?? 0))
      if (lost.size <= lostLimit) continue
      for (const first of lost.keys()) {
        lost.delete(first)
        break
      }
    }
  }

  #tell(topic: string): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.#topics.has(topic)) return Effect.void
      const { pattern } = this.#options
      const { living, lost } = this.#program
      this.#topics.add(topic)
      const name = this.#nameOf(topic)
      const count = lost.get(name)
      lost.delete(name)
      const shared = [...living].some((other) => other !== this && other.#hears(this.#options, topic))
      return Effect.andThen(
        shared
          ? Effect.logWarning(
              "a topic is used in two in-memory stores of this program, and messages published in one are not seen in the other: make one layer value, and provide it once, around everything that uses it",
              { topic, pattern }
            )
          : Effect.void,
        count === undefined
          ? Effect.void
          : Effect.logWarning(
              "unsettled messages were lost with an in-memory store that this program closed before it built another: make one layer value, and provide it once, around everything that uses it",
              { topic, pattern, lost: count }
            )
      )
    })
  }

  #nameOf(topic: string): string {
    const { as = "", pattern } = this.#options
    return `${pattern} ${as} ${topic}`
  }

  #hears({ as, pattern }: SiblingsOptions, topic: string): boolean {
    const { fits } = this.#options
    if (pattern !== this.#options.pattern || as !== this.#options.as) return false
    return this.#topics.has(topic) || (fits !== undefined && [...this.#topics].some((other) => fits(topic, other)))
  }
}

/** Counts the store as one of the program's until the scope closes. */
export const make = (options: SiblingsOptions): Effect.Effect<Siblings, never, Scope.Scope> =>
  Effect.flatMap(Clock.Clock, (clock) => {
    const program = programOf(clock)
    return Effect.acquireRelease(
      Effect.sync(() => {
        const siblings = new Siblings(options, program)
        program.living.add(siblings)
        return siblings
      }),
      (siblings) => Effect.sync(() => siblings.close(clock.currentTimeMillisUnsafe()))
    )
  })
