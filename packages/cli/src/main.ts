#!/usr/bin/env node
// One by one: the whole package brings a web server in, which only the dashboard needs.
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Effect, Stdio } from "effect"
import { run } from "./Waybill.ts"

// Whoever reads us has had enough: `head` is no error.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error
  process.exit(0)
})

Stdio.Stdio.pipe(
  Effect.flatMap(({ args }) => args),
  Effect.flatMap(run),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain
)
