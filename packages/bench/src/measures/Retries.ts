/**
 * Messages that have all failed once and wait for their second attempt: the memory each costs Redis, and how fast
 * they come back when all are due at the same instant.
 */
import { Clock, Effect, Schedule } from "effect"
import { Redis } from "ioredis"
import { drain, JobNotDone, settled } from "../Backlog.ts"
import * as Measure from "../Measure.ts"
import type { WaybillPeer } from "../peers/Waybill.ts"
import { compare, format, limit, median } from "../Report.ts"
import { Tally } from "../Tally.ts"
import { small } from "../Work.ts"

const round = Effect.fnUntraced(function* (
  { peer, usedMemory }: { readonly peer: WaybillPeer; readonly usedMemory: Effect.Effect<number> },
  { messages }: Measure.Size
) {
  const payloads = small.messages(messages)
  const empty = yield* usedMemory
  yield* peer.publishBatches(payloads)
  const dueAt = (yield* Clock.currentTimeMillis) + millisToFail(messages)
  const tally = new Tally(messages)
  const { bytes, promoted } = yield* Effect.gen(function* () {
    yield* peer.consumeAtSecondAttempt(dueAt, tally.handle)
    yield* waiting(peer, messages)
    if ((yield* Clock.currentTimeMillis) >= dueAt) {
      return yield* new JobNotDone({ message: "the first attempts took until the second ones were due" })
    }
    const full = yield* usedMemory
    yield* tally.complete
    const seconds = ((yield* Clock.currentTimeMillis) - dueAt) / 1000
    yield* settled(peer)
    return { bytes: (full - empty) / messages, promoted: messages / seconds }
  }).pipe(Effect.scoped)

  yield* peer.publishBatches(payloads)
  const consumed = yield* drain(peer, messages)
  return {
    bytes,
    promoted,
    consumed,
    payload: Buffer.byteLength(payloads.map((one) => JSON.stringify(one)).join("")) / messages
  }
})

export const retries = Measure.make({
  name: "retries",
  title: "delayed retries waiting",
  full: { warmups: 1, rounds: 5, messages: 100_000 },
  quick: { warmups: 0, rounds: 2, messages: 10_000 },
  contenders: {
    waybill: async () => {
      const { onRedis } = await import("../peers/Waybill.ts")
      return (port) => Effect.all({ peer: onRedis(small)(port), usedMemory: usedMemory(port) })
    }
  },
  round,
  describe: ({ bytes, consumed, promoted }) =>
    `promoted ${format(promoted)}/s, consumed ${format(consumed)}/s, ${format(bytes)} bytes a waiting message`,
  judge: ({ waybill }) => {
    const payload = median(Measure.valuesOf(waybill, "payload"))
    return [
      compare({
        measure: "delayed retries, promoted",
        unit: "msgs/s",
        ours: Measure.valuesOf(waybill, "promoted"),
        theirs: Measure.valuesOf(waybill, "consumed"),
        against: "its own consume rate",
        bar: { atLeast: 0.2 }
      }),
      limit({
        measure: "delayed retries, Redis memory beyond the payload",
        unit: "bytes",
        value: median(Measure.valuesOf(waybill, "bytes")) - payload,
        against: `payload: ${format(payload)} bytes`,
        // And 200 for each attempt so far: it is one.
        bar: { atMost: 400 + 200 }
      })
    ]
  }
})

/** Until when all second attempts are put off: the first ones and the trimming must be over by then. */
const millisToFail = (messages: number) => 1500 + messages / 3

/** All messages are out of the stream and wait. */
const waiting = (peer: WaybillPeer, messages: number) =>
  Effect.gen(function* () {
    const found = yield* peer.waiting
    if (found.waiting !== messages || found.depth > 0) {
      return yield* new JobNotDone({ message: `${found.waiting} messages wait, ${found.depth} are in the stream` })
    }
  }).pipe(Effect.retry(Schedule.spaced(50).pipe(Schedule.upTo({ duration: millisToFail(messages) }))))

const usedMemory = Effect.fnUntraced(function* (port: number) {
  const redis = yield* Effect.acquireRelease(
    Effect.sync(() => new Redis(port, "127.0.0.1")),
    (redis) => Effect.sync(() => redis.disconnect())
  )
  return Effect.promise(async () => Number(/used_memory:(\d+)/.exec(await redis.info("memory"))?.[1]))
})
