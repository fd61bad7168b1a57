/**
 * Messages that have all failed once and wait for their second attempt: the memory each costs Redis, and how fast
 * they come back when all are due at the same instant.
 */
import { Clock, Effect, Schedule } from "effect"
import { drain, JobNotDone, settled } from "../Backlog.ts"
import { client } from "../Client.ts"
import * as Measure from "../Measure.ts"
import type { WaybillPeer } from "../peers/Waybill.ts"
import { compare, format, limit, median } from "../Report.ts"
import { Tally } from "../Tally.ts"
import { type Numbered, small } from "../Work.ts"

interface Contender {
  readonly peer: WaybillPeer
  readonly usedMemory: Effect.Effect<number>
}

/** Lets so many attempts of every message fail, and returns how many bytes each that waits then takes, and how fast they come back. */
const failing = Effect.fnUntraced(function* (
  { peer, usedMemory }: Contender,
  payloads: ReadonlyArray<Numbered>,
  failures: number
) {
  const messages = payloads.length
  // What the job before has left in the stream is trimmed a moment later.
  yield* waiting(peer, 0, () => true, 5000)
  const empty = yield* steady(usedMemory)
  yield* peer.publishBatches(payloads)
  const dueAt = (yield* Clock.currentTimeMillis) + failures * millisToFail(messages)
  const tally = new Tally(messages)
  let failed = 0
  yield* peer.consumeAfter(failures, dueAt, () => failed++, tally.handle)
  yield* waiting(peer, messages, () => failed >= messages, failures * millisToFail(messages))
  const full = yield* steady(usedMemory)
  if ((yield* Clock.currentTimeMillis) >= dueAt) {
    return yield* new JobNotDone({ message: "the first attempts took until the last ones were due" })
  }
  yield* tally.complete
  const seconds = ((yield* Clock.currentTimeMillis) - dueAt) / 1000
  yield* settled(peer)
  return { bytes: (full - empty) / messages, promoted: messages / seconds }
}, Effect.scoped)

/** How many attempts of a message have failed when its second size is taken, and of how many messages less. */
const thrice = 3
const fewer = 5

const round = Effect.fnUntraced(function* (contender: Contender, { messages }: Measure.Size) {
  const { peer } = contender
  const payloads = small.messages(messages)
  const { bytes: bytesAfterThree } = yield* failing(contender, payloads.slice(0, messages / fewer), thrice)
  const { bytes, promoted } = yield* failing(contender, payloads, 1)

  yield* peer.publishBatches(payloads)
  const consumed = yield* drain(peer, messages)
  return {
    bytes,
    bytesAfterThree,
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
  describe: ({ bytes, bytesAfterThree, consumed, promoted }) =>
    `promoted ${format(promoted)}/s, consumed ${format(consumed)}/s, ${format(bytes)} bytes a waiting message, ` +
    `${format(bytesAfterThree)} after three attempts`,
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
      ...(
        [
          ["one attempt", "bytes", 1],
          ["three attempts", "bytesAfterThree", thrice]
        ] as const
      ).map(([after, of, attempts]) =>
        limit({
          measure: `delayed retries after ${after}, Redis memory beyond the payload`,
          unit: "bytes",
          value: median(Measure.valuesOf(waybill, of)) - payload,
          against: `payload: ${format(payload)} bytes`,
          bar: { atMost: 400 + 200 * attempts }
        })
      )
    ]
  }
})

/** For how long an attempt of all messages and the trimming may take: until then the next one is put off. */
const millisToFail = (messages: number) => 2500 + messages / 3

/** All messages are out of the stream and wait. */
const waiting = (peer: WaybillPeer, messages: number, haveFailed: () => boolean, millis: number) =>
  Effect.gen(function* () {
    const found = yield* peer.waiting
    if (found.waiting !== messages || found.depth > 0 || !haveFailed()) {
      return yield* new JobNotDone({ message: `${found.waiting} messages wait, ${found.depth} are in the stream` })
    }
  }).pipe(Effect.retry(Schedule.spaced(50).pipe(Schedule.upTo({ duration: millis }))))

/** Once the stream of retries is trimmed too, it falls no further. */
const steady = (usedMemory: Effect.Effect<number>) =>
  Effect.gen(function* () {
    let least = Infinity
    for (let used = yield* usedMemory; used < least; used = yield* Effect.delay(usedMemory, 300)) least = used
    return least
  })

const usedMemory = Effect.fnUntraced(function* (port: number) {
  const redis = yield* client(port)
  return Effect.promise(async () => Number(/used_memory:(\d+)/.exec(await redis.info("memory"))?.[1]))
})
