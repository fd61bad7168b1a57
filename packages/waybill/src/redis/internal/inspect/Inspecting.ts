/**
 * What an inspector does the same way whatever the pattern: it asks scripts, lists topics and dead letters, discards,
 * pauses and resumes.
 *
 * @module
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { ConsumerInfo, GroupInfo, Inspector } from "../../../Inspector.ts"
import type { Message } from "../../../Message.ts"
import { type Reason, TransportError } from "../../../Transport.ts"
import type { Connection } from "../connection/Connection.ts"
import type { Script } from "../connection/Script.ts"
import { evaluate, problemOf } from "../connection/ScriptReply.ts"
import { registry, type TopicKeys } from "../wire/Keys.ts"
import { clock, mismatch, reads } from "../wire/Lua.ts"
import { deadLetterOf } from "./DeadLetterEntry.ts"
import { discard, expire, letters } from "./DeadLetterScripts.ts"
import type { Belongings } from "./Removal.ts"

export interface InspectorOptions {
  readonly commands: Connection
  readonly prefix: string
  readonly keysOf: (topic: string) => TopicKeys
  /** Makes the receivers of this process look at once. */
  readonly steered: (topic: string, group: string) => Effect.Effect<void>
}

/** How many dead letters one run of a script moves or deletes at most. */
const redriveLimit = 200

/** The reply of such a script: how many dead letters it moved or deleted, of how many that it looked at. */
export type Moved = readonly [tag: string, count: number, passed: number]

/** How long between two looks at who still has to pause, ms: twice as long each time. */
const shortestLook = 10
const longestLook = 100

/**
 * Which consumers of a paused group live and have not said that they begin nothing any more.
 *
 * | KEYS | |
 * |---|---|
 * | 1, 2 | consumers, state |
 *
 * | reply | |
 * |---|---|
 * | `OK`, longest, consumer... | longest: ms until the last of them is taken for dead, unless it beats. None when the group is not paused any more |
 */
const unquiet: Script = {
  name: "waybill/unquiet",
  lua: `${reads}${mismatch}${clock}
local wrong = mismatch(KEYS[1], 'zset') or mismatch(KEYS[2], 'hash')
if wrong then return wrong end
local reply = {'OK', 0}
if redis.call('HEXISTS', KEYS[2], 'paused') == 0 then return reply end
local now = clock()
local living = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. string.format('%.0f', now), '+inf', 'WITHSCORES')
for i = 1, #living, 2 do
  if redis.call('HEXISTS', KEYS[2], 'quiet:' .. living[i]) == 0 then
    reply[#reply + 1] = living[i]
    reply[2] = math.max(reply[2], tonumber(living[i + 1]) - now)
  end
end
return reply
`
}

/**
 * A reply about one group: of the scripts `describe`. `living`: name, pending, ms until the lease ends, name... `old` = 1:
 * some of the dead letters are too old to count, and counted.
 */
export type Figures = readonly [
  tag: string,
  lag: number,
  pending: number,
  oldest: number,
  waiting: number,
  next: number,
  dead: number,
  dropped: number,
  paused: 0 | 1,
  living: ReadonlyArray<string | number>,
  reached: string,
  old: 0 | 1
]

export const groupOf = (
  group: string,
  [, lag, pending, oldest, waiting, next, dead, dropped, paused, living, reached]: Figures
): GroupInfo => {
  const consumers: Array<ConsumerInfo> = []
  for (let i = 0; i + 2 < living.length; i += 3) {
    const [consumer, pending, leaseLeft] = living.slice(i, i + 3)
    consumers.push({ consumer: String(consumer), pending: Number(pending), leaseLeftMillis: Number(leaseLeft) })
  }
  return {
    group,
    lag,
    reached: reached === "" ? undefined : reached,
    pending,
    oldestPendingMillis: oldest,
    waiting,
    nextRetryAt: next < 0 ? undefined : next,
    deadLetters: dead,
    deadLettersDropped: dropped,
    paused: paused === 1,
    consumers
  }
}

/** A message without what else a delivery knows. */
export const messageOf = ({ body, headers, id, key, publishedAt, version }: Message): Message => ({
  id,
  body,
  headers,
  key,
  version,
  publishedAt
})

export const failing = (topic?: string) =>
  Effect.mapError((reason: Reason) => new TransportError({ operation: "inspect", topic, reason }))

export class Inspecting {
  readonly #options: InspectorOptions
  readonly #pattern: string

  constructor(options: InspectorOptions, pattern: string) {
    this.#options = options
    this.#pattern = pattern
  }

