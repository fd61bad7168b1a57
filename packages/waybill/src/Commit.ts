/**
 * A commit is what a handler wants to become true in Redis, as data: writes and messages that are applied together with
 * the ack of its delivery, all of them once or none of them.
 *
 * @module
 */
import type { Outgoing } from "./Message.ts"

/** One write to one key. The name stands under the hash tag of the topic that is consumed. */
export interface Write {
  readonly key: string
  readonly type: "string" | "hash" | "set" | "zset" | "list"
  readonly command: string
  readonly args: ReadonlyArray<string | number>
}

/** A message on its way to a topic under the same hash tag. */
export interface Publication {
  readonly topic: string
  readonly message: Outgoing
}

export interface Commit {
  readonly writes: ReadonlyArray<Write>
  readonly messages: ReadonlyArray<Publication>
}
