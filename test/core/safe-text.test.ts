/** The messages of errors hold texts of strangers, and none of them steers the terminal or the log that shows it. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Schema } from "effect"
import { Commit, Consumer, Health, Producer, Topic, Transport } from "waybill"
import { MemoryHealth, MemoryStreams } from "waybill/memory"
import { RedisStreams } from "waybill/redis"
import * as OfCommand from "../../packages/cli/src/SafeText.ts"
import * as OfLibrary from "../../packages/waybill/src/internal/SafeText.ts"

/** Clears the screen, in both ways of saying so, begins a line, and turns the direction of text around. */
const hostile = "\x1b[2J\x9b2J\r\u2028\u202e\u061cx"
const shown = "\\u001b[2J\\u009b2J\\u000d\\u2028\\u202e\\u061cx"

const unsafe = /[^\P{C}\n]|[\u2028\u2029]/u

const isSafe = (message: string) => {
  assert.notMatch(message, unsafe)
  assert.include(message, shown)
}

const detail = hostile
const reasons = [
  new Transport.Disconnected({ ambiguous: true, cause: new Error(hostile) }),
  new Transport.Refused({ code: hostile, detail }),
  new Transport.WrongKeyType({ key: hostile, detail }),
  new Transport.NotPermitted({ command: hostile, key: hostile, detail }),
  new Transport.AuthenticationFailed({ detail }),
  new Transport.InvalidUrl({ detail }),
  new Transport.TlsFailed({ detail }),
  new Transport.UnsupportedServer({ found: hostile, needed: hostile }),
  new Transport.TopicConflict({ topic: hostile, expected: hostile, found: hostile }),
  new Transport.NotOffered({ feature: hostile, detail }),
  new Transport.NotificationsDisabled({ found: hostile, needed: hostile }),
  new Transport.InvalidName({ kind: "group", name: hostile }),
  new Transport.TopicInUse({ topic: hostile, group: hostile, found: "pending" }),
  new Transport.MessageNotFound({ id: hostile }),
  new Transport.MessageInUse({ id: hostile, group: hostile, consumer: hostile }),
  new Transport.MessageSettled({ id: hostile }),
  new Transport.MessageNotWaiting({ id: hostile }),
  new Transport.UnreadableSchedule({ schedule: hostile }),
  new Transport.Rejected({ command: hostile, detail })
]

describe("case C5: the message of an error", () => {
  it.each(reasons.map((reason) => [reason._tag, reason] as const))(
    "%s shows what steers a terminal as text",
    (_, reason) => {
      isSafe(reason.message)
      isSafe(new Transport.TransportError({ operation: "publish", topic: hostile, reason }).message)
    }
  )

  it.effect("of what does not fit a topic is safe, and its lines stay lines", () =>
    Effect.gen(function* () {
      const Odd = Schema.String.check(Schema.makeFilter(() => hostile))
      const topic = Topic.make("t", { payload: Schema.Struct({ field: Odd }) })
      const invalid = yield* Effect.flip(topic.encode({ field: "x" }))
      const failure = yield* Effect.flip(topic.decode('{"field":"x"}'))
      for (const { message } of [invalid, failure]) {
        isSafe(message)
        assert.match(message, /\n {2}at \["field"\]/)
      }
      isSafe(new Topic.PayloadTooLarge({ topic: hostile, bytes: 2, limit: 1 }).message)
    })
  )

  it.effect("of a problem of its health is safe, whatever groups and topics are called", () =>
    Effect.gen(function* () {
      const name = "\x1b[2J\u202ex"
      yield* Producer.publish(Topic.make(name, { payload: Schema.Int }), 1)
      const { receive } = yield* Transport.AtMostOnce
      const times = { lease: Duration.seconds(10), shutdown: Duration.zero }
      yield* receive({ topic: name, group: name, start: "earliest", maxDeliveries: 5, ...times })
      const { problems } = yield* Health.check({ limits: { lag: 0 } })
      assert.deepStrictEqual(
        problems.map(({ detail }) => detail.split(":")[0]),
        ["group \\u001b[2J\\u202ex of topic \\u001b[2J\\u202ex"]
      )
    }).pipe(Effect.scoped, Effect.provide([MemoryStreams.layer(), MemoryHealth.layer]))
  )

  it("of what was given wrongly is safe, and no longer than it must be", () => {
    const Numbers = Topic.make("numbers", { payload: Schema.Int })
    // As a caller without types writes it.
    const wrong = hostile as never
    const wide = `${hostile} ${"x".repeat(100_000)}`
    for (const give of [
      () => Topic.make(wide, { payload: Schema.Int }),
      () => Topic.make("t", { payload: Schema.Int, version: wrong }),
      () => Consumer.make(Numbers, { group: wide }),
      () => Consumer.make(Numbers, { group: "g", start: wrong }),
      () => Consumer.make(Numbers, { group: "g", lease: wrong }),
      () => Commit.counter(wide),
      () => RedisStreams.layer({ prefix: wide }),
      () => MemoryStreams.layer({ deadLetters: { maxCount: [wide] as never } })
    ]) {
      try {
        give()
      } catch (error) {
        assert.instanceOf(error, Error)
        isSafe(error.message)
        assert.isBelow(error.message.length, 500)
        continue
      }
      assert.fail(`not refused: ${give}`)
    }
  })
})

it("the command and the library escape the same characters", () => {
  for (let code = 0; code <= 0xffff; code++) {
    const character = String.fromCharCode(code)
    assert.strictEqual(OfCommand.safe(character), OfLibrary.safe(character))
  }
})
