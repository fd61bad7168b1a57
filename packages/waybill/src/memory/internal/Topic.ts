/**
 * One in-memory topic: the source of its messages, those that are not due yet, the ids seen recently, and its groups.
 *
 * @module
 */
import * as Duration from "effect/Duration"
import * as Latch from "effect/Latch"
import type {
  DelayedMessage,
  LocatedMessage,
  MessageInGroup,
  Place as Destination,
  Retention,
  StoredMessage,
  TopicInfo
} from "../../Inspector.ts"
import { disagreement, textOf } from "../../internal/Filter.ts"
import { kept } from "../../internal/Headers.ts"
import type { Limits } from "../../internal/Limits.ts"
import { plain } from "../../internal/PlainMessage.ts"
import { noPriorities } from "../../internal/Unplaced.ts"
import type { Coalescing, Outgoing, Priority, Receipt, Uniqueness } from "../../Message.ts"
import {
  MessageInUse,
  MessageNotFound,
  MessageNotWaiting,
  MessageSettled,
  NotOffered,
  type Subscription,
  TopicConflict,
  TopicInUse
} from "../../Transport.ts"
import { DueQueue, wholeMillis } from "./DueQueue.ts"
import { Fifo } from "./Fifo.ts"
import { Group, type Home } from "./Group.ts"
import type { Fact, Place, Source, Stored } from "./Source.ts"

/** What a pattern contributes. */
export interface Pattern {
  /** Its name, as reported by `Inspector`. */
  readonly name: string
  readonly retention: (topic: string) => Retention
  /** Whether the places of its groups can be chosen. */
  readonly positions?: boolean
  /** Whether its groups are given the most urgent messages first. */
  readonly priorities?: boolean
  /** Whether they may have a filter. */
  readonly filters?: boolean
  /** For how long messages may have their ids to themselves, besides the window. */
  readonly unique: ReadonlyArray<Uniqueness>
  /** The name under which the program has this store, unless it is the default. */
  readonly as: string | undefined
  readonly limits: (topic: string) => Limits
  readonly source: (place: Place) => Source
}

/** The ids that count as published, until when, and in the order they will be forgotten. */
class Seen {
  readonly ids = new Map<string, number>()
  readonly forgetting = new Fifo<{ readonly id: string; readonly at: number }>()
}

/** What outlasts a removed topic, as it does in Redis: which ids count as published, and the last generated one. */
export interface Remains {
  readonly seen: Seen | undefined
  readonly idMillis: number
  readonly idSequence: number
  /** From then on it no longer matters. */
  readonly until: number
}

const noLatches: ReadonlyArray<Latch.Latch> = []

export class Topic implements Home {
  readonly name: string
  /** Events that were not reported yet. */
  readonly facts: Array<Fact> = []
  readonly commit: Home["commit"]
  readonly #pattern: Pattern
  readonly #source: Source
  // Created on demand: there may be thousands of topics.
  #paused: Set<string> | undefined
  #groups: Map<string, Group> | undefined
  #delayed: DueQueue<Stored> | undefined
  #seen: Seen | undefined
  /** The messages that have their ids to themselves. */
  #unique: Map<string, Stored> | undefined
  #changed: Latch.Latch | undefined
  #stirred = false
  #opening: Array<Latch.Latch> | undefined
  #receipts = 0
  #published = 0
  #idMillis = 0
  #idSequence = 0

  constructor(name: string, pattern: Pattern, commit: Home["commit"], remains: Remains | undefined) {
    this.name = name
    this.commit = commit
    this.#pattern = pattern
    if (remains !== undefined) {
      this.#seen = remains.seen
      this.#idMillis = remains.idMillis
      this.#idSequence = remains.idSequence
    }
    this.#source = pattern.source({ topic: name, report: (fact) => this.report(fact) })
  }