  evaluate<A extends ReadonlyArray<unknown>>(
    topic: string,
    script: Script,
    keys: ReadonlyArray<string>,
    args: ReadonlyArray<string | number>
  ): Effect.Effect<A, Reason> {
    return evaluate<A>(this.#options.commands, { topic, pattern: this.#pattern }, script, keys, args)
  }

  /** The same with bytes where the answer has strings: bodies need not be text. */
  evaluateExactly<A extends ReadonlyArray<unknown>>(
    topic: string,
    script: Script,
    keys: ReadonlyArray<string>,
    args: ReadonlyArray<string | number>
  ): Effect.Effect<A, Reason> {
    return Effect.flatMap(this.#options.commands.eval(script, keys, args, { buffers: true }), (reply) => {
      // The reply table of the script, which the caller names.
      const answer = reply as A
      const problem = problemOf(
        script.name,
        { topic, pattern: this.#pattern },
        answer.map((part) => (part instanceof Uint8Array ? String(part) : part))
      )
      return problem === undefined ? Effect.succeed(answer) : Effect.fail(problem)
    })
  }

  /** Looks again when dead letters that are too old have been dropped; where that is not permitted they count. */
  withoutOld(topic: string, group: string, look: Effect.Effect<Figures, Reason>): Effect.Effect<Figures, Reason> {
    return Effect.flatMap(look, (figures) =>
      figures[11] === 0 ? Effect.succeed(figures) : Effect.andThen(this.expire(topic, group), look)
    )
  }

  /** Drops the dead letters of a group that are too old, if that is permitted. */
  expire(topic: string, group: string): Effect.Effect<void> {
    const { dead, state } = this.#options.keysOf(topic).group(group)
    const some = this.evaluate<[string, number]>(topic, expire, [dead, state], [])
    return Effect.ignore(Effect.repeat(some, { while: ([, dropped]) => dropped > 0 }))
  }

  /** Removes a topic with these belongings, when nothing of it is in use. */
  remove(topic: string, script: Script, { groups, others, topic: whole }: Belongings): Effect.Effect<void, Reason> {
    const { commands, keysOf, prefix } = this.#options
    const { groups: names, meta } = keysOf(topic)
    const unseen = [[names, "set"], ...others] as const
    const asked = {
      types: unseen.map(([, type]) => type),
      topic: { keys: whole.keys.length, args: whole.args },
      groups: groups.map(({ args, group, keys, state }) => ({
        group,
        keys: keys.length,
        args,
        state: keys.indexOf(state) + 1
      }))
    }
    const keys = [...unseen.map(([key]) => key), ...whole.keys, ...groups.flatMap(({ keys }) => keys)]
    const key = registry(prefix)
    return this.evaluate<[string]>(topic, script, keys, [JSON.stringify(asked)]).pipe(
      Effect.repeat({ while: ([answer]) => answer === "AGAIN" }),
      Effect.andThen(commands.run("srem", (client) => client.srem(key, topic), { key })),
      Effect.andThen(commands.run("hget", (client) => client.hget(meta, "pattern"), { key: meta })),
      // A producer may have opened it again before its name was taken out.
      Effect.flatMap((opened) =>
        opened === null
          ? Effect.void
          : Effect.asVoid(commands.run("sadd", (client) => client.sadd(key, topic), { key }))
      )
    )
  }

  /** Runs `run` for some of the dead letters at a time, until it has passed them all; returns how many were moved. */
  inBatches(
    topic: string,
    entries: ReadonlyArray<string>,
    run: (some: ReadonlyArray<string>) => Effect.Effect<Moved, Reason>
  ): Effect.Effect<number, TransportError> {
    return Effect.gen(function* () {
      // Anything else is not an entry, and would only make the server complain.
      const sound = entries.filter((entry) => /^\d+-\d+$/.test(entry))
      let total = 0
      for (let i = 0; i < sound.length;) {
        const [, count, passed] = yield* run(sound.slice(i, i + redriveLimit))
        total += count
        i += passed
      }
      return total
    }).pipe(failing(topic))
  }

  /**
   * Waits until no consumer of the paused group begins anything. Those that do not say so in time are named in the log: one that
   * beats tells within a lease, unless it is an older build.
   */
  #quiet(topic: string, group: string): Effect.Effect<void, Reason> {
    const { consumers, state } = this.#options.keysOf(topic).group(group)
    return Effect.gen({ self: this }, function* () {
      let left: number | undefined
      for (let wait = shortestLook; ; wait = Math.min(longestLook, wait * 2)) {
        const [, longest, ...others] = yield* this.evaluate<[string, number, ...Array<string>]>(
          topic,
          unquiet,
          [consumers, state],
          []
        )
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

  /** What needs no script of the pattern. */
  get plain(): Pick<
    Context.Service.Shape<typeof Inspector>,
    "topics" | "deadLetters" | "discard" | "pause" | "resume"
  > {
    const { commands, keysOf, prefix, steered } = this.#options
    const steer = (topic: string, group: string, paused: boolean) => {
      const key = keysOf(topic).group(group).state
      return commands
        .run<unknown>("hset", (client) => (paused ? client.hset(key, "paused", "1") : client.hdel(key, "paused")), {
          key
        })
        .pipe(
          Effect.andThen(steered(topic, group)),
          Effect.andThen(paused ? this.#quiet(topic, group) : Effect.void),
          failing(topic)
        )
    }
    return {
      topics: commands
        .run("smembers", (client) => client.smembers(registry(prefix)), { key: registry(prefix) })
        .pipe(
          Effect.map((topics) => topics.sort()),
          failing()
        ),

      deadLetters: (topic, group, page) => {
        const { dead, state } = keysOf(topic).group(group)
        return this.evaluateExactly<[Uint8Array, ReadonlyArray<readonly [Buffer, ReadonlyArray<Buffer>]>]>(
          topic,
          letters,
          [dead, state],
          [Option.getOrElse(page.after, () => ""), page.limit]
        ).pipe(
          Effect.map(([, letters]) =>
            letters.map(([entry, fields]) => deadLetterOf(topic, group, String(entry), fields))
          ),
          failing(topic)
        )
      },

      discard: (topic, group, deadLetters) => {
        const { dead, state } = keysOf(topic).group(group)
        return this.inBatches(topic, deadLetters, (some) => this.evaluate<Moved>(topic, discard, [dead, state], some))
      },

      pause: (topic, group) => steer(topic, group, true),
      resume: (topic, group) => steer(topic, group, false)
    }
  }
}
