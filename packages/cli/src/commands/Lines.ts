/**
 * Reads standard input line by line and repairs nothing: the bytes that came in are the bytes that are stored.
 *
 * @module
 */
import { Effect, Stream } from "effect"
import { UsageError } from "../Problem.ts"

const lineFeed = 0x0a

/** A line and its number, counted from 1. */
export type Numbered = readonly [bytes: Uint8Array, number: number]

/** The bytes of each line. A line of more than `most` bytes is refused before it ends. */
export const lines =
  (most: number) =>
  <E, R>(input: Stream.Stream<Uint8Array, E, R>): Stream.Stream<Numbered, E | UsageError, R> =>
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
            ? Effect.fail(new UsageError({ detail: `line ${number + 1}: longer than ${most} bytes` }))
            : Effect.succeed(ended)
        }),
        Stream.flattenIterable,
        Stream.concat(
          Stream.suspend(() => (begun.length === 0 ? Stream.empty : Stream.succeed(end(new Uint8Array(0)))))
        )
      )
    })

/** The text of a line; throws if it is not UTF-8. A byte order mark at the start of the input is dropped. */
export const textOf = ([bytes, number]: Numbered): string =>
  new TextDecoder("utf-8", { fatal: true, ignoreBOM: number > 1 }).decode(bytes)

/** The source text of a member of a JSON object; of a repeated one the last, as with `JSON.parse`. `object` is valid JSON. */
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
