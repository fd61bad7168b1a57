/**
 * Runs a script. Its reply gets its type here, and the replies that any script may return instead of its own become reasons.
 *
 * @module
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { disagreement } from "../../../internal/Filter.ts"
import {
  MessageInUse,
  MessageNotFound,
  MessageNotWaiting,
  MessageSettled,
  type Reason,
  Rejected,
  TopicConflict,
  TopicInUse,
  WrongKeyType
} from "../../../Transport.ts"
import type { Commands, EvalOptions } from "./Connection.ts"
import { type Argument, keysOf, type Kind, make, misfits, number, type StringKeys, type TypedScript } from "./Script.ts"

/** Version of the fields in docs/wire-format.md. */
export const wire = "1"

/** On whose behalf scripts run: the topic, and the pattern it is opened with. */
export interface Opened {
  readonly topic: string
  readonly pattern: string
}

/** The problem, or undefined if the reply is not one of these. */
export const problemOf = (
  script: string,
  { pattern, topic }: Opened,
  [tag, one = "", two = "", three = ""]: ReadonlyArray<string>
): Reason | undefined => {
  switch (tag) {
    case "CONFLICT":
      return new TopicConflict({
        topic,
        expected: `${pattern}, wire version ${wire}`,
        found: `${one}, wire version ${two}`
      })
    case "OWNED":
      return new TopicConflict({
        topic,
        expected: `a queue of the group ${two} (a queue has one group)`,
        found: `a queue of the group ${one}`
      })
    case "FILTERED":
      return disagreement(topic, two, one)
    case "ORDERED":
      return new TopicConflict({
        topic,
        expected: `a queue in the order ${two}`,
        found: `a queue in the order ${one}`
      })
    case "IN USE": {
      // The script says one of these words.
      const found = one as TopicInUse["found"]
      return new TopicInUse(two === "" ? { topic, found } : { topic, group: two, found })
    }
    case "MISSING":
      return new MessageNotFound({ id: one })
    case "HELD":
      return new MessageInUse({ id: one, group: two, consumer: three })
    case "SETTLED":
      return new MessageSettled({ id: one })
    case "NOT WAITING":
      return new MessageNotWaiting({ id: one })
    case "STALE":
      return new Rejected({ command: script, detail: "a later batch was stored before this one" })
    default:
      return undefined
  }
}

/** The unnamed parts of a call. */
export interface More {
  readonly keys?: ReadonlyArray<string | Buffer>
  /** What these keys should hold, if the script does not say it. */
  readonly kinds?: ReadonlyArray<Kind>
  readonly args?: ReadonlyArray<Argument>
  readonly deadline?: Duration.Input
  /** See `EvalOptions`. */
  readonly behind?: EvalOptions["behind"]
}

/** Runs a script and returns its reply. */
export const evaluate = <Key extends string, Args, Reply>(
  commands: Commands,
  opened: Opened,
  script: TypedScript<Key, Args, Reply>,
  keys: NoInfer<Readonly<Record<Key, string>>>,
  args: NoInfer<Args>,
  more: More = {}
): Effect.Effect<Reply, Reason> => {
  const named = script.argNames.map((name): Argument => {
    if (name === "wire") return wire
    return name === "pattern" ? opened.pattern : (args[name] as Argument) // as `make` of Script.ts has it
  })
  const namedKeys: Array<string | Buffer> = keysOf(script, keys)
  // A batch has many of them, and spreading takes its time for each.
  const allKeys = more.keys === undefined ? namedKeys : namedKeys.concat(more.keys)
  return commands
    .eval(script, allKeys, more.args === undefined ? named : named.concat(more.args), {
      deadline: more.deadline,
      behind: more.behind,
      buffers: script.bytes
    })
    .pipe(
      Effect.catchIf(
        (reason) => reason._tag === "WrongKeyType",
        (reason) =>
          Effect.flatMap(misplaced(commands, opened, script, allKeys, more.kinds), (found) =>
            Effect.fail(found ?? reason)
          )
      ),
      Effect.flatMap((reply) => replyOf(opened, script, reply))
    )
}

/** Runs scripts about one topic, which take their keys from the same ones. */
export type Call<Keys> = <Args, Reply>(
  script: TypedScript<StringKeys<Keys>, Args, Reply>,
  args: NoInfer<Args>,
  more?: More
) => Effect.Effect<Reply, Reason>

export const calling =
  <Keys>(commands: Commands, opened: Opened, keys: Keys & Readonly<Record<StringKeys<Keys>, string>>): Call<Keys> =>
  (script, args, more) =>
    evaluate(commands, opened, script, keys, args, more)

/** The first of KEYS that holds something other than ARGV says. */
export const findMisplaced = make({
  name: "waybill/misplaced",
  mode: "reads",
  keys: {},
  replies: {
    OK: {
      /** The number of the key, 0 if there is none. */
      place: number
    }
  },
  lua: /* lua */ `${misfits}
for k, key in ipairs(KEYS) do
  if string.find(misfit(key, ARGV[k]) or '', '^WRONGTYPE') then return {'OK', k} end
end
return {'OK', 0}
`
})

/** The server does not say which of a script's keys holds a foreign value. */
const misplaced = (
  commands: Commands,
  opened: Opened,
  { kinds, moreKinds = "channel" }: Pick<TypedScript<string, unknown, unknown>, "kinds" | "moreKinds">,
  keys: ReadonlyArray<string | Buffer>,
  more: ReadonlyArray<Kind> = []
): Effect.Effect<Reason | undefined> => {
  const expected = keys.map((_, i) => kinds[i] ?? more[i - kinds.length] ?? moreKinds)
  return evaluate(commands, opened, findMisplaced, {}, {}, { keys, args: expected }).pipe(
    Effect.map(({ place }) =>
      place === 0
        ? undefined
        : new WrongKeyType({ key: String(keys[place - 1]), detail: `it is not a ${expected[place - 1]}` })
    ),
    Effect.catch(() => Effect.undefined)
  )
}

/** The one place where a reply gets its type. */
const replyOf = <Reply>(
  opened: Opened,
  script: Pick<TypedScript<string, unknown, Reply>, "name" | "decode">,
  reply: unknown
): Effect.Effect<Reply, Reason> => {
  let detail = `an invalid reply: ${String(reply).slice(0, 100)}`
  try {
    if (Array.isArray(reply)) {
      const own = script.decode(reply)
      if (own !== undefined) return Effect.succeed(own)
      const problem = problemOf(script.name, opened, reply.map(String))
      if (problem !== undefined) return Effect.fail(problem)
    }
  } catch (error) {
    detail = String(error)
  }
  return Effect.fail(new Rejected({ command: script.name, detail }))
}
