/**
 * A message alone, without what stores and deliveries add to it.
 *
 * @module
 */
import type { Message } from "../Message.ts"

export const plain = ({ body, headers, id, key, publishedAt, version }: Message): Message => ({
  id,
  body,
  headers,
  key,
  version,
  publishedAt
})
