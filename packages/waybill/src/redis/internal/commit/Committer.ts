/**
 * Sends commits to the server, many in one call, and reads the outcome of each. Safe to repeat when a reply was lost.
 *
 * @module
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { type Commit, type Condition, ConditionFailed, type Write } from "../../../Commit.ts"
import { sizeOf } from "../../../internal/CommitSize.ts"
import { unoffered } from "../../../internal/Uniqueness.ts"
import type { Outgoing, Receipt } from "../../../Message.ts"
import { deadLetter, type DeadLetter } from "../../../Settlement.ts"
import type { Reason, Transport } from "../../../Transport.ts"
import type { More } from "../connection/ScriptReply.ts"
import { dueInOf, pushMessage, receiptOf } from "../publish/Publisher.ts"
import { kindsOf, type Storage, targetOf } from "../publish/PublishScript.ts"
import { dataKey, tagOf, type TopicKeys } from "../wire/Keys.ts"
import type { Tally } from "../wire/Tally.ts"
import type { CommitArgs, CommitReply } from "./CommitScript.ts"

/** Messages that a commit has published. */
export interface Published {
  readonly topic: string
  readonly messages: ReadonlyArray<Outgoing>
  readonly receipts: ReadonlyArray<Receipt>
  /** When the first delayed one of them is due, in milliseconds from now. */
  readonly dueIn: number
  /** It may be the first message of its topic. */
  readonly opened: boolean
}

/** What the script is told about a delivery whose commit is to be applied. */
export interface Committable {
  readonly id: string
  readonly fence: number
  readonly tally: Tally
}

export interface CommitterOptions<D extends Committable> {
  readonly clock: Clock.Clock
  readonly prefix: string
  readonly topic: string
  readonly markerMillis: number
  /** How many keys of its own the pattern's script has. */
  readonly keys: number
  /** How long message ids are remembered. */
  readonly deduplicationMillis: number
  /** The pattern's options for a topic, as its storage needs them. */
  readonly settingOf: (topic: string) => string | number
  /** For how long messages may have their ids to themselves. */
  readonly unique: NonNullable<Transport["unique"]>
  /** Runs the pattern's script. */
  readonly run: (args: CommitArgs, more: More) => Effect.Effect<CommitReply, Reason>
  readonly own: (delivery: D) => ReadonlyArray<string | number>
  /** The marker that a message was done. */
  readonly done: (id: string) => string
  /** How the messages of its commits are stored. */
  readonly storage: Storage
  readonly keysOf: (topic: string) => TopicKeys
  readonly published: (published: Published) => Effect.Effect<void>
}

export type Committing<D extends Committable> = readonly [delivery: D, commit: Commit<Condition>]

/**
 * `Stale`: another consumer has the delivery. A dead letter: the commit was refused; `ConditionFailed`: it may be retried. Both
 * leave the delivery ours.
 */
export type Committed = "Done" | "Stale" | DeadLetter | ConditionFailed

/** What may be under way at a time: the server does nothing else meanwhile. */
const maxCommits = 250
const maxParts = 2000
const maxUnits = 2 * 1024 * 1024
/** Keys of a command, which managed servers limit; the other arguments fit into the rest. */
const maxKeys = 3900
/** How many topics are known to be open. */
const maxOpened = 1000

export class Committer<D extends Committable> {
  readonly #options: CommitterOptions<D>
  readonly #tag: string
  readonly #opened = new Set<string>()
  readonly #keysOfTarget: number

  constructor(options: CommitterOptions<D>) {
    this.#options = options
    this.#keysOfTarget = kindsOf(options.storage).length
    this.#tag = tagOf(options.prefix, options.topic)
  }

  /** How long a marker lasts. */
  get markerMillis(): number {
    return this.#options.markerMillis
  }

  /** The marker of a message. */
  done(id: string): string {
    return this.#options.done(id)
  }

