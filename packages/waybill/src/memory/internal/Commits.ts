/**
 * Commits in memory: applied once per message id and group while the marker lasts, all of it or none. A commit that was
 * refused after something was written is never applied again: its message carries the mark for as long as it may come back.
 *
 * @module
 */
import { type Commit, type Condition, ConditionFailed } from "../../Commit.ts"
import type { Delivery } from "../../Delivery.ts"
import { unoffered } from "../../internal/Uniqueness.ts"
import type { Lifecycle } from "../../Lifecycle.ts"
import type { Outgoing, Uniqueness } from "../../Message.ts"
import { deadLetter, type DeadLetter } from "../../Settlement.ts"
import { Fifo } from "./Fifo.ts"
import { RecordStore } from "./RecordStore.ts"
import type { Topic } from "./Topic.ts"

export class Commits {
  readonly #lifecycle: Lifecycle
  readonly #open: (topic: string) => Topic
  readonly #markerMillis: number
  readonly #unique: ReadonlyArray<Uniqueness>
  readonly #records = new Map<string, RecordStore>()
  /** By topic, group and id: whether the whole commit was applied, and how long that is remembered. */
  readonly #markers = new Map<string, { readonly applied: "whole" | "partial"; readonly until: number }>()
  readonly #forgetting = new Fifo<{ readonly key: string; readonly at: number }>()
  #touched = new Set<Topic>()

  constructor(options: {
    readonly lifecycle: Lifecycle
    readonly open: (topic: string) => Topic
    readonly markerMillis: number
    readonly unique: ReadonlyArray<Uniqueness>
  }) {
    this.#lifecycle = options.lifecycle
    this.#open = options.open
    this.#markerMillis = options.markerMillis
    this.#unique = options.unique
  }

  /** The records beside a topic. */
  records(topic: string): RecordStore {
    const tag = tagOf(topic)
    let records = this.#records.get(tag)
    if (records === undefined) this.#records.set(tag, (records = new RecordStore()))
    return records
  }

  /**
   * Applies the commit of a delivery that its member owns. Returns how the delivery ends if the commit is refused, or the
   * condition that does not hold, in which case the delivery has not ended.
   */
  apply(
    { group, id, topic }: Delivery,
    { conditions, messages, writes }: Commit<Condition>,
    now: number,
    partial: boolean
  ): DeadLetter | ConditionFailed | undefined {
    for (const publication of messages) {
      const refused = unoffered(publication.message, this.#unique)
      if (refused !== undefined) {
        return rejected(`${refused.feature} is not supported where the topic ${publication.topic} lives`)
      }
      if (tagOf(publication.topic) === tagOf(topic)) continue
      return rejected(
        `a commit beside ${topic} cannot publish to ${publication.topic}: the names must be the same up to the first slash`
      )
    }
    if (partial) return again
    this.#forget(now)
    const key = JSON.stringify([topic, group, id])
    const marker = this.#markers.get(key)
    if (marker !== undefined) {
      if (marker.applied === "whole") return undefined
      return again
    }
    const records = this.records(topic)
    for (const condition of conditions) {
      const { args, command, key } = condition
      const objection = records.objection(condition, now)
      if (objection !== undefined) return rejected(`${command} of ${key}: ${objection}`)
      if (records.holds(condition, now)) continue
      return new ConditionFailed(args[0] === undefined ? { key } : { key, field: String(args[0]) })
    }
    for (const write of writes) {
      const objection = records.objection(write, now)
      if (objection !== undefined) return rejected(`${write.command} of ${write.key}: ${objection}`)
    }
    for (let i = 0; i < writes.length; i++) {
      const write = writes[i]!
      const refused = records.write(write, now)
      if (refused === undefined) continue
      const parts = conditions.length + writes.length + messages.length
      const cause = `part ${conditions.length + i + 1} of ${parts}, ${write.command} of ${write.key}, was refused: ${refused}`
      if (i === 0) return rejected(cause)
      this.#mark(key, "partial", now)
      return deadLetter("PartialCommit", cause)
    }
    for (const { message, topic } of messages) this.#publish(topic, message, now)
    this.#mark(key, "whole", now)
    return undefined
  }

  /** The topics that commits have published to since the last call: their receivers need to be notified. */
  touched(): ReadonlySet<Topic> {
    const touched = this.#touched
    if (touched.size > 0) this.#touched = new Set()
    return touched
  }

  #publish(name: string, message: Outgoing, now: number): void {
    const topic = this.#open(name)
    const messages = [message]
    const receipts = topic.publish(messages, now)
    this.#touched.add(topic)
    if (this.#lifecycle.active) this.#lifecycle.emit({ _tag: "Published", topic: name, messages, receipts })
  }

  #mark(key: string, applied: "whole" | "partial", now: number): void {
    const until = now + this.#markerMillis
    this.#markers.set(key, { applied, until })
    this.#forgetting.push({ key, at: until })
  }

  #forget(now: number): void {
    for (let first = this.#forgetting.peek(); first !== undefined && first.at <= now; first = this.#forgetting.peek()) {
      const marker = this.#markers.get(first.key)
      if (marker !== undefined && marker.until <= now) this.#markers.delete(first.key)
      this.#forgetting.shift()
    }
  }
}

const again = deadLetter("PartialCommit", "an earlier delivery was refused in part")

const rejected = (cause: string) => deadLetter("CommitRejected", cause)

/** Topics whose names agree up to the first slash may take part in one commit, here as on Redis. */
const tagOf = (topic: string): string => topic.split("/", 1)[0]!
