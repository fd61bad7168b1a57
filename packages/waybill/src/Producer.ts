/**
 * Publishing: when it succeeds the message is in the store, once for each id inside the transport's window. What does
 * not fit the topic's schema or size fails before anything is sent.
 *
 * @module
 */
import * as Arr from "effect/Array"
import type * as Context from "effect/Context"
import type * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { memoize } from "effect/Function"
import type { Publication } from "./Commit.ts"
import * as Tracing from "./internal/Tracing.ts"
import type { Due, Headers, Outgoing, Receipt } from "./Message.ts"
import * as Metrics from "./Metrics.ts"
import type { InvalidPayload, PayloadTooLarge, Topic } from "./Topic.ts"
import { Transport, type TransportError } from "./Transport.ts"

export interface PublishOptions {
  /**
   * The message id, and the key for de-duplication: publishing it again within the transport's window (10 minutes unless
   * the layer says otherwise) stores nothing and answers `Duplicate`. Without it the transport assigns an id.
   */
  readonly id?: string | undefined
  readonly headers?: Headers | undefined
  /** Not delivered before this much time has passed, by the store's clock. */
  readonly delay?: Duration.Input | undefined
  /** Not delivered before this instant, by the store's clock. Ignored when `delay` is given. */
  readonly at?: DateTime.DateTime | undefined
  /**
   * For patterns whose order is by priority (`RedisLists`, `MemoryLists`); others take no notice. It travels as the header
   * `priority`; `normal` when neither it nor the header is given.
   */
  readonly priority?: "high" | "normal" | "low" | undefined
}

/**
 * Publishes one message. Concurrent calls share round trips.
 *
 * Fails with `InvalidPayload` or `PayloadTooLarge` before anything is sent, or with `TransportError`; after one whose
 * reason is `Disconnected` with `ambiguous: true` the message may be stored, and publishing it again under the same id is safe.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Producer, Topic } from "waybill"
 *
 * const Greeting = Topic.make("greetings", { payload: Schema.String })
 *
 * const program = Effect.gen(function*() {
 *   const receipt = yield* Producer.publish(Greeting, "hello", { id: "greeting-1", delay: "5 seconds" })
 *   yield* Effect.log(receipt._tag) // "Stored", and "Duplicate" the second time
 * })
 * ```
 */
export const publish = Effect.fnUntraced(function* <P, RD, RE>(
  topic: Topic<P, RD, RE>,
  payload: P,
  options?: PublishOptions
): Effect.fn.Return<Receipt, InvalidPayload | PayloadTooLarge | TransportError, Transport | RE> {
  const transport = yield* Transport
  const body = yield* topic.encode(payload)
  const receipts = yield* sending(topic, 1, options?.id, (trace) =>
    send(transport, topic, [outgoing(topic, payload, body, options, trace)])
  )
  // The port answers one receipt a message.
  return receipts[0]!
})

/**
 * Publishes all payloads in one round trip, in order: all of them or, when it fails, none. `options` gives each payload
 * its id, headers or due time.
 *
 * @example
 * ```ts
 * import { Schema } from "effect"
 * import { Producer, Topic } from "waybill"
 *
 * const Ticket = Topic.make("tickets", { payload: Schema.Struct({ number: Schema.Int }) })
 *
 * const program = Producer.publishAll(Ticket, [{ number: 1 }, { number: 2 }], (ticket) => ({ id: `ticket-${ticket.number}` }))
 * ```
 */
export const publishAll = Effect.fnUntraced(function* <P, RD, RE>(
  topic: Topic<P, RD, RE>,
  payloads: ReadonlyArray<P>,
  options?: (payload: P, index: number) => PublishOptions
): Effect.fn.Return<ReadonlyArray<Receipt>, InvalidPayload | PayloadTooLarge | TransportError, Transport | RE> {
  const transport = yield* Transport
  const bodies: Array<string> = []
  for (const payload of payloads) bodies.push(yield* topic.encode(payload))
  if (!Arr.isReadonlyArrayNonEmpty(bodies)) return []
  return yield* sending(topic, bodies.length, undefined, (trace) =>
    send(
      transport,
      topic,
      Arr.map(bodies, (body, i) => {
        // i is within bounds; P may itself be undefined, so no other check can tell.
        const payload = payloads[i] as P
        return outgoing(topic, payload, body, options?.(payload, i), trace)
      })
    )
  )
})

