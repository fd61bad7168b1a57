#!/usr/bin/env node
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect } from "effect"
import { Command } from "effect/cli"
import { waybill } from "./Waybill.ts"

waybill.pipe(
  Command.run({ version: "0.0.0" }),
  // What the user can mend is one line; a stack trace would say that the command is broken.
  Effect.tapError((error) => (error._tag === "ShowHelp" ? Effect.void : Console.error(`waybill: ${error.message}`))),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain
)
