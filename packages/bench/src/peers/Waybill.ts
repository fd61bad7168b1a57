/**
 * Waybill as users run it: a topic with a schema, a consumer with a handler that does nothing, and everything enabled that
 * is on by default. Only the layer below differs.
 */
import { Clock, Data, Effect, Layer, Schedule, type Scope } from "effect"
import { Commit, Consumer, Inspector, type Message, Producer, Records, Topic, type Transport } from "waybill"
import { MemoryStreams } from "waybill/memory"
import { IoRedis, RedisExactlyOnce, RedisKeyspace, RedisLists, RedisPubSub, RedisStreams } from "waybill/redis"
import { batchesOf, concurrency, type Peer, publishers } from "../Peer.ts"
import type { Numbered, Work } from "../Work.ts"

/** The services that this bench's consumer needs of a layer: few, so that it compiles over every pattern. */
type Services = Transport.AtMostOnce | Inspector.Inspector

const group = "bench"
const options = { group, concurrency } as const

/** Measured for Waybill only. */
export interface WaybillPeer extends Peer {
  /**
   * Like `consume`, but the first `failures` attempts of each message fail. The last of these tells `failed`, and what comes
   * after it is due at `dueAt`, in milliseconds since the epoch.
   */
  readonly consumeAfter: (
    failures: number,
    dueAt: number,
    failed: () => void,
    handle: (message: Numbered) => void
  ) => Effect.Effect<void, unknown, Scope.Scope>
  /** Adds groups that exist but consume nothing. */
  readonly idleGroups: (count: number) => Effect.Effect<void, unknown>
  /** How many messages wait for their next attempt, and how many are still in the stream. */
  readonly waiting: Effect.Effect<{ readonly waiting: number; readonly depth: number }, unknown>
}

class NotYet extends Data.TaggedError("NotYet")<{ readonly millis: number }> {}

const anotherTime = Schedule.spaced("1 millis").pipe(Schedule.upTo({ times: 5 }))

const topicOf = <G extends Transport.Guarantee>(work: Work, guarantee: G, unique: Message.Unique = "window") =>
  Topic.make(`bench.${work.name}`, { payload: work.schema, guarantee, unique })

/** With `unique`, messages have ids of their own. */
const make = Effect.fnUntraced(function* <E>(work: Work, layer: Layer.Layer<Services, E>, unique?: Message.Unique) {
  const context = yield* Layer.build(layer)
  const topic = topicOf(work, "at-most-once", unique)
  const optionsOf = unique && (({ seq }: Numbered) => ({ id: `order-${seq}` }))

  const peer: WaybillPeer = {
    publishBatches: (messages) =>
      Effect.forEach(batchesOf(messages), (batch) => Producer.publishAll(topic, batch, optionsOf), {
        discard: true
      }).pipe(Effect.provideContext(context)),
    publishSingly: (messages) =>
      Effect.suspend(() => {
        let next = 0
        const publisher = Effect.gen(function* () {
          while (next < messages.length) {
            const message = messages[next++] as Numbered // within bounds: just checked
            yield* Producer.publish(topic, message, optionsOf?.(message))
          }
        })
        return Effect.all(
          Array.from({ length: publishers }, () => publisher),
          { concurrency: "unbounded", discard: true }
        )
      }).pipe(Effect.provideContext(context)),
    publishOne: (message) => Effect.runPromiseWith(context)(Producer.publish(topic, message)),
    consume: (handle) =>
      Consumer.make(topic, options).pipe(
        Consumer.process((message) => {
          handle(message)
          return Effect.void
        }),
        Consumer.layer,
        Layer.build,
        Effect.provideContext(context),
        Effect.asVoid
      ),
    consumeAfter: (failures, dueAt, failed, handle) =>
      Consumer.make(topic, options).pipe(
        Consumer.process(
          Effect.fnUntraced(function* (message, { attempt }) {
            if (attempt < failures) return yield* new NotYet({ millis: 0 })
            if (attempt === failures) {
              failed()
              return yield* new NotYet({ millis: dueAt - (yield* Clock.currentTimeMillis) })
            }
            handle(message)
          })
        ),
        Consumer.onFailure({ NotYet: ({ millis }) => Consumer.retry(anotherTime, { after: millis }) }),
        Consumer.layer,
        Layer.build,
        Effect.provideContext(context),
        Effect.asVoid
      ),
    idleGroups: (count) =>
      Effect.forEach(
        Array.from({ length: count }, (_, i) => `idle-${i}`),
        (group) =>
          Consumer.make(topic, { ...options, group, concurrency: 1 }).pipe(
            Consumer.process(() => Effect.void),
            Consumer.layer,
            Layer.build,
            Effect.scoped
          ),
        { concurrency: 16, discard: true }
      ).pipe(Effect.provideContext(context)),
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

const over =
  <E>(layer: Layer.Layer<Services, E, IoRedis.IoRedis>) =>
  (work: Work) =>
  (port: number) =>
    make(work, layer.pipe(Layer.provide(IoRedis.layer({ port }))))

const prefix = "bench"

/** On Redis Streams. */
export const onRedis = over(RedisStreams.layer({ prefix }))

/** The same with ids, which count for that long. */
export const withIds = (unique: Message.Unique) => (work: Work) => (port: number) =>
  make(work, RedisStreams.layer({ prefix }).pipe(Layer.provide(IoRedis.layer({ port }))), unique)

/** On lists. */
export const onLists = over(RedisLists.layer({ prefix }))

/** On channels. */
export const onPubSub = over(RedisPubSub.layer({ prefix }))

/** On keys that expire, with the server's events switched on. */
export const onKeyspace = over(RedisKeyspace.layer({ prefix, notifications: "enable" }))

/** A consumer whose handler returns one write, and the total of all writes. */
export interface CommittingPeer extends Peer {
  readonly counted: Effect.Effect<number, unknown>
}

type CommittingServices = Services | Transport.Transactional

const counter = Commit.counter("handled")
const one = Effect.succeed(Commit.make({ writes: [counter.add(1)] }))

const committingOver =
  <E>(layer: Layer.Layer<CommittingServices, E, IoRedis.IoRedis>) =>
  (work: Work) =>
    Effect.fnUntraced(function* (port: number) {
      const context = yield* Layer.build(layer.pipe(Layer.provide(IoRedis.layer({ port }))))
      const topic = topicOf(work, "transactional")
      const peer: CommittingPeer = {
        ...(yield* make(work, Layer.succeedContext(context))),
        consume: (handle) =>
          Consumer.make(topic, { group, concurrency }).pipe(
            Consumer.transactional((message) => {
              handle(message)
              return one
            }),
            Consumer.layer,
            Layer.build,
            Effect.provideContext(context),
            Effect.asVoid
          ),
        counted: Records.read(topic, counter.value).pipe(Effect.provideContext(context))
      }
      return peer
    })

/** On lists with markers, with a commit a message. */
export const committing = committingOver(RedisExactlyOnce.layer({ prefix }))

/** On Redis Streams, with a commit a message. */
export const committingOnStreams = committingOver(RedisStreams.layer({ prefix }))

/** Streams in the memory of the process. */
export const onMemory = (work: Work) => () => make(work, MemoryStreams.layer())
