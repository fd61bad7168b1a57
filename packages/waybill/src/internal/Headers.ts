/**
 * Headers are shared by all who read a message: what is kept is frozen, and what is handed out is a copy.
 *
 * @module
 */
import type { Headers } from "../Message.ts"

/** Kept with a message. Whoever gave them may go on using the object. */
export const kept = (headers: Headers): Headers => (Object.isFrozen(headers) ? headers : Object.freeze({ ...headers }))

/** For one reader, who may write into it. */
export const handed = (headers: Headers): Headers => {
  for (const _ in headers) return { ...headers }
  return {}
}
