/**
 * The subject of a comparison: anything that publishes messages and passes each to a handler, 64 at a time, and forgets it
 * only after the handler has returned.
 */
import type { Effect, Scope } from "effect"
import type { Numbered } from "./Work.ts"

/** How many handlers may run at a time. */
export const concurrency = 64

/** How many messages one call of `publishBatches` carries. */
export const batchSize = 500

/** How many callers publish at a time in `publishSingly`. */
export const publishers = 200

/** A queue, initially empty, with its connections made. It lives as long as the scope it was made in. */
export interface Peer {
  /** Publishes all messages, `batchSize` per call, one call after the other. */
  readonly publishBatches: (messages: ReadonlyArray<Numbered>) => Effect.Effect<void, unknown>
  /** Publishes all messages, one per call, from `publishers` concurrent callers. */
  readonly publishSingly: (messages: ReadonlyArray<Numbered>) => Effect.Effect<void, unknown>
  /** Publishes one message, without an effect runtime if the peer needs none. */
  readonly publishOne: (message: Numbered) => Promise<unknown>
  /** Calls `handle` with every message until the scope closes, which waits until every handled message is settled. */
  readonly consume: (handle: (message: Numbered) => void) => Effect.Effect<void, unknown, Scope.Scope>
  /** How many messages the store has yet to deliver or to settle. */
  readonly left: Effect.Effect<number, unknown>
}

/** Cuts the messages into calls of `batchSize`. */
export const batchesOf = <A>(messages: ReadonlyArray<A>): ReadonlyArray<ReadonlyArray<A>> => {
  const batches: Array<ReadonlyArray<A>> = []
  for (let start = 0; start < messages.length; start += batchSize) {
    batches.push(messages.slice(start, start + batchSize))
  }
  return batches
}

/** Calls `publish` with every message, `publishers` at a time, for peers with a promise API. */
export const singly = async <A>(
  messages: ReadonlyArray<A>,
  publish: (message: A) => Promise<unknown>
): Promise<void> => {
  let next = 0
  const publisher = async () => {
    while (next < messages.length) {
      // next is within bounds: just checked.
      await publish(messages[next++] as A)
    }
  }
  await Promise.all(Array.from({ length: publishers }, publisher))
}
