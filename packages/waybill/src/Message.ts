/**
 * A message is an id, bytes and a few words about them; nothing in here runs.
 *
 * @module
 */
import type * as Duration from "effect/Duration"

/**
 * The body of a message as it travels: text (JSON, when the producer is ours), or the raw bytes when what arrived is
 * not valid UTF-8. Bytes are never repaired or replaced on the way.
 */
export type Body = string | Uint8Array

/** Free-form metadata that travels with a message. W3C `traceparent` lives here. Names are case-sensitive. */
export type Headers = Readonly<Record<string, string>>

/** A message as a consumer sees it. */
export interface Message {
  /** The producer's id when it gave one, otherwise the id the transport assigned. It survives retries and redrives. */
  readonly id: string
  readonly body: Body
  readonly headers: Headers
  /** What must stay in order, where the transport can. */
  readonly key: string | undefined
  /** Version of the payload's schema, 1 unless the topic says otherwise. */
  readonly version: number
  /** Milliseconds since the epoch, by the clock that stored the message. */
  readonly publishedAt: number
}

/** A message on its way in. */
export interface Outgoing {
  /** De-duplication key. Publishing it again inside the transport's window stores nothing. */
  readonly id: string | undefined
  readonly body: string
  readonly headers: Headers
  readonly key: string | undefined
  readonly version: number
  /** When it may be delivered; `undefined` means now. */
  readonly due: Due | undefined
}

/** A delay is counted by the clock of the server that stores the message, an instant is compared with it. */
export type Due =
  | { readonly _tag: "After"; readonly delay: Duration.Duration }
  | { readonly _tag: "At"; readonly epochMillis: number }

/**
 * What `publish` returns: the message is stored (or waits for its due time), it was stored before under the same id, or it
 * was sent to the subscribers of that moment, by a pattern that stores nothing.
 */
export interface Receipt {
  readonly _tag: "Stored" | "Duplicate" | "Sent"
  /** The message id that consumers will see. */
  readonly id: string
}
