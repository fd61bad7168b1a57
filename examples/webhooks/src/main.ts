/**
 * `pnpm start`: the rehearsal, or with `--serve` the program itself. Exit code 1 means that a message was lost.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, Logger, type LogLevel, Option, References, Runtime, Schema } from "effect"
import { CliError, Command, Flag, GlobalFlag } from "effect/cli"
import * as Rehearsal from "./rehearsal/Rehearsal.ts"
import * as Report from "./rehearsal/Report.ts"
import { serve } from "./Serve.ts"

/** The report has said so already. */
class MessagesLost extends Schema.TaggedError<MessagesLost>()("MessagesLost", { lost: Schema.Int }) {
  override readonly [Runtime.errorReported] = false
}

const flags = {
  serve: Flag.Boolean("serve").pipe(
    Flag.withDescription("Stay up for a real GitHub hook, with the secret in GITHUB_WEBHOOK_SECRET"),
    Flag.withDefault(false)
  ),
  host: Flag.String("host").pipe(
    Flag.withDescription("With --serve: the address to listen on, 127.0.0.1 by default"),
    Flag.withDefault("127.0.0.1")
  ),
  port: Flag.Int("port").pipe(
    Flag.withDescription("With --serve: the port to listen on, 3000 by default; 0 takes a free one"),
    Flag.withDefault(3000)
  ),
  auditLog: Flag.String("audit-log").pipe(
    Flag.withDescription("With --serve: the file that group audit writes to, webhooks-audit.ndjson by default"),
    Flag.withDefault("webhooks-audit.ndjson")
  ),
  seed: Flag.String("seed").pipe(
    Flag.withDescription("Decides what is sent twice, what is broken and how the service behaves; 1 by default"),
    Flag.withDefault("1")
  ),
  json: Flag.Boolean("json").pipe(
    Flag.withDescription("Print the report as one JSON object on the last line, too"),
    Flag.withDefault(false)
  ),
  lose: Flag.Int("lose").pipe(
    Flag.withDescription("Lose so many messages on purpose, to see that the report notices"),
    Flag.withDefault(0)
  )
}

const webhooks = Command.make(
  "webhooks",
  flags,
  Effect.fnUntraced(
    function* ({ auditLog, host, json, lose, port, seed, serve: stay }) {
      const asked = yield* GlobalFlag.LogLevel
      const logging = (otherwise: LogLevel.LogLevel) =>
        Effect.provideService(
          References.MinimumLogLevel,
          Option.getOrElse(asked, () => otherwise)
        )
      if (stay) return yield* logging("Info")(serve({ host, port, auditLog }))
      // A rehearsal is made of warnings, and its report counts them.
      const report = yield* logging("Error")(Rehearsal.run({ seed, lose }))
      yield* Console.log(Report.render(report))
      if (json) yield* Console.log(JSON.stringify(report))
      if (!Report.isGood(report)) return yield* new MessagesLost({ lost: report.lost })
    },
    Effect.catchTags({
      // What people can mend is said in one line, without a stack.
      ConfigError: (cause) =>
        new CliError.UserError({
          cause,
          userMessage: "Set GITHUB_WEBHOOK_SECRET to the secret that the hook has at GitHub."
        }),
      ServeError: (cause) => new CliError.UserError({ cause, userMessage: `Cannot listen: ${String(cause.cause)}` }),
      TransportError: (cause) => new CliError.UserError({ cause, userMessage: `REDIS_URL: ${cause.message}` })
    })
  )
).pipe(
  Command.withDescription(
    "Takes GitHub webhooks and hands each to three consumer groups. Without --serve it rehearses that with 329 real " +
      "payloads, bad requests, a flaky service and a crash, and counts what was lost. In memory, or on the Redis of REDIS_URL."
  )
)

webhooks.pipe(
  Command.run({ version: "0.0.0" }),
  Effect.provide(NodeServices.layer),
  // Standard output belongs to the report.
  Effect.provideService(Logger.LogToStderr, true),
  NodeRuntime.runMain
)
