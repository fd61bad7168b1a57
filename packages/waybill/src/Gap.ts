/**
 * A gap is what a subscriber knows it has missed, told before the next message: never more than a pattern can know.
 *
 * @module
 */

export interface Gap {
  /** How many messages were missed; `undefined` when nothing tells. */
  readonly missed: number | undefined
  /** Id of the last message that arrived before, if any did. */
  readonly after: string | undefined
  /** Id of the first message that arrived again. */
  readonly before: string
  /**
   * `disconnected`: they were sent while the connection was down, or the server dropped it. `overflow`: they arrived and
   * the subscriber was too slow for its buffer. `expired`: they were stored, and their time was over before they were read.
   */
  readonly reason: "disconnected" | "overflow" | "expired"
}
