/**
 * The part of an inspector that is the same for every pattern: running scripts, listing topics and dead letters, discarding,
 * pausing and resuming. A pattern contributes the rest as its `Account`.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { Delivery } from "../../../Delivery.ts"
import type {
  DelayedMessage,
  GroupInfo,
  Inspector,
  LocatedMessage,
  Page,
  Place,
  Retention
} from "../../../Inspector.ts"
import * as Attempts from "../../../internal/Attempts.ts"
import { checked } from "../../../internal/CheckedInspector.ts"
import { plain } from "../../../internal/PlainMessage.ts"
import { noMoves, noPriorities } from "../../../internal/Unplaced.ts"
import type { Message, Priority } from "../../../Message.ts"
import { NotOffered, type Reason, TransportError } from "../../../Transport.ts"
import type { Commands } from "../connection/Connection.ts"
import { type Kind, listOf, make, number, text, type StringKeys, type TypedScript } from "../connection/Script.ts"
import { evaluate, type More } from "../connection/ScriptReply.ts"
import { keys, type GroupKeys, registry, type TopicKeys } from "../wire/Keys.ts"
import { clock } from "../wire/Lua.ts"
import { deadLetterOf } from "./DeadLetterEntry.ts"
import { discard, expire, letters, type Moved } from "./DeadLetterScripts.ts"
import type { Figures } from "./Figures.ts"
import type { Belongings, RemovalScript } from "./Removal.ts"

export interface InspectorOptions {
  readonly commands: Commands
  readonly prefix: string
  readonly keysOf: (topic: string) => TopicKeys
  /** Makes the receivers of this process check at once. */
  readonly refresh: (topic: string, group: string) => Effect.Effect<void>
}

/** The most dead letters that one run of a script moves or deletes. */
const redriveLimit = 200

/** The first interval between checks for consumers that still have to pause, ms; it doubles each time. */
const shortestPoll = 10
const longestPoll = 100

/** Which live consumers of a paused group have not confirmed yet that they begin nothing. */
export const unquiet = make({
  name: "waybill/unquiet",
  mode: "reads",
  keys: keys("consumers", "state"),
  replies: {
    OK: {
      /** Milliseconds until the last of them counts as dead, unless it beats. */
      longest: number,
      /** Absent if the group is no longer paused. */
      others: listOf(text)
    }
  },
  lua: /* lua */ `${clock}
touch()
local longest, others = 0, {}
if redis.call('HEXISTS', state, 'paused') == 0 then return {'OK', longest, others} end
local now = clock()
local living = redis.call('ZRANGEBYSCORE', consumers, '(' .. string.format('%.0f', now), '+inf', 'WITHSCORES')
for i = 1, #living, 2 do
  if redis.call('HEXISTS', state, 'quiet:' .. living[i]) == 0 then
    others[#others + 1] = living[i]
    longest = math.max(longest, tonumber(living[i + 1]) - now)
  end
end
return {'OK', longest, others}
`
})

const failing = (topic?: string) =>
  Effect.mapError((reason: Reason) => new TransportError({ operation: "inspect", topic, reason }))

/** A message as it was found, with its name there. */
interface Found {
  readonly delivery: Pick<Delivery, keyof Message | "attempt">
  readonly position: string
}

/** What a pattern reports about single messages, and does to them. All but `delayed` fail with `MessageNotFound`. */
export interface Single {
  readonly locate: (topic: string, id: string) => Effect.Effect<LocatedMessage, Reason>
  readonly delayed: (topic: string, page: Page) => Effect.Effect<ReadonlyArray<DelayedMessage>, Reason>
  readonly remove: (topic: string, id: string) => Effect.Effect<unknown, Reason>
  readonly cancel: (topic: string, id: string) => Effect.Effect<ReadonlyArray<string>, Reason>
  readonly reschedule: (topic: string, id: string, at: number) => Effect.Effect<unknown, Reason>
  /** Only for a pattern that orders by urgency. */
  readonly changePriority?: (topic: string, id: string, priority: Priority) => Effect.Effect<void, Reason>
}

const noLookups = new NotOffered({ feature: "messages by id", detail: "list them instead" })

