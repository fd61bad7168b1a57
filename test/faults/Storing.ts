/**
 * A consumer and a producer of each pattern that stores, on connections of their own, for tests that look at one message at a
 * time.
 */
import { Context, Data, Effect, Layer, Schedule, Schema, type Scope } from "effect"
import { Consumer, type Delivery, Inspector, type Lifecycle, type Message, Producer, Topic, Transport } from "waybill"
import { IoRedis, RedisExactlyOnce, RedisKeyspace, RedisLists, RedisStreams } from "waybill/redis"

export const storing = ["streams", "lists", "exactly-once", "keyspace"] as const

export type Name = (typeof storing)[number]

const layers = {
  streams: () => RedisStreams.layer(),
  lists: () => RedisLists.layer(),
  "exactly-once": () => RedisExactlyOnce.layer(),
  keyspace: () => RedisKeyspace.layer({ notifications: "poll" })
}

export class Failed extends Data.TaggedError("Failed")<{}> {}

export const Job = Topic.make("jobs", { payload: Schema.String })

/** What happened, in the order in which it did, whoever did it. */
export type Step = readonly [who: string, what: string, attempt?: number]

export interface Person {
  readonly events: ReadonlyArray<Lifecycle.Event>
  readonly publish: (body: string) => Effect.Effect<Message.Receipt, unknown>
  /** What is left to do for the group, and its dead letters. */
  readonly left: Effect.Effect<readonly [undone: number, dead: number], unknown>
  /** Runs a consumer until the scope closes. */
  readonly consume: (
    handler: (body: string, delivery: Delivery.Delivery) => Effect.Effect<unknown, Failed>,
    options?: Partial<Consumer.Options>
  ) => Effect.Effect<void, unknown, Scope.Scope>
}

/** Somebody with connections of their own to `url`. */
export const person = Effect.fnUntraced(function* (pattern: Name, url: string) {
  const context = yield* Layer.build(layers[pattern]().pipe(Layer.provideMerge(IoRedis.layer({ url })), Layer.fresh))
  const events: Array<Lifecycle.Event> = []
  const { lifecycle } = Context.get(context, Transport.AtMostOnce)
  yield* lifecycle.listen((event) => events.push(event))
  const self: Person = {
    events,
    publish: (body) => Effect.provideContext(Producer.publish(Job, body), context),
    left: Effect.map(Context.get(context, Inspector.Inspector).describe(Job.name), ({ groups: [group] }) =>
      group === undefined ? [0, 0] : [group.lag + group.pending + group.waiting, group.deadLetters]
    ),
    consume: (handler, options) =>
      Effect.asVoid(
        Layer.build(
          Consumer.make(Job, { group: "g", lease: "2 seconds", shutdown: "100 millis", ...options }).pipe(
            Consumer.process(handler),
            Consumer.onFailure({
              Failed: Consumer.retry(Schedule.spaced("2 seconds").pipe(Schedule.upTo({ times: 3 })))
            }),
            Consumer.layer
          )
        ).pipe(Effect.provideContext(context))
      )
  }
  return self
})

/** The steps of a story, and how to wait for one. */
export const story = () => {
  const steps: Array<Step> = []
  return {
    steps,
    tell: (...step: Step) => Effect.sync(() => void steps.push(step)),
    /** Waits until it has been told so many times. */
    until: (who: string, what: string, times = 1) =>
      Effect.sync(() => steps.filter(([a, b]) => a === who && b === what).length >= times).pipe(
        Effect.repeat({ until: (is) => is, schedule: Schedule.spaced("5 millis") }),
        Effect.timeoutOrElse({
          duration: "1 minute",
          orElse: () => Effect.die(new Error(`${who} never ${what}: ${JSON.stringify(steps)}`))
        }),
        Effect.asVoid
      ),
    order: () => steps.map(([who, what]) => `${who} ${what}`)
  }
}
