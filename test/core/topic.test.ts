import { assert, describe, it } from "@effect/vitest"
import { Arbitrary, Cause, DateTime, Effect, Exit, Option, Schema, SchemaTransformation } from "effect"
import { Topic } from "waybill"

const isSafeNumber = Schema.makeFilter<number>((n) => !Object.is(n, -0))

class Address extends Schema.Class<Address>("Address")({
  street: Schema.String,
  number: Schema.Int
}) {}

/** Everything that JSON does not have a word for. */
const Everything = Schema.Struct({
  date: Schema.Date,
  big: Schema.BigInt,
  option: Schema.Option(Schema.Date),
  time: Schema.DateTimeUtc,
  address: Address,
  text: Schema.String,
  bytes: Schema.Uint8Array,
  // JSON has no negative zero.
  number: Schema.Number.check(isSafeNumber),
  list: Schema.Array(Schema.Option(Schema.BigInt)),
  map: Schema.ReadonlyMap(Schema.String, Schema.Date),
  record: Schema.Record(Schema.String, Schema.UndefinedOr(Schema.String)),
  missing: Schema.optionalKey(Schema.Duration)
})

const equivalent = Schema.toEquivalence(Everything)

const everything = Topic.make("everything", { payload: Everything })
const text = Topic.make("text", { payload: Schema.String })
const order = Topic.make("orders", { payload: Schema.Struct({ id: Schema.String, count: Schema.Int }) })

