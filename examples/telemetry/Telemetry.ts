/**
 * What there is to see of any program on Waybill: `/metrics` for Prometheus, `/health` for whoever restarts processes, and
 * metrics, spans and logs over OTLP, as the usual variables say: `OTEL_METRICS_EXPORTER=otlp`, the same for `TRACES` and
 * `LOGS`, and `OTEL_EXPORTER_OTLP_ENDPOINT`.
 */
import { createServer } from "node:http"
import { NodeHttpServer } from "@effect/platform-node"
import { Config, Effect, Layer, Option, Schedule } from "effect"
import { FetchHttpClient, HttpRouter } from "effect/http"
import { Otlp, OtlpSerialization, PrometheusMetrics } from "effect/observability"
import { Health, Metrics } from "waybill"
import { MemoryHealth, MemoryStreams } from "waybill/memory"
import { IoRedis, RedisHealth, RedisStreams } from "waybill/redis"

/** On the Redis that `REDIS_URL` names, or else in memory: the streams, and what their store says of its health. */
export const Store = Layer.unwrap(
  Effect.map(
    Config.option(Config.Redacted("REDIS_URL")),
    Option.match({
      onNone: () => Layer.mergeAll(MemoryStreams.layer(), MemoryHealth.layer),
      onSome: (url) =>
        Layer.mergeAll(RedisStreams.layer({ prefix: "telemetry" }), RedisHealth.layer()).pipe(
          Layer.provide(IoRedis.layerUrl(url))
        )
    })
  )
)

const limits = { lag: 1000, oldestPending: "1 minute" } as const

const Routes = Layer.mergeAll(
  PrometheusMetrics.layerHttp(),
  HttpRouter.add("GET", "/health", Health.respond({ limits }))
)

/** Listens on 127.0.0.1. Port 0 takes a free one. */
export const Endpoints = (port: number) =>
  HttpRouter.serve(Routes, { disableLogger: true, disableListenLog: true }).pipe(
    Layer.provideMerge(NodeHttpServer.layer(createServer, { host: "127.0.0.1", port }))
  )

/** Counts what lifecycle events tell, and looks at the groups more often than usual: this program is short. */
export const Counting = Layer.mergeAll(
  Metrics.layer,
  Metrics.layerInspector({ schedule: Schedule.spaced("500 millis") })
)

/** Without these variables it does nothing. It stands below everything else, so that all spans go through its tracer. */
export const Exporting = Otlp.layerFromConfig({ resource: { serviceName: "waybill-telemetry" } }).pipe(
  Layer.provide([OtlpSerialization.layerJson, FetchHttpClient.layer])
)
