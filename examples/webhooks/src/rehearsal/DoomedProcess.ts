/**
 * The program that `DoomedWorker` runs as a process of its own. It ends with its parent, however that ends.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, Logger, References, Stdio, Stream } from "effect"
import * as Streams from "../Streams.ts"
import { says, settings, work } from "./DoomedWorker.ts"

const program = Effect.gen(function* () {
  const { path, prefix, url } = yield* settings
  const stdio = yield* Stdio.Stdio
  yield* Effect.gen(function* () {
    const { consumer } = yield* work(path, Console.log(says.stuck))
    yield* Console.log(`${says.joined}${consumer}`)
    yield* Stream.runDrain(stdio.stdin)
  }).pipe(Effect.scoped, Effect.provide(Streams.layerRedis(url, prefix)))
})

program.pipe(
  Effect.provide(NodeServices.layer),
  // Standard output belongs to what it says.
  Effect.provideService(Logger.LogToStderr, true),
  Effect.provideService(References.MinimumLogLevel, "Error"),
  NodeRuntime.runMain
)
