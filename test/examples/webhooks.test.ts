import { type ChildProcess, spawn } from "node:child_process"
import { createHmac } from "node:crypto"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { NodeHttpServer } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { DateTime, Effect, Fiber, Layer, Random, Redacted, Schedule } from "effect"
import { HttpClient, HttpClientRequest, HttpRouter } from "effect/http"
import { Redis } from "ioredis"
import { Inspector, Lifecycle, Transport } from "waybill"
import { MemoryStreams } from "waybill/memory"
import * as Index from "../../examples/webhooks/src/Index.ts"
import * as Ledger from "../../examples/webhooks/src/rehearsal/Ledger.ts"
import type { Report } from "../../examples/webhooks/src/rehearsal/Report.ts"
import { maxBytes, Webhooks } from "../../examples/webhooks/src/Webhook.ts"
import { routes, WebhookSecret } from "../../examples/webhooks/src/WebhookServer.ts"

const program = join(import.meta.dirname, "../../examples/webhooks/src/main.ts")

/** The program as a process of its own, gone with the scope. */
const start = (args: ReadonlyArray<string>, env: Readonly<Record<string, string | undefined>> = {}) =>
  Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, [program, ...args], {
        env: { ...process.env, REDIS_URL: undefined, ...env },
        stdio: ["ignore", "pipe", "pipe"]
      })
    ),
    (child) => Effect.sync(() => void child.kill("SIGKILL"))
  )

const ended = (child: ChildProcess) =>
  Effect.callback<{ readonly code: number | null; readonly out: string; readonly err: string }>((resume) => {
    let out = ""
    let err = ""
    child.stdout?.setEncoding("utf8").on("data", (text: string) => (out += text))
    child.stderr?.setEncoding("utf8").on("data", (text: string) => (err += text))
    child.once("close", (code) => resume(Effect.succeed({ code, out, err })))
  })

const run = (args: ReadonlyArray<string>, env?: Readonly<Record<string, string>>) =>
  Effect.scoped(Effect.flatMap(start(args, env), ended))

const reportOf = (out: string): Report => JSON.parse(out.trimEnd().split("\n").at(-1) ?? "")

/** The plan sends the same to everybody, in an order and with a service that depend on the seed. */
const expectGood = (report: Report) => {
  assert.deepInclude(report, { received: 388, duplicates: 33, published: 332, lost: 0, unfinished: 0, strays: 0 })
  assert.deepStrictEqual(report.rejected, { "bad signature": 12, malformed: 10, "too large": 1 })
  for (const { group, missing, surprises } of report.groups) {
    assert.deepStrictEqual({ group, missing, surprises }, { group, missing: [], surprises: [] })
  }
  const [index, downstream, audit] = report.groups
  assert.deepInclude(index, { group: "index", acked: 329, ignored: 271, deadLettered: { Misshapen: 3 } })
  assert.deepInclude(downstream, { group: "downstream", acked: 324 })
  assert.deepStrictEqual(downstream?.deadLettered, { "Refused 422": 5, Unavailable: 3 })
  // What the plan makes fail, at the least: a slow machine adds timeouts of its own.
  assert.isAtLeast(downstream?.retried ?? 0, 71)
  assert.deepInclude(audit, { group: "audit", acked: 332, ignored: 0, deadLettered: {} })
  const { crash } = report
  assert.isTrue(crash.happened)
  assert.isAtLeast(crash.held, 1)
  assert.isAtLeast(crash.takenOver, 1)
}

