/**
 * A transport of which the test decides every answer. It keeps the books on each delivery that it hands out, and
 * `complaints` says which of them ended twice, or never.
 */
import { Deferred, Effect, Exit, Queue, type Scope } from "effect"
import type { NonEmptyReadonlyArray } from "effect/Array"
import {
  type Commit,
  type Delivery,
  type Inspector,
  Lifecycle,
  type Message,
  type Settlement,
  Transport
} from "waybill"

/** The first delivery of a message, for tests that ask nothing of most of its fields. */
export const deliveryOf = (some: Partial<Delivery.Delivery> = {}): Delivery.Delivery => ({
  id: "m",
  body: "x",
  headers: {},
  key: undefined,
  version: 1,
  publishedAt: 0,
  topic: "t",
  group: "g",
  attempt: 1,
  fence: 1,
  receipt: "r",
  ...some
})

/** How a delivery ended, in the eyes of the transport. */
export type End = Settlement.Settlement["_tag"] | "Lost" | "Returned"

export class FakeTransport {
  readonly lifecycle = new Lifecycle.Lifecycle()
  readonly events: Array<Lifecycle.Event> = []
  /** The batches of each publish. */
  readonly published: Array<ReadonlyArray<Message.Outgoing>> = []
  /** The `max` of each take. */
  readonly takes: Array<number> = []
  readonly taken: Array<Delivery.Delivery> = []
  /** What was settled, in order, stale ones left out. */
  readonly settled: Array<readonly [Delivery.Delivery, Settlement.Settlement]> = []
  /** How many settlements each call carried. */
  readonly batches: Array<number> = []
  readonly held = new Map<string, Delivery.Delivery>()
  mostHeld = 0
  joins = 0
  leaves = 0
  /** Run before the step they are named after; replace them to fail, to wait or to refuse to be interrupted. */
  onPublish: Effect.Effect<void, Transport.TransportError> = Effect.void
  onReceive: Effect.Effect<void, Transport.TransportError, Scope.Scope> = Effect.void
  onTake: Effect.Effect<void, Transport.TransportError> = Effect.void
  onSettle: Effect.Effect<void, Transport.TransportError> = Effect.void
  onLeave: Effect.Effect<void> = Effect.void
  /** Told of each end, for those who deliver again. */
  onEnd: (delivery: Delivery.Delivery, end: End) => void = () => undefined
  /** A settlement that is dropped here was never sent, whatever the consumer believes. */
  drop: (delivery: Delivery.Delivery) => boolean = () => false
  /** How a commit ends that is refused, or that it does not end. */
  refuse: (delivery: Delivery.Delivery) => Settlement.DeadLetter | Commit.ConditionFailed | undefined = () => undefined
  readonly subscriptions: Array<Transport.Subscription> = []
  readonly #ends = new Map<string, Array<End>>()
  readonly #ready: Array<Delivery.Delivery> = []
  readonly #lost: Queue.Queue<Delivery.Delivery>
  #arrival = Deferred.makeUnsafe<void>()
  #receipts = 0

  constructor(lost: Queue.Queue<Delivery.Delivery>) {
    this.#lost = lost
  }

  static readonly make = Effect.gen(function* () {
    const transport = new FakeTransport(yield* Queue.unbounded<Delivery.Delivery>())
    yield* transport.lifecycle.listen((event) => transport.events.push(event))
    return transport
  })

  readonly layer = Transport.layer("transactional", () =>
    Effect.succeed({
      lifecycle: this.lifecycle,
      // Nobody looks.
      inspector: {} as Inspector.Inspector["Service"],
      publish: (_, messages) =>
        Effect.map(
          Effect.suspend(() => this.onPublish),
          () => {
            this.published.push(messages)
            return messages.map((message, i): Message.Receipt => ({ _tag: "Stored", id: message.id ?? `m-${i}` }))
          }
        ),
      receive: (subscription) => {
        this.subscriptions.push(subscription)
        return this.#receive
      }
    })
  )()

  /** Makes deliveries available; a body that is no string is sent as JSON. */
  deliver(...bodies: ReadonlyArray<unknown>): ReadonlyArray<Delivery.Delivery> {
    const deliveries = bodies.map((body) => this.delivery(body))
    this.#offer(deliveries)
    return deliveries
  }

  /** The next delivery of the same message. */
  again(delivery: Delivery.Delivery, attempt: number): Delivery.Delivery {
    const next = { ...delivery, attempt, fence: delivery.fence + 1, receipt: `r${this.#receipts++}` }
    this.#offer([next])
    return next
  }

  delivery(body: unknown, more?: Partial<Delivery.Delivery>): Delivery.Delivery {
    const receipt = `r${this.#receipts++}`
    return deliveryOf({
      id: `m${receipt}`,
      body: typeof body === "string" || body instanceof Uint8Array ? body : JSON.stringify(body),
      receipt,
      ...more
    })
  }

  offer(...deliveries: ReadonlyArray<Delivery.Delivery>): void {
    this.#offer(deliveries)
  }

