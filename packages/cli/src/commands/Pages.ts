/**
 * Reads page after page until there are no more, or enough.
 *
 * @module
 */
import { Effect, Option, Stream } from "effect"
import { Flag } from "effect/cli"
import type { Inspector, Transport } from "waybill"
import { number } from "../Screen.ts"
import { toProblem } from "../Server.ts"

/** A body may be a megabyte. */
const pageSize = 200

/** How many lines of a list to show. */
export const limit = Flag.Int("limit").pipe(
  Flag.withAlias("n"),
  Flag.filter(
    (lines) => lines >= 1,
    () => "at least 1"
  )
)

/** The line below a list that was cut. */
export const more = (left: number): string => (left > 0 ? `\n... and ${number(left)} more: --limit shows them` : "")

/** The items of all pages, at most `limit` of them. */
export const pages = <A>(...args: Parameters<typeof pagesOf<A, Transport.TransportError>>) =>
  Stream.mapError(pagesOf(...args), toProblem)

/** The same, with the errors as they are. */
export const pagesOf = <A, E>(
  read: (page: Inspector.Page) => Effect.Effect<ReadonlyArray<A>, E>,
  positionOf: (item: A) => string,
  limit: number
): Stream.Stream<A, E> =>
  Stream.paginate(Option.none<string>(), (after) =>
    Effect.map(read({ after, limit: Math.min(pageSize, limit) }), (items) => {
      const last = items.at(-1)
      return [items, last === undefined ? Option.none() : Option.some(Option.some(positionOf(last)))] as const
    })
  ).pipe(Stream.take(limit))
