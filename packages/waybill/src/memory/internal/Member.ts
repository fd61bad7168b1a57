/**
 * A receiver as its group sees it: what it holds, what others have taken from it, and since when it has been frozen.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import * as Latch from "effect/Latch"
import type { Delivery, Failures } from "../../Delivery.ts"
import { Recalls } from "../../internal/Recalls.ts"
import type { Subscription } from "../../Transport.ts"
import type { Stored } from "./Source.ts"

/** A message on its way through a group. */
export interface Work {
  readonly message: Stored
  /** The same message while the source still keeps it for this group. */
  kept: Stored | undefined
  attempt: number
  fence: number
  /** How many consumers died holding it. */
  deaths: number
  /** The rendered failure of the last attempt. */
  cause: string
  /** Its attempts so far (Attempts.ts). */
  log: string
  /** How often each row of the routing table has retried it. */
  failures: ReadonlyMap<string, Failures> | undefined
  /** Part of its commit was applied: none of it may be applied again, however often it comes back. */
  partial: boolean
  /** When an operator has cancelled the delivery. */
  cancelledAt?: number
  delivery: Delivery | undefined
  deliveredAt: number
}

/** Deliveries that a member has yet to be told of. */
class Notices {
  #deliveries: Array<Delivery> = []
  #some = Latch.makeUnsafe()

  /** Opens when there are some. */
  get some(): Latch.Latch {
    return this.#some
  }

  add(delivery: Delivery): void {
    this.#deliveries.push(delivery)
  }

  /** Those since the last call. */
  take(): Array<Delivery> {
    const deliveries = this.#deliveries
    if (deliveries.length > 0) {
      this.#deliveries = []
      this.#some = Latch.makeUnsafe()
    }
    return deliveries
  }
}

export class Member {
  readonly consumer: string
  readonly leaseMillis: number
  readonly maxDeliveries: number
  /** By receipt, oldest delivery first. */
  readonly held = new Map<string, Work>()
  /** Requests to give back deliveries that have not begun. */
  readonly recalls = new Recalls()
  /** Those among them that several consumers have died with. */
  readonly suspects = new Set<Work>()
  /** Since when it renews nothing; `undefined` unless frozen. */
  frozenSince: number | undefined = undefined
  /** What others have taken from it. */
  readonly lost = new Notices()
  /** What it holds and an operator has cancelled. */
  readonly cancelled = new Notices()

  constructor(consumer: string, subscription: Subscription) {
    this.consumer = consumer
    this.leaseMillis = Duration.toMillis(subscription.lease)
    this.maxDeliveries = subscription.maxDeliveries
  }

  expiresAt(): number {
    return this.frozenSince === undefined ? Infinity : this.frozenSince + this.leaseMillis
  }
}
