/**
 * Spans of messages by OpenTelemetry's semantic conventions for messaging. Without a tracer there are none, but the
 * publisher's context still travels.
 *
 * @module
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as HttpTraceContext from "effect/http/HttpTraceContext"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Tracer from "effect/Tracer"
import type { Delivery } from "../Delivery.ts"
import type { Headers, Receipt } from "../Message.ts"

/** Whether a tracer is installed: without one, Effect creates spans that nobody sees. */
export const records = (fiber: Fiber.Fiber<unknown, unknown>): boolean =>
  fiber.cache.tracer !== undefined && fiber.cache.tracerEnabled

/** The `traceparent` of the span, or of the nearest surrounding one that may be propagated. */
export const traceparent = (span: Tracer.AnySpan | undefined): string | undefined => {
  while (span !== undefined && Context.get(span.annotations, Tracer.DisablePropagation)) {
    span = span._tag === "Span" ? Option.getOrUndefined(span.parent) : undefined
  }
  if (span === undefined) return undefined
  const header = `00-${span.traceId.padStart(32, "0")}-${span.spanId.padStart(16, "0")}-${span.sampled ? "01" : "00"}`
  // A tracer may have ids in its own format, which could not be read back.
  return sound.test(header) ? header : undefined
}

const sound = /^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$/

/** The context in which the message was created. */
export const creation = (headers: Headers): Tracer.ExternalSpan | undefined =>
  headers["traceparent"] === undefined
    ? undefined
    : Option.getOrUndefined(HttpTraceContext.w3c(headers as Parameters<typeof HttpTraceContext.w3c>[0])) // reads that one header

/** The span of a call that publishes. Its context is shared by all messages in the call. */
export const sent = (topic: string, count: number, id: string | undefined): Tracer.SpanOptionsNoTrace => ({
  kind: "producer",
  attributes: {
    ...attributesOf(topic, "send"),
    ...(count === 1 ? {} : { "messaging.batch.message_count": count }),
    ...(id === undefined ? {} : { "messaging.message.id": id })
  }
})

export const stored = (span: Tracer.Span, receipts: ReadonlyArray<Receipt>): void => {
  if (receipts.length === 1 && receipts[0] !== undefined) span.attribute("messaging.message.id", receipts[0].id)
}

/** How the span of an attempt relates to the publisher's: as its child, or linked, in a trace of its own. */
export type Relation = "link" | "parent"

/** Traces one attempt, from the handler's start to its exit. */
export const attempted = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  delivery: Delivery,
  relation: Relation
): Effect.Effect<A, E, R> => {
  const made = creation(delivery.headers)
  return marked(self, delivery, {
    ...(relation === "parent" && made !== undefined ? { parent: made } : { root: true }),
    links: made === undefined ? [] : [{ span: made, attributes: {} }],
    attributes: {
      "messaging.message.id": delivery.id,
      "waybill.message.attempt": delivery.attempt
    }
  })
}

/** Traces the attempts of a batch. They have many producers, so the span is not the child of one. */
export const attemptedBatch = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  deliveries: NonEmptyReadonlyArray<Delivery>
): Effect.Effect<A, E, R> =>
  marked(self, deliveries[0], {
    root: true,
    links: deliveries.flatMap((delivery) => {
      const span = creation(delivery.headers)
      const attributes = { "messaging.message.id": delivery.id, "waybill.message.attempt": delivery.attempt }
      return span === undefined ? [] : [{ span, attributes }]
    }),
    attributes: { "messaging.batch.message_count": deliveries.length }
  })

const marked = <A, E, R>(
  self: Effect.Effect<A, E, R>,
  { group, topic }: Delivery,
  options: Tracer.SpanOptionsNoTrace
): Effect.Effect<A, E, R> =>
  Effect.useSpan(
    `process ${topic}`,
    {
      ...options,
      kind: "consumer",
      attributes: {
        ...attributesOf(topic, "process"),
        "messaging.consumer.group.name": group,
        ...options.attributes
      }
    },
    (span) =>
      self.pipe(
        Effect.withParentSpan(span),
        Effect.onExit((exit) =>
          Exit.isSuccess(exit) ? Effect.void : Effect.sync(() => span.attribute("error.type", errorType(exit.cause)))
        )
      )
  )

const attributesOf = (topic: string, operation: "send" | "process") => ({
  "messaging.system": "waybill",
  "messaging.destination.name": topic,
  "messaging.operation.name": operation,
  "messaging.operation.type": operation
})

const errorType = (cause: Cause.Cause<unknown>): string => {
  const failure = Option.getOrUndefined(Cause.findErrorOption(cause))
  try {
    if (Predicate.hasProperty(failure, "_tag") && typeof failure._tag === "string") return failure._tag
  } catch {
    // A failure that cannot be inspected ends as one.
    return "Defect"
  }
  return Cause.hasDies(cause) ? "Defect" : Cause.hasInterrupts(cause) ? "Interrupted" : "Failure"
}