  /** Why the commit can never be applied, whatever the server holds. */
  objection({ conditions, messages, writes }: Commit<Condition>): DeadLetter | undefined {
    // Records alone are at most as many as keys fit into a command.
    if (messages.length === 0) return undefined
    for (const { message, topic } of messages) {
      const refused = unoffered(message, this.#options.unique)
      if (refused !== undefined) {
        return deadLetter("CommitRejected", `${refused.feature} is not supported where the topic ${topic} lives`)
      }
      if (tagOf(this.#options.prefix, topic) === this.#tag) continue
      return deadLetter(
        "CommitRejected",
        `a commit beside ${this.#options.topic} cannot publish to ${topic}: the names must be the same up to the first slash`
      )
    }
    const topics = new Set(messages.map(({ topic }) => topic)).size
    if (topics * this.#keysOfTarget + conditions.length + messages.length + writes.length > maxKeys) {
      return deadLetter(
        "CommitRejected",
        `its messages go to ${topics} topics, and one command cannot name the keys of so many: publish to fewer`
      )
    }
    return undefined
  }

  /** How many of the first ones one call may carry when so many travel at a time; at least one. */
  fit(commits: ReadonlyArray<Committing<D>>, calls: number): number {
    let parts = 0
    let units = 0
    let keys = this.#options.keys
    for (let i = 0; i < commits.length; i++) {
      const commit = (commits[i] as Committing<D>)[1] // within bounds
      const { conditions, messages, writes } = commit
      const records = conditions.length + writes.length
      parts += records + messages.length
      units += sizeOf(commit)
      keys += 1 + records + messages.length * (1 + this.#keysOfTarget)
      const tooMuch = i * calls >= maxCommits || parts * calls > maxParts || units * calls > maxUnits || keys > maxKeys
      if (i > 0 && tooMuch) return i
    }
    return commits.length
  }

  /** Applies them in one call; the results are in the same order. */
  apply(commits: ReadonlyArray<Committing<D>>): Effect.Effect<ReadonlyArray<Committed>, Reason> {
    const { deduplicationMillis, markerMillis, run } = this.#options
    const args = { remembered: deduplicationMillis, deliveries: commits.length, ttl: markerMillis }
    return Effect.flatMap(run(args, this.#encode(commits)), ({ answers: told, opened, published, refused }) => {
      const causes = new Map(refused.map(({ delivery, part, why }) => [delivery - 1, [part, why] as const]))
      const answers = commits.map(([, commit], i): Committed => {
        switch (told[i]) {
          case "O":
          case "R":
          case "D":
            return "Done"
          case "F":
            return "Stale"
          case "C":
            return unmet(commit.conditions[(causes.get(i)?.[0] ?? 1) - 1])
          default: {
            const partial = told[i] === "P"
            return deadLetter(partial ? "PartialCommit" : "CommitRejected", causeOf(commit, causes.get(i), partial))
          }
        }
      })
      return published.length === 0
        ? Effect.succeed(answers)
        : Effect.as(this.#tell(commits, told, published, opened), answers)
    })
  }

  #encode(commits: ReadonlyArray<Committing<D>>): More {
    const { done, keys: own, keysOf, prefix, settingOf, storage, topic } = this.#options
    const keys: Array<string> = []
    const args: Array<string | number> = []
    for (const [delivery] of commits) {
      keys.push(done(delivery.id))
      args.push(...this.#options.own(delivery))
    }
    const places = new Map<string, number>()
    const topics = new Map<string, { readonly place: number; readonly seen: (id: string) => string }>()
    const pushCommand = ({ args: rest, command, key, type }: Condition | Write) => {
      let place = places.get(key)
      if (place === undefined) places.set(key, (place = own + keys.push(dataKey(prefix, topic, key))))
      args.push(command, place, type, rest.length)
      for (const arg of rest) args.push(arg)
    }
    for (const [delivery, { conditions, messages, writes }] of commits) {
      const partial = delivery.tally.partial ? 1 : 0
      const size = args.push(delivery.fence, partial, 0, conditions.length, writes.length, messages.length) - 4
      const from = args.length
      for (const condition of conditions) {
        pushCommand(condition)
        const { expected, orAbsent } = condition
        args.push(expected === null ? "-" : `${orAbsent === true ? "?" : "="}${expected}`)
      }
      for (const write of writes) pushCommand(write)
      for (const { message, topic } of messages) {
        let there = topics.get(topic)
        if (there === undefined) {
          const theirs = keysOf(topic)
          topics.set(topic, (there = { place: own + keys.length + 1, seen: theirs.seen }))
          keys.push(...targetOf(storage, theirs))
        }
        const seen = message.id === undefined ? 0 : own + keys.push(there.seen(message.id))
        const at = args.push(there.place, seen, 0, 0) - 2
        args[at] = pushMessage(args, message)
        args.push(settingOf(topic))
        args[at + 1] = args.length - at - 2
      }
      args[size] = args.length - from
    }
    // The markers come first.
    return { keys, args, kinds: commits.map(() => "string" as const) }
  }

  #tell(
    commits: ReadonlyArray<Committing<D>>,
    told: string,
    published: ReadonlyArray<string>,
    opened: boolean
  ): Effect.Effect<void> {
    const now = this.#options.clock.currentTimeMillisUnsafe()
    const topics = new Map<string, { messages: Array<Outgoing>; receipts: Array<Receipt>; dueIn: number }>()
    let next = 0
    for (let i = 0; i < commits.length && next < published.length; i++) {
      // The receipts of messages published before a reply was lost are unknown.
      if (told[i] !== "O") continue
      for (const { message, topic } of (commits[i] as Committing<D>)[1].messages) {
        let there = topics.get(topic)
        if (there === undefined) topics.set(topic, (there = { messages: [], receipts: [], dueIn: Infinity }))
        there.messages.push(message)
        there.receipts.push(receiptOf(message, published[next++]))
        if (message.due !== undefined) there.dueIn = Math.min(there.dueIn, dueInOf(message.due, now))
      }
    }
    return Effect.forEach(
      topics,
      ([topic, there]) => {
        const first = opened || !this.#opened.has(topic)
        // Reporting one twice is harmless.
        if (this.#opened.size === maxOpened) this.#opened.clear()
        this.#opened.add(topic)
        return this.#options.published({ topic, ...there, opened: first })
      },
      { discard: true }
    )
  }
}

const unmet = ({ args: [field], key }: Pick<Condition, "args" | "key"> = { args: [], key: "?" }): ConditionFailed =>
  new ConditionFailed(field === undefined ? { key } : { key, field: String(field) })

const causeOf = (
  { conditions, messages, writes }: Commit<Condition>,
  refused: readonly [part: number, why: string] | undefined,
  partial: boolean
): string => {
  const rest = partial ? "; what came before it stays, and nothing of the commit will be applied again" : ""
  if (refused === undefined) return `an earlier delivery of this message was refused in part${rest}`
  const [part, why] = refused
  const records = [...conditions, ...writes]
  const record = records[part - 1]
  const what =
    record === undefined
      ? `the message to ${messages[part - 1 - records.length]?.topic ?? "?"}`
      : `${record.command} of ${record.key}`
  return `part ${part} of ${records.length + messages.length}, ${what}, was refused: ${why}${rest}`
}
