/**
 * Messages are published while they are consumed, timed from the first call of publish to the last call of the handler. A
 * round only counts if every message was handled exactly once.
 */
import { Effect } from "effect"
import { collectGarbage, JobNotDone, patience } from "./Backlog.ts"
import type { Peer } from "./Peer.ts"
import { Tally } from "./Tally.ts"
import { small } from "./Work.ts"

/** Publishes small messages in batches and returns how many arrived per second. */
export const flow = Effect.fnUntraced(function* (peer: Peer, messages: number) {
  const payloads = small.messages(messages)
  const tally = new Tally(messages)
  yield* peer.consume(tally.handle)
  collectGarbage()
  const startedAt = performance.now()
  yield* peer.publishBatches(payloads)
  yield* tally.complete.pipe(
    Effect.timeoutOrElse({
      duration: patience,
      orElse: () => new JobNotDone({ message: `handled only ${tally.count} of ${messages} within ${patience}` })
    })
  )
  const seconds = (performance.now() - startedAt) / 1000
  if (tally.repeated > 0) {
    return yield* new JobNotDone({ message: `${tally.repeated} messages were handled more than once` })
  }
  return messages / seconds
}, Effect.scoped)
