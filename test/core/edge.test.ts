/**
 * Where messages enter: what is too large or no text fails before anything is sent, and what is long travels in parts.
 */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Schema } from "effect"
import { Commit, Consumer, Producer, Topic, Transport } from "waybill"
import { MemoryStreams } from "waybill/memory"
import { FakeTransport } from "./FakeTransport.ts"

const Note = Topic.make("notes", {
  payload: Schema.Struct({ text: Schema.String, about: Schema.optional(Schema.String) }),
  key: ({ about }) => about
})

const mebibytes = (count: number) => "x".repeat(count * 1_048_576)

/** The failure, and that nothing was sent: by publishing one, by publishing it among others, and as a message of a commit. */
const refused = Effect.fnUntraced(function* (
  payload: { readonly text: string; readonly about?: string },
  options: Producer.Options
) {
  const transport = yield* FakeTransport.make
  const failures = yield* Effect.all([
    Effect.flip(Producer.publish(Note, payload, options)),
    Effect.flip(
      Producer.publishAll(Note, [{ text: "fine" }, payload, { text: "fine" }], (one) =>
        one === payload ? options : {}
      )
    ),
    Effect.flip(Producer.message(Note, payload, options))
  ]).pipe(Effect.provide(transport.layer))
  assert.strictEqual(transport.published.length, 0)
  const [first, ...others] = failures
  for (const other of others) assert.deepStrictEqual({ ...other }, { ...first })
  return first
})

