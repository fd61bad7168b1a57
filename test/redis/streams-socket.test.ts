/**
 * Receivers take the replies of XREADGROUP off the client's socket, with the pinned client, plain and over TLS, whatever
 * entries there are and wherever a connection breaks. If the client changes inside, the first two tests fail here, and
 * nothing but speed is lost elsewhere.
 */
import { execFileSync, spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join as path } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { FaultProxy, RedisServer } from "@waybill/testing"
import { Context, Duration, Effect, Fiber, Layer, Random } from "effect"
import { Redis } from "ioredis"
import { Settlement, Transport } from "waybill"
import { IoRedis, RedisStreams } from "waybill/redis"
import * as Fixture from "./Fixture.ts"

const hasOpenssl = spawnSync("openssl", ["version"]).status === 0

/** Over TLS a record carries 16 kB: the larger ones come in many pieces. */
const payloads = [
  '{"a":1}',
  "naïve 日本語 👩‍👩‍👧",
  "\r\n$5\r\n_\r\n",
  "",
  "x".repeat(100_000),
  "ä".repeat(1_500_000),
  ...Array.from({ length: 1000 }, (_, i) => `{"i":${i}}`)
]

const noText = Buffer.from([0, 0xff, 0xfe, 0x80, 10, 13, 0xed, 0xa0, 0x80])

/** What the clients of this process themselves learn of XREADGROUP from now on, until the scope closes. */
const watchReplies = Effect.acquireRelease(
  Effect.sync(() => {
    const original = Redis.prototype.xreadgroup
    const replies: Array<unknown> = []
    Redis.prototype.xreadgroup = function (this: Redis, ...args: Array<never>) {
      const reply = Reflect.apply(original, this, args) as Promise<unknown> // as the client answers it
      void reply.then((value) => replies.push(value)).catch(() => {})
      return reply
    } as typeof original // the same method, watched
    return { replies, restore: () => (Redis.prototype.xreadgroup = original) }
  }),
  ({ restore }) => Effect.sync(restore)
)

const consumesAll = Effect.fnUntraced(function* (redis: Redis, connection: IoRedis.Options) {
  const { replies } = yield* watchReplies
  yield* Effect.promise(async () => {
    for (const payload of payloads) await redis.xadd("{p:t}:stream", "*", "payload", payload)
    await redis.xadd("{p:t}:stream", "*", "other", "field", "payload", noText)
    await redis.xadd("{p:t}:stream", "*", "nothing", "")
  })
  const context = yield* Layer.build(RedisStreams.layer({ prefix: "p" }).pipe(Layer.provide(IoRedis.layer(connection))))
  const receiver = yield* Context.get(context, Transport.AtMostOnce).receive({
    topic: "t",
    group: "g",
    start: "earliest",
    lease: Duration.seconds(10),
    maxDeliveries: 5,
    shutdown: Duration.seconds(2)
  })
  const bodies: Array<unknown> = []
  while (bodies.length < payloads.length + 2) {
    const deliveries = yield* receiver.take(500)
    bodies.push(...deliveries.map(({ body }) => body))
    const [first, ...others] = deliveries.map((delivery) => [delivery, Settlement.ack] as const)
    const settled = yield* receiver.settle([first!, ...others])
    assert.isTrue(settled.every((one) => one === "Settled"))
  }
  assert.deepStrictEqual(bodies.slice(0, -2), payloads)
  assert.deepStrictEqual(Buffer.from(bodies.at(-2) as Uint8Array), noText)
  assert.deepStrictEqual(bodies.at(-1), new Uint8Array(0))
  // The client's decoder was told that there is nothing to read, each time.
  assert.isAbove(replies.length, 0)
  assert.deepStrictEqual([...new Set(replies)], [null])
})

describe("replies off the socket", () => {
  it.live("the pinned client lets them be taken, and every body is what was written", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.make()
      yield* consumesAll(yield* Fixture.client(server.url), { url: server.url })
    })
  )

  it.live.skipIf(!hasOpenssl)("and over TLS", () =>
    Effect.gen(function* () {
      const dir = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(path(tmpdir(), "waybill-tls-"))),
        (dir) => Effect.sync(() => rmSync(dir, { recursive: true }))
      )
      const [key, certificate] = [path(dir, "key.pem"), path(dir, "certificate.pem")]
      const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
      const made = ["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2"]
      execFileSync("openssl", [...made, ...subject, "-keyout", key, "-out", certificate], { stdio: "ignore" })
      const files = ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate]
      // A port that somebody has taken is none that a server starts with.
      const { port, server } = yield* Random.nextIntBetween(32_000, 32_700).pipe(
        Effect.flatMap((port) =>
          Effect.map(
            RedisServer.make({ args: ["--tls-port", `${port}`, "--tls-auth-clients", "no", ...files] }),
            (server) => ({ port, server })
          )
        ),
        Effect.retry({ times: 3 })
      )
      yield* consumesAll(yield* Fixture.client(server.url), {
        url: `rediss://localhost:${port}`,
        tls: { ca: readFileSync(certificate) }
      })
    })
  )

  it.live("a connection that dies in the middle of a reply: each message arrives all the same, whole and once", () =>
    Effect.gen(function* () {
      const proxy = yield* FaultProxy.FaultProxy
      const { join, key, redis, settle, take } = yield* Fixture.make({ url: proxy.url })
      const receiver = yield* join()
      for (const bytes of [1, 5, 40, 1000, 20_000, 70_000]) {
        const batch = Array.from({ length: 40 }, (_, i) => `${bytes}/${i}:${"y".repeat(2000)}`)
        const waiting = yield* Effect.forkChild(take(receiver, batch.length), { startImmediately: true })
        const snapped = yield* proxy.cutAfter(bytes, "replies")
        // All at once, so that one reply brings them to the read that waits.
        const transaction = redis.multi()
        for (const body of batch) transaction.xadd(key("stream"), "*", "payload", body)
        yield* Effect.promise(() => transaction.exec())
        yield* Effect.timeout(snapped, "10 seconds")
        const deliveries = yield* Fiber.join(waiting)
        assert.deepStrictEqual(deliveries.map(({ body }) => String(body)).toSorted(), batch.toSorted())
        const settled = yield* settle(receiver, deliveries)
        assert.deepStrictEqual(
          settled,
          batch.map(() => "Settled" as const)
        )
      }
    }).pipe(Effect.provide(FaultProxy.layer.pipe(Layer.provideMerge(RedisServer.layer()))))
  )
})
