/**
 * Writes down what the transport tells of settled deliveries: evidence for the report that does not come from the
 * consumers themselves.
 */
import { Effect } from "effect"
import { Transport } from "waybill"

export interface Witness {
  /** Ids of the deliveries that the group's consumers in this process acked, and whose ack the store took. */
  readonly acked: (group: string) => ReadonlySet<string>
  /** How many deliveries went back to wait for another attempt. */
  readonly retried: (group: string) => number
  /** How many deliveries were taken over from this consumer. */
  readonly takenFrom: (consumer: string) => number
}

/** From now until the scope closes. */
export const make = Effect.fn("Witness.make")(function* () {
  const { lifecycle } = yield* Transport.AtLeastOnce
  const acked = new Map<string, Set<string>>()
  const retried = new Map<string, number>()
  const taken = new Map<string, number>()
  yield* lifecycle.listen((event) => {
    if (event._tag === "Settled" && !event.stale) {
      if (event.settlement._tag === "Retry") retried.set(event.group, (retried.get(event.group) ?? 0) + 1)
      if (event.settlement._tag !== "Ack") return
      const ids = acked.get(event.group)
      if (ids === undefined) acked.set(event.group, new Set([event.delivery.id]))
      else ids.add(event.delivery.id)
    }
    if (event._tag === "Claimed") {
      for (const consumer of event.from) taken.set(consumer, (taken.get(consumer) ?? 0) + event.count)
    }
  })
  const witness: Witness = {
    acked: (group) => acked.get(group) ?? new Set(),
    retried: (group) => retried.get(group) ?? 0,
    takenFrom: (consumer) => taken.get(consumer) ?? 0
  }
  return witness
})
