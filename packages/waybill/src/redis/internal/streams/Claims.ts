/**
 * Finds deliveries without a consumer: those left by dead or leaving consumers are taken over, and those that are ours on the
 * server but unknown to us are adopted, because the reply that gave them to us was lost, or the settlement that had ended them.
 * Messages that consumers died with are taken over a few at a time.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Semaphore from "effect/Semaphore"
import { joined } from "../../../internal/Attempts.ts"
import { suspicious } from "../../../internal/Suspects.ts"
import * as Settlement from "../../../Settlement.ts"
import type { Reason } from "../../../Transport.ts"
import { isGroupGone } from "../group/Beat.ts"
import type { Belonging } from "../group/GroupReceiver.ts"
import { suspectsAmong } from "../group/Suspecting.ts"
import type { GroupKeys, TopicKeys } from "../wire/Keys.ts"
import { read } from "../wire/Tally.ts"
import { claim, type Claimed } from "./DeliveryScripts.ts"
import { nobody } from "./Progress.ts"
import { isDoubtful, type Source, StreamDelivery, type StreamHandle } from "./StreamDelivery.ts"

export type StreamBelonging = Belonging<StreamHandle, TopicKeys & GroupKeys>

/** The most that one script takes over. */
const claimLimit = 500
/** How many of our entries one command lists. */
const pageLimit = 1000

/** The source of an entry, its id, and whether the unknown delivery counts as an attempt. */
type Named = readonly [Source, string, counts: 0 | 1]

export class Claims {
  readonly #options: StreamBelonging
  /** Deliveries that one claim was given and does not hold yet would look unknown to another. */
  readonly #claiming = Semaphore.makeUnsafe(1)
  /** The server may have more of ours than we know of. */
  unsure = false
  /** The last claim took all it could. */
  more = false
  /** This consumer has handed something back, and has not yet seen that nothing of it is left. */
  returned = false
  /** Held deliveries that several consumers have died with, while others wait for one of them to end. */
  #suspects: ReadonlyArray<StreamHandle> = []

  constructor(options: StreamBelonging) {
    this.#options = options
  }

  /** There may be something to take over. */
  get pending(): boolean {
    return this.more || this.returned
  }