describe("pnpm start", () => {
  it.live(
    "in memory: nothing is lost, and everything ends as planned",
    () =>
      Effect.gen(function* () {
        const seed = `${yield* Random.nextIntBetween(0, 1_000_000)}`
        const { code, err, out } = yield* run(["--json", "--seed", seed])
        assert.strictEqual(code, 0, `seed ${seed}: ${out}${err}`)
        const report = reportOf(out)
        assert.deepInclude(report, { store: "memory", seed })
        expectGood(report)
        assert.strictEqual(report.groups[1]?.repeated, 0)
        assert.include(out, "0 of 996")
      }).pipe(Effect.timeout("150 seconds")),
    180_000
  )

  it.live(
    "on Redis, with a worker that is killed: the same, and no key is left behind",
    () =>
      Effect.gen(function* () {
        const server = yield* RedisServer.make()
        const { code, err, out } = yield* run(["--json"], { REDIS_URL: server.url })
        assert.strictEqual(code, 0, `${out}${err}`)
        const report = reportOf(out)
        assert.strictEqual(report.store, "redis")
        expectGood(report)
        const redis = yield* Effect.acquireRelease(
          Effect.sync(() => new Redis(server.port)),
          (redis) => Effect.sync(() => redis.disconnect())
        )
        assert.deepStrictEqual(yield* Effect.promise(() => redis.keys("*")), [])
      }).pipe(Effect.scoped, Effect.timeout("150 seconds")),
    180_000
  )

  it.live(
    "on a Redis that is killed in the middle and comes back: still nothing is lost",
    () =>
      Effect.gen(function* () {
        const server = yield* RedisServer.make({ appendonly: "always" })
        const child = yield* start(["--json", "--log-level", "warn"], { REDIS_URL: server.url })
        const end = yield* Effect.forkScoped(ended(child), { startImmediately: true })
        const underWay = Effect.callback<void>((resume) => {
          createInterface(child.stdout).on("line", (line) => {
            if (Number(/^(\d+) of 388 answered/.exec(line)?.[1]) > 30) resume(Effect.void)
          })
        })
        yield* Effect.raceFirst(underWay, Fiber.await(end))
        yield* server.kill
        yield* server.start
        const { code, err, out } = yield* Fiber.join(end)
        assert.strictEqual(code, 0, `${out}${err}`)
        assert.include(err, "Disconnected")
        expectGood(reportOf(out))
      }).pipe(Effect.scoped, Effect.timeout("150 seconds")),
    180_000
  )

  it.live(
    "a message that a broken transport acks unseen is reported as lost, with exit code 1",
    () =>
      Effect.gen(function* () {
        const { code, out } = yield* run(["--json", "--lose", "2"])
        assert.strictEqual(code, 1)
        const report = reportOf(out)
        assert.deepInclude(report, { lost: 2, unfinished: 0 })
        assert.deepStrictEqual(
          report.groups.map(({ group, lost, missing }) => [group, lost, missing.length]),
          [
            ["index", 0, 0],
            ["downstream", 2, 2],
            ["audit", 0, 0]
          ]
        )
      }).pipe(Effect.timeout("150 seconds")),
    180_000
  )

  it.live(
    "--serve takes a signed webhook, and SIGINT ends it in good order",
    () =>
      Effect.gen(function* () {
        const dir = mkdtempSync(join(tmpdir(), "webhooks-"))
        yield* Effect.addFinalizer(() => Effect.sync(() => rmSync(dir, { recursive: true })))
        const auditLog = join(dir, "audit.ndjson")
        const child = yield* start(["--serve", "--port", "0", "--audit-log", auditLog], {
          GITHUB_WEBHOOK_SECRET: secret
        })
        const url = yield* Effect.callback<string>((resume) => {
          createInterface(child.stdout).on("line", (line) => {
            const address = /^listening on (.*)$/.exec(line)?.[1]
            if (address !== undefined) resume(Effect.succeed(address))
          })
        })
        const response = yield* Effect.promise(() =>
          fetch(url, {
            method: "POST",
            body: '{"zen":"Keep it logically awesome."}',
            headers: signed('{"zen":"Keep it logically awesome."}')
          })
        )
        assert.strictEqual(response.status, 202)
        yield* Effect.sync(() => readFileSync(auditLog, "utf8")).pipe(
          Effect.repeat({ until: (log) => log.includes("delivery-1"), schedule: Schedule.spaced("20 millis") })
        )
        child.kill("SIGINT")
        const { code, err } = yield* ended(child)
        assert.strictEqual(code, 130, err)
        assert.notInclude(err, "ERROR")
      }).pipe(Effect.scoped, Effect.timeout("100 seconds")),
    180_000
  )

  it.live("--serve without a secret says what to set, and --help what there is", () =>
    Effect.gen(function* () {
      const missing = yield* run(["--serve", "--port", "0"], {})
      assert.strictEqual(missing.code, 1)
      assert.include(missing.err, "Set GITHUB_WEBHOOK_SECRET")
      assert.notInclude(missing.err, "    at ")
      const help = yield* run(["--help"])
      assert.strictEqual(help.code, 0)
      for (const flag of ["--serve", "--port", "--seed", "--json", "--lose"]) assert.include(help.out, flag)
    })
  )
})

