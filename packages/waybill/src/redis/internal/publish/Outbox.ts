/**
 * Callers waiting for their messages to be sent: those that arrive while a batch is under way travel together in the next one.
 * When no batch has succeeded for too long, messages that waited all that time fail, and none of them was sent. A batch is
 * retried until its time is over, if repeating it is harmless.
 *
 * @module
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Result from "effect/Result"
import { unitsOf } from "../../../internal/Budget.ts"
import { Wakeup } from "../../../internal/Wakeup.ts"
import type { Outgoing, Receipt } from "../../../Message.ts"
import { Disconnected, type Reason, TransportError } from "../../../Transport.ts"

/** What one batch may carry; a single `publish` is never split. */
const maxMessages = 1000
const maxUnits = 4 * 1024 * 1024

/** A waiting caller. */
export interface Call {
  readonly messages: NonEmptyReadonlyArray<Outgoing>
  readonly resume: (effect: Effect.Effect<ReadonlyArray<Receipt>, TransportError>) => void
  readonly queuedAt: number
  abandoned: boolean
}

export interface OutboxOptions {
  readonly topic: string
  readonly clock: Clock.Clock
  readonly timeoutMillis: number
  /** Runs after a batch that opened the topic in the store. */
  readonly opened: Effect.Effect<void>
  /** Why these messages may not be sent, if they may not. */
  readonly refusal?: (messages: ReadonlyArray<Outgoing>) => Reason | undefined
  /** Sends a batch: may be run again for the same one, each time for that many milliseconds. */
  readonly sending: (calls: ReadonlyArray<Call>) => (millis: number) => Effect.Effect<Sent, Reason>
  /** Whether to send it again. `ambiguous`: a reply was lost. */
  readonly repeats: (reason: Reason, ambiguous: boolean) => boolean
}

export interface Sent {
  /** One a message. */
  readonly receipts: ReadonlyArray<Receipt>
  /** The topic was not there before. */
  readonly isNew: boolean
  /** It is stored, but not as safely as its callers wanted. */
  readonly unconfirmed?: Reason | undefined
}

/** Time enough for one attempt, even for a batch that had to wait for a long time. */
const leastAttemptMillis = 500
const pauseMillis = 50

/** Sends a topic's messages; fork `run` into the scope of the layer. */
export class Outbox {
  readonly #options: OutboxOptions
  #queue: Array<Call> = []
  #next = 0
  readonly #some = new Wakeup(() => this.#queue.length > this.#next)
  #closed = false
  #sending = false
  #open = false
  /** When a batch last succeeded. */
  #throughAt = -Infinity

  constructor(options: OutboxOptions) {
    this.#options = options
  }

  /** A monotonic clock in milliseconds. */
  #now(): number {
    return Number(this.#options.clock.monotonicTimeNanosUnsafe() / 1_000_000n)
  }

