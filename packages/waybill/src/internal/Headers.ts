/**
 * Headers are shared by everyone who reads a message, so they are frozen.
 *
 * @module
 */
import type { Headers } from "../Message.ts"

/** Shared by all messages without headers: free, and recognised by identity. */
export const noHeaders: Headers = Object.freeze({})

/** Frozen headers to keep with a message. The caller may keep using its object. */
export const kept = (headers: Headers): Headers => (Object.isFrozen(headers) ? headers : Object.freeze({ ...headers }))

/** The number of a request, under which its answer is expected. */
export const replyTo = "reply-to"

/** For how long, in milliseconds since it was published, an answer is waited for. */
export const replyWithin = "reply-within"
