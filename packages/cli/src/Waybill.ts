/**
 * The command and its parts.
 *
 * @module
 */
import { Effect, Logger, References } from "effect"
import { Command } from "effect/cli"
import { dashboard } from "./commands/Dashboard.ts"
import { dead } from "./commands/Dead.ts"
import { doctor } from "./commands/Doctor.ts"
import { groups } from "./commands/Groups.ts"
import { delayed, messages } from "./commands/Messages.ts"
import { pause, resume } from "./commands/Pause.ts"
import { consumers, pending, retries } from "./commands/Pending.ts"
import { publish } from "./commands/Publish.ts"
import { schedules } from "./commands/Schedules.ts"
import { stats } from "./commands/Stats.ts"
import { tail } from "./commands/Tail.ts"
import { topics } from "./commands/Topics.ts"
import * as Output from "./Output.ts"
import { flags, layer } from "./Server.ts"

const waybill = Command.make("waybill").pipe(
  Command.withSharedFlags(flags),
  Command.withDescription("Inspect and manage topics, groups and dead letters on Redis"),
  Command.withSubcommands([
    topics,
    stats,
    tail,
    publish,
    messages,
    delayed,
    pending,
    retries,
    consumers,
    dead,
    groups,
    pause,
    resume,
    schedules,
    doctor,
    dashboard
  ]),
  Command.provide((flags) => layer(flags))
)

const version = "0.0.0"

/** Runs the command with these arguments. */
export const run = (args: ReadonlyArray<string>) =>
  Command.runWith(waybill, { version })(args).pipe(
    // Standard output carries only the result; log lines go to standard error.
    Effect.provide(Logger.layer([Logger.withConsoleError(Logger.formatSimple)])),
    Effect.provideService(References.MinimumLogLevel, "Warn"),
    Output.guarded
  )