  publish(messages: NonEmptyReadonlyArray<Outgoing>): Effect.Effect<ReadonlyArray<Receipt>, TransportError> {
    const refused = this.#options.refusal?.(messages)
    if (refused !== undefined) return this.#failure(refused)
    return Effect.callback((resume) => {
      if (this.#closed) return resume(this.#failure(closed))
      const call: Call = { messages, resume, queuedAt: this.#now(), abandoned: false }
      this.#queue.push(call)
      this.#some.notify()
      return Effect.sync(() => {
        call.abandoned = true
      })
    })
  }

  /** Sends what is queued, batch after batch; to be forked into the scope of the layer. */
  readonly run: Effect.Effect<never> = Effect.gen({ self: this }, function* () {
    let sent = false
    while (true) {
      // Callers resumed by the last batch may join the next one. After a pause there is nothing to wait for.
      if (sent) yield* Effect.yieldNow
      if (this.#next === this.#queue.length) yield* this.#some.wait
      sent = true
      const calls = this.#take()
      if (calls.length === 0) continue
      this.#sending = true
      yield* Effect.exit(Effect.onExit(this.#send(calls), (exit) => Effect.sync(() => this.#answer(calls, exit))))
    }
  })

  readonly close: Effect.Effect<void> = Effect.sync(() => {
    this.#closed = true
    for (const call of this.#queue.splice(this.#next)) call.resume(this.#failure(closed))
  })

  /** A caller waits for its receipts. */
  get busy(): boolean {
    return this.#sending || this.#queue.length > this.#next
  }

  #answer(calls: ReadonlyArray<Call>, exit: Exit.Exit<ReadonlyArray<Receipt>, TransportError>): void {
    this.#sending = false
    if (Exit.isFailure(exit)) {
      // When the layer closes, the batch under way is interrupted.
      const told = Exit.hasInterrupts(exit) ? this.#failure(closedMidway) : exit
      for (const call of calls) call.resume(told)
      return
    }
    this.#throughAt = this.#now()
    let from = 0
    for (const call of calls) {
      const to = from + call.messages.length
      call.resume(Exit.succeed(calls.length === 1 ? exit.value : exit.value.slice(from, to)))
      from = to
    }
  }

  #send(calls: ReadonlyArray<Call>): Effect.Effect<ReadonlyArray<Receipt>, TransportError> {
    return Effect.gen({ self: this }, function* () {
      const { opened, repeats, sending } = this.#options
      const send = sending(calls)
      const first = calls[0] as Call // there is one, as the caller checked
      const deadline = Math.max(this.#expiry(first), this.#now() + leastAttemptMillis)
      let ambiguous = false
      while (true) {
        const result = yield* Effect.result(send(deadline - this.#now()))
        if (Result.isSuccess(result)) {
          const { isNew, receipts, unconfirmed } = result.success
          if (!this.#open || isNew) {
            this.#open = true
            yield* opened
          }
          if (unconfirmed !== undefined) return yield* this.#failure(unconfirmed)
          return receipts
        }
        const reason = result.failure
        const isLost = reason._tag === "Disconnected" && reason.ambiguous
        ambiguous ||= isLost
        if (!repeats(reason, ambiguous) || this.#now() + pauseMillis >= deadline) {
          // Once a reply was lost, no later refusal tells what became of the batch.
          return yield* this.#failure(ambiguous && !isLost ? new Disconnected({ ambiguous, cause: reason }) : reason)
        }
        yield* Effect.sleep(pauseMillis)
      }
    })
  }

  /** How long a call may wait. Each successful batch extends it: a queue that moves may be long. */
  #expiry(call: Call): number {
    return Math.max(call.queuedAt, this.#throughAt) + this.#options.timeoutMillis
  }

  /** The calls of the next batch. Those that expired in the queue fail here: none of their messages were sent. */
  #take(): Array<Call> {
    const now = this.#now()
    const calls: Array<Call> = []
    let messages = 0
    let units = 0
    while (this.#next < this.#queue.length) {
      const call = this.#queue[this.#next] as Call // within bounds
      if (!call.abandoned && this.#expiry(call) <= now) {
        call.resume(this.#failure(waitedInVain))
      } else if (!call.abandoned) {
        const size = sizeOf(call.messages)
        if (calls.length > 0 && (messages + call.messages.length > maxMessages || units + size > maxUnits)) break
        messages += call.messages.length
        units += size
        calls.push(call)
      }
      this.#next++
    }
    if (this.#next === this.#queue.length) {
      this.#queue = []
      this.#next = 0
    } else if (this.#next > 1024) {
      this.#queue = this.#queue.slice(this.#next)
      this.#next = 0
    }
    return calls
  }

  #failure(reason: Reason): Exit.Exit<never, TransportError> {
    return Exit.fail(new TransportError({ operation: "publish", topic: this.#options.topic, reason }))
  }
}

const closed = new Disconnected({ ambiguous: false, cause: new Error("the transport is closed") })
const closedMidway = new Disconnected({ ambiguous: true, cause: new Error("the transport is closed") })
const waitedInVain = new Disconnected({ ambiguous: false, cause: new Error("no batch got through in time") })

const sizeOf = (messages: ReadonlyArray<Outgoing>): number => {
  let size = 0
  for (const message of messages) size += unitsOf(message)
  return size
}
