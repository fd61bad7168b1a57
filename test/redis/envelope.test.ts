/**
 * A message as one text: what we write we read, and whatever somebody else writes becomes a message.
 */
import { assert, describe, it } from "@effect/vitest"
import { marker, open, seal } from "../../packages/waybill/src/redis/internal/wire/Envelope.ts"

const bytes = (text: string) => Buffer.from(text)

/** A small generator with a seed: a failure is repeated by its seed. */
const randomOf = (seed: number) => {
  let state = seed >>> 0
  return (below: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}

const pieces = ["", "a", "\n", '"', "{}", "\u00e9", "\uFFFD", "\u{1F600}", "\0", ":", marker, "waybill:1", "\\", "id"]

const seeds = Array.from({ length: 20 }, () => Math.floor(Math.random() * 2 ** 32))

describe("Envelope", () => {
  it.each(seeds)("what is sealed is opened as it was (seed %i)", (seed) => {
    const below = randomOf(seed)
    const text = () => Array.from({ length: below(5) }, () => pieces[below(pieces.length)]).join("")
    const maybe = <A>(value: () => A) => (below(2) === 0 ? undefined : value())
    const count = () => below(2 ** 32) * (1 + below(1000))
    for (let i = 0; i < 500; i++) {
      const body = text()
      const numbered = maybe(() => ({ producer: text(), number: count() }))
      const line = {
        at: maybe(count),
        // Node 24.21 sometimes reads a name that is one escaped character, such as "\n", as a backslash.
        headers: Object.fromEntries(Array.from({ length: below(3) }, () => [`${text()}-name`, text()])),
        id: maybe(() => `${text()}!`),
        key: maybe(text),
        version: count(),
        producer: numbered?.producer,
        number: numbered?.number,
        fence: maybe(count),
        topic: maybe(text)
      }
      assert.deepStrictEqual(open(bytes(seal(body, line))), { body, ...line })
    }
  })

  it("a payload with nothing to say about it travels as it is", () => {
    assert.strictEqual(seal('{"id":1}', {}), '{"id":1}')
    assert.strictEqual(seal("x", { headers: {}, version: 1 }), "x")
  })

  it.each(seeds)("any bytes are a message, and none of them is lost (seed %i)", (seed) => {
    const below = randomOf(seed)
    const beginnings = ["", marker, `${marker}{`, `${marker}{}\n`, `${marker}{"id":"a"}\n`]
    for (let i = 0; i < 500; i++) {
      const rest = Uint8Array.from({ length: below(12) }, () => below(256))
      const all = Buffer.concat([bytes(beginnings[below(beginnings.length)] ?? ""), rest])
      const body = Buffer.from(open(all).body as string)
      assert.deepStrictEqual(body, all.subarray(all.length - body.length))
    }
  })

  it.each([
    ["no JSON", "{"],
    ["a list", "[]"],
    ["nothing", ""],
    ["null", "null"],
    ["an empty id", '{"id":""}'],
    ["an id that is a number", '{"id":1}'],
    ["a key that is null", '{"key":null}'],
    ["a producer that is a list", '{"producer":[]}'],
    ["a number in words", '{"n":"two"}'],
    ["a time with a fraction", '{"at":1.5}'],
    ["a negative version", '{"v":-1}'],
    ["a fence in words", '{"fence":"two"}'],
    ["a topic that is a number", '{"topic":1}'],
    ["headers that are a list", '{"headers":[]}'],
    ["a header that is a number", '{"headers":{"a":1}}']
  ])("a line with %s makes the body undecodable, byte for byte", (_, line) => {
    const text = `${marker}${line}\n{}`
    const { body, id } = open(bytes(text))
    assert.deepStrictEqual(body, new Uint8Array(bytes(text)))
    assert.strictEqual(id, undefined)
  })

  it("a body that is no UTF-8 stays bytes behind a line, and the replacement character stays text", () => {
    const raw = Buffer.from([0x7b, 0xff, 0x0a, 0xfe])
    const head = bytes(seal("", { key: "schl\u00fcssel" }))
    assert.deepStrictEqual(Buffer.from(open(Buffer.concat([head, raw])).body as Uint8Array), raw)
    assert.deepStrictEqual(Buffer.from(open(raw).body as Uint8Array), raw)
    assert.strictEqual(open(bytes(seal("what \uFFFD is this", { id: "1" }))).body, "what \uFFFD is this")
  })

  it("fields that we do not know are left alone", () => {
    const { id, body } = open(bytes(`${marker}{"later":true,"id":"a","__proto__":{"key":"no"}}\nx`))
    assert.deepStrictEqual([id, body], ["a", "x"])
  })
})
