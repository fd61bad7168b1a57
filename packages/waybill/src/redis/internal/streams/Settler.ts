/**
 * Ends deliveries. An ack is one plain command for a whole batch as long as the lease is sure; everything else asks the
 * server first whether the delivery is still ours, in the step that ends it.
 *
 * @module
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import type { Delivery } from "../../../Delivery.ts"
import * as Settlement from "../../../Settlement.ts"
import { Disconnected, type Reason, type Settled, TransportError } from "../../../Transport.ts"
import { problemOf } from "../Answer.ts"
import type { Committed, Committer, Committing } from "../Committer.ts"
import type { Connection } from "../Connection.ts"
import type { Holdings } from "../Holdings.ts"
import type { GroupKeys } from "../Keys.ts"
import { settle as settleScript } from "./DeliveryScripts.ts"
import { nobody, pattern } from "./GroupScripts.ts"
import { fieldsOf, type StreamDelivery } from "./StreamDelivery.ts"

export interface SettlerOptions {
  readonly commands: Connection
  readonly topic: string
  readonly group: string
  readonly consumer: string
  readonly stream: string
  readonly keys: GroupKeys
  readonly holdings: Holdings<StreamDelivery>
  readonly deadLetters: { readonly maxCount: number; readonly maxAgeMillis: number }
  /** A message will be due again in so many milliseconds. */
  readonly delayed: (millis: number) => void
  /** Something left the stream, and may be trimmed. */
  readonly settled: () => void
  readonly dropped: (count: number) => Effect.Effect<void>
  readonly committer: Committer<StreamDelivery>
}

interface Step {
  readonly index: number
  readonly delivery: StreamDelivery
  readonly settlement: Settlement.Settlement
  /** The entry is gone from the stream: its fields come from here. */
  withFields: boolean
  /** Its commit was refused; this is the settlement, and the answer. */
  readonly refused?: Settlement.DeadLetter
}

/** A delivery that ends with a commit, and its place among the answers. */
interface Bound {
  readonly index: number
  readonly entry: Committing<StreamDelivery>
}

/** How many deliveries one run of the script ends. */
const maxSteps = 100
/** A cause that waits for a retry, or lies in the dead letters, is cut to so many characters. */
const maxWaitingCause = 100
const maxDeadCause = 8000
/** Redis keeps due times as floating point numbers; this is far enough away. */
const longest = 2 ** 52
const firstPause = 50
const longestPause = 1000

