/**
 * Headers are shared by everyone who reads a message, so they are frozen.
 *
 * @module
 */
import type { Headers } from "../Message.ts"

/** Of every message that has none, so that they cost nothing and are told by a glance. */
export const noHeaders: Headers = Object.freeze({})

/** Kept with a message. The caller may go on using the object. */
export const kept = (headers: Headers): Headers => (Object.isFrozen(headers) ? headers : Object.freeze({ ...headers }))
