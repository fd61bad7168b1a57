/**
 * The size of a message as it travels: its body, headers, id and key together.
 *
 * @module
 */
import type { Message, Outgoing } from "../Message.ts"
import { noHeaders } from "./Headers.ts"

const utf8 = new TextEncoder()
const scratch = new Uint8Array(3 * 512)

/** Bytes in UTF-8. */
export const bytesOf = (text: string): number =>
  text.length <= 512 ? utf8.encodeInto(text, scratch).written : utf8.encode(text).length

/** Bytes of each part in UTF-8. */
export const partsOf = ({ body, headers, id, key }: Outgoing) => {
  let inHeaders = 0
  for (const name in headers) inHeaders += bytesOf(name) + bytesOf(headers[name] as string) // a name of theirs
  return {
    body: bytesOf(body),
    headers: inHeaders,
    id: id === undefined ? 0 : bytesOf(id),
    key: key === undefined ? 0 : bytesOf(key)
  }
}

/** Size in UTF-16 units, each of which becomes one to three bytes: cheaper to count. */
export const unitsOf = ({ body, headers, id, key }: Outgoing | Message): number => {
  let units = body.length
  if (id !== undefined) units += id.length
  if (key !== undefined) units += key.length
  if (headers === noHeaders) return units
  for (const name in headers) units += name.length + (headers[name] as string).length // a name of theirs
  return units
}

/** How many of the messages fit, from the first on; always at least one. */
export const fitting = (messages: ReadonlyArray<Message>, max: number, units: number): number => {
  const most = Math.min(max, messages.length)
  let sum = 0
  for (let i = 0; i < most; i++) {
    sum += unitsOf(messages[i]!) // within bounds
    if (sum > units) return Math.max(1, i)
  }
  return most
}
