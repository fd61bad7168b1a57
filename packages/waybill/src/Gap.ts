/**
 * A gap is what a subscriber knows it has missed, reported before the next message. It never claims more than a
 * pattern can know.
 *
 * @module
 */

export interface Gap {
  /** How many messages were missed; `undefined` when that is unknown. */
  readonly missed: number | undefined
  /** Id of the last message that arrived before the gap, if there was one. */
  readonly after: string | undefined
  /** Id of the first message that arrived after it. */
  readonly before: string
  /**
   * `disconnected`: they were sent while the connection was down, or the server dropped it. `overflow`: they arrived,
   * but the subscriber was too slow for its buffer. `expired`: they were stored, but expired before they were read.
   */
  readonly reason: "disconnected" | "overflow" | "expired"
}
