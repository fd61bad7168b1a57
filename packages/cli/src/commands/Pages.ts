/**
 * Reading pages one after another until there are no more, or enough.
 *
 * @module
 */
import { Effect, Option, Stream } from "effect"
import type { Inspector, Transport } from "waybill"
import { toProblem } from "../Server.ts"

/** A body may be a megabyte. */
const pageSize = 200

/** The items of all pages, at most `limit` of them. */
export const pages = <A>(
  read: (page: Inspector.Page) => Effect.Effect<ReadonlyArray<A>, Transport.TransportError>,
  positionOf: (item: A) => string,
  limit: number
): Stream.Stream<A, ReturnType<typeof toProblem>> =>
  Stream.paginate(Option.none<string>(), (after) =>
    Effect.map(read({ after, limit: Math.min(pageSize, limit) }), (items) => {
      const last = items.at(-1)
      return [items, last === undefined ? Option.none() : Option.some(Option.some(positionOf(last)))] as const
    })
  ).pipe(Stream.take(limit), Stream.mapError(toProblem))
