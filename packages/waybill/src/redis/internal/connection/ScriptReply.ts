/**
 * Asking the server a script, with the replies that every script may give instead of its own: they become reasons here.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import { type Reason, Rejected, TopicConflict, TopicInUse, WrongKeyType } from "../../../Transport.ts"
import type { Connection } from "./Connection.ts"
import type { Script } from "./Script.ts"

/** Version of the fields in docs/wire-format.md. */
export const wire = "1"

/** Whose scripts: the topic, and the pattern it is opened with. */
export interface Opened {
  readonly topic: string
  readonly pattern: string
}

/** What is wrong, or undefined when the reply is one of the script's own. */
export const problemOf = (
  script: string,
  { pattern, topic }: Opened,
  reply: ReadonlyArray<unknown>
): Reason | undefined => {
  switch (reply[0]) {
    case "WRONGTYPE":
      return new WrongKeyType({ key: String(reply[1]), detail: `it is a ${String(reply[2])}` })
    case "CONFLICT":
      return new TopicConflict({
        topic,
        expected: `${pattern}, wire version ${wire}`,
        found: `${String(reply[1])}, wire version ${String(reply[2])}`
      })
    case "OWNED":
      return new TopicConflict({
        topic,
        expected: `a queue of the group ${String(reply[2])}`,
        found: `a queue that belongs to the group ${String(reply[1])}, and a queue has one group`
      })
    case "ORDERED":
      return new TopicConflict({
        topic,
        expected: `a queue in the order ${String(reply[2])}`,
        found: `a queue in the order ${String(reply[1])}`
      })
    case "IN USE": {
      // The script says one of these words.
      const found = reply[1] as TopicInUse["found"]
      return reply[2] === ""
        ? new TopicInUse({ topic, found })
        : new TopicInUse({ topic, group: String(reply[2]), found })
    }
    case "STALE":
      return new Rejected({ command: script, detail: "a later batch was stored before this one" })
    default:
      return undefined
  }
}

/** Runs a script and answers its reply; `A` is the script's own reply table, which the caller names. */
export const evaluate = <A extends ReadonlyArray<unknown>>(
  commands: Connection,
  opened: Opened,
  script: Script,
  keys: ReadonlyArray<string | Buffer>,
  args: ReadonlyArray<string | Uint8Array | number>
): Effect.Effect<A, Reason> =>
  Effect.flatMap(commands.eval(script, keys, args), (reply) => {
    // See above.
    const answer = reply as A
    const problem = problemOf(script.name, opened, answer)
    return problem === undefined ? Effect.succeed(answer) : Effect.fail(problem)
  })
