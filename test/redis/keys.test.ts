/**
 * Case B14: no two names share a key, whatever topics, groups, records and message ids are called.
 */
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Effect, Fiber, Layer, Schema } from "effect"
import { Commit, Consumer, Producer, Records, Topic } from "waybill"
import { RedisExactlyOnce, RedisStreams } from "waybill/redis"
import { dataKey, registry, topicKeys, topicOf } from "../../packages/waybill/src/redis/internal/wire/Keys.ts"
import * as Patterns from "./Patterns.ts"

/** Pieces of our own keys, and what escapes them. */
const pieces: ReadonlyArray<string> = [
  ..."a:/%.#*",
  "3A",
  "25",
  "%3A",
  ..."group state done seen data meta dead topics message processing waiting bodies channel ready high"
    .split(" ")
    .map((word) => `:${word}`),
  "x:",
  "group:a"
]
const Pieces = Schema.Array(Schema.Literals(pieces)).check(Schema.isMinLength(1), Schema.isMaxLength(5))

/** A prefix, a topic, a group, and an id. */
const named = { prefix: Pieces, topic: Pieces, group: Pieces, other: Pieces }

const namesOf = ({ group, other, prefix, topic }: Readonly<Record<keyof typeof named, ReadonlyArray<string>>>) => ({
  prefix: `p${prefix.join("").replaceAll(":", "")}`,
  topic: topic.join(""),
  group: group.join(""),
  other: other.join("")
})

/** Every key that the names have, by what it is. */
const keysOf = ({
  db = 0,
  group,
  other,
  prefix,
  topic
}: {
  readonly prefix: string
  readonly topic: string
  readonly group: string
  readonly other: string
  readonly db?: number
}) => {
  const found: Array<readonly [what: string, key: string]> = []
  const add = (what: ReadonlyArray<string>, value: unknown, more: ReadonlyArray<string>): void => {
    if (typeof value === "string") found.push([JSON.stringify([...what, ...more]), value])
    else if (typeof value === "function") add(what, value(other), [...more, other])
    else for (const [name, each] of Object.entries(value as object)) add([...what, name], each, more)
  }
  const { group: groupOf, messages, ...keys } = topicKeys(prefix, topic, db)
  add(["topic"], { ...keys, message: (name: string) => messages + name }, [prefix, topic])
  add(["group"], groupOf(group), [prefix, topic, group])
  found.push([JSON.stringify(["registry", prefix]), registry(prefix)])
  // Topics that begin alike up to the first slash share their records.
  found.push([JSON.stringify(["record", prefix, topic.split("/")[0], other]), dataKey(prefix, topic, other)])
  return found
}

describe("case B14: keys", () => {
  const meant = new Map<string, string>()

  it.effect.prop(
    "no two names share one",
    named,
    (parts) =>
      Effect.sync(() => {
        for (const [what, key] of keysOf(namesOf(parts))) {
          const before = meant.get(key)
          assert.isTrue(before === undefined || before === what, `${key} is ${before} and ${what}`)
          meant.set(key, what)
        }
      }),
    { arbitrary: { runs: 1500 } }
  )

  it.effect.prop("the topic of a channel is found again", named, (parts) =>
    Effect.sync(() => {
      const { prefix, topic } = namesOf(parts)
      for (const db of [0, 1, 12]) assert.strictEqual(topicOf(prefix, topicKeys(prefix, topic, db).channel), topic)
    })
  )

  const channels = new Map<string, string>()

  it.effect.prop(
    "case A9: no two databases share a channel, and no channel is called like a key of another",
    named,
    (parts) =>
      Effect.sync(() => {
        for (const db of [0, 1, 2, 12]) {
          for (const [what, key] of keysOf({ ...namesOf(parts), db })) {
            const isChannel = /"(?:wake|channel|redriven)"/.test(what)
            const it = isChannel ? `${what} in ${db}` : what
            const before = channels.get(key)
            assert.isTrue(before === undefined || before === it, `${key} is ${before} and ${it}`)
            channels.set(key, it)
          }
        }
      }),
    { arbitrary: { runs: 500 } }
  )

  it("names without a colon stay as they were", () => {
    const { dead, done } = topicKeys("p", "t", 0).group("50%3A")
    assert.strictEqual(dead, "{p:t}:group:50%3A:dead")
    assert.strictEqual(done("x:state"), "{p:t}:group:50%3A:done:x:state")
    assert.strictEqual(topicKeys("p", "t", 0).group("a:b%").dead, "{p:t}:group::a%3Ab%25:dead")
    assert.strictEqual(topicKeys("p", "t", 0).channel, "{p:t}:channel")
    assert.strictEqual(topicKeys("p", "t", 2).channel, "{p:t}:channel@2")
  })

  it.live.each([
    ["RedisStreams", RedisStreams.layer({ prefix: "b14" })],
    ["RedisExactlyOnce", RedisExactlyOnce.layer({ prefix: "b14" })]
  ] as const)("a transactional group and one that is called like its marks: %s", ([name, pattern]) =>
    Effect.gen(function* () {
      const Work = Topic.make("b14/work", { payload: Schema.String, guarantee: "transactional" })
      const seen = Commit.set("seen")
      const consumer = (group: string) =>
        Consumer.make(Work, { group }).pipe(
          Consumer.transactional((payload) =>
            Effect.succeed(Commit.make({ writes: [seen.add(`${group} ${payload}`)] }))
          ),
          Consumer.run,
          Effect.forkChild({ startImmediately: true })
        )
      // A queue has one group.
      const groups = name === "RedisStreams" ? ["a:done:x", "a"] : ["a"]
      const fibers = yield* Effect.forEach(groups, consumer)
      yield* Producer.publishAll(Work, ["one", "two"], (payload) => ({ id: payload === "one" ? "x:state" : "x" }))
      const expected = new Set(groups.flatMap((group) => [`${group} one`, `${group} two`]))
      yield* Effect.repeat(Records.read(Work, seen.all), { until: (all) => all.size === expected.size })
      for (const fiber of fibers) assert.isUndefined(fiber.pollUnsafe())
      assert.deepStrictEqual(yield* Records.read(Work, seen.all), expected)
      yield* Fiber.interruptAll(fibers)
    }).pipe(Effect.provide(pattern.pipe(Layer.provideMerge(Patterns.redis), Layer.provideMerge(RedisServer.layer()))))
  )
})
