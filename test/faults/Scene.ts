/**
 * What a fault test plays in: a server of its own, the library on it for the test's own publishing and inspecting, and a
 * crew of workers.
 */
import { RedisServer } from "@waybill/testing"
import { Effect, Layer } from "effect"
import { IoRedis, RedisStreams } from "waybill/redis"
import * as WorkerProcess from "./WorkerProcess.ts"

/** The library on the server of the test, without a fault in between. */
const Streams = RedisStreams.layer().pipe(
  Layer.provideMerge(
    Layer.unwrap(
      Effect.map(RedisServer.RedisServer, (server) => IoRedis.layer({ url: server.url, connectionName: "test" }))
    )
  )
)

export const layer = (options?: RedisServer.Options) =>
  Layer.mergeAll(Streams, WorkerProcess.layer).pipe(Layer.provideMerge(RedisServer.layer(options)))
