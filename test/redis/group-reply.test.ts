import { EventEmitter } from "node:events"
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Effect, Schema } from "effect"
import { Redis } from "ioredis"
import { type GroupReply, readGroup } from "../../packages/waybill/src/redis/internal/streams/GroupReply.ts"

/** A client whose decoder keeps what it is given, and takes "nothing to read" for an answer. */
const fake = () => {
  const stream = new EventEmitter()
  const seen: Array<Buffer> = []
  let answer: (() => void) | undefined
  stream.on("data", (chunk: Buffer) => {
    seen.push(chunk)
    answer?.()
  })
  return {
    // readGroup asks a client for its stream and nothing else.
    client: { stream } as unknown as Redis,
    seen: () => Buffer.concat(seen).toString("latin1"),
    send: () =>
      new Promise<GroupReply | null>((resolve) => {
        answer = () => resolve(null)
      }),
    receive: (bytes: Buffer) => stream.emit("data", bytes)
  }
}

const blob = (text: string) => `$${Buffer.byteLength(text)}\r\n${text}\r\n`

const encoded = (reply: GroupReply) =>
  Buffer.from(
    `%${reply.length}\r\n${reply
      .map(
        ([key, entries]) =>
          `${blob(key)}*${entries.length}\r\n${entries
            .map(([id, fields]) => `*2\r\n${blob(id)}*${fields.length}\r\n${fields.map(blob).join("")}`)
            .join("")}`
      )
      .join("")}`
  )

/** Cuts the bytes into pieces of the given sizes, over and over. */
const cut = (bytes: Buffer, sizes: ReadonlyArray<number>): Array<Buffer> => {
  const pieces: Array<Buffer> = []
  for (let from = 0, i = 0; from < bytes.length; i++) {
    const to = from + (sizes[i % sizes.length] ?? bytes.length)
    pieces.push(bytes.subarray(from, to))
    from = to
  }
  return pieces
}

const Reply = Schema.Array(
  Schema.Tuple([
    Schema.String,
    Schema.Array(Schema.Tuple([Schema.String, Schema.Array(Schema.Union([Schema.String, Schema.Literal("payload")]))]))
  ])
).check(Schema.isMaxLength(3))

const Sizes = Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 40 }))).check(Schema.isMaxLength(5))

const someReply: GroupReply = [
  ["orders", [["1-1", ["payload", '{"a":1}', "id", "x"]]]],
  ["retry", [["2-1", ["payload", "naïve 日本語 👩‍👩‍👧", "", ""]]]]
]

