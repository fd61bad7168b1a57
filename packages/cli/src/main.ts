#!/usr/bin/env node
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Effect, Stdio } from "effect"
import { run } from "./Waybill.ts"

Stdio.Stdio.pipe(
  Effect.flatMap(({ args }) => args),
  Effect.flatMap(run),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain
)
