/**
 * The replies that every script of the streams pattern may give instead of its own.
 *
 * @module
 */
import { type Reason, Rejected, TopicConflict, WrongKeyType } from "../../../Transport.ts"

export const pattern = "streams"

/** Version of the fields in docs/wire-format.md. */
export const wire = "1"

/** What is wrong, or undefined when the reply is one of the script's own. */
export const problemOf = (script: string, topic: string, reply: ReadonlyArray<unknown>): Reason | undefined => {
  switch (reply[0]) {
    case "WRONGTYPE":
      return new WrongKeyType({ key: String(reply[1]), detail: `it is a ${String(reply[2])}` })
    case "CONFLICT":
      return new TopicConflict({
        topic,
        expected: `${pattern}, wire version ${wire}`,
        found: `${String(reply[1])}, wire version ${String(reply[2])}`
      })
    case "STALE":
      return new Rejected({ command: script, detail: "a later batch was stored before this one" })
    default:
      return undefined
  }
}