  /** Takes the leases away from those that are still held. */
  lose(...deliveries: ReadonlyArray<Delivery.Delivery>): void {
    const lost = deliveries.filter((delivery) => this.held.delete(delivery.receipt))
    for (const delivery of lost) this.#end(delivery, "Lost")
    Queue.offerAllUnsafe(this.#lost, lost)
  }

  /** How many deliveries nobody has taken yet. */
  get waiting(): number {
    return this.#ready.length
  }

  /** All settlements, in few words. */
  outcomes(): Array<string> {
    return this.settled.map(([, settlement]) => settlement._tag)
  }

  ends(delivery: Delivery.Delivery): ReadonlyArray<End> {
    return this.#ends.get(delivery.receipt) ?? []
  }

  count(tag: Lifecycle.Event["_tag"]): number {
    return this.events.filter((event) => event._tag === tag).length
  }

  /** Each delivery that was handed out must have come to one end, and the consumer must believe in that end. */
  complaints(): Array<string> {
    const believed = new Map<string, Array<string>>()
    for (const event of this.events) {
      if (event._tag !== "Settled" || event.stale) continue
      const { receipt } = event.delivery
      believed.set(receipt, [...(believed.get(receipt) ?? []), event.settlement._tag])
    }
    return this.taken.flatMap((delivery) => {
      const ends = this.ends(delivery)
      const says = believed.get(delivery.receipt) ?? []
      const settled = ends.filter((end) => end !== "Lost" && end !== "Returned")
      if (ends.length === 1 && says.join() === settled.join()) return []
      const told = `and the consumer says ${says.join(" and ") || "nothing"}`
      return [`${delivery.id}, attempt ${delivery.attempt}, ended ${ends.join(" and ") || "never"}, ${told}`]
    })
  }

  #offer(deliveries: ReadonlyArray<Delivery.Delivery>): void {
    this.#ready.push(...deliveries)
    const arrival = this.#arrival
    this.#arrival = Deferred.makeUnsafe()
    Deferred.doneUnsafe(arrival, Exit.void)
  }

  #end(delivery: Delivery.Delivery, end: End): void {
    const ends = this.#ends.get(delivery.receipt)
    if (ends === undefined) this.#ends.set(delivery.receipt, [end])
    else ends.push(end)
    this.onEnd(delivery, end)
  }

  readonly #take = (
    max: number,
    mine: Set<Delivery.Delivery>
  ): Effect.Effect<NonEmptyReadonlyArray<Delivery.Delivery>> =>
    Effect.suspend(() => {
      if (this.#ready.length === 0) return Effect.flatMap(Deferred.await(this.#arrival), () => this.#take(max, mine))
      const deliveries = this.#ready.splice(0, max)
      for (const delivery of deliveries) {
        this.held.set(delivery.receipt, delivery)
        mine.add(delivery)
      }
      this.taken.push(...deliveries)
      this.mostHeld = Math.max(this.mostHeld, this.held.size)
      // Not empty: max is at least 1, and so is the length just seen.
      return Effect.succeed(deliveries as unknown as NonEmptyReadonlyArray<Delivery.Delivery>)
    })

  readonly #settle: Transport.Receiver["settle"] = (entries) =>
    Effect.map(
      Effect.suspend(() => this.onSettle),
      () => {
        this.batches.push(entries.length)
        return entries.map(([handle, settlement]): Transport.Settled => {
          const delivery = handle as Delivery.Delivery // these are their own handles
          if (this.drop(delivery)) return "Settled"
          const instead = settlement._tag === "Ack" && settlement.commit ? this.refuse(delivery) : undefined
          if (instead?._tag === "ConditionFailed" && this.held.has(delivery.receipt)) return instead
          if (!this.held.delete(delivery.receipt)) {
            // A delivery that ended before: refused, and a complaint unless it had been lost.
            if (!this.ends(delivery).includes("Lost")) this.#end(delivery, settlement._tag)
            return "Stale"
          }
          const refused = instead?._tag === "DeadLetter" ? instead : undefined
          const end = refused ?? settlement
          this.#end(delivery, end._tag)
          this.settled.push([delivery, end])
          return refused ?? "Settled"
        })
      }
    )

  readonly #receive = Effect.acquireRelease(
    Effect.map(
      Effect.suspend(() => this.onReceive),
      () => {
        const mine = new Set<Delivery.Delivery>()
        const receiver: Transport.Receiver = {
          consumer: `fake-${++this.joins}`,
          take: (max) =>
            Effect.suspend(() => {
              this.takes.push(max)
              return Effect.andThen(this.onTake, this.#take(max, mine))
            }),
          settle: this.#settle,
          lost: Queue.takeAll(this.#lost)
        }
        return { mine, receiver }
      }
    ),
    ({ mine }) =>
      Effect.map(
        Effect.suspend(() => this.onLeave),
        () => {
          this.leaves++
          for (const delivery of mine) if (this.held.delete(delivery.receipt)) this.#end(delivery, "Returned")
        }
      ),
    { interruptible: true }
  ).pipe(Effect.map(({ receiver }) => receiver))
}
