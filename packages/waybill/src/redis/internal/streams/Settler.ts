/**
 * Ends deliveries. An ack is one plain command for a whole batch as long as the lease is sure; everything else asks the
 * server first whether the delivery is still ours, in the step that ends it.
 *
 * @module
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Effect from "effect/Effect"
import type { Delivery } from "../../../Delivery.ts"
import * as Settlement from "../../../Settlement.ts"
import type { Reason, Settled, TransportError } from "../../../Transport.ts"
import type { Committer } from "../commit/Committer.ts"
import type { Connection } from "../connection/Connection.ts"
import type { Argument } from "../connection/Script.ts"
import { evaluate, type More } from "../connection/ScriptReply.ts"
import type { InFlight } from "../group/InFlight.ts"
import { RetryAmbiguous } from "../group/RetryAmbiguous.ts"
import {
  delayOf,
  fit,
  isPartial,
  maxDeadCause,
  maxWaitingCause,
  SettlementBatch,
  type Step,
  tallyAfter
} from "../group/SettlementBatch.ts"
import { failureText } from "../inspect/DeadLetterEntry.ts"
import type { GroupKeys, TopicKeys } from "../wire/Keys.ts"
import { write } from "../wire/Tally.ts"
import { settle as settleScript } from "./DeliveryScripts.ts"
import { nobody, pattern } from "./GroupScripts.ts"
import { fieldsOf, type StreamDelivery } from "./StreamDelivery.ts"

export interface SettlerOptions {
  readonly commands: Connection
  readonly topic: string
  readonly group: string
  readonly consumer: string
  readonly keys: TopicKeys & GroupKeys
  readonly inFlight: InFlight<StreamDelivery>
  readonly deadLetters: { readonly maxCount: number; readonly maxAgeMillis: number }
  /** A message will be due again in so many milliseconds. */
  readonly delayed: (millis: number) => void
  /** Something left the stream, and may be trimmed. */
  readonly settled: () => void
  readonly dropped: (count: number) => Effect.Effect<void>
  /** Something goes back, or has gone back, for others to take over. */
  readonly released: () => void
  readonly committer: Committer<StreamDelivery>
}

/** So many of what was settled last are remembered. */
const lastLimit = 2000
/** How many deliveries one call hands back. */
const handBackLimit = 500

export class Settler {
  readonly #options: SettlerOptions
  readonly #retryAmbiguous: RetryAmbiguous
  #last: Array<string> = []

  constructor(options: SettlerOptions) {
    this.#options = options
    this.#retryAmbiguous = new RetryAmbiguous(options.topic)
  }

  /** From now on nothing is tried again. */
  close(): void {
    this.#retryAmbiguous.close()
  }

  /** Receipts of what was acknowledged last: a group that was lost may not know it any more. */
  get last(): ReadonlyArray<string> {
    return this.#last.slice(-lastLimit)
  }

  settle(
    settlements: NonEmptyReadonlyArray<readonly [delivery: Delivery, settlement: Settlement.Settlement]>
  ): Effect.Effect<ReadonlyArray<Settled>, TransportError> {
    return Effect.suspend(() => {
      const { inFlight } = this.#options
      const since = inFlight.sureSince()
      const batch = new SettlementBatch<StreamDelivery>(settlements, {
        inFlight,
        commits: true,
        isPlain: ({ detached, renewedAt }) => detached || renewedAt > since,
        isGone: ({ detached }) => detached
      })
      return Effect.map(batch.through(this.#end(batch)), (answers) => {
        for (const { entry, index } of batch.bound) if (answers[index] === "Settled") this.#last.push(entry[0].receipt)
        for (const { delivery, index, settlement } of batch.steps) {
          if (settlement._tag === "Ack" && answers[index] === "Settled") this.#last.push(delivery.receipt)
        }
        if (this.#last.length > 2 * lastLimit) this.#last = this.#last.slice(-lastLimit)
        return answers
      })
    })
  }

  /** Hands back what handlers have had: it counts. */
  handBackBegun(deliveries: ReadonlyArray<StreamDelivery>): Effect.Effect<void, Reason> {
    return Effect.gen({ self: this }, function* () {
      for (let from = 0; from < deliveries.length; from += handBackLimit) {
        const some = deliveries.slice(from, from + handBackLimit)
        yield* this.#evaluate({ args: some.flatMap(({ count, entry, source }) => ["U", source, entry, count]) })
      }
    })
  }

  #evaluate(more: More) {
    const { commands, committer, consumer, deadLetters, group, keys, topic } = this.#options
    return evaluate(
      commands,
      { topic, pattern },
      settleScript,
      keys,
      {
        group,
        consumer,
        nobody,
        maxDead: deadLetters.maxCount,
        maxAge: deadLetters.maxAgeMillis,
        ttl: committer.markerMillis
      },
      more
    )
  }

