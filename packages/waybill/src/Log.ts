/**
 * Reading a topic as a log: its stored messages, forwards and backwards, without consuming them. A reader that
 * remembers the position of the last message it saw continues after it without gaps or repeats, for as long as the
 * store keeps the messages.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import type { BackwardPage, DelayedMessage, Page, StoredMessage } from "./Inspector.ts"
import { decoded } from "./internal/Decoded.ts"
import type { DecodeFailure, Inspected } from "./Topic.ts"
import type { TransportError } from "./Transport.ts"

/** A stored message with its body decoded, or the reason why that failed. */
export interface Entry<out P> extends StoredMessage {
  readonly payload: Result.Result<P, DecodeFailure>
}

/**
 * The oldest `limit` messages, or the first `limit` after the position `after`. Fewer mean that there are no more at
 * present. For patterns that store messages; where messages leave once delivered, only those still to be delivered
 * are there.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Log, Topic } from "waybill"
 *
 * const Room = Topic.make("chat/room/tea", { payload: Schema.String })
 *
 * const program = Effect.gen(function*() {
 *   const page = yield* Log.first(Room, { limit: 100 })
 *   const next = yield* Log.first(Room, { after: page.at(-1)?.position, limit: 100 })
 *   yield* Effect.log(`${page.length} and ${next.length} messages`)
 * })
 * ```
 */
export const first = Effect.fn("Log.first")(function* <P, On, RD>(
  topic: Inspected<P, On, RD>,
  options: { readonly after?: string | undefined; readonly limit: number }
): Effect.fn.Return<ReadonlyArray<Entry<P>>, TransportError, On | RD> {
  const found: Array<Entry<P>> = []
  let after = options.after
  do {
    const page = yield* read(topic, { after: Option.fromNullishOr(after), limit: options.limit - found.length })
    if (page.length === 0) break
    for (const entry of page) found.push(entry)
    after = page.at(-1)?.position
  } while (found.length < options.limit)
  return found
})

/**
 * The newest `limit` messages, or the last `limit` before the position `before`, oldest first. Fewer mean that there are no
 * older ones.
 *
 * @example
 * ```ts
 * import { Effect, Schema } from "effect"
 * import { Log, Topic } from "waybill"
 *
 * const Room = Topic.make("chat/room/tea", { payload: Schema.String })
 *
 * const program = Effect.gen(function*() {
 *   const page = yield* Log.last(Room, { limit: 50 })
 *   const older = yield* Log.last(Room, { before: page[0]?.position, limit: 50 })
 *   yield* Effect.log(`${page.length} messages, and ${older.length} before them`)
 * })
 * ```
 */
export const last = Effect.fn("Log.last")(function* <P, On, RD>(
  topic: Inspected<P, On, RD>,
  options: { readonly before?: string | undefined; readonly limit: number }
): Effect.fn.Return<ReadonlyArray<Entry<P>>, TransportError, On | RD> {
  const pages: Array<ReadonlyArray<Entry<P>>> = []
  let before = Option.fromNullishOr(options.before)
  let left = options.limit
  do {
    const page = yield* read(topic, { before, limit: left })
    if (page.length === 0) break
    pages.push(page)
    before = Option.fromNullishOr(page[0]?.position)
    left -= page.length
  } while (left > 0)
  return pages.reverse().flat()
})

/** The most messages the store returns at a time; a page of large ones is shorter. */
const pageSize = 500

/**
 * All messages, or those after the position `after`, oldest first. Ends at the end of the log as it is when reached.
 *
 * @example
 * ```ts
 * import { Schema, Stream } from "effect"
 * import { Log, Topic } from "waybill"
 *
 * const Room = Topic.make("chat/room/tea", { payload: Schema.String })
 *
 * const program = Log.stream(Room).pipe(Stream.runCount)
 * ```
 */
export const stream = <P, On, RD>(
  topic: Inspected<P, On, RD>,
  options?: { readonly after?: string | undefined }
): Stream.Stream<Entry<P>, TransportError, On | RD> =>
  Stream.paginate(options?.after, (after) =>
    Effect.map(
      read(topic, { after: Option.fromNullishOr(after), limit: pageSize }),
      (page) => [page, Option.fromNullishOr(page.at(-1)?.position)] as const
    )
  )

/** A message that is not due yet, with its body decoded, or the reason why that failed. */
export interface Delayed<out P> extends DelayedMessage {
  readonly payload: Result.Result<P, DecodeFailure>
}

/**
 * The messages that are not due yet, the next one first: for searching them, and for removing some, or making them due at another
 * time, with `Inspector`. Meanwhile a rescheduled message may come twice or not at all, and one that is due at the same millisecond as a
 * removed one may come twice.
 *
 * @example
 * ```ts
 * import { Effect, Result, Schema, Stream } from "effect"
 * import { Inspector, Log, Topic } from "waybill"
 *
 * const Reminder = Topic.make("reminders", { payload: Schema.Struct({ user: Schema.String }) })
 *
 * // Removes all reminders of a user.
 * const forget = (user: string) =>
 *   Log.delayed(Reminder).pipe(
 *     Stream.filter(({ payload }) => Result.isSuccess(payload) && payload.success.user === user),
 *     Stream.runForEach(({ id }) =>
 *       Effect.flatMap(Inspector.Inspector, (inspector) => inspector.removeMessage(Reminder.name, id))
 *     )
 *   )
 * ```
 */
export const delayed = <P, On, RD>(topic: Inspected<P, On, RD>): Stream.Stream<Delayed<P>, TransportError, On | RD> =>
  Stream.paginate(Option.none<string>(), (after) =>
    Effect.flatMap(topic.on, ({ inspector }) =>
      Effect.map(inspector.delayed(topic.name, { after, limit: pageSize }), (page) => {
        const last = page.at(-1)
        return [page, last === undefined ? Option.none() : Option.some(Option.some(last.position))] as const
      })
    )
  ).pipe(Stream.mapEffect((message) => decoded(topic, message)))

const read = <P, On, RD>(
  topic: Inspected<P, On, RD>,
  page: Page | BackwardPage
): Effect.Effect<ReadonlyArray<Entry<P>>, TransportError, On | RD> =>
  Effect.flatMap(topic.on, ({ inspector }) =>
    Effect.flatMap(
      inspector.messages(topic.name, page),
      Effect.forEach((stored) => decoded(topic, stored))
    )
  )
