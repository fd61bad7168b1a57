/**
 * Messages are published against the clock. A round only counts if the store has every one of them afterwards.
 */
import { Effect } from "effect"
import { collectGarbage, JobNotDone } from "./Backlog.ts"
import type { Peer } from "./Peer.ts"
import { type Numbered, small } from "./Work.ts"

/** Publishes small messages in the peer's given way and returns the rate per second. */
export const publish = Effect.fnUntraced(function* (
  peer: Peer,
  messages: number,
  way: (messages: ReadonlyArray<Numbered>) => Effect.Effect<void, unknown>
) {
  const payloads = small.messages(messages)
  collectGarbage()
  const startedAt = performance.now()
  yield* way(payloads)
  const seconds = (performance.now() - startedAt) / 1000
  const stored = yield* peer.left
  if (stored !== messages) {
    return yield* new JobNotDone({ message: `published ${messages} messages, and ${stored} are in the store` })
  }
  return messages / seconds
})
