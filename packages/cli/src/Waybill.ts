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
import { consumers, pending, retries } from "./commands/Pending.ts"
import { publish } from "./commands/Publish.ts"
import { stats } from "./commands/Stats.ts"
import { pause, resume } from "./commands/Steer.ts"
import { tail } from "./commands/Tail.ts"
import { topics } from "./commands/Topics.ts"
import * as Output from "./Output.ts"
import { flags, layer } from "./Server.ts"

const waybill = Command.make("waybill").pipe(
  Command.withSharedFlags(flags),
  Command.withDescription("Look at topics, groups and dead letters on Redis, and steer them"),
  Command.withSubcommands([
    topics,
    stats,
    tail,
    publish,
    pending,
    retries,
    consumers,
    dead,
    pause,
    resume,
    doctor,
    dashboard
  ]),
  Command.provide((flags) => layer(flags))
)

const version = "0.0.0"

/** Runs the command with these arguments. */
export const run = (args: ReadonlyArray<string>) =>
  Command.runWith(waybill, { version })(args).pipe(
    // Standard output is the answer: events meanwhile do not belong in it.
    Effect.provide(Logger.layer([Logger.withConsoleError(Logger.formatSimple)])),
    Effect.provideService(References.MinimumLogLevel, "Warn"),
    Output.guarded
  )
