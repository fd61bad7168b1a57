/**
 * `pnpm example chat`: a server of the chat, until it is told to stop. Any number of them share their rooms on the Redis of
 * `REDIS_URL`; without it, one is alone and keeps everything in memory.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Config, Console, Effect, Layer, Logger, Option, Schema } from "effect"
import { CliError, CliOutput, Command, Flag } from "effect/cli"
import { HttpServer } from "effect/http"
import * as Layers from "./Layers.ts"
import { Notifications } from "./Notifications.ts"
import * as Server from "./Server.ts"
import { client } from "./Terminal.ts"

const Port = Schema.Int.check(
  Schema.isBetween({ minimum: 0, maximum: 65_535 }, { message: "a port is a number from 0 to 65535" })
)

const flags = {
  host: Flag.String("host").pipe(
    Flag.withDescription("The address to listen on, 127.0.0.1 by default"),
    Flag.withDefault("127.0.0.1")
  ),
  port: Flag.Int("port").pipe(
    Flag.withDescription("The port to listen on, 3000 by default; 0 takes a free one"),
    Flag.withSchema(Port),
    Flag.withDefault(3000)
  ),
  prefix: Flag.String("prefix").pipe(
    Flag.withDescription("What all keys on Redis begin with, chat by default"),
    Flag.withDefault("chat")
  )
}

const chat = Command.make(
  "chat",
  flags,
  Effect.fnUntraced(
    function* ({ host, port, prefix }) {
      const url = Option.getOrUndefined(yield* Config.option(Config.Redacted("REDIS_URL")))
      const announced = HttpServer.addressFormattedWith((address) =>
        Console.log(
          `the chat is on ${address}\n` +
            (url === undefined ? "in memory: what is said ends with me" : "on Redis: start another one with --port")
        )
      )
      const serve = Effect.andThen(announced, Effect.never)
      const server = Server.layer({ host, port })
      const notifications = Notifications.layerFlaky("chat")
      return yield* url === undefined
        ? Effect.provide(serve, server.pipe(Layer.provide(Layers.layerMemory), Layer.provide(notifications)))
        : Effect.provide(
            serve,
            server.pipe(Layer.provide(Layers.layerRedis(url, prefix)), Layer.provide(notifications))
          )
    },
    Effect.catchTags({
      ServeError: (cause) => new CliError.UserError({ cause, userMessage: `Cannot listen: ${String(cause.cause)}` }),
      TransportError: (cause) => new CliError.UserError({ cause, userMessage: `REDIS_URL: ${cause.message}` })
    })
  )
).pipe(
  Command.withDescription(
    "A server of the chat. On the Redis of REDIS_URL any number of them share their rooms; without it, one keeps them in memory."
  ),
  Command.withExamples([{ command: "chat --port 3001", description: "A second server beside the one on port 3000" }]),
  Command.withSubcommands([client])
)

/** What is wrong with the flags is not looked for under a screen of help. */
const presenter = CliOutput.layerPresenter({
  present: (event) =>
    event._tag === "InvalidInvocation"
      ? Effect.gen(function* () {
          yield* Console.error(`${event.commandPath.join(" ")} --help says what there is.`)
          yield* Console.error((yield* CliOutput.Formatter).formatErrors(event.errors))
        })
      : CliOutput.defaultPresenter.present(event)
})

chat.pipe(
  Command.run({ version: "0.0.0" }),
  Effect.provide(presenter),
  Effect.provide(NodeServices.layer),
  Effect.provideService(Logger.LogToStderr, true),
  NodeRuntime.runMain
)