/**
 * A message for a commit: it is published when the commit is applied, and not at all when it is not. The topic's name
 * begins as that of the consumed one does, up to the first slash; otherwise the commit ends as a dead letter,
 * `CommitRejected`. A second message of the same id within the window is left out.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Commit, Consumer, Producer, Topic } from "waybill"
 *
 * const Order = Topic.make("shop/orders", { payload: Schema.Struct({ id: Schema.String }) })
 * const Invoice = Topic.make("shop/invoices", { payload: Schema.String })
 *
 * const Billing = Consumer.make(Order, { group: "billing" }).pipe(
 *   Consumer.transactional(({ id }) =>
 *     Effect.map(Producer.message(Invoice, `invoice for ${id}`), (invoice) => Commit.make({ messages: [invoice] }))
 *   ),
 *   Consumer.orElse(Consumer.deadLetter()),
 *   Consumer.layer
 * )
 * ```
 */
export const message = Effect.fnUntraced(function* <P, RD, RE>(
  topic: Topic<P, RD, RE>,
  payload: P,
  options?: PublishOptions
): Effect.fn.Return<Publication, InvalidPayload | PayloadTooLarge, RE> {
  const body = yield* topic.encode(payload)
  const trace = yield* Effect.withFiber((fiber) => Effect.succeed(Tracing.traceparent(fiber.cache.span)))
  return { topic: topic.name, message: outgoing(topic, payload, body, options, trace) }
})

/**
 * Gives `send` the `traceparent` for the messages: of a span of its own when somebody records spans, otherwise of the
 * one around it. Nobody records: nothing is made.
 */
const sending = (
  topic: { readonly name: string },
  count: number,
  id: string | undefined,
  send: (trace: string | undefined) => Effect.Effect<ReadonlyArray<Receipt>, TransportError>
): Effect.Effect<ReadonlyArray<Receipt>, TransportError> =>
  Effect.withFiber((fiber: Fiber.Fiber<unknown, unknown>) => {
    if (!Tracing.records(fiber)) return send(Tracing.traceparent(fiber.cache.span))
    return Effect.useSpan(`send ${topic.name}`, Tracing.sent(topic.name, count, id), (span) =>
      send(Tracing.traceparent(span)).pipe(
        Effect.tap((receipts) => Effect.sync(() => Tracing.stored(span, receipts))),
        Effect.tapError((error) => Effect.sync(() => span.attribute("error.type", error.reason._tag))),
        Effect.withParentSpan(span)
      )
    )
  })

const noHeaders: Headers = {}

const outgoing = <P, RD, RE>(
  topic: Topic<P, RD, RE>,
  payload: P,
  body: string,
  options: PublishOptions | undefined,
  trace: string | undefined
): Outgoing => {
  const given = options?.headers ?? noHeaders
  const headers = options?.priority === undefined ? given : { ...given, priority: options.priority }
  return {
    id: options?.id,
    body,
    headers: trace === undefined || "traceparent" in headers ? headers : { ...headers, traceparent: trace },
    key: topic.key(payload),
    version: topic.version,
    due: options === undefined ? undefined : dueOf(options)
  }
}

const dueOf = (options: PublishOptions): Due | undefined =>
  options.delay !== undefined
    ? { _tag: "After", delay: Duration.fromInputUnsafe(options.delay) }
    : options.at !== undefined
      ? { _tag: "At", epochMillis: options.at.epochMilliseconds }
      : undefined

const metricsOf = memoize((topic: { readonly name: string }) => ({
  stored: Metrics.published(topic.name, "stored"),
  duplicate: Metrics.published(topic.name, "duplicate")
}))

const send = Effect.fnUntraced(function* (
  transport: Context.Service.Shape<typeof Transport>,
  topic: { readonly name: string },
  messages: Arr.NonEmptyReadonlyArray<Outgoing>
) {
  const receipts = yield* transport.publish(topic.name, messages)
  const context = yield* Effect.context<never>()
  let stored = 0
  for (const receipt of receipts) if (receipt._tag === "Stored") stored++
  const metrics = metricsOf(topic)
  if (stored > 0) metrics.stored.updateUnsafe(stored, context)
  if (stored < receipts.length) metrics.duplicate.updateUnsafe(receipts.length - stored, context)
  if (transport.lifecycle.active) transport.lifecycle.emit({ _tag: "Published", topic: topic.name, messages, receipts })
  return receipts
})
