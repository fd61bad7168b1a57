#!/usr/bin/env node
// Imported one by one: the package's index pulls in a web server, which only the dashboard needs.
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Effect, Stdio } from "effect"
import * as Output from "./Output.ts"
import { run } from "./Waybill.ts"

Output.outliveReader()

Stdio.Stdio.pipe(
  Effect.flatMap(({ args }) => args),
  Effect.flatMap(run),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain({ teardown: Output.leave, disableErrorReporting: true })
)
