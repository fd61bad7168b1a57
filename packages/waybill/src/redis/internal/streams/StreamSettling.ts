/**
 * How deliveries of streams end: plain acks in one `XACK`, everything else by the script.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type { Message } from "../../../Message.ts"
import type { Reason } from "../../../Transport.ts"
import type { Committer } from "../commit/Committer.ts"
import { pack } from "../connection/Evaluation.ts"
import type { More } from "../connection/ScriptReply.ts"
import type { Settlements, Settling } from "../group/Settling.ts"
import { fieldsOf } from "../wire/Fields.ts"
import type { StreamBelonging } from "./Claims.ts"
import { ackUnique, settle as settleScript } from "./DeliveryScripts.ts"
import type { StreamHandle } from "./StreamDelivery.ts"

export interface SettlingOptions extends StreamBelonging, Pick<Settling<StreamHandle>, "released" | "settled"> {
  readonly committer: Committer<StreamHandle>
}

/** How many of the last settlements are remembered. */
const lastLimit = 2000
/** How many deliveries one call hands back. */
const handBackLimit = 500
/** How many messages that have their ids to themselves one call ends. */
const uniqueLimit = 500

const isUnique = ({ first }: StreamHandle): boolean => first !== undefined

export class StreamSettling implements Settling<StreamHandle> {
  readonly committer: Committer<StreamHandle>
  readonly releasing: () => void
  readonly released: () => void
  readonly settled: (millis: number) => void
  readonly #options: SettlingOptions
  #last: Array<string> = []

  constructor(options: SettlingOptions) {
    this.#options = options
    this.committer = options.committer
    this.releasing = this.released = options.released
    this.settled = options.settled
  }

  /** Receipts of what was acknowledged last: a group that was lost may not know of it. */
  get last(): ReadonlyArray<string> {
    return this.#last.slice(-lastLimit)
  }

  acked({ receipt }: StreamHandle): void {
    this.#last.push(receipt)
    if (this.#last.length > 2 * lastLimit) this.#last = this.#last.slice(-lastLimit)
  }

  isPlain({ detached, renewedAt }: StreamHandle, since: number): boolean {
    return detached || renewedAt > since
  }

  placeOf({ count, detached, entry, source }: StreamHandle) {
    return [source, entry, detached ? 0 : count]
  }

  encode(message: Message) {
    return pack(fieldsOf(message))
  }

  ack(handles: ReadonlyArray<StreamHandle>): Effect.Effect<number, Reason> {
    const unique = handles.filter(isUnique)
    if (unique.length === 0) return this.#ack(handles)
    const rest = handles.filter((handle) => !isUnique(handle))
    const acked = this.#ackUnique(unique)
    return rest.length === 0 ? acked : Effect.zipWith(this.#ack(rest), acked, (a, b) => a + b)
  }

  readonly #ackUnique = Effect.fnUntraced({ self: this }, function* (handles: ReadonlyArray<StreamHandle>) {
    const { call, subscription } = this.#options
    let acked = 0
    for (let from = 0; from < handles.length; from += uniqueLimit) {
      const entries: Array<string> = []
      const ids: Array<string> = []
      const others: Array<string | number> = []
      for (const { count, entry, first = "", id, source } of handles.slice(from, from + uniqueLimit)) {
        if (source === 0 && count === 1 && first === entry) ids[entries.push(entry) - 1] = id
        else others.push(source, entry, count, id, first)
      }
      const named = { group: subscription.group, fresh: ids.length }
      acked += (yield* call(ackUnique, named, { args: [...entries, ...ids, ...others] })).count
    }
    return acked
  })

  #ack(handles: ReadonlyArray<StreamHandle>): Effect.Effect<number, Reason> {
    const { commands, keys, subscription } = this.#options
    const { group } = subscription
    const { stream } = keys
    const fresh: Array<string> = []
    const again: Array<string> = []
    const uncounted: Array<string> = []
    for (const { count, entry, source } of handles) {
      if (source === 0) fresh.push(entry)
      else again.push(entry)
      if (count > 1) uncounted.push(`${source}${entry}`, `!${source}${entry}`)
    }
    if (again.length === 0 && uncounted.length === 0) {
      return commands.run("xack", stream, (client) => client.xack(stream, group, ...fresh))
    }
    const { released, retry } = keys
    return commands.run(
      "xack",
      [stream, retry, released],
      (client) =>
        Promise.all([
          fresh.length === 0 ? 0 : client.xack(stream, group, ...fresh),
          again.length === 0 ? 0 : client.xack(retry, group, ...again),
          uncounted.length === 0 ? 0 : client.hdel(released, ...uncounted)
        ]).then(([main, retry]) => main + retry),
      { several: true }
    )
  }

  run(_: ReadonlyArray<StreamHandle>, more: More): Effect.Effect<Settlements, Reason> {
    const { call, committer, deadLetters, receiver, subscription } = this.#options
    const { group } = subscription
    const { consumer } = receiver
    return call(settleScript, { group, consumer, ...deadLetters, ttl: committer.markerMillis }, more)
  }

  handBackBegun(handles: ReadonlyArray<StreamHandle>): Effect.Effect<void, Reason> {
    return Effect.gen({ self: this }, function* () {
      for (let from = 0; from < handles.length; from += handBackLimit) {
        const some = handles.slice(from, from + handBackLimit)
        yield* this.run([], { args: some.flatMap((handle) => ["U", ...this.placeOf(handle)]) })
      }
    })
  }
}