  publish(messages: ReadonlyArray<Outgoing>, now: number): ReadonlyArray<Receipt> {
    this.#forget(now)
    this.promote(now)
    const receipts = messages.map((message) => this.#accept(message, now))
    this.#source.trim(now)
    this.change()
    return receipts
  }

  /** Moves due messages into the source. */
  promote(now: number): void {
    const delayed = this.#delayed
    const due = delayed?.nextDue
    if (delayed === undefined || due === undefined || due > now) return
    for (let at: number | undefined = due; at !== undefined && at <= now; at = delayed.nextDue) {
      const message = delayed.shift(now)
      // Dated back to when it was due, however late anyone checks.
      if (message !== undefined) this.#add(message, at)
    }
    this.#source.trim(now)
  }

  group(name: string): Group | undefined {
    return this.#groups?.get(name)
  }

  /** The group of this name; a new one begins where `start` says. */
  join({ group: name, only, start }: Subscription, now: number): Group | TopicConflict | NotOffered {
    const groups = (this.#groups ??= new Map<string, Group>())
    const known = groups.get(name)
    if (known !== undefined) {
      if (!known.isEmpty && textOf(known.only) !== textOf(only)) {
        return disagreement(this.name, textOf(only), textOf(known.only))
      }
      known.only = only
      return known
    }
    this.promote(now)
    this.#source.trim(now)
    const cursor = this.#source.join(name, start)
    if (cursor instanceof TopicConflict || cursor instanceof NotOffered) return cursor
    const group = new Group(this, name, cursor, this.#pattern.limits(this.name).deadLetters)
    group.only = only
    group.paused = this.#paused?.has(name) === true
    groups.set(name, group)
    this.#recount()
    return group
  }

  /** Deletes the messages that no member of a group holds. */
  purge(): void {
    this.#delayed = undefined
    this.#unique = undefined
    for (const group of this.#groups?.values() ?? []) group.purge()
    this.#source.purge()
  }

  /** Why a group may not be changed from outside. */
  #occupied(name: string, now: number): TopicInUse | undefined {
    return (this.group(name)?.describe(now).consumers.length ?? 0) > 0
      ? new TopicInUse({ topic: this.name, group: name, found: "consumers" })
      : undefined
  }

  /** Moves a group without living consumers. */
  move(name: string, to: Destination, now: number): TopicInUse | MessageNotFound | undefined {
    if (typeof to === "object" && "after" in to && !/^-?\d+$/.test(to.after))
      return new MessageNotFound({ id: to.after })
    const problem = this.#occupied(name, now)
    this.promote(now)
    if (problem === undefined) this.group(name)?.move(to)
    this.#recount()
    return problem
  }

  /** Ends a group without living consumers. */
  retire(name: string, now: number): TopicInUse | undefined {
    const problem = this.#occupied(name, now)
    if (problem !== undefined) return problem
    this.group(name)?.retire()
    this.#groups?.delete(name)
    this.#paused?.delete(name)
    this.#recount()
    return undefined
  }

  /** The group has settled the message. If it was the last one, the id is free. */
  settled(message: Stored, group: string): void {
    message.held?.by.delete(group)
    if (message.held?.by.size === 0) this.#free(message)
  }

  /** A consumer has been given the message. */
  taken(message: Stored): void {
    const unique = message.held?.unique
    if (unique === "until-taken" || typeof unique === "object") this.#free(message)
  }

  /** Works even for a group that does not exist yet. */
  setPaused(name: string, paused: boolean): void {
    const all = (this.#paused ??= new Set())
    if (all.has(name) === paused) return
    if (paused) all.add(name)
    else all.delete(name)
    const group = this.group(name)
    if (group !== undefined) group.paused = paused
    this.change()
    this.report({ _tag: paused ? "ConsumerPaused" : "ConsumerResumed", topic: this.name, group: name })
  }

  nextReceipt(): string {
    return String(++this.#receipts)
  }

  /** Opens at the next change that may give a waiting receiver something to take. */
  get changed(): Latch.Latch {
    return (this.#changed ??= Latch.makeUnsafe())
  }

  change(): void {
    this.#stirred = true
  }

  open(latch: Latch.Latch): void {
    ;(this.#opening ??= []).push(latch)
  }

  report(fact: Fact): void {
    this.facts.push(fact)
  }

  /** The latches to open now that a step is complete. */
  opening(): ReadonlyArray<Latch.Latch> {
    if (this.#stirred) {
      if (this.#changed !== undefined) (this.#opening ??= []).push(this.#changed)
      this.#changed = undefined
      this.#stirred = false
    }
    const opening = this.#opening
    if (opening === undefined) return noLatches
    this.#opening = undefined
    return opening
  }

  get nextDelayedAt(): number | undefined {
    return this.#delayed?.nextDue
  }

  describe(now: number): TopicInfo {
    this.promote(now)
    this.#source.trim(now)
    const groups = Array.from(this.#groups?.values() ?? [], (group) => group.describe(now))
    return {
      topic: this.name,
      pattern: this.#pattern.name,
      retention: this.#pattern.retention(this.name),
      depth: this.#source.depth(groups),
      published: this.#published,
      delayed: this.#delayed?.length ?? 0,
      nextDelayedAt: this.nextDelayedAt,
      groups
    }
  }

  remains(now: number): Remains {
    const until = now + this.#pattern.limits(this.name).deduplicationMillis
    return { seen: this.#seen, idMillis: this.#idMillis, idSequence: this.#idSequence, until }
  }

  messages(now: number): ReadonlyArray<StoredMessage> {
    this.promote(now)
    this.#source.trim(now)
    return Array.from(this.#source.entries(), ([position, message]) => ({ ...plain(message), position }))
  }

  /** Where a message is. */
  locate(id: string, now: number): LocatedMessage | MessageNotFound {
    this.promote(now)
    this.#source.trim(now)
    const late = this.#delayed?.entries().findLast(([, message]) => message.id === id)
    if (late !== undefined) return { ...plain(late[1]), dueAt: late[0], groups: [] }
    const there = [...this.#source.entries()].findLast(([, message]) => message.id === id)
    let message = there && plain(there[1])
    const groups = Array.from(this.#groups?.values() ?? [], (group): MessageInGroup => {
      const found = group.locate(id, now)
      message ??= found && plain(found[1])
      if (found !== undefined) return found[0]
      const { reached } = group.describe(now)
      const isReady = there !== undefined && (reached === undefined || Number(there[0]) > Number(reached))
      return { _tag: isReady ? "Ready" : "Settled", group: group.name }
    })
    return message === undefined ? new MessageNotFound({ id }) : { ...message, dueAt: undefined, groups }
  }

  /** Messages that are not due yet, the next one first. */
  delayed(now: number): ReadonlyArray<DelayedMessage> {
    this.promote(now)
    return (this.#delayed?.entries() ?? []).map(([dueAt, message]) => ({
      ...plain(message),
      position: `${dueAt}:${message.id}`,
      dueAt,
      dueInMillis: dueAt - now
    }))
  }

  removeMessage(id: string, now: number): MessageNotFound | MessageInUse | undefined {
    const found = this.locate(id, now)
    if (found instanceof MessageNotFound) return found
    for (const place of found.groups) {
      if (place._tag === "Pending") return new MessageInUse({ id, group: place.group, consumer: place.consumer })
    }
    this.#delete(id, new Set())
    this.#forgetId(id)
    return undefined
  }

  /** Deletes a message where no consumer holds it, and tells those that do; returns their groups. */
  cancel(id: string, now: number): ReadonlyArray<string> | MessageNotFound | MessageSettled {
    const found = this.locate(id, now)
    if (found instanceof MessageNotFound) return found
    const { groups } = found
    if (groups.length > 0 && groups.every(({ _tag }) => _tag === "Settled" || _tag === "Dead")) {
      return new MessageSettled({ id })
    }
    const held = groups.flatMap(({ _tag, group }) => (_tag === "Pending" ? [group] : []))
    const dead = groups.flatMap(({ _tag, group }) => (_tag === "Dead" ? [group] : []))
    this.#delete(id, new Set([...held, ...dead]))
    for (const group of held) this.group(group)?.cancel(id, now)
    if (held.length === 0) this.#forgetId(id)
    return held
  }

  #forgetId(id: string): void {
    this.#unique?.delete(id)
    this.#seen?.ids.delete(id)
  }

  /** Everywhere but in these groups. */
  #delete(id: string, except: ReadonlySet<string>): void {
    this.#delayed?.remove((message) => message.id === id)
    const stored = Array.from(this.#source.entries(), ([, message]) => message)
    for (const message of stored) if (message.id === id) this.#source.remove(message)
    for (const [name, group] of this.#groups ?? []) if (!except.has(name)) group.removeMessage(id)
  }

  /** Makes a message due then, if it is delayed or waits in a group. */
  reschedule(id: string, at: number, now: number): MessageNotFound | MessageNotWaiting | undefined {
    const found = this.locate(id, now)
    if (found instanceof MessageNotFound) return found
    const late = this.#delayed?.remove((message) => message.id === id) ?? []
    for (const [, message] of late) this.#delayed?.push(wholeMillis(Math.max(at, now)), message)
    let moved = late.length > 0
    for (const group of this.#groups?.values() ?? []) moved = group.reschedule(id, at, now) || moved
    this.change()
    return moved ? undefined : new MessageNotWaiting({ id })
  }

  /** Changes how urgent a message is, unless it is settled. */
  changePriority(
    id: string,
    priority: Priority,
    now: number
  ): MessageNotFound | MessageSettled | NotOffered | undefined {
    if (this.#pattern.priorities !== true) return noPriorities
    const found = this.locate(id, now)
    if (found instanceof MessageNotFound) return found
    const stored = [...this.#source.entries()].findLast(([, message]) => message.id === id)?.[1]
    const late = this.#delayed?.entries().findLast(([, message]) => message.id === id)?.[1]
    const groups = Array.from(this.#groups?.values() ?? [])
    const message = late ?? stored ?? groups.map((group) => group.find(id)).find((one) => one !== undefined)
    if (message === undefined) return new MessageSettled({ id })
    if (message === stored) this.#source.remove(message)
    message.headers = Object.freeze({ ...message.headers, priority })
    if (message === stored) this.#source.add(message, now)
    for (const group of groups) {
      group.resort(message)
      if (message !== late) group.stir(message)
    }
    this.change()
    return undefined
  }

  #accept(message: Outgoing, now: number): Receipt {
    const id = message.id ?? this.#nextId(now)
    const { unique } = message
    const at = this.#dueAt(message, now)
    if (unique !== undefined) {
      const other = this.#unique?.get(id)
      const state = other && this.#stateOf(other, now)
      if (state !== undefined) {
        const isReplaced = typeof unique === "object" && this.#coalesce(other!, state, message, unique, at, now)
        return { _tag: isReplaced ? "Replaced" : "Duplicate", id, state }
      }
    } else if (message.id !== undefined) {
      const seen = (this.#seen ??= new Seen())
      if (seen.ids.has(id)) return { _tag: "Duplicate", id }
      const until = now + this.#pattern.limits(this.name).deduplicationMillis
      seen.ids.set(id, until)
      seen.forgetting.push({ id, at: until })
    }
    const { body, headers, key, version } = message
    const stored: Stored = {
      id,
      body,
      headers: kept(headers),
      key,
      version,
      publishedAt: now,
      storedAt: now,
      open: 0,
      expiresAt: undefined,
      held: unique && { unique, due: false, dropped: false, by: new Set() }
    }
    if (unique !== undefined) (this.#unique ??= new Map()).set(id, stored)
    if (at > now) (this.#delayed ??= new DueQueue()).push(at, stored)
    else this.#add(stored, now)
    return { _tag: "Stored", id }
  }

  #dueAt({ due }: Outgoing, now: number): number {
    if (due === undefined) return now
    return wholeMillis(due._tag === "After" ? now + Duration.toMillis(due.delay) : due.epochMillis)
  }

  /** Whether the message has replaced the one that has its id. */
  #coalesce(
    other: Stored,
    state: Receipt["state"],
    { body, headers, key, version }: Outgoing,
    { keep, limit }: Coalescing,
    at: number,
    now: number
  ): boolean {
    if (keep === "first" || (state === "open" && other.held?.unique === "until-settled")) return false
    Object.assign(other, { body, headers: kept(headers), key, version })
    if (state === "delayed" && Duration.toMillis(limit) > 0) {
      const due = Math.max(now, Math.min(at, other.publishedAt + Math.ceil(Duration.toMillis(limit))))
      this.#delayed?.remove((message) => message === other)
      this.#delayed?.push(due, other)
      this.promote(now)
    }
    return true
  }

  #add(message: Stored, now: number): void {
    this.#published++
    message.storedAt = now
    this.#source.add(message, now)
    if (message.held !== undefined) message.held.due = true
    // Elsewhere it begins when it is due.
    if (typeof message.held?.unique === "object" && !this.#pattern.unique.includes("until-taken")) this.#free(message)
    if (this.#groups === undefined) return
    for (const group of this.#groups.values()) {
      message.held?.by.add(group.name)
      group.stir(message)
    }
  }

  /** Of a message that has its id to itself; undefined if it no longer has. */
  #stateOf({ expiresAt = Infinity, held }: Stored, now: number): Receipt["state"] {
    if (held === undefined || expiresAt <= now) return undefined
    if (!held.due) return "delayed"
    return (this.#hasNoGroups ? !held.dropped : held.by.size > 0) ? "open" : undefined
  }

  get #hasNoGroups(): boolean {
    return this.#groups === undefined || this.#groups.size === 0
  }

  /** Finds out again who has yet to settle the messages that have their ids to themselves. */
  #recount(): void {
    const unique = this.#unique
    if (unique === undefined) return
    for (const { held } of unique.values()) held?.by.clear()
    for (const group of this.#groups?.values() ?? []) {
      for (const { held } of group.open()) held?.by.add(group.name)
    }
    const stored = this.#hasNoGroups && new Set(Array.from(this.#source.entries(), ([, message]) => message))
    for (const message of unique.values()) {
      if (message.held?.due !== true) continue
      if (stored === false ? message.held.by.size === 0 : !stored.has(message)) this.#free(message)
    }
  }

  #free({ held, id }: Stored): void {
    if (this.#unique?.get(id)?.held === held) this.#unique?.delete(id)
  }

  #nextId(now: number): string {
    if (now > this.#idMillis) {
      this.#idMillis = now
      this.#idSequence = 0
    }
    return `${this.#idMillis}-${this.#idSequence++}`
  }

  #forget(now: number): void {
    // Expired ones; those that are settled are gone.
    for (const message of this.#unique?.values() ?? []) {
      if (this.#stateOf(message, now) !== undefined) break
      this.#free(message)
    }
    const seen = this.#seen
    if (seen === undefined) return
    const { forgetting, ids } = seen
    for (let first = forgetting.peek(); first !== undefined && first.at <= now; first = forgetting.peek()) {
      // Otherwise it was removed and published again.
      if (ids.get(first.id) === first.at) ids.delete(first.id)
      forgetting.shift()
    }
  }
}