  #end(batch: SettlementBatch<StreamDelivery>): Effect.Effect<void, TransportError> {
    const { acks, answers, bound, places, steps } = batch
    return Effect.gen({ self: this }, function* () {
      if (acks.length > 0) {
        const settled = yield* this.#ack(acks)
        acks.forEach((delivery, i) => {
          const index = places[i] as number // as many as acks
          if (settled === undefined) steps.push({ index, delivery, settlement: Settlement.ack, gone: false })
          else if (settled || delivery.detached) answers[index] = "Settled"
        })
      }
      if (bound.length > 0) {
        yield* batch.commit(this.#options.committer, this.#retryAmbiguous, this.#options.settled)
      }
      for (let rest: ReadonlyArray<Step<StreamDelivery>> = steps; rest.length > 0;) {
        const some = fit(rest)
        yield* this.#run(rest.slice(0, some), answers)
        rest = rest.slice(some)
      }
    })
  }

  /**
   * Acks in one command while all leases are sure; answers whether all were ours, or `undefined` when the leases are not
   * sure any more and nothing is known.
   */
  #ack(deliveries: ReadonlyArray<StreamDelivery>): Effect.Effect<boolean | undefined, TransportError> {
    const { commands, group, inFlight, keys, settled } = this.#options
    const { stream } = keys
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
      const since = inFlight.sureSince()
      return deliveries.every(({ detached, renewedAt }) => detached || renewedAt > since)
    }
    return Effect.map(
      this.#retryAmbiguous.try((repeated) => (repeated && !sure() ? noAnswer : acked)),
      ({ ambiguous, reply: count }) => {
        if (count === undefined) return undefined
        for (const delivery of deliveries) {
          inFlight.forget(delivery)
          // Without its group the server counts none of them: they are done all the same.
          this.#last.push(delivery.receipt)
        }
        settled()
        // Fewer than we had: somebody took some over before the command arrived, and nothing tells which. After a lost
        // answer it is what our own success looks like.
        return count >= owned || (ambiguous && sure())
      }
    )
  }

  /** Runs the script until every step has an answer. */
  #run(steps: ReadonlyArray<Step<StreamDelivery>>, answers: Array<Settled>): Effect.Effect<void, TransportError> {
    const { dropped, inFlight, settled } = this.#options
    return Effect.gen({ self: this }, function* () {
      const releases = steps.some(({ settlement }) => settlement._tag === "Release")
      if (releases) this.#options.released()
      let open = steps
      while (open.length > 0) {
        const more = this.#encode(open)
        const { ambiguous, reply } = yield* this.#retryAmbiguous.try(() => this.#evaluate(more))
        const gone: Array<Step<StreamDelivery>> = []
        for (let i = 0; i < open.length; i++) {
          const step = open[i] as Step<StreamDelivery> // i is within bounds
          const letter = reply.answers[i]
          if (letter === "G") {
            step.gone = true
            gone.push(step)
            continue
          }
          // After a lost answer, "not yours" is also what our own success looks like.
          const done = letter === "O" || (ambiguous && step.delivery.renewedAt > inFlight.sureSince())
          answers[step.index] = done ? (step.refused ?? "Settled") : "Stale"
          inFlight.forget(step.delivery)
          if (step.settlement._tag === "Retry") this.#options.delayed(delayOf(step.settlement))
        }
        if (reply.dropped > 0) yield* dropped(reply.dropped)
        open = gone
      }
      if (releases) this.#options.released()
      settled()
    })
  }

  #encode(steps: ReadonlyArray<Step<StreamDelivery>>): More {
    const { committer } = this.#options
    const keys: Array<string> = []
    const args: Array<Argument> = []
    for (const step of steps) {
      const { delivery, gone, settlement } = step
      const { attempt, count, detached, entry, fence, id, publishedAt, source } = delivery
      const fields = gone ? fieldsOf(delivery) : []
      const message = (attempts: number, marker = 0) => [
        id,
        publishedAt,
        attempts,
        fence,
        write(tallyAfter(step)),
        settlement._tag === "DeadLetter" ? failureText(settlement.failure) : "",
        marker,
        fields.length,
        ...fields
      ]
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
          const marker = isPartial(step) ? keys.push(committer.done(id)) : 0
          args.push("D", source, entry, owned, settlement.reason, cause, ...message(attempt, marker))
          break
        }
        case "Release":
          // With the group its list of pending entries is gone: the message can only come back as a retry.
          if (detached) args.push("R", source, entry, owned, 0, "released", ...message(attempt - 1))
          else args.push("L", source, entry, owned)
          break
      }
    }
    return { keys, args }
  }
}

const noAnswer = Effect.succeed(undefined)
