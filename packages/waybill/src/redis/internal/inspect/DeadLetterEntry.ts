/**
 * A dead letter as it lies in its stream, whatever the pattern: our own pairs first, then the message as it was.
 *
 * @module
 */
import type { DeadLetter } from "../../../Inspector.ts"
import { bodyOf, type Fields, headersOf, millisOf } from "../wire/Fields.ts"
import { read } from "../wire/Tally.ts"

/** Our own pairs come first, then the tally if there is one; after them the fields of the message, as they were. */
const headLength = 16

export const deadLetterOf = (
  topic: string,
  group: string,
  entry: string,
  bytes: ReadonlyArray<Uint8Array>
): DeadLetter => {
  const fields: Fields = bytes.map(String)
  const head = new Map<string, string>()
  const message = new Map<string, number>()
  const tallied = fields[headLength] === "tally" && read(fields[headLength + 1]) !== undefined
  for (let i = 0; i + 1 < fields.length; i += 2) {
    if (tallied && i === headLength) continue
    const name = fields[i] as string // i is within bounds
    if (i < headLength) head.set(name, fields[i + 1] as string)
    else message.set(name, i + 1)
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
    attempts: Number(head.get("attempts")) || 0,
    diedAt: millisOf(entry),
    ...(loose.length > 0 ? { fields: loose } : {})
  }
}
