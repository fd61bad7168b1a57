/**
 * Reads records as they are at one moment; whatever is asked, nothing is written.
 *
 * @module
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type { Reply } from "../../../Commit.ts"
import type { Records } from "../../../Records.ts"
import { TransportError } from "../../../Transport.ts"
import type { Connection } from "../connection/Connection.ts"
import type { Script } from "../connection/Script.ts"
import { dataKey } from "../wire/Keys.ts"
import { reads } from "../wire/Lua.ts"

/**
 * | KEYS | |
 * |---|---|
 * | 1 | the record |
 *
 * | ARGV | |
 * |---|---|
 * | 1 | command |
 * | 2... | its arguments behind the key |
 *
 * Replies what the command replies, in a form that no setting of the connection changes.
 */
const read: Script = {
  name: "waybill/read",
  lua: `${reads}
return redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))
`
}

export const make = (commands: Connection, prefix: string): Context.Service.Shape<typeof Records> => ({
  read: ({ name: topic }, { args, command, decode, key }) =>
    commands.eval(read, [dataKey(prefix, topic, key)], [command, ...args]).pipe(
      // See the script.
      Effect.map((reply) => decode(reply as Reply)),
      Effect.mapError((reason) => new TransportError({ operation: "inspect", topic, reason }))
    )
})
