/**
 * Looks at topics of the streams pattern and steers their groups, also those that were written by other programs.
 *
 * @module
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type {
  ConsumerInfo,
  GroupInfo,
  Inspector,
  PendingMessage,
  StoredMessage,
  TopicInfo,
  WaitingMessage
} from "../../../Inspector.ts"
import type { Message } from "../../../Message.ts"
import { type Reason, TransportError } from "../../../Transport.ts"
import { evaluate as ask, problemOf } from "../Answer.ts"
import type { Connection } from "../Connection.ts"
import { deadLetterOf } from "../DeadLetterEntry.ts"
import { registry, type TopicKeys } from "../Keys.ts"
import type { Script } from "../Script.ts"
import { nobody, pattern } from "./GroupScripts.ts"
import * as InspectScripts from "./InspectScripts.ts"
import { type Source, StreamDelivery } from "./StreamDelivery.ts"

export interface InspectorOptions {
  readonly commands: Connection
  readonly prefix: string
  readonly keysOf: (topic: string) => TopicKeys
  /** Makes the receivers of this process look at once. */
  readonly steered: (topic: string, group: string) => Effect.Effect<void>
}

/** How many dead letters one run of a script moves or deletes. */
const redriveLimit = 200

export const make = ({
  commands,
  keysOf,
  prefix,
  steered
}: InspectorOptions): Context.Service.Shape<typeof Inspector> => {
  const evaluate = <A extends ReadonlyArray<unknown>>(
    topic: string,
    script: Script,
    keys: ReadonlyArray<string>,
    args: ReadonlyArray<string>
  ): Effect.Effect<A, Reason> => ask<A>(commands, { topic, pattern }, script, keys, args)

  /** The same with bytes where the answer has strings: bodies need not be text. */
  const evaluateExactly = <A extends ReadonlyArray<unknown>>(
    topic: string,
    script: Script,
    keys: ReadonlyArray<string>,
    args: ReadonlyArray<string | number>
  ): Effect.Effect<A, Reason> =>
    Effect.flatMap(commands.eval(script, keys, args, { buffers: true }), (reply) => {
      // The reply table of the script, which the caller names.
      const answer = reply as A
      const problem = problemOf(
        script.name,
        { topic, pattern },
        answer.map((part) => (part instanceof Uint8Array ? String(part) : part))
      )
      return problem === undefined ? Effect.succeed(answer) : Effect.fail(problem)
    })

  const failing = (topic?: string) =>
    Effect.mapError((reason: Reason) => new TransportError({ operation: "inspect", topic, reason }))

  const describeGroup = Effect.fnUntraced(function* (topic: string, group: string) {
    const keys = keysOf(topic)
    const mine = keys.group(group)
    const [, lag, pending, oldest, waiting, next, dead, dropped, paused, living] = yield* evaluate<
      [string, number, number, number, number, number, number, number, 0 | 1, ReadonlyArray<string | number>]
    >(
      topic,
      InspectScripts.describe,
      [keys.stream, mine.retry, mine.waiting, mine.dead, mine.consumers, mine.state],
      [group, nobody]
    )
    const consumers: Array<ConsumerInfo> = []
    for (let i = 0; i + 1 < living.length; i += 2) {
      consumers.push({ consumer: String(living[i]), pending: Number(living[i + 1]) })
    }
    const info: GroupInfo = {
      group,
      lag,
      pending,
      oldestPendingMillis: oldest,
      waiting,
      nextRetryAt: next < 0 ? undefined : next,
      deadLetters: dead,
      deadLettersDropped: dropped,
      paused: paused === 1,
      consumers
    }
    return info
  })

  const inBatches = (
    topic: string,
    entries: ReadonlyArray<string>,
    run: (some: ReadonlyArray<string>) => Effect.Effect<number, Reason>
  ): Effect.Effect<number, TransportError> =>
    Effect.gen(function* () {
      // Anything else is no entry, and would only make the server complain.
      const sound = entries.filter((entry) => /^\d+-\d+$/.test(entry))
      let count = 0
      for (let i = 0; i < sound.length; i += redriveLimit) count += yield* run(sound.slice(i, i + redriveLimit))
      return count
    }).pipe(failing(topic))

  const steer = (topic: string, group: string, paused: boolean) => {
    const key = keysOf(topic).group(group).state
    return commands
      .run<unknown>("hset", (client) => (paused ? client.hset(key, "paused", "1") : client.hdel(key, "paused")), {
        key
      })
      .pipe(Effect.andThen(steered(topic, group)), failing(topic))
  }

  return {
    topics: commands
      .run("smembers", (client) => client.smembers(registry(prefix)), { key: registry(prefix) })
      .pipe(
        Effect.map((topics) => topics.sort()),
        failing()
      ),

    describe: (topic) =>
      Effect.gen(function* () {
        const keys = keysOf(topic)
        const [, opened, depth, delayed, next, groups, published] = yield* evaluate<
          [string, string, number, number, number, ReadonlyArray<string>, number]
        >(topic, InspectScripts.overview, [keys.stream, keys.meta, keys.groups, keys.delayed], [])
        const info: TopicInfo = {
          topic,
          pattern: opened === "" ? pattern : opened,
          depth,
          published: published < 0 ? undefined : published,
          delayed,
          nextDelayedAt: next < 0 ? undefined : next,
          groups: yield* Effect.forEach(groups, (group) => describeGroup(topic, group))
        }
        return info
      }).pipe(failing(topic)),

    messages: (topic, { after, limit, newest }) => {
      const key = keysOf(topic).stream
      const backwards = newest === true && Option.isNone(after)
      return commands
        .run(
          "xrange",
          (client) =>
            backwards
              ? client.xrevrangeBuffer(key, "+", "-", "COUNT", limit)
              : client.xrangeBuffer(
                  key,
                  Option.match(after, { onNone: () => "-", onSome: (position) => `(${position}` }),
                  "+",
                  "COUNT",
                  limit
                ),
          { key }
        )
        .pipe(
          Effect.map((entries) =>
            (backwards ? entries.toReversed() : entries).map(([entry, fields]): StoredMessage => {
              const position = String(entry)
              return { ...messageOf(topic, "", 0, position, fields), position }
            })
          ),
          failing(topic)
        )
    },

    pending: (topic, group, { after, limit }) => {
      const keys = keysOf(topic)
      const mine = keys.group(group)
      const [source, entry] = Option.match(after, {
        onNone: () => ["0", ""],
        onSome: (position) => [position.slice(0, 1), position.slice(1)]
      })
      return evaluateExactly<[Uint8Array, ReadonlyArray<PendingRow>]>(
        topic,
        InspectScripts.pending,
        [keys.stream, mine.retry, mine.released],
        [group, nobody, source, entry, limit]
      ).pipe(
        Effect.map(([, rows]) =>
          rows.map(([from, bytes, consumer, idle, count, released, fields]): PendingMessage => {
            const delivery = deliveryOf(topic, group, from, String(bytes), count, released, fields)
            return {
              ...plain(delivery),
              position: `${from}${String(bytes)}`,
              consumer: String(consumer),
              attempt: delivery.attempt,
              heldMillis: idle
            }
          })
        ),
        failing(topic)
      )
    },

    waiting: (topic, group, { after, limit }) => {
      const keys = keysOf(topic)
      const mine = keys.group(group)
      return evaluateExactly<[Uint8Array, number, ReadonlyArray<WaitingRow>]>(
        topic,
        InspectScripts.waiting,
        [keys.stream, mine.retry, mine.released, mine.waiting, mine.waitingBodies],
        [group, nobody, Option.getOrElse(after, () => "a"), limit]
      ).pipe(
        Effect.map(([, , rows]) =>
          rows.map(([position, source, entry, dueAt, count, released, fields, cause]): WaitingMessage => {
            const delivery = deliveryOf(topic, group, source, String(entry), count, released, fields)
            return {
              ...plain(delivery),
              position: String(position),
              attempts: delivery.attempt,
              dueAt,
              cause: cause === undefined ? "" : String(cause)
            }
          })
        ),
        failing(topic)
      )
    },

    deadLetters: (topic, group, page) => {
      const key = keysOf(topic).group(group).dead
      const from = Option.match(page.after, { onNone: () => "-", onSome: (after) => `(${after}` })
      return commands
        .run("xrange", (client) => client.xrangeBuffer(key, from, "+", "COUNT", page.limit), { key })
        .pipe(
          Effect.map((letters) => letters.map(([entry, fields]) => deadLetterOf(topic, group, String(entry), fields))),
          failing(topic)
        )
    },

    redrive: (topic, group, deadLetters) => {
      const { dead, retry } = keysOf(topic).group(group)
      return inBatches(topic, deadLetters, (some) =>
        Effect.map(evaluate<[string, number]>(topic, InspectScripts.redrive, [dead, retry], some), ([, count]) => count)
      )
    },

    discard: (topic, group, deadLetters) => {
      const key = keysOf(topic).group(group).dead
      return inBatches(topic, deadLetters, (some) =>
        commands.run("xdel", (client) => client.xdel(key, ...some), { key })
      )
    },

    pause: (topic, group) => steer(topic, group, true),
    resume: (topic, group) => steer(topic, group, false)
  }
}

type Bytes = ReadonlyArray<Uint8Array>

type PendingRow = readonly [
  source: Source,
  entry: Uint8Array,
  consumer: Uint8Array,
  idle: number,
  count: number,
  released: number,
  fields: Bytes
]

type WaitingRow = readonly [
  position: Uint8Array,
  source: Source,
  entry: Uint8Array,
  dueAt: number,
  count: number,
  released: number,
  fields: Bytes,
  cause?: Uint8Array
]

const deliveryOf = (
  topic: string,
  group: string,
  source: Source,
  entry: string,
  count: number,
  released: number,
  fields: Bytes
): StreamDelivery => {
  const delivery = new StreamDelivery(topic, group, source, entry, count, released, fields.map(String), 0)
  delivery.useBytes(fields)
  return delivery
}

const plain = ({ body, headers, id, key, publishedAt, version }: Message): Message => ({
  id,
  body,
  headers,
  key,
  version,
  publishedAt
})

const messageOf = (topic: string, group: string, source: Source, entry: string, fields: Bytes): Message =>
  plain(deliveryOf(topic, group, source, entry, 1, 0, fields))