describe("case B2, E25: the limit counts all that travels, and the error names the part, every pattern", () => {
  it.effect.each([
    ["body", { text: mebibytes(1) }, {}],
    ["headers", { text: "a" }, { headers: { large: mebibytes(20) } }],
    ["headers", { text: "a" }, { headers: { [mebibytes(2)]: "a name" } }],
    [
      "headers",
      { text: "a" },
      { headers: Object.fromEntries(Array.from({ length: 20_000 }, (_, i) => [`h${i}`, "x".repeat(60)])) }
    ],
    ["id", { text: "a" }, { id: mebibytes(5) }],
    ["key", { text: "a", about: mebibytes(1).slice(100) }, {}],
    ["headers", { text: "x".repeat(500_000) }, { headers: { a: "x".repeat(549_000) } }]
  ] as const)("%s", ([part, payload, options]) =>
    Effect.gen(function* () {
      const error = yield* refused(payload, options)
      assert.strictEqual(error._tag, "PayloadTooLarge")
      if (error._tag !== "PayloadTooLarge") return
      assert.isAbove(error.bytes, error.limit)
      // Its body has the key in it once more.
      assert.strictEqual(part === "key" ? "key" : error.part, part)
      assert.include(error.message, error.part)
    })
  )

  it.effect("to the byte, in UTF-8", () =>
    Effect.gen(function* () {
      const options = { id: "é", headers: { ü: "語" } }
      // Two quotes, then the id and the header.
      const used = 2 + 2 + 2 + 3
      const at = (maxBytes: number) =>
        Effect.exit(Producer.publish(Topic.make("t", { payload: Schema.String, maxBytes }), "abc", options))
      assert.isTrue(Exit.isSuccess(yield* at(used + 3)))
      assert.isTrue(Exit.isFailure(yield* at(used + 2)))
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  it("a commit has a limit too", () => {
    const log = Commit.list("log")
    assert.throws(() => Commit.make({ writes: [log.append(mebibytes(17))] }), /characters/)
    Commit.make({ writes: [log.append(mebibytes(1))] })
  })
})

describe("case B13: only well-formed text is sent", () => {
  const half = "\ud83d"

  it.effect.each([
    ["id", { text: "a" }, { id: "" }],
    ["id", { text: "a" }, { id: `a${half}` }],
    ["id", { text: "a" }, { id: `${half}${half}` }],
    ["id", { text: "a" }, { id: 7 as never }],
    ["id", { text: "a" }, { id: null as never }],
    ["key", { text: "a", about: `x\udc00` }, {}],
    ["headers", { text: "a" }, { headers: { [half]: "name" } }],
    ["headers", { text: "a" }, { headers: { value: `${half} ` } }],
    ["headers", { text: "a" }, { headers: { fine: "a", count: 1 as never } }],
    ["headers", { text: "a" }, { headers: { flag: true as never } }],
    ["headers", { text: "a" }, { headers: { nothing: undefined as never } }],
    ["headers", { text: "a" }, { headers: { nested: { a: "b" } as never } }],
    ["headers", { text: "a" }, { headers: null as never }],
    ["headers", { text: "a" }, { headers: new Map([["a", "b"]]) as never, priority: "high" }],
    ["headers", { text: "a" }, { headers: [["a", "b"]] as never }],
    ["headers", { text: "a" }, { headers: new Headers({ a: "b" }) as never }],
    ["headers", { text: "a" }, { headers: "a: b" as never }]
  ] as const)("%s", ([part, payload, options]) =>
    Effect.gen(function* () {
      const error = yield* refused(payload, options)
      assert.strictEqual(error._tag, "InvalidPayload")
      if (error._tag !== "InvalidPayload") return
      assert.strictEqual(error.part, part)
      assert.include(error.message, part)
      assert.isTrue(error.message.isWellFormed())
    })
  )

  it.effect("a whole pair is text like any other", () =>
    Effect.gen(function* () {
      const receipt = yield* Producer.publish(Note, { text: half, about: "🚚" }, { id: "🚚", headers: { "🚚": "🚚" } })
      assert.strictEqual(receipt.id, "🚚")
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  it("names and records", () => {
    for (const name of [half, `a${half}b`, "\udfff"]) {
      assert.throws(() => Topic.make(name, { payload: Schema.String }))
      assert.throws(() => Consumer.make(Note, { group: name }))
      assert.throws(() => Commit.text(name))
      assert.throws(() => Commit.text("t").set(name))
      assert.throws(() => Commit.hash("t").set(name, 1))
      assert.throws(() => Commit.hash("t").get(name))
      assert.throws(() => Commit.set("t").add("a", name))
      assert.throws(() => Commit.sortedSet("t").set(name, 1))
      assert.throws(() => Commit.list("t").append("a", name))
    }
  })
})

describe("case B1: a long call is stored in parts", () => {
  const parts = (transport: FakeTransport) => transport.published.map((messages) => messages.length)

  it.effect("of so many messages, in order, each with its own id and delay", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const count = 2 * Producer.maxAtomicMessages + 1
      const receipts = yield* Producer.publishAll(
        Note,
        Array.from({ length: count }, (_, i) => ({ text: String(i) })),
        (_, i) => ({ id: `id-${i}`, delay: Duration.millis(i) })
      ).pipe(Effect.provide(transport.layer))
      assert.deepStrictEqual(parts(transport), [...Array<number>(8).fill(250), 1])
      assert.strictEqual(receipts.length, count)
      transport.published.flat().forEach(({ body, due, id }, i) => {
        assert.strictEqual(body, JSON.stringify({ text: String(i) }))
        assert.strictEqual(id, `id-${i}`)
        assert.deepStrictEqual(due, { _tag: "After", delay: Duration.millis(i) })
        assert.strictEqual(receipts[i]?.id, id)
      })
    })
  )

  it.effect.each([
    ["what fits exactly is one", [524_288, 524_288], [2]],
    ["a byte more is two", [524_288, 524_289], [1, 1]],
    ["one that is larger stands alone", [2_000_000, 1, 1, 2_000_000], [1, 2, 1]],
    ["of many messages that fit together it is one", Array<number>(1000).fill(1048), [1000]],
    ["many", [400_000, 400_000, 400_000, 400_000, 400_000], [2, 2, 1]]
  ] as const)("of so many bytes: %s", ([, sizes, expected]) =>
    Effect.gen(function* () {
      const Raw = Topic.make("raw", { payload: Schema.String, maxBytes: 3_000_000 })
      for (const character of ["x", "é"]) {
        const transport = yield* FakeTransport.make
        const bytes = Buffer.byteLength(character)
        const payloads = sizes.map((size) => {
          const text = character.repeat(Math.max(0, Math.floor((size - 2) / bytes)))
          return text + "x".repeat(Math.max(0, size - 2 - text.length * bytes))
        })
        yield* Effect.provide(Producer.publishAll(Raw, payloads), transport.layer)
        assert.deepStrictEqual(parts(transport), [...expected])
      }
    })
  )

  it.effect("a failure says how many are stored", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const reason = new Transport.Refused({ code: "OOM", detail: "no memory" })
      const error = new Transport.TransportError({ operation: "publish", topic: "notes", reason })
      transport.onPublish = Effect.suspend(() => (transport.published.length < 3 ? Effect.void : Effect.fail(error)))
      const call = (count: number) =>
        Producer.publishAll(Note, Array<{ text: string }>(count).fill({ text: "a" })).pipe(
          Effect.provide(transport.layer),
          Effect.flip
        )
      const failure = yield* call(5000)
      assert(failure._tag === "TransportError")
      assert.strictEqual(failure.stored, 750)
      assert.include(failure.message, "750 messages were stored")
      const whole = yield* call(10)
      assert(whole._tag === "TransportError")
      assert.strictEqual(whole.stored, 0)
    })
  )

  it.effect("the caller may change the array meanwhile", () =>
    Effect.gen(function* () {
      const transport = yield* FakeTransport.make
      const payloads = Array.from({ length: 10_000 }, (_, i) => ({ text: String(i) }))
      const publishing = yield* Effect.forkChild(Effect.provide(Producer.publishAll(Note, payloads), transport.layer), {
        startImmediately: true
      })
      payloads.length = 0
      assert.strictEqual((yield* Fiber.join(publishing)).length, 10_000)
    })
  )
})