const unoffered: Single = {
  locate: () => Effect.fail(noLookups),
  delayed: () => Effect.fail(noLookups),
  remove: () => Effect.fail(noLookups),
  cancel: () => Effect.fail(noLookups),
  reschedule: () => Effect.fail(noLookups)
}

/** What a pattern reports about its topics and groups. */
export interface Account {
  readonly describe: (topic: string) => Effect.Effect<
    {
      readonly retention: Retention
      /** The pattern that opened the topic, "" if none has. */
      readonly opened: string
      readonly depth: number
      /** -1 if unknown; so is `next` if nothing is delayed. */
      readonly published: number
      readonly delayed: number
      readonly next: number
      readonly groups: ReadonlyArray<GroupInfo>
    },
    Reason
  >
  /** Deletes the messages that no consumer holds. */
  readonly purge: (topic: string) => Effect.Effect<void, Reason>
  /** Moves a group without living consumers; whether there is one. Only for a pattern with places. */
  readonly move?: (topic: string, group: string, to: Place) => Effect.Effect<boolean, Reason>
  /** Deletes a group without living consumers, and what only it keeps in the topic. */
  readonly retire: (topic: string, group: string) => Effect.Effect<void, Reason>
  /** What `remove` deletes of a topic. */
  readonly belongings: (topic: string) => Effect.Effect<Belongings, Reason>
  readonly removal: RemovalScript
  readonly redrive: (topic: string, group: string, entries: ReadonlyArray<string>) => Effect.Effect<Moved, Reason>
  /** One message by its id, and those that are not due yet. */
  readonly single?: Single
  /** Only for a pattern that stores messages. */
  readonly stored?: {
    /** After `from`, or with `newest` before it; "" stands for an end. */
    readonly messages: (
      topic: string,
      page: { readonly from: string; readonly limit: number; readonly newest: 0 | 1 }
    ) => Effect.Effect<ReadonlyArray<Found & { readonly storedAt?: number }>, Reason>
    readonly pending: (
      topic: string,
      group: string,
      page: Page
    ) => Effect.Effect<ReadonlyArray<Found & { readonly consumer: string; readonly heldMillis: number }>, Reason>
    readonly waiting: (
      topic: string,
      group: string,
      page: Page
    ) => Effect.Effect<
      {
        readonly now: number
        readonly rows: ReadonlyArray<Found & { readonly dueAt: number; readonly cause: string; readonly log: string }>
      },
      Reason
    >
  }
}

export class Inspecting {
  readonly #options: InspectorOptions
  readonly #pattern: string

  constructor(options: InspectorOptions, pattern: string) {
    this.#options = options
    this.#pattern = pattern
  }

  /** A source may have keys of a group, where none is meant as well. */
  keysOf(topic: string, group = ""): TopicKeys & GroupKeys {
    const keys = this.#options.keysOf(topic)
    return { ...keys, ...keys.group(group) }
  }