describe("Topic", () => {
  it.effect.prop(
    "what is encoded comes back as it was",
    [Everything],
    ([payload]) =>
      Effect.gen(function* () {
        const body = yield* everything.encode(payload)
        assert.isTrue(equivalent(yield* everything.decode(body), payload), body)
      }),
    { arbitrary: { runs: 100 } }
  )

  it.effect.prop(
    "any text survives, and its JSON is valid UTF-8",
    [Schema.String],
    ([value]) =>
      Effect.gen(function* () {
        const body = yield* text.encode(value)
        const wire = new TextDecoder("utf-8", { fatal: true }).decode(new TextEncoder().encode(body))
        assert.strictEqual(yield* text.decode(wire), value)
      }),
    { arbitrary: { runs: 300 } }
  )

  it.effect("a field for any JSON takes it as it came, and is missed or refused like any other field", () =>
    Effect.gen(function* () {
      const topic = Topic.make("any", {
        payload: Schema.Struct({
          json: Schema.Json,
          object: Schema.JsonObject,
          unknown: Schema.Unknown,
          optional: Schema.optionalKey(Schema.Json)
        })
      })
      const payload = { json: [1, { deep: [null, "x"] }], object: { a: { b: 1 } }, unknown: { c: [] } }
      assert.deepStrictEqual(yield* topic.decode(yield* topic.encode(payload)), payload)
      const refused = (body: string) => Effect.map(Effect.flip(topic.decode(body)), ({ issue }) => issue)
      assert.include(yield* refused(JSON.stringify({ object: {}, unknown: 1 })), `at ["json"]`)
      assert.include(yield* refused(JSON.stringify({ json: 1, object: [], unknown: 1 })), `at ["object"]`)
      for (const noJson of [undefined, 1n, Number.NaN, () => 1]) {
        const invalid = yield* Effect.flip(topic.encode({ ...payload, unknown: { at: [noJson] } }))
        assert.strictEqual(invalid._tag, "InvalidPayload")
      }
    })
  )

  it.effect.each(["", "\0", "\u2028", "naïve", "日本語", "👩‍👩‍👧", "\ud800 alone", "e\u0301 ≠ é", "\ufeffmark"])(
    "the text %j survives",
    (value) =>
      Effect.gen(function* () {
        const body = yield* text.encode(value)
        const wire = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(new TextEncoder().encode(body))
        assert.strictEqual(yield* text.decode(wire), value)
      })
  )

  it.effect("a class comes back as an instance, a date as a Date", () =>
    Effect.gen(function* () {
      const Visit = Topic.make("visits", {
        payload: Schema.Struct({
          at: Schema.Date,
          where: Address,
          when: Schema.DateTimeUtc,
          note: Schema.Option(Schema.String)
        })
      })
      const visit = {
        at: new Date(0),
        where: Address.make({ street: "Rue de l'Église", number: 7 }),
        when: DateTime.makeUnsafe(86_400_000),
        note: Option.some("été")
      }
      const decoded = yield* Visit.decode(yield* Visit.encode(visit))
      assert.instanceOf(decoded.at, Date)
      assert.strictEqual(decoded.at.getTime(), 0)
      assert.instanceOf(decoded.where, Address)
      assert.isTrue(DateTime.Equivalence(decoded.when, visit.when))
      assert.deepStrictEqual(decoded.note, visit.note)
    })
  )

  it.effect("nothing at all is a payload too", () =>
    Effect.gen(function* () {
      const tick = Topic.make("ticks", { payload: Schema.Void })
      assert.isUndefined(yield* tick.decode(yield* tick.encode(undefined)))
    })
  )

  describe("encode", () => {
    it.effect.each([
      ["a wrong type", { id: 7, count: 1 }, /Expected string.*id/s],
      ["a failed check", { id: "a", count: 1.5 }, /integer.*count/s],
      ["a missing key", { id: "a" }, /count/]
    ] as const)("refuses %s and says what and where", ([, payload, issue]) =>
      Effect.gen(function* () {
        // The types rule it out; JavaScript does not.
        const failure = yield* Effect.flip(order.encode(payload as never))
        assert.strictEqual(failure._tag, "InvalidPayload")
        assert.include(failure.message, "orders")
        assert.match(failure.message, issue)
      })
    )

    it.effect("what is no JSON is refused, not thrown", () =>
      Effect.gen(function* () {
        const anything = Topic.make("anything", { payload: Schema.Unknown })
        const circle: Record<string, unknown> = {}
        circle["self"] = circle
        for (const value of [circle, () => 1, { deep: [1n] }]) {
          assert.strictEqual((yield* Effect.flip(anything.encode(value)))._tag, "InvalidPayload")
        }
      })
    )

    it.effect.each([
      ["ASCII", "x", 1],
      ["two bytes", "é", 2],
      ["three bytes", "語", 3],
      ["four bytes", "👩", 4],
      ["escaped", "\n", 2]
    ] as const)("the limit counts UTF-8 bytes: %s", ([, character, size]) =>
      Effect.gen(function* () {
        const count = 50
        const exact = 2 + count * size
        const atLimit = Topic.make("t", { payload: Schema.String, maxBytes: exact })
        const below = Topic.make("t", { payload: Schema.String, maxBytes: exact - 1 })
        const value = character.repeat(count)
        assert.strictEqual(new TextEncoder().encode(yield* atLimit.encode(value)).length, exact)
        const failure = yield* Effect.flip(below.encode(value))
        assert.deepStrictEqual(
          { ...failure },
          { ...new Topic.PayloadTooLarge({ topic: "t", bytes: exact, limit: exact - 1 }) }
        )
        assert.include(failure.message, `${exact} bytes`)
      })
    )

    it.effect("the limit is 1 MiB unless the topic says otherwise", () =>
      Effect.gen(function* () {
        const exact = "x".repeat(1_048_576 - 2)
        assert.strictEqual((yield* text.encode(exact)).length, 1_048_576)
        assert.strictEqual((yield* Effect.flip(text.encode(`${exact}x`)))._tag, "PayloadTooLarge")
      })
    )

    it.effect.prop(
      "the limit is never off by one",
      [Schema.String, Schema.Int.check(Schema.isBetween({ minimum: -2, maximum: 2 }))],
      ([value, off]) =>
        Effect.gen(function* () {
          const bytes = new TextEncoder().encode(JSON.stringify(value)).length
          const exit = yield* Effect.exit(
            Topic.make("t", { payload: Schema.String, maxBytes: Math.max(1, bytes + off) }).encode(value)
          )
          assert.strictEqual(Exit.isSuccess(exit), off >= 0)
        }),
      { arbitrary: { runs: 200 } }
    )
  })

  describe("decode", () => {
    it.effect.each([
      ["nothing", ""],
      ["half an object", '{"id": "a", '],
      ["a word", "undefined"],
      ["text after it", '{"id":"a","count":1} x'],
      ["a byte order mark", '\ufeff{"id":"a","count":1}'],
      ["another shape", '["a", 1]'],
      ["null", "null"],
      ["a wrong type", '{"id":"a","count":"1"}'],
      ["a failed check", '{"id":"a","count":0.5}'],
      ["a missing key", '{"id":"a"}'],
      ["keys only inherited", '{"__proto__":{"id":"a","count":1}}'],
      ["deep nesting", "[".repeat(200_000)],
      ["bytes", new Uint8Array([0xff, 0xfe])],
      ["bytes that happen to be text", new TextEncoder().encode('{"id":"a","count":1}')]
    ] as const)("refuses %s", ([, body]) =>
      Effect.gen(function* () {
        const failure = yield* Effect.flip(order.decode(body))
        assert.strictEqual(failure._tag, "DecodeFailure")
        assert.strictEqual(failure.topic, "orders")
        assert.notInclude(failure.message, "[object Object]")
        assert.isAbove(failure.issue.length, 0)
      })
    )

    it.effect("says where the payload is wrong", () =>
      Effect.gen(function* () {
        const failure = yield* Effect.flip(order.decode('{"id":"a","count":"many"}'))
        assert.match(failure.issue, /count/)
        assert.match(failure.issue, /number|integer/)
      })
    )

    it.effect("a key called __proto__ is data and changes no prototype", () =>
      Effect.gen(function* () {
        const bag = Topic.make("bag", { payload: Schema.Record(Schema.String, Schema.Unknown) })
        const decoded = yield* bag.decode('{"__proto__":{"polluted":true},"constructor":1}')
        assert.deepStrictEqual(Object.keys(decoded).toSorted(), ["__proto__", "constructor"])
        assert.isUndefined(Object.getOwnPropertyDescriptor(Object.prototype, "polluted"))
        assert.isFalse("polluted" in decoded)
      })
    )

    it.effect("keys that the schema does not know are left out", () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* order.decode('{"id":"a","count":1,"more":true}'), { id: "a", count: 1 })
      })
    )

    it.effect("a transformation that throws is a defect, not a silent success", () =>
      Effect.gen(function* () {
        const thrower = Schema.String.pipe(
          Schema.decodeTo(
            Schema.String,
            SchemaTransformation.transform({
              decode: (): string => {
                throw new Error("bad transformation")
              },
              encode: (value: string) => value
            })
          )
        )
        const exit = yield* Effect.exit(Topic.make("t", { payload: thrower }).decode('"a"'))
        assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      })
    )
  })

  describe("make", () => {
    it.each(["", " ", "a b", "a\tb", "a\n", "a{b", "a}b", "{}", "x".repeat(201)])("refuses the name %j", (name) => {
      assert.throws(() => Topic.make(name, { payload: Schema.String }), /invalid topic name/)
    })

    it.each(["a", "orders.placed", "a:b/c", "été", "x".repeat(200)])("takes the name %j", (name) => {
      assert.strictEqual(Topic.make(name, { payload: Schema.String }).name, name)
    })

    it("has version 1 and no key unless told", () => {
      assert.strictEqual(text.version, 1)
      assert.isUndefined(text.key("a"))
      const keyed = Topic.make("t", { payload: Schema.String, version: 3, key: (value) => value.slice(0, 1) })
      assert.strictEqual(keyed.version, 3)
      assert.strictEqual(keyed.key("abc"), "a")
    })
  })

  it("the generator finds values that break a broken codec", async () => {
    // A codec that loses milliseconds, as a control of the round trip above.
    const result = await Effect.runPromise(
      Arbitrary.checkEffect(Arbitrary.schema(Everything), (payload) =>
        equivalent({ ...payload, date: new Date(Math.trunc(payload.date.getTime() / 1000) * 1000) }, payload)
      )
    )
    assert.strictEqual(result._tag, "Falsified")
  })
})
