/**
 * What the chat needs of the transports that its messages travel on. Which pattern keeps that, on Redis or in memory, is
 * said in Layers.ts.
 */
import { Transport } from "waybill"

/** Of commands, rooms, mentions and records: stored, in order, and applied in one step. */
export class Store extends Transport.Tag<Store>()("chat/Store", { guarantee: "transactional" }) {}

/** Of news and typing: they only wake, and what is lost is found again by looking. */
export class Channels extends Transport.Tag<Channels>()("chat/Channels", { guarantee: "at-most-once" }) {}

/** Of presence: signs of life that expire by themselves. */
export class Expiring extends Transport.Tag<Expiring>()("chat/Expiring", { guarantee: "at-least-once" }) {}
