/**
 * Looks at topics of the streams pattern and steers their groups, also those that were written by other programs.
 *
 * @module
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { ConsumerInfo, GroupInfo, Inspector, TopicInfo } from "../../../Inspector.ts"
import { type Reason, TransportError } from "../../../Transport.ts"
import { evaluate as ask } from "../Answer.ts"
import type { Connection } from "../Connection.ts"
import { deadLetterOf } from "../DeadLetterEntry.ts"
import { registry, type TopicKeys } from "../Keys.ts"
import type { Script } from "../Script.ts"
import { nobody, pattern } from "./GroupScripts.ts"
import * as InspectScripts from "./InspectScripts.ts"

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
        const [, opened, depth, delayed, next, groups] = yield* evaluate<
          [string, string, number, number, number, ReadonlyArray<string>]
        >(topic, InspectScripts.overview, [keys.stream, keys.meta, keys.groups, keys.delayed], [])
        const info: TopicInfo = {
          topic,
          pattern: opened === "" ? pattern : opened,
          depth,
          delayed,
          nextDelayedAt: next < 0 ? undefined : next,
          groups: yield* Effect.forEach(groups, (group) => describeGroup(topic, group))
        }
        return info
      }).pipe(failing(topic)),

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
