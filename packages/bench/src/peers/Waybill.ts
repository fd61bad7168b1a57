/**
 * Waybill as a user meets it: a topic with a schema, a consumer with a handler that does nothing, and everything on
 * that is on by default. Only the layer below differs: streams on Redis, or their twin in memory.
 */
import { Clock, Data, Effect, Layer, Schedule, type Scope } from "effect"
import { Consumer, Inspector, Producer, Topic, type Transport } from "waybill"
import { MemoryStreams } from "waybill/memory"
import { IoRedis, RedisLists, RedisStreams } from "waybill/redis"
import { batchesOf, concurrency, type Peer, publishers } from "../Peer.ts"
import type { Numbered, Work } from "../Work.ts"

/** What the consumer of this bench needs of a layer. */
type Services = Transport.Transport | Transport.AtLeastOnce | Inspector.Inspector

const group = "bench"

/** What is measured of Waybill alone. */
export interface WaybillPeer extends Peer {
  /** Like `consume`, but every first attempt fails, and all second ones are due at `dueAt`, in milliseconds since the epoch. */
  readonly consumeAtSecondAttempt: (
    dueAt: number,
    handle: (message: Numbered) => void
  ) => Effect.Effect<void, unknown, Scope.Scope>
  /** How many messages wait for their next attempt, and how many the stream still holds. */
  readonly waiting: Effect.Effect<{ readonly waiting: number; readonly depth: number }, unknown>
}

class NotYet extends Data.TaggedError("NotYet")<{ readonly millis: number }> {}

const anotherTime = Schedule.spaced("1 millis").pipe(Schedule.upTo({ times: 5 }))

const make = Effect.fnUntraced(function* <E>(work: Work, layer: Layer.Layer<Services, E>) {
  const context = yield* Layer.build(layer)
  const topic = Topic.make(`bench.${work.name}`, { payload: work.schema })

  const peer: WaybillPeer = {
    publishBatches: (messages) =>
      Effect.forEach(batchesOf(messages), (batch) => Producer.publishAll(topic, batch), { discard: true }).pipe(
        Effect.provideContext(context)
      ),
    publishSingly: (messages) =>
      Effect.suspend(() => {
        let next = 0
        const publisher = Effect.gen(function* () {
          // next is within bounds: just looked.
          while (next < messages.length) yield* Producer.publish(topic, messages[next++] as Numbered)
        })
        return Effect.all(
          Array.from({ length: publishers }, () => publisher),
          { concurrency: "unbounded", discard: true }
        )
      }).pipe(Effect.provideContext(context)),
    publishOne: (message) => Effect.runPromiseWith(context)(Producer.publish(topic, message)),
    consume: (handle) =>
      Consumer.make(topic, { group, concurrency }).pipe(
        Consumer.process((message) => {
          handle(message)
          return Effect.void
        }),
        Consumer.layer,
        Layer.build,
        Effect.provideContext(context),
        Effect.asVoid
      ),
    consumeAtSecondAttempt: (dueAt, handle) =>
      Consumer.make(topic, { group, concurrency }).pipe(
        Consumer.process(
          Effect.fnUntraced(function* (message, { attempt }) {
            if (attempt === 1) return yield* new NotYet({ millis: dueAt - (yield* Clock.currentTimeMillis) })
            handle(message)
          })
        ),
        Consumer.onFailure({ NotYet: ({ millis }) => Consumer.retry(anotherTime, { after: millis }) }),
        Consumer.layer,
        Layer.build,
        Effect.provideContext(context),
        Effect.asVoid
      ),
    waiting: Effect.gen(function* () {
      const inspector = yield* Inspector.Inspector
      const { depth, groups } = yield* inspector.describe(topic.name)
      return { depth, waiting: groups[0]?.waiting ?? 0 }
    }).pipe(Effect.provideContext(context)),
    left: Effect.gen(function* () {
      const inspector = yield* Inspector.Inspector
      const { delayed, depth, groups } = yield* inspector.describe(topic.name)
      if (groups.length === 0) return depth + delayed
      let left = delayed
      for (const { deadLetters, lag, pending, waiting } of groups) {
        left += (lag ?? Infinity) + pending + waiting + deadLetters
      }
      return left
    }).pipe(Effect.provideContext(context))
  }
  return peer
})

/** On Redis. */
export const onRedis = (work: Work) => (port: number) =>
  make(work, RedisStreams.layer({ prefix: "bench" }).pipe(Layer.provide(IoRedis.layer({ port }))))

/** On Redis, as a queue in lists. */
export const onLists = (work: Work) => (port: number) =>
  make(work, RedisLists.layer({ prefix: "bench" }).pipe(Layer.provide(IoRedis.layer({ port }))))

/** In the memory of the process. */
export const onMemory = (work: Work) => () => make(work, MemoryStreams.layer())