const secret = "a secret of these tests"

const sign = (body: string, key = secret) => `sha256=${createHmac("sha256", key).update(body).digest("hex")}`

const signed = (body: string, id = "delivery-1") => ({
  "x-hub-signature-256": sign(body),
  "x-github-event": "ping",
  "x-github-delivery": id
})

const server = HttpRouter.serve(routes, { disableLogger: true, disableListenLog: true }).pipe(
  Layer.provide(Layer.succeed(WebhookSecret, Redacted.make(secret))),
  Layer.provideMerge(NodeHttpServer.layerTest)
)

const post = Effect.fnUntraced(function* (body: string, headers: Readonly<Record<string, string>>) {
  const client = yield* HttpClient.HttpClient
  const response = yield* HttpClientRequest.post("/webhooks/github").pipe(
    HttpClientRequest.setHeaders(headers),
    HttpClientRequest.bodyText(body, "application/json"),
    client.execute
  )
  return { status: response.status, headers: response.headers, body: yield* response.text }
})

const without = (headers: Readonly<Record<string, string>>, name: string) =>
  Object.fromEntries(Object.entries(headers).filter(([key]) => key !== name))

describe("the webhook server", () => {
  const body = '{"action":"opened"}'

  it.live("stores a delivery once, however often it comes", () =>
    Effect.gen(function* () {
      const first = yield* post(body, signed(body))
      const second = yield* post(body, signed(body))
      assert.deepStrictEqual([first.status, JSON.parse(first.body)], [202, { id: "delivery-1", receipt: "Stored" }])
      assert.deepStrictEqual(
        [second.status, JSON.parse(second.body)],
        [202, { id: "delivery-1", receipt: "Duplicate" }]
      )
      const inspector = yield* Inspector.Inspector
      assert.strictEqual((yield* inspector.describe(Webhooks.name)).depth, 1)
    }).pipe(Effect.provide(Layer.provideMerge(server, MemoryStreams.layer())))
  )

  const large = JSON.stringify({ padding: "x".repeat(maxBytes) })
  // Fits the limit as it comes, and not with the name of its event around it.
  const tight = JSON.stringify({ padding: "x".repeat(maxBytes - 20) })

  it.live.each([
    [401, "no signature", body, without(signed(body), "x-hub-signature-256")],
    [401, "another secret", body, { ...signed(body), "x-hub-signature-256": sign(body, "another") }],
    [401, "another body", `${body} `, signed(body)],
    [401, "a signature of another length", body, { ...signed(body), "x-hub-signature-256": "sha256=00" }],
    [400, "an empty body", "", signed("")],
    [400, "no JSON", "{", signed("{")],
    [400, "no object", "[1]", signed("[1]")],
    [400, "no delivery id", body, without(signed(body), "x-github-delivery")],
    [400, "no event", body, without(signed(body), "x-github-event")],
    [413, "too large", large, signed(large)],
    [413, "too large as a message", tight, signed(tight)]
  ] as const)("answers %i to %s, and stores nothing", ([status, , body, headers]) =>
    Effect.gen(function* () {
      const response = yield* post(body, headers)
      assert.strictEqual(response.status, status, response.body)
      const inspector = yield* Inspector.Inspector
      const depths = yield* Effect.forEach(yield* inspector.topics, (topic) => inspector.describe(topic))
      assert.strictEqual(
        depths.reduce((sum, { depth }) => sum + depth, 0),
        0
      )
    }).pipe(Effect.provide(Layer.provideMerge(server, MemoryStreams.layer())))
  )

  it.live("answers 503 with Retry-After while the store is away, and does not say what runs behind it", () =>
    Effect.gen(function* () {
      const response = yield* post(body, signed(body))
      assert.strictEqual(response.status, 503)
      assert.match(response.headers["retry-after"] ?? "", /^\d+$/)
      assert.notInclude(response.body, "ECONNREFUSED")
    }).pipe(Effect.provide(Layer.provide(server, away)))
  )

  it.live("says ok", () =>
    Effect.gen(function* () {
      for (const path of ["/", "/health"]) {
        const response = yield* HttpClient.get(path)
        assert.deepStrictEqual([response.status, (yield* response.text).trim()], [200, "ok"])
      }
    }).pipe(Effect.provide(Layer.provide(server, away)))
  )
})

