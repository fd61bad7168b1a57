/**
 * Ends deliveries. Each is ended by a script that asks first whether it is still its consumer's, a whole batch in one
 * call.
 *
 * @module
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import type { Delivery } from "../../../Delivery.ts"
import type { DeadLetterCap } from "../../../internal/Limits.ts"
import type { DeadLetter, Retry, Settlement } from "../../../Settlement.ts"
import { Disconnected, type Reason, type Settled, TransportError } from "../../../Transport.ts"
import { evaluate } from "../Answer.ts"
import type { Committed, Committer, Committing } from "../Committer.ts"
import type { Connection } from "../Connection.ts"
import type { Holdings } from "../Holdings.ts"
import type { Script } from "../Script.ts"
import type { CustodyDelivery } from "./CustodyDelivery.ts"
import { write } from "./Record.ts"

export interface SettlerOptions {
  readonly commands: Connection
  readonly topic: string
  readonly pattern: string
  readonly consumer: string
  readonly script: Script
  readonly keys: ReadonlyArray<string>
  readonly holdings: Holdings<CustodyDelivery>
  readonly deadLetters: DeadLetterCap
  /** Something ended; a message will be there to take in so many milliseconds, if any. */
  readonly settled: (millis: number) => void
  readonly dropped: (count: number) => Effect.Effect<void>
  /** Of a pattern that applies commits. */
  readonly committer: Committer<CustodyDelivery> | undefined
}

interface Step {
  readonly index: number
  readonly delivery: CustodyDelivery
  readonly settlement: Settlement
  /** The store has it no more: what is written into the dead letter comes from here. */
  withRecord: boolean
  /** Its commit was refused; this is the settlement, and the answer. */
  readonly refused?: DeadLetter
}

/** A delivery that ends with a commit, and its place among the answers. */
interface Bound {
  readonly index: number
  readonly entry: Committing<CustodyDelivery>
}

/** How many deliveries one run of the script ends: plain acks, and others. */
const maxAcks = 1000
const maxSteps = 100
/** A cause that waits for a retry, or lies in the dead letters, is cut to so many characters. */
const maxWaitingCause = 100
const maxDeadCause = 8000
/** Redis keeps due times as floating point numbers; this is far enough away. */
const longest = 2 ** 52
const firstPause = 50
const longestPause = 1000

export class CustodySettler {
  readonly #options: SettlerOptions
  #closed = false

  constructor(options: SettlerOptions) {
    this.#options = options
  }

  /** From now on nothing is tried again. */
  close(): void {
    this.#closed = true
  }

  settle(
    settlements: NonEmptyReadonlyArray<readonly [delivery: Delivery, settlement: Settlement]>
  ): Effect.Effect<ReadonlyArray<Settled>, TransportError> {
    return Effect.suspend(() => {
      const { holdings } = this.#options
      const answers: Array<Settled> = []
      const acks: Array<CustodyDelivery> = []
      const places: Array<number> = []
      const steps: Array<Step> = []
      const bound: Array<Bound> = []
      const { committer } = this.#options
      for (let i = 0; i < settlements.length; i++) {
        const [given, settlement] = settlements[i] as (typeof settlements)[0] // i is within bounds
        const delivery = holdings.find(given)
        answers.push("Stale")
        if (delivery === undefined) continue
        delivery.settling = true
        if (committer !== undefined && settlement._tag === "Ack" && settlement.commit !== undefined) {
          bound.push({ index: i, entry: [delivery, settlement.commit] })
        } else if (settlement._tag === "Ack" && delivery.fence === 1) {
          acks.push(delivery)
          places.push(i)
        } else {
          steps.push({ index: i, delivery, settlement, withRecord: false })
        }
      }
      if (acks.length + steps.length + bound.length === 0) return Effect.succeed(answers)
      const work =
        committer === undefined || bound.length === 0
          ? this.#end(acks, places, steps, answers)
          : Effect.flatMap(this.#commit(committer, bound, answers), (refused) =>
              this.#end(acks, places, [...steps, ...refused], answers)
            )
      return Effect.onExit(Effect.as(work, answers), (exit) => {
        if (Exit.isSuccess(exit)) return Effect.void
        for (const delivery of acks) delivery.settling = false
        for (const { delivery } of steps) delivery.settling = false
        for (const { entry } of bound) entry[0].settling = false
        return Effect.void
      })
    })
  }