describe("readGroup", () => {
  it.effect.prop(
    "reads what was written, however it is cut into pieces",
    [Reply, Sizes],
    ([written, sizes]) =>
      Effect.promise(async () => {
        // What cannot be written as UTF-8 arrives as the character that says so.
        const expected: GroupReply = JSON.parse(JSON.stringify(written), (_, value) =>
          typeof value === "string" ? Buffer.from(value).toString() : value
        )
        const { client, receive, seen, send } = fake()
        for (const _ of ["once", "and again on the same connection"]) {
          const reply = readGroup(client, send)
          for (const piece of cut(encoded(written), sizes)) receive(piece)
          assert.deepStrictEqual(await reply, expected)
        }
        assert.strictEqual(seen(), "_\r\n_\r\n")
      }),
    { arbitrary: { runs: 300 } }
  )

  it.effect.each([
    ["an error", "-NOGROUP no such group\r\n"],
    ["nothing", "_\r\n"],
    ["the reply of an older protocol", "*1\r\n*2\r\n$1\r\ns\r\n*0\r\n"],
    ["an entry without fields", "%1\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-1\r\n_\r\n"],
    ["an entry of three parts", "%1\r\n$1\r\ns\r\n*1\r\n*3\r\n$3\r\n1-1\r\n*0\r\n:1\r\n"],
    ["a length that is no number", "%1\r\n$1\r\ns\r\n*-1\r\n"]
  ] as const)("leaves %s to the client, byte by byte as it came", ([, bytes]) =>
    Effect.promise(async () => {
      for (const size of [1, 7, bytes.length]) {
        const { client, receive, seen, send } = fake()
        const reply = readGroup(client, send)
        for (const piece of cut(Buffer.from(bytes), [size])) receive(piece)
        assert.strictEqual(await reply, null)
        assert.strictEqual(seen(), bytes)
      }
    })
  )

  it.effect("reads a reply that is cut in two at any byte, or into single bytes", () =>
    Effect.promise(async () => {
      const bytes = encoded(someReply)
      for (let at = 1; at <= bytes.length; at++) {
        const { client, receive, seen, send } = fake()
        const reply = readGroup(client, send)
        for (const piece of at === bytes.length ? cut(bytes, [1]) : [bytes.subarray(0, at), bytes.subarray(at)]) {
          receive(piece)
        }
        assert.deepStrictEqual(await reply, someReply)
        assert.strictEqual(seen(), "_\r\n")
      }
    })
  )

  it.effect("knows where the reply ends, also when the chunk with its end brings more", () =>
    Effect.promise(async () => {
      const bytes = Buffer.concat([encoded(someReply), Buffer.from(":1\r\n")])
      for (let at = 1; at < bytes.length - 4; at++) {
        const { client, receive, seen, send } = fake()
        const reply = readGroup(client, send)
        receive(bytes.subarray(0, at))
        receive(bytes.subarray(at))
        assert.deepStrictEqual(await reply, someReply)
        assert.strictEqual(seen(), "_\r\n:1\r\n")
      }
    })
  )

  it.effect("leaves all of a reply to the client when it turns odd at any byte", () =>
    Effect.promise(async () => {
      // The last entry of the last stream has no fields, as when it was deleted.
      const bytes = Buffer.concat([encoded(someReply), Buffer.from("$1\r\nx\r\n*1\r\n*2\r\n$3\r\n9-9\r\n*-1\r\n")])
      bytes.write("%3", 0)
      for (let at = 1; at < bytes.length; at++) {
        const { client, receive, seen, send } = fake()
        const reply = readGroup(client, send)
        receive(bytes.subarray(0, at))
        receive(bytes.subarray(at))
        assert.strictEqual(await reply, null)
        assert.strictEqual(seen(), bytes.toString("latin1"))
      }
    })
  )

  it.effect("a push before the reply makes it the client's, a push behind it does not", () =>
    Effect.promise(async () => {
      const push = Buffer.from(">2\r\n$10\r\ninvalidate\r\n_\r\n")
      const before = fake()
      const first = readGroup(before.client, before.send)
      before.receive(push)
      before.receive(encoded(someReply))
      assert.strictEqual(await first, null)
      assert.strictEqual(before.seen(), Buffer.concat([push, encoded(someReply)]).toString("latin1"))
      const behind = fake()
      const second = readGroup(behind.client, behind.send)
      behind.receive(Buffer.concat([encoded(someReply), push]))
      assert.deepStrictEqual(await second, someReply)
      assert.strictEqual(behind.seen(), `_\r\n${push.toString("latin1")}`)
    })
  )

  it.effect("leaves to the client what comes before it is asked, and what comes behind the reply", () =>
    Effect.promise(async () => {
      const { client, receive, seen, send } = fake()
      const first = readGroup(client, send)
      receive(Buffer.concat([encoded(someReply), Buffer.from(":1\r\n")]))
      assert.deepStrictEqual(await first, someReply)
      receive(encoded(someReply))
      assert.strictEqual(seen(), `_\r\n:1\r\n${encoded(someReply).toString("latin1")}`)
    })
  )

  it.effect("leaves everything to the client when somebody else listens to the socket as well", () =>
    Effect.promise(async () => {
      const { client, receive, seen, send } = fake()
      client.stream.on("data", () => {})
      const reply = readGroup(client, send)
      receive(encoded(someReply))
      assert.strictEqual(await reply, null)
      assert.strictEqual(seen(), encoded(someReply).toString("latin1"))
    })
  )

  it.live("a server and a client agree: the same entries as without it, empty reads, errors, and other commands", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.make()
      const redis = yield* Effect.acquireRelease(
        Effect.sync(() => new Redis(server.port, "127.0.0.1")),
        (redis) => Effect.sync(() => redis.disconnect())
      )
      yield* Effect.promise(async () => {
        const read = (group: string) =>
          redis.xreadgroup("GROUP", group, "c", "COUNT", 1000, "BLOCK", 10, "STREAMS", "s", "t", ">", ">") as Promise<
            GroupReply | null // the shape in the default mapping of the client
          >
        for (const group of ["plain", "tapped"]) {
          for (const stream of ["s", "t"]) await redis.xgroup("CREATE", stream, group, "0", "MKSTREAM")
        }
        assert.strictEqual(await readGroup(redis, () => read("tapped")), null)
        const large = "ä".repeat(200_000)
        for (let i = 0; i < 50; i++) {
          await redis.xadd("s", "*", "payload", i % 10 === 0 ? large : `{"i":${i}}`, "", "\r\n$5\r\n")
          await redis.xadd("t", "*", "id", `${i}`)
        }
        const plain = await read("plain")
        assert.deepStrictEqual(await readGroup(redis, () => read("tapped")), plain)
        assert.strictEqual(plain?.[0]?.[1].length, 50)
        const failed = await readGroup(redis, () => read("missing")).catch((error: Error) => error.message)
        assert.include(failed, "NOGROUP")
        assert.strictEqual(await redis.ping(), "PONG")
        assert.deepStrictEqual(await redis.hgetall("nothing"), {})
        assert.strictEqual(await readGroup(redis, () => read("tapped")), null)
      })
    })
  )
})