  /** Runs a script about a group, or about the whole topic. */
  call<Args, Reply>(
    topic: string,
    group: string | undefined,
    script: TypedScript<StringKeys<TopicKeys & GroupKeys>, Args, Reply>,
    args: NoInfer<Args>,
    more?: More
  ): Effect.Effect<Reply, Reason> {
    const keys = this.keysOf(topic, group)
    return evaluate(this.#options.commands, { topic, pattern: this.#pattern }, script, keys, args, more)
  }

  /** The groups that are registered with a topic. */
  groupsOf(topic: string): Effect.Effect<ReadonlyArray<string>, Reason> {
    const key = this.#options.keysOf(topic).groups
    return this.#options.commands.run("smembers", key, (client) => client.smembers(key))
  }

  /** Inspects again once expired dead letters have been dropped; if that is not permitted, they count. */
  withoutOld(topic: string, group: string, describe: Effect.Effect<Figures, Reason>): Effect.Effect<Figures, Reason> {
    return Effect.flatMap(describe, (figures) =>
      !figures.old ? Effect.succeed(figures) : Effect.andThen(this.expire(topic, group), describe)
    )
  }

  /** Drops the expired dead letters of a group, if that is permitted. */
  expire(topic: string, group: string): Effect.Effect<void> {
    const some = this.call(topic, group, expire, {})
    return Effect.ignore(Effect.repeat(some, { while: ({ dropped }) => dropped > 0 }))
  }

  #remove(
    topic: string,
    script: RemovalScript,
    { groups, indexes, others, topic: whole }: Belongings,
    force: boolean
  ): Effect.Effect<void, Reason> {
    const { commands, keysOf, prefix } = this.#options
    const { groups: names, meta, scheduleEntries, schedules } = keysOf(topic)
    const inspections = {
      force,
      others: others.length,
      indexes: indexes.length,
      topic: { keys: whole.keys.length, args: whole.args },
      groups: groups.map(({ args, group, keys, state }) => ({
        group,
        keys: keys.length,
        args,
        state: keys.indexOf(state) + 1
      }))
    }
    const unused = [...others, ...indexes]
    const keys = [names, schedules, scheduleEntries, ...unused, ...whole.keys, ...groups.flatMap(({ keys }) => keys)]
    const kinds: Array<Kind> = ["set", "zset", "hash", ...others.map(() => "hash" as const)]
    kinds.push(...indexes.map(() => "zset" as const), ...whole.kinds)
    for (const group of groups) kinds.push(...group.kinds)
    const key = registry(prefix)
    return this.call(topic, undefined, script, { inspections: JSON.stringify(inspections) }, { keys, kinds }).pipe(
      Effect.repeat({ while: ({ _tag }) => _tag === "AGAIN" }),
      Effect.andThen(commands.run("srem", key, (client) => client.srem(key, topic))),
      Effect.andThen(commands.run("hget", meta, (client) => client.hget(meta, "pattern"))),
      // A producer may have opened it again before its name was removed.
      Effect.flatMap((opened) =>
        opened === null ? Effect.void : Effect.asVoid(commands.run("sadd", key, (client) => client.sadd(key, topic)))
      )
    )
  }