  /** Runs the script until everything has an answer. */
  #end(
    acks: ReadonlyArray<CustodyDelivery>,
    places: ReadonlyArray<number>,
    steps: ReadonlyArray<Step>,
    answers: Array<Settled>
  ): Effect.Effect<void, TransportError> {
    const { dropped, holdings, settled } = this.#options
    return Effect.gen({ self: this }, function* () {
      let from = 0
      let open = steps
      while (from < acks.length || open.length > 0) {
        const plain = from === 0 && acks.length <= maxAcks ? acks : acks.slice(from, from + maxAcks)
        const some = open.length <= maxSteps ? open : open.slice(0, maxSteps)
        const args = this.#args(plain, some)
        const { ambiguous, reply } = yield* this.#persistently(this.#run(args))
        const [, told, lost] = reply
        const since = holdings.sureSince()
        const answer = (
          delivery: CustodyDelivery,
          index: number,
          letter: string | undefined,
          done: Settled = "Settled"
        ) => {
          // After a lost answer, "not yours" is also what our own success looks like.
          if (letter === "O" || (ambiguous && delivery.renewedAt > since)) answers[index] = done
          holdings.forget(delivery)
        }
        plain.forEach((delivery, i) => answer(delivery, places[from + i] as number, told[i])) // as many as acks
        const gone: Array<Step> = []
        let soonest = Infinity
        some.forEach((step, i) => {
          const letter = told[plain.length + i]
          if (letter === "G") {
            step.withRecord = true
            gone.push(step)
            return
          }
          answer(step.delivery, step.index, letter, step.refused)
          if (step.settlement._tag === "Retry") soonest = Math.min(soonest, delayOf(step.settlement))
          if (step.settlement._tag === "Release") soonest = 0
        })
        settled(soonest)
        if (lost > 0) yield* dropped(lost)
        from += plain.length
        open = [...gone, ...open.slice(some.length)]
      }
    })
  }

  #args(acks: ReadonlyArray<CustodyDelivery>, steps: ReadonlyArray<Step>): Array<string | Uint8Array | number> {
    const { consumer, deadLetters } = this.#options
    const args: Array<string | Uint8Array | number> = [
      consumer,
      deadLetters.maxCount,
      deadLetters.maxAgeMillis,
      acks.length
    ]
    for (const { receipt } of acks) args.push(receipt)
    for (const { delivery, settlement, withRecord } of steps) {
      const { id, publishedAt, receipt } = delivery
      switch (settlement._tag) {
        case "Ack":
          args.push("A", receipt)
          break
        case "Retry":
          args.push("R", receipt, delayOf(settlement), settlement.cause.slice(0, maxWaitingCause))
          break
        case "DeadLetter": {
          const cause = settlement.cause.slice(0, maxDeadCause)
          args.push("D", receipt, settlement.reason, cause, id, publishedAt, withRecord ? write(delivery) : "")
          break
        }
        case "Release":
          args.push("L", receipt)
          break
      }
    }
    return args
  }

  #run(args: ReadonlyArray<string | Uint8Array | number>): Effect.Effect<[string, string, number], Reason> {
    const { commands, keys, pattern, script, topic } = this.#options
    return evaluate<[string, string, number]>(commands, { topic, pattern }, script, keys, args)
  }

  /** Applies commits; answers what is to become of those that are refused. */
  #commit(
    committer: Committer<CustodyDelivery>,
    bound: ReadonlyArray<Bound>,
    answers: Array<Settled>
  ): Effect.Effect<ReadonlyArray<Step>, TransportError> {
    const { holdings, settled } = this.#options
    return Effect.gen({ self: this }, function* () {
      const refused: Array<Step> = []
      const refuse = ({ entry, index }: Bound, settlement: DeadLetter) =>
        refused.push({ index, delivery: entry[0], settlement, withRecord: false, refused: settlement })
      let open: Array<Bound> = []
      for (const one of bound) {
        const objection = committer.objection(one.entry[1])
        if (objection === undefined) open.push(one)
        else refuse(one, objection)
      }
      while (open.length > 0) {
        const entries = open.map(({ entry }) => entry)
        const some = committer.fit(entries)
        const { ambiguous, reply } = yield* this.#persistently(committer.apply(entries.slice(0, some)))
        const since = holdings.sureSince()
        for (let i = 0; i < some; i++) {
          const one = open[i] as Bound // some of them
          const told = reply[i] as Committed // one for each
          if (typeof told === "object") {
            refuse(one, told)
            continue
          }
          const [delivery] = one.entry
          // After a lost answer, "not yours" is also what is left of an older delivery that was done.
          if (told === "Done" || (ambiguous && delivery.renewedAt > since)) answers[one.index] = "Settled"
          holdings.forget(delivery)
        }
        open = open.slice(some)
        settled(Infinity)
      }
      return refused
    })
  }

  /**
   * Repeats what may be repeated until it works: only the server can tell whether a delivery is still ours. `ambiguous`:
   * an earlier run may have succeeded.
   */
  #persistently<A>(
    run: Effect.Effect<A, Reason>
  ): Effect.Effect<{ readonly reply: A; readonly ambiguous: boolean }, TransportError> {
    const fail = (reason: Reason) =>
      Effect.fail(new TransportError({ operation: "settle", topic: this.#options.topic, reason }))
    const again = (
      reason: Reason,
      ambiguous: boolean,
      pause: number
    ): Effect.Effect<{ readonly reply: A; readonly ambiguous: boolean }, TransportError> => {
      if (reason.permanent) return fail(reason)
      const unsure = ambiguous || (reason._tag === "Disconnected" && reason.ambiguous)
      if (this.#closed) return fail(unsure ? new Disconnected({ ambiguous: true, cause: reason }) : reason)
      return Effect.flatMap(Effect.result(Effect.delay(run, pause)), (result) =>
        Result.isSuccess(result)
          ? Effect.succeed({ reply: result.success, ambiguous: unsure })
          : again(result.failure, unsure, Math.min(pause * 2, longestPause))
      )
    }
    return Effect.matchEffect(run, {
      onFailure: (reason) => again(reason, false, firstPause),
      onSuccess: (reply) => Effect.succeed({ reply, ambiguous: false })
    })
  }
}

const delayOf = (retry: Retry): number => Math.min(longest, Math.ceil(Duration.toMillis(retry.delay)))