  /** A delivery ended: if it was a suspect, more may be taken over. */
  settled(): void {
    if (this.#suspects.every(this.#holds)) return
    this.#suspects = []
    this.more = true
    this.#options.receiver.hurry()
  }

  /** Takes over at most that many deliveries. */
  takeOver(max: number): Effect.Effect<void, Reason> {
    return this.#claiming.withPermits(1)(this.#claim(Math.min(claimLimit, max), []))
  }

  /** Adopts deliveries that are ours but unknown to us. Runs in the reader, so no read is under way. `seen`: its reply has arrived. */
  adoptUnknown(seen: (source: Source, entry: string) => boolean): Effect.Effect<void, Reason> {
    const adopt = Effect.gen({ self: this }, function* () {
      const { commands, keys, receiver, subscription } = this.#options
      const unknown: Array<Named> = []
      for (const source of [0, 1] as const) {
        const key = source === 0 ? keys.stream : keys.retry
        const held = this.#entries(source)
        let from = "-"
        while (true) {
          const page = yield* commands
            .run(
              "xpending",
              key,
              (client) =>
                client.xpending(key, subscription.group, from, "+", pageLimit, receiver.consumer) as Promise<
                  ReadonlyArray<[string]>
                > // one row an entry, its id first
            )
            .pipe(Effect.catchIf(isGroupGone, () => Effect.succeed([])))
          for (const [entry] of page) if (!held.has(entry)) unknown.push([source, entry, seen(source, entry) ? 1 : 0])
          const last = page.at(-1)
          if (last === undefined || page.length < pageLimit) break
          from = `(${last[0]}`
        }
      }
      this.unsure = false
      for (let i = 0; i < unknown.length; i += claimLimit) {
        yield* this.#claim(0, unknown.slice(i, i + claimLimit))
        // The rest is found again when there is demand.
        if (receiver.inFlight.demand === 0) {
          this.unsure ||= i + claimLimit < unknown.length
          break
        }
      }
    })
    return Effect.onError(this.#claiming.withPermits(1)(adopt), () => Effect.sync(() => (this.unsure = true)))
  }

  /** Reads again, as bytes, what did not look like text. What cannot be read now is found again later as unknown. */
  exact(deliveries: ReadonlyArray<StreamDelivery>): Effect.Effect<ReadonlyArray<StreamDelivery>> {
    const { commands, keys } = this.#options
    return Effect.gen({ self: this }, function* () {
      const exact: Array<StreamDelivery> = []
      for (const delivery of deliveries) {
        if (isDoubtful(delivery.body)) {
          const { entry, source } = delivery.handle
          const key = source === 0 ? keys.stream : keys.retry
          const result = yield* Effect.result(
            commands.run("xrange", key, (client) => client.xrangeBuffer(key, entry, entry))
          )
          if (Result.isFailure(result)) {
            this.unsure = true
            continue
          }
          delivery.useBytes(result.success[0]?.[1])
        }
        exact.push(delivery)
      }
      return exact
    })
  }

  /** The ids of the entries that are held from one stream. */
  #entries(source: Source): ReadonlySet<string> {
    const entries = new Set<string>()
    const { inFlight } = this.#options.receiver
    for (const held of inFlight.all()) if (held.source === source) entries.add(held.entry)
    return entries
  }

  /** Takes over at most `max` deliveries, and those named. */
  #claim(max: number, unknown: ReadonlyArray<Named>): Effect.Effect<void, Reason> {
    const { call, deadLetters, lifecycle, receiver, subscription, topic } = this.#options
    const { group } = subscription
    return Effect.gen({ self: this }, function* () {
      const now = receiver.now()
      const suspects = receiver.inFlight.all().filter(isSuspect)
      const reply = yield* call(
        claim,
        {
          group,
          consumer: receiver.consumer,
          budget: max,
          ...deadLetters,
          lease: Math.ceil(receiver.leaseMillis),
          ...suspectsAmong(suspects, subscription)
        },
        { args: unknown.flat() }
      )
      if (reply._tag !== "OK") {
        this.more = false
        // The next beat revives us; the named ones are found again.
        if (unknown.length > 0) this.unsure = true
        return
      }
      const { cancelled, deadLettered, dropped, gone, more, taken } = reply
      if (max > 0 && taken.length < max && !more) this.returned = false
      const from = new Set<string>()
      let count = 0
      const toDelivery = ({ count, entry, fields, owner, released, source, tally }: Claimed) => {
        if (owner !== nobody && owner !== receiver.consumer) from.add(owner)
        const delivery = new StreamDelivery(topic, group, source, entry, count, released, fields, now)
        const { handle } = delivery
        const log = read(tally)?.log ?? ""
        if (log !== "") handle.tally = { ...handle.tally, log: joined(handle.tally.log, log) }
        return delivery
      }
      const deliveries = taken.map(toDelivery)
      // A call stops when it has gathered much: the rest of the named ones is looked up again.
      if (taken.length + deadLettered.length + cancelled.length + gone < unknown.length) this.unsure = true
      for (const claimed of taken) if (from.has(claimed.owner)) count++
      const letters = deadLettered.map(toDelivery)
      const ended = cancelled.map(toDelivery)
      receiver.inFlight.add(yield* this.exact(deliveries))
      // While suspects are held there is no hurry: the end of one wakes the heartbeat.
      this.#suspects = more
        ? [...suspects, ...deliveries.map(({ handle }) => handle).filter(isSuspect)].filter(this.#holds)
        : []
      this.more = max > 0 && (taken.length >= max || (more && this.#suspects.length === 0))
      if (from.size > 0) yield* lifecycle.report({ _tag: "Claimed", topic, group, from: [...from], count })
      yield* receiver.deadLettered(letters, ({ handle: { count } }) =>
        Settlement.deadLetter("CrashLoop", `delivered ${count} times to consumers that died or stalled`)
      )
      yield* receiver.deadLettered(ended, () => Settlement.cancelled)
      yield* receiver.truncated(gone)
      yield* receiver.dropped(dropped)
    })
  }

  readonly #holds = (handle: StreamHandle): boolean => this.#options.receiver.inFlight.find(handle) === handle
}

const isSuspect = ({ tally }: StreamHandle): boolean => tally.deaths >= suspicious
