/**
 * Standard input as lines, and what one says, with nothing repaired on the way: what is stored is what came in.
 *
 * @module
 */
import { Effect, Stream } from "effect"
import { Misuse } from "../Problem.ts"

const lineFeed = 0x0a

/** What a line is, and its number from 1. */
export type Numbered = readonly [bytes: Uint8Array, number: number]

/** The bytes of each line. One that grows beyond `most` bytes is refused before it has ended. */
export const lines =
  (most: number) =>
  <E, R>(input: Stream.Stream<Uint8Array, E, R>): Stream.Stream<Numbered, E | Misuse, R> =>
    Stream.suspend(() => {
      let begun: Array<Uint8Array> = []
      let length = 0
      let number = 0
      const end = (rest: Uint8Array): Numbered => {
        const line = begun.length === 0 ? rest : Buffer.concat([...begun, rest])
        begun = []
        length = 0
        return [line, ++number]
      }
      return input.pipe(
        Stream.mapEffect((chunk) => {
          const ended: Array<Numbered> = []
          let from = 0
          for (let at = chunk.indexOf(lineFeed); at >= 0; at = chunk.indexOf(lineFeed, from)) {
            ended.push(end(chunk.subarray(from, at)))
            from = at + 1
          }
          if (from < chunk.length) begun.push(chunk.subarray(from))
          length += chunk.length - from
          return length > most
            ? Effect.fail(new Misuse({ detail: `line ${number + 1}: it has more than ${most} bytes and does not end` }))
            : Effect.succeed(ended)
        }),
        Stream.flattenIterable,
        Stream.concat(
          Stream.suspend(() => (begun.length === 0 ? Stream.empty : Stream.succeed(end(new Uint8Array(0)))))
        )
      )
    })

/** The text of a line; throws when it is not UTF-8. A byte order mark at the very beginning is left out. */
export const textOf = ([bytes, number]: Numbered): string =>
  new TextDecoder("utf-8", { fatal: true, ignoreBOM: number > 1 }).decode(bytes)

/** The text of a member of a JSON object, as it stands there; of the last one, as `JSON.parse` takes it. The text is JSON. */
export const memberText = (object: string, name: string): string | undefined => {
  let found: string | undefined
  let depth = 0
  let key: string | undefined
  let value = 0
  for (let at = 0; at < object.length; at++) {
    const character = object[at]
    if (character === '"') {
      const start = at
      for (at++; object[at] !== '"'; at++) if (object[at] === "\\") at++
      if (depth === 1 && key === undefined) key = String(JSON.parse(object.slice(start, at + 1)))
    } else if (character === ":" && depth === 1) {
      value = at + 1
    } else if (character === "{" || character === "[") {
      depth++
    } else if (character === "}" || character === "]" || character === ",") {
      if (depth === 1) {
        if (key === name) found = object.slice(value, at).trim()
        key = undefined
      }
      if (character !== ",") depth--
    }
  }
  return found
}
