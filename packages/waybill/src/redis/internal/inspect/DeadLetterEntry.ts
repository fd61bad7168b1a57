/**
 * A dead letter in its stream, whatever the pattern: our own pairs first, then the unchanged message.
 *
 * @module
 */
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"
import type { DeadLetter } from "../../../Inspector.ts"
import * as Attempts from "../../../internal/Attempts.ts"
import { bodyOf, type Fields, headersOf, millisOf } from "../wire/Fields.ts"
import { read } from "../wire/Tally.ts"

/** Our own pairs come first, then the tally and the failure, if any; after them the unchanged fields of the message. */
const headLength = 16

const readFailure = Schema.decodeUnknownExit(
  Schema.fromJsonString(Schema.Struct({ tag: Schema.String, message: Schema.String, fields: Schema.JsonObject }))
)

export const deadLetterOf = (
  topic: string,
  group: string,
  entry: string,
  bytes: ReadonlyArray<Uint8Array>
): DeadLetter => {
  const fields: Fields = bytes.map(String)
  const head = new Map<string, string>()
  const message = new Map<string, number>()
  let from = headLength
  const tally = fields[from] === "tally" ? read(fields[from + 1]) : undefined
  if (tally !== undefined) from += 2
  const failure = fields[from] === "failure" ? readFailure(fields[from + 1]) : undefined
  if (failure !== undefined && (fields[from + 1] === "" || Exit.isSuccess(failure))) from += 2
  for (let i = 0; i + 1 < fields.length; i += 2) {
    const name = fields[i] as string // i is within bounds
    if (i < headLength) head.set(name, fields[i + 1] as string)
    else if (i >= from) message.set(name, i + 1)
  }
  const text = (name: string): string | undefined => {
    const index = message.get(name)
    return index === undefined ? undefined : fields[index]
  }
  const payload = bytes[message.get("payload") ?? -1]
  const loose = payload === undefined ? Array.from(message, ([name, i]) => [name, bodyOf(bytes[i]!)] as const) : []
  return {
    entry,
    topic,
    group,
    id: head.get("id") ?? entry,
    body: payload === undefined ? new Uint8Array(0) : bodyOf(payload),
    headers: headersOf(text("headers") ?? "{}") ?? {},
    key: text("key"),
    version: Number(text("v") ?? 1) || 1,
    publishedAt: Number(head.get("at")) || millisOf(entry),
    reason: head.get("reason") ?? "",
    cause: head.get("cause") ?? "",
    ...(failure !== undefined && Exit.isSuccess(failure) ? { failure: failure.value } : {}),
    attempts: Number(head.get("attempts")) || 0,
    attemptLog: Attempts.read(tally?.log ?? ""),
    diedAt: millisOf(entry),
    ...(loose.length > 0 ? { fields: loose } : {})
  }
}
