/**
 * Reads records at one moment, and never writes.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type { Reply } from "../../../Commit.ts"
import { type Transport, TransportError } from "../../../Transport.ts"
import type { Commands } from "../connection/Connection.ts"
import { listOf, make as script, type Part, text } from "../connection/Script.ts"
import { evaluate } from "../connection/ScriptReply.ts"
import { dataKey } from "../wire/Keys.ts"

const reply: Part<Reply> = (part) =>
  part === null || typeof part === "number" ? part : Array.isArray(part) ? listOf(text)(part) : text(part)

/** Returns the command's reply, in a form independent of connection settings. Further key: the record. Further arguments: those after it. */
export const read = script({
  name: "waybill/read",
  mode: "reads",
  keys: {},
  args: { command: "text" },
  replies: { OK: { reply } },
  lua: /* lua */ `
return {'OK', redis.call(command, KEYS[1], unpack(ARGV, moreArgs + 1))}
`
})

export const make = (commands: Commands, prefix: string): NonNullable<Transport["records"]> => ({
  read: ({ name: topic }, { args, command, decode, key }) =>
    evaluate(
      commands,
      { topic, pattern: "" },
      read,
      {},
      { command },
      { keys: [dataKey(prefix, topic, key)], args }
    ).pipe(
      Effect.mapError((reason) => new TransportError({ operation: "inspect", topic, reason })),
      Effect.flatMap(({ reply }) => decode(reply))
    )
})