  /** Runs `run` for some dead letters at a time, until it has passed them all; returns how many were moved. */
  #inBatches(
    topic: string,
    entries: ReadonlyArray<string>,
    run: (some: ReadonlyArray<string>) => Effect.Effect<Moved, Reason>
  ): Effect.Effect<number, TransportError> {
    return Effect.gen(function* () {
      // Anything else is not an entry, and would only cause an error.
      const sound = entries.filter((entry) => /^\d+-\d+$/.test(entry))
      let total = 0
      for (let i = 0; i < sound.length;) {
        const { count, passed } = yield* run(sound.slice(i, i + redriveLimit))
        total += count
        i += passed
      }
      return total
    }).pipe(failing(topic))
  }

  /**
   * Waits until no consumer of the paused group begins anything. Those that do not confirm in time are named in the log: a beat
   * confirms within a lease, unless the consumer is an older build.
   */
  #quiet(topic: string, group: string): Effect.Effect<void, Reason> {
    return Effect.gen({ self: this }, function* () {
      let left: number | undefined
      for (let wait = shortestPoll; ; wait = Math.min(longestPoll, wait * 2)) {
        const { longest, others } = yield* this.call(topic, group, unquiet, {})
        if (others.length === 0) return
        left ??= longest
        if (left <= 0) {
          return yield* Effect.logWarning("a paused group has consumers that may go on", {
            topic,
            group,
            consumers: others
          })
        }
        yield* Effect.sleep(wait)
        left -= wait
      }
    })
  }

  #setPaused(topic: string, group: string, paused: boolean): Effect.Effect<void, TransportError> {
    const { commands, keysOf, refresh } = this.#options
    const key = keysOf(topic).group(group).state
    return commands
      .run("hset", key, (client) => (paused ? client.hset(key, "paused", "1") : client.hdel(key, "paused")))
      .pipe(
        Effect.andThen(refresh(topic, group)),
        Effect.andThen(paused ? this.#quiet(topic, group) : Effect.void),
        failing(topic)
      )
  }

  inspector({
    belongings,
    describe,
    move,
    purge,
    redrive,
    removal,
    retire,
    single = unoffered,
    stored
  }: Account): Inspector["Service"] {
    const { commands, prefix } = this.#options
    return checked({
      topics: commands
        .run("smembers", registry(prefix), (client) => client.smembers(registry(prefix)))
        .pipe(
          Effect.map((topics) => topics.sort()),
          failing()
        ),

      describe: (topic) =>
        Effect.map(describe(topic), ({ delayed, depth, groups, next, opened, published, retention }) => ({
          topic,
          pattern: opened === "" ? this.#pattern : opened,
          retention,
          depth,
          published: published < 0 ? undefined : published,
          delayed,
          nextDelayedAt: next < 0 ? undefined : next,
          groups
        })).pipe(failing(topic)),

      messages: (topic, { after, before, limit }) => {
        if (stored === undefined) return Effect.succeed([])
        const from = Option.getOrElse(before ?? after, () => "")
        return Effect.map(stored.messages(topic, { from, limit, newest: before === undefined ? 0 : 1 }), (rows) =>
          rows.map(({ delivery, ...row }) => ({ ...plain(delivery), ...row }))
        ).pipe(failing(topic))
      },

      message: (topic, id) =>
        single.locate(topic, id).pipe(
          Effect.map(Option.some),
          Effect.catchIf(
            (reason) => reason._tag === "MessageNotFound",
            () => Effect.succeedNone
          ),
          failing(topic)
        ),

      delayed: (topic, page) => single.delayed(topic, page).pipe(failing(topic)),
      removeMessage: (topic, id) => Effect.asVoid(single.remove(topic, id)).pipe(failing(topic)),
      cancel: (topic, id) => single.cancel(topic, id).pipe(failing(topic)),
      reschedule: (topic, id, at) => Effect.asVoid(single.reschedule(topic, id, at)).pipe(failing(topic)),
      changePriority: (topic, id, priority) =>
        (single.changePriority?.(topic, id, priority) ?? Effect.fail(noPriorities)).pipe(failing(topic)),
      runNow: (topic, id) => Effect.asVoid(single.reschedule(topic, id, 0)).pipe(failing(topic)),

      pending: (topic, group, page) =>
        stored === undefined
          ? Effect.succeed([])
          : Effect.map(stored.pending(topic, group, page), (rows) =>
              rows.map(({ delivery, ...row }) => ({ ...plain(delivery), ...row, attempt: delivery.attempt }))
            ).pipe(failing(topic)),

      waiting: (topic, group, page) =>
        stored === undefined
          ? Effect.succeed([])
          : Effect.map(stored.waiting(topic, group, page), ({ now, rows }) =>
              rows.map(({ delivery, log, ...row }) => ({
                ...plain(delivery),
                ...row,
                attempts: delivery.attempt,
                attemptLog: Attempts.read(log),
                dueInMillis: Math.max(0, row.dueAt - now)
              }))
            ).pipe(failing(topic)),

      deadLetters: (topic, group, { after, limit }) =>
        this.call(topic, group, letters, {
          from: Option.getOrElse(after, () => ""),
          limit
        }).pipe(
          Effect.map(({ letters }) => letters.map(({ entry, fields }) => deadLetterOf(topic, group, entry, fields))),
          failing(topic)
        ),

      redrive: (topic, group, entries) => this.#inBatches(topic, entries, (some) => redrive(topic, group, some)),

      discard: (topic, group, entries) =>
        this.#inBatches(topic, entries, (some) => this.call(topic, group, discard, {}, { args: some })),

      pause: (topic, group) => this.#setPaused(topic, group, true),
      resume: (topic, group) => this.#setPaused(topic, group, false),

      purge: (topic) => purge(topic).pipe(failing(topic)),

      move: (topic, group, to) => (move?.(topic, group, to) ?? Effect.fail(noMoves)).pipe(failing(topic)),

      retire: (topic, group) => retire(topic, group).pipe(failing(topic)),

      remove: (topic, { force = false } = {}) =>
        Effect.flatMap(belongings(topic), (all) => this.#remove(topic, removal, all, force)).pipe(failing(topic))
    })
  }
}