const away = Transport.layer("at-least-once", () =>
  Effect.succeed({
    // Nobody looks.
    inspector: {} as Inspector.Inspector["Service"],
    lifecycle: new Lifecycle.Lifecycle(),
    publish: () =>
      Effect.fail(
        new Transport.TransportError({
          operation: "publish",
          reason: new Transport.Disconnected({ ambiguous: true, cause: new Error("ECONNREFUSED") })
        })
      ),
    receive: () => Effect.die("nobody receives here")
  })
)()

describe("the index", () => {
  it.effect("comes out the same in whatever order the deliveries are applied, and however often", () =>
    Effect.gen(function* () {
      const item = (delivery: string, number: number, second: number): Index.Item => ({
        kind: "issue",
        repository: "octo/repo",
        number,
        title: `as of ${delivery}`,
        author: "octocat",
        state: "open",
        updatedAt: DateTime.makeUnsafe(second * 1000),
        delivery
      })
      // Two deliveries of the same second among them.
      const deliveries = [item("a", 1, 1), item("b", 1, 2), item("c", 1, 2), item("d", 2, 5), item("e", 2, 4)]
      for (let i = 0; i < 50; i++) {
        const order = yield* Random.shuffle([...deliveries, ...deliveries])
        const items = yield* Effect.gen(function* () {
          const index = yield* Index.Index
          yield* Effect.forEach(order, index.put)
          return yield* index.items
        }).pipe(Effect.provide(Layer.fresh(Index.Index.layer)))
        assert.deepStrictEqual(items.map(({ title }) => title).sort(), ["as of c", "as of d"])
      }
    })
  )
})

describe("the ledger", () => {
  const evidence: Ledger.Evidence = {
    group: "g",
    records: new Map([
      ["recorded", 1],
      ["recorded twice", 2]
    ]),
    wants: (id) => id !== "unread",
    acked: new Set(["recorded", "recorded twice", "unread", "acked, wanted and nowhere recorded"]),
    deadLetters: [{ id: "dead", reason: "Refused" }],
    unfinished: 0,
    expected: (id) => (id === "dead" ? "Refused" : undefined)
  }
  const good = ["recorded", "recorded twice", "unread", "dead"]
  const account = (
    stored: ReadonlyArray<string>,
    change: Partial<Ledger.Evidence> = {},
    doubtful: ReadonlyArray<string> = []
  ) => Ledger.account(new Set(stored), new Set(doubtful), { ...evidence, acked: new Set(good), ...change })

  it("finds every delivery in one of its places", () => {
    assert.deepStrictEqual(account(good), {
      group: "g",
      acked: 3,
      ignored: 1,
      deadLettered: { Refused: 1 },
      repeated: 1,
      unfinished: 0,
      lost: 0,
      missing: [],
      strays: [],
      surprises: []
    })
  })

  it("calls lost what shows up nowhere", () => {
    assert.deepInclude(account([...good, "gone"]), { lost: 1, missing: ["gone"] })
  })

  it("believes no ack for what the group should have recorded", () => {
    const id = "acked, wanted and nowhere recorded"
    assert.deepInclude(account([...good, id], { acked: evidence.acked }), { lost: 1, missing: [id] })
  })

  it("does not call lost what the store still holds, and not more than that", () => {
    assert.deepInclude(account([...good, "held", "gone"], { unfinished: 1 }), { lost: 1, unfinished: 1 })
  })

  it("reports what was refused and seen all the same, unless it may have been stored", () => {
    const records = new Map([...evidence.records, ["refused", 1] as const])
    assert.deepInclude(account(good, { records }), { strays: ["refused"] })
    assert.deepInclude(account(good, { records }, ["refused"]), { strays: [] })
  })

  it("reports an end that was not planned", () => {
    const { surprises } = account(good, { expected: () => undefined })
    assert.deepStrictEqual(surprises, [{ id: "dead", expected: "acked", found: "Refused" }])
  })
})