export class Settler {
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
    settlements: NonEmptyReadonlyArray<readonly [delivery: Delivery, settlement: Settlement.Settlement]>
  ): Effect.Effect<ReadonlyArray<Settled>, TransportError> {
    return Effect.suspend(() => {
      const { holdings } = this.#options
      const since = holdings.sureSince()
      const answers: Array<Settled> = []
      const acks: Array<StreamDelivery> = []
      const places: Array<number> = []
      const steps: Array<Step> = []
      const bound: Array<Bound> = []
      for (let i = 0; i < settlements.length; i++) {
        const [given, settlement] = settlements[i] as (typeof settlements)[0] // i is within bounds
        const delivery = holdings.find(given)
        answers.push("Stale")
        if (delivery === undefined) continue
        delivery.settling = true
        if (settlement._tag === "Ack" && settlement.commit !== undefined) {
          bound.push({ index: i, entry: [delivery, settlement.commit] })
        } else if (settlement._tag === "Ack" && (delivery.detached || delivery.renewedAt > since)) {
          acks.push(delivery)
          places.push(i)
        } else {
          steps.push({ index: i, delivery, settlement, withFields: delivery.detached })
        }
      }
      const work =
        steps.length === 0 && acks.length === 0 && bound.length === 0
          ? Effect.void
          : Effect.gen({ self: this }, function* () {
              if (acks.length > 0) {
                const settled = yield* this.#ack(acks)
                acks.forEach((delivery, i) => {
                  const index = places[i] as number // as many as acks
                  if (settled === undefined)
                    steps.push({ index, delivery, settlement: Settlement.ack, withFields: false })
                  else if (settled || delivery.detached) answers[index] = "Settled"
                })
              }
              if (bound.length > 0) steps.push(...(yield* this.#commit(bound, answers)))
              for (let from = 0; from < steps.length; from += maxSteps) {
                yield* this.#run(steps.slice(from, from + maxSteps), answers)
              }
            })
      return Effect.onExit(Effect.as(work, answers), (exit) => {
        if (Exit.isSuccess(exit)) return Effect.void
        for (const delivery of acks) delivery.settling = false
        for (const { delivery } of steps) delivery.settling = false
        for (const { entry } of bound) entry[0].settling = false
        return Effect.void
      })
    })
  }

  /**
   * Acks in one command while all leases are sure; answers whether all were ours, or `undefined` when the leases are not
   * sure any more and nothing is known.
   */
  #ack(deliveries: ReadonlyArray<StreamDelivery>): Effect.Effect<boolean | undefined, TransportError> {
    const { commands, group, holdings, keys, settled, stream } = this.#options
    const fresh: Array<string> = []
    const again: Array<string> = []
    const uncounted: Array<string> = []
    let owned = 0
    for (const { count, detached, entry, source } of deliveries) {
      if (source === 0) fresh.push(entry)
      else again.push(entry)
      if (count > 1) uncounted.push(`${source}${entry}`)
      if (!detached) owned++
    }
    const acked =
      again.length === 0 && uncounted.length === 0
        ? commands.run("xack", (client) => client.xack(stream, group, ...fresh), { key: stream })
        : commands.run(
            "xack",
            (client) =>
              Promise.all([
                fresh.length === 0 ? 0 : client.xack(stream, group, ...fresh),
                again.length === 0 ? 0 : client.xack(keys.retry, group, ...again),
                uncounted.length === 0 ? 0 : client.hdel(keys.released, ...uncounted)
              ]).then(([main, retry]) => main + retry),
            { key: `${stream}, ${keys.retry} or ${keys.released}` }
          )
    const sure = () => {
      const since = holdings.sureSince()
      return deliveries.every(({ detached, renewedAt }) => detached || renewedAt > since)
    }
    return Effect.map(
      this.#persistently((repeated, ambiguous) =>
        repeated && !sure() ? noAnswer : Effect.map(acked, (count) => ({ count, ambiguous }))
      ),
      (result) => {
        if (result === undefined) return undefined
        for (const delivery of deliveries) holdings.forget(delivery)
        settled()
        // Fewer than we had: somebody took some over before the command arrived, and nothing tells which. After a lost
        // answer it is what our own success looks like.
        return result.count >= owned || (result.ambiguous && sure())
      }
    )
  }

  /** Applies commits; answers what is to become of those that are refused. */
  #commit(bound: ReadonlyArray<Bound>, answers: Array<Settled>): Effect.Effect<ReadonlyArray<Step>, TransportError> {
    const { committer, holdings, settled } = this.#options
    return Effect.gen({ self: this }, function* () {
      const refused: Array<Step> = []
      const refuse = ({ entry, index }: Bound, settlement: Settlement.DeadLetter) =>
        refused.push({ index, delivery: entry[0], settlement, withFields: entry[0].detached, refused: settlement })
      let open: Array<Bound> = []
      for (const one of bound) {
        const objection = committer.objection(one.entry[1])
        if (objection === undefined) open.push(one)
        else refuse(one, objection)
      }
      while (open.length > 0) {
        const entries = open.map(({ entry }) => entry)
        const some = committer.fit(entries)
        const sent = entries.slice(0, some)
        const result = yield* this.#persistently((_, ambiguous) =>
          Effect.map(committer.apply(sent), (told: ReadonlyArray<Committed>) => ({ told, ambiguous }))
        )
        for (let i = 0; i < some; i++) {
          const one = open[i] as Bound // some of them
          const told = result.told[i] as Committed // one for each
          if (typeof told === "object") {
            refuse(one, told)
            continue
          }
          const [delivery] = one.entry
          // After a lost answer, "not yours" is also what is left of an older delivery that was done.
          const done = told === "Done" || (result.ambiguous && delivery.renewedAt > holdings.sureSince())
          answers[one.index] = done ? "Settled" : "Stale"
          holdings.forget(delivery)
        }
        open = open.slice(some)
        settled()
      }
      return refused
    })
  }

  /** Runs the script until every step has an answer. */
  #run(steps: ReadonlyArray<Step>, answers: Array<Settled>): Effect.Effect<void, TransportError> {
    const { commands, dropped, holdings, keys, settled, stream, topic } = this.#options
    const scriptKeys = [stream, keys.retry, keys.waiting, keys.waitingBodies, keys.dead, keys.released, keys.state]
    return Effect.gen({ self: this }, function* () {
      let open = steps
      while (open.length > 0) {
        const result = yield* this.#persistently((_, ambiguous) =>
          Effect.flatMap(commands.eval(settleScript, scriptKeys, this.#args(open)), (reply) => {
            // The reply table of the script.
            const answer = reply as [string, string, number]
            const problem = problemOf(settleScript.name, { topic, pattern }, answer)
            return problem === undefined
              ? Effect.succeed({ told: answer[1], dropped: answer[2], ambiguous })
              : Effect.fail(problem)
          })
        )
        const gone: Array<Step> = []
        for (let i = 0; i < open.length; i++) {
          const step = open[i] as Step // i is within bounds
          const told = result.told[i]
          if (told === "G") {
            step.withFields = true
            gone.push(step)
            continue
          }
          // After a lost answer, "not yours" is also what our own success looks like.
          const done = told === "O" || (result.ambiguous && step.delivery.renewedAt > holdings.sureSince())
          answers[step.index] = done ? (step.refused ?? "Settled") : "Stale"
          holdings.forget(step.delivery)
          if (step.settlement._tag === "Retry") this.#options.delayed(delayOf(step.settlement))
        }
        if (result.dropped > 0) yield* dropped(result.dropped)
        open = gone
      }
      settled()
    })
  }

  #args(steps: ReadonlyArray<Step>): Array<string | Uint8Array | number> {
    const { consumer, deadLetters, group } = this.#options
    const args: Array<string | Uint8Array | number> = [
      group,
      consumer,
      nobody,
      deadLetters.maxCount,
      deadLetters.maxAgeMillis
    ]
    for (const { delivery, settlement, withFields } of steps) {
      const { attempt, count, detached, entry, fence, id, publishedAt, source } = delivery
      const fields = withFields ? fieldsOf(delivery) : []
      const message = (attempts: number) => [id, publishedAt, attempts, fence, fields.length, ...fields]
      const owned = detached ? 0 : count
      switch (settlement._tag) {
        case "Ack":
          args.push("A", source, entry, owned)
          break
        case "Retry": {
          const cause = settlement.cause.slice(0, maxWaitingCause)
          args.push("R", source, entry, owned, delayOf(settlement), cause, ...message(attempt))
          break
        }
        case "DeadLetter": {
          const cause = settlement.cause.slice(0, maxDeadCause)
          args.push("D", source, entry, owned, settlement.reason, cause, ...message(attempt))
          break
        }
        case "Release":
          // With the group its list of pending entries is gone: the message can only come back as a retry.
          if (detached) args.push("R", source, entry, owned, 0, "released", ...message(attempt - 1))
          else args.push("L", source, entry, owned)
          break
      }
    }
    return args
  }

  /**
   * Repeats what may be repeated until it works: each step is safe to run again, and only the server can tell whether
   * the delivery is still ours. `repeated`: there was an earlier run, `ambiguous`: which may have succeeded.
   */
  #persistently<A>(
    run: (repeated: boolean, ambiguous: boolean) => Effect.Effect<A, Reason>
  ): Effect.Effect<A, TransportError> {
    const fail = (reason: Reason) =>
      Effect.fail(new TransportError({ operation: "settle", topic: this.#options.topic, reason }))
    const again = (reason: Reason, ambiguous: boolean, pause: number): Effect.Effect<A, TransportError> => {
      if (reason.permanent) return fail(reason)
      const lost = ambiguous || (reason._tag === "Disconnected" && reason.ambiguous)
      if (this.#closed) return fail(lost ? new Disconnected({ ambiguous: true, cause: reason }) : reason)
      return Effect.flatMap(
        Effect.result(
          Effect.delay(
            Effect.suspend(() => run(true, lost)),
            pause
          )
        ),
        (result) =>
          Result.isSuccess(result)
            ? Effect.succeed(result.success)
            : again(result.failure, lost, Math.min(pause * 2, longestPause))
      )
    }
    return Effect.catch(run(false, false), (reason) => again(reason, false, firstPause))
  }
}

const noAnswer = Effect.succeed(undefined)

const delayOf = (retry: Settlement.Retry): number => Math.min(longest, Math.ceil(Duration.toMillis(retry.delay)))
