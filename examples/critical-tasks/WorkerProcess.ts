/**
 * The program that `Workers` runs as a process of its own. It ends with its parent, however that ends.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Clock, Effect, Logger, References, Stdio, Stream } from "effect"
import * as Store from "./Store.ts"
import type { Entry, Fact } from "./Timeline.ts"
import { tellClaims, work } from "./Worker.ts"
import { settings } from "./Workers.ts"

const program = Effect.gen(function* () {
  const { fault, prefix, url, who } = yield* settings
  const clock = yield* Clock.Clock
  const say = (entry: Entry) => process.stdout.write(`${JSON.stringify(entry)}\n`)
  const tellAs = (name: string) => (fact: Fact) => say({ ...fact, who: name, at: clock.currentTimeMillisUnsafe() })
  const stdio = yield* Stdio.Stdio
  yield* Effect.gen(function* () {
    yield* tellClaims(tellAs("store"))
    const { consumer } = yield* work(fault, tellAs(who))
    tellAs(who)({ state: "started", detail: `as ${consumer}` })
    yield* Stream.runDrain(stdio.stdin)
  }).pipe(Effect.scoped, Effect.provide(Store.layerRedis(url, prefix)))
})

program.pipe(
  Effect.provide(NodeServices.layer),
  // Standard output belongs to what it tells.
  Effect.provideService(Logger.LogToStderr, true),
  Effect.provideService(References.MinimumLogLevel, "Error"),
  NodeRuntime.runMain
)
