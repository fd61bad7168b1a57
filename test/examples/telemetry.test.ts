import { type ChildProcess, spawn } from "node:child_process"
import { readFileSync } from "node:fs"
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Effect, Fiber, Schedule, Schema } from "effect"

const root = join(import.meta.dirname, "../..")

const Attribute = Schema.Struct({ key: Schema.String, value: Schema.JsonObject })

const Span = Schema.Struct({
  name: Schema.String,
  traceId: Schema.String,
  spanId: Schema.String,
  attributes: Schema.Array(Attribute),
  links: Schema.optional(Schema.Array(Schema.Struct({ traceId: Schema.String, spanId: Schema.String })))
})

const Traces = Schema.Struct({
  resourceSpans: Schema.Array(Schema.Struct({ scopeSpans: Schema.Array(Schema.Struct({ spans: Schema.Array(Span) })) }))
})

const Points = Schema.Struct({ name: Schema.String, unit: Schema.String })

const Figures = Schema.Struct({
  resourceMetrics: Schema.Array(
    Schema.Struct({ scopeMetrics: Schema.Array(Schema.Struct({ metrics: Schema.Array(Points) })) })
  )
})

/** A collector that keeps what it is sent. */
const collector = Effect.acquireRelease(
  Effect.callback<{ readonly server: Server; readonly url: string; readonly bodies: Map<string, Array<unknown>> }>(
    (resume) => {
      const bodies = new Map<string, Array<unknown>>()
      const server = createServer((request, response) => {
        const chunks: Array<Buffer> = []
        request.on("data", (chunk: Buffer) => chunks.push(chunk))
        request.on("end", () => {
          const path = request.url ?? ""
          bodies.set(path, [...(bodies.get(path) ?? []), JSON.parse(Buffer.concat(chunks).toString())])
          response.writeHead(200, { "content-type": "application/json" }).end("{}")
        })
      })
      server.listen(0, "127.0.0.1", () => {
        const { port } = server.address() as AddressInfo // it listens on a port
        resume(Effect.succeed({ server, url: `http://127.0.0.1:${port}`, bodies }))
      })
    }
  ),
  ({ server }) => Effect.sync(() => server.close())
)

const program = (env: Record<string, string>) =>
  Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, [join(root, "examples/telemetry/main.ts"), "--serve"], {
        env: { ...process.env, ...env },
        stdio: ["ignore", "pipe", "inherit"]
      })
    ),
    (child) => Effect.sync(() => void child.kill("SIGKILL"))
  )

/** The address that it prints. */
const address = (child: ChildProcess) =>
  Effect.callback<string>((resume) => {
    child.once("close", (code) => resume(Effect.die(new Error(`the program ended with ${code}`))))
    let out = ""
    child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      out += text
      const found = /metrics on (\S+)\/metrics/.exec(out)?.[1]
      if (found !== undefined) resume(Effect.succeed(found))
    })
  })

const closed = (child: ChildProcess) =>
  Effect.callback<number | null>((resume) => {
    child.once("close", (code) => resume(Effect.succeed(code)))
  })

const get = (url: string) =>
  Effect.promise(async () => {
    const response = await fetch(url)
    return { status: response.status, text: await response.text() }
  })

/** Asks until it is so. */
const until = <A>(ask: Effect.Effect<A>, holds: (answer: A) => boolean) =>
  Effect.repeat(ask, { until: holds, schedule: Schedule.spaced("100 millis") }).pipe(Effect.timeout("60 seconds"))

const table = readFileSync(join(root, "docs/telemetry.md"), "utf8")
const names = new Set([...table.matchAll(/^\| `(waybill_\w+)`/gm)].map(([, name]) => name))

describe("examples/telemetry", () => {
  it.live(
    "is scraped by Prometheus, answers for its health, and sends metrics and spans over OTLP",
    () =>
      Effect.gen(function* () {
        const redis = yield* RedisServer.RedisServer
        const otlp = yield* collector
        const child = yield* program({
          REDIS_URL: redis.url,
          PORT: "0",
          OTEL_EXPORTER_OTLP_ENDPOINT: otlp.url,
          OTEL_METRICS_EXPORTER: "otlp",
          OTEL_TRACES_EXPORTER: "otlp",
          OTEL_METRIC_EXPORT_INTERVAL: "500",
          OTEL_BSP_SCHEDULE_DELAY: "200"
        })
        const url = yield* address(child)

        // At the fourth order one is dead, and the first has been tried twice.
        const { text } = yield* until(
          get(`${url}/metrics`),
          ({ text }) => /outcome="dead_letter".* [1-9]/.test(text) && /waybill_group_dead_letters.* [1-9]/.test(text)
        )
        assert.match(text, /^waybill_messages_published_total\{topic="orders",outcome="stored"\} [1-9]/m)
        assert.match(text, /^waybill_messages_settled_total\{topic="orders",group="billing",outcome="retry"\} [1-9]/m)
        assert.match(
          text,
          /^waybill_messages_settled_total\{topic="orders",group="billing",outcome="dead_letter",reason="CardDeclined"\} [1-9]\d*$/m
        )
        assert.match(
          text,
          /^waybill_handler_duration_seconds_bucket\{topic="orders",group="billing",le="0.25"\} [1-9]/m
        )
        assert.match(text, /^waybill_group_lag\{topic="orders",group="billing"\} \d+$/m)
        assert.match(text, /^waybill_inspector_up 1$/m)
        for (const [, name] of text.matchAll(/^# TYPE (waybill_\w+) /gm)) assert.isTrue(names.has(name), name)

        // This server keeps nothing on disk.
        const health = yield* get(`${url}/health`)
        assert.strictEqual(health.status, 200)
        assert.include(health.text, '"status":"degraded"')
        assert.include(health.text, '"PersistenceOff"')

        const metrics = yield* until(
          Effect.sync(() => otlp.bodies.get("/v1/metrics")),
          (bodies) => JSON.stringify(bodies ?? []).includes("waybill_messages_settled_total")
        )
        const points = (metrics ?? []).flatMap((body) =>
          Schema.decodeUnknownSync(Figures)(body).resourceMetrics.flatMap(({ scopeMetrics }) =>
            scopeMetrics.flatMap((scope) => scope.metrics)
          )
        )
        const duration = points.find(({ name }) => name === "waybill_handler_duration_seconds")
        assert.strictEqual(duration?.unit, "s")

        const ended = yield* Effect.forkChild(closed(child), { startImmediately: true })
        child.kill("SIGTERM")
        yield* Effect.timeout(Fiber.join(ended), "60 seconds")
        const spans = (otlp.bodies.get("/v1/traces") ?? []).flatMap((body) =>
          Schema.decodeUnknownSync(Traces)(body).resourceSpans.flatMap(({ scopeSpans }) =>
            scopeSpans.flatMap((scope) => scope.spans)
          )
        )
        const attempts = spans.filter(({ name }) => name === "process orders")
        assert.isAbove(attempts.length, 1)
        const sent = new Set(spans.filter(({ name }) => name === "send orders").map(({ spanId }) => spanId))
        for (const { links } of attempts) {
          assert.strictEqual(links?.length, 1)
          assert.isTrue(sent.has(links?.[0]?.spanId ?? ""))
        }
        const checkout = spans.find(({ name }) => name === "checkout")
        assert.isTrue(spans.some(({ name, traceId }) => name === "send orders" && traceId === checkout?.traceId))
      }).pipe(Effect.provide(RedisServer.layer())),
    { timeout: 180_000 }
  )
})
