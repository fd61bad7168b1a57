/**
 * The connection of a replica to its master, and whether writes cross it.
 *
 * @module
 */
import { Effect } from "effect"
import { type CommandFailed, send, type Target } from "./Command.ts"

/** Arguments of servers that make links without waiting. */
export const prompt = "--repl-diskless-sync-delay 0 --repl-ping-replica-period 1".split(" ")

/** One field of a section of INFO. */
export const fieldOf = (target: Target, section: string, field: string): Effect.Effect<string, CommandFailed> =>
  Effect.map(
    send(target, "INFO", section),
    (text) => new RegExp(`^${field}:(.*)$`, "m").exec(String(text))?.[1]?.trim() ?? ""
  )

/** Whether this replica receives what its master writes. */
export const isUp = (replica: Target): Effect.Effect<boolean, CommandFailed> =>
  Effect.map(fieldOf(replica, "replication", "master_link_status"), (status) => status === "up")

/**
 * Ends the link and keeps the replica from making another until the inner effect runs. Both servers go on, and in a cluster still
 * hear each other: only what is written from now on does not reach the replica.
 */
export const cut = Effect.fnUntraced(function* (
  replica: Target
): Effect.fn.Return<Effect.Effect<void, CommandFailed>, CommandFailed> {
  const reply = yield* send(replica, "CONFIG", "GET", "masterauth")
  const before = Array.isArray(reply) ? String(reply[1]) : ""
  // With a wrong password the master refuses the link.
  yield* send(replica, "CONFIG", "SET", "masterauth", "cut off")
  yield* send(replica, "CLIENT", "KILL", "TYPE", "master")
  return Effect.asVoid(send(replica, "CONFIG", "SET", "masterauth", before))
})
