/**
 * Which server the command talks to. The password comes from the environment, a file or a prompt, never from the
 * arguments, which every process on the machine can read.
 *
 * @module
 */
import { Clock, Config, Context, Duration, Effect, FileSystem, Layer, Option, Redacted, Stdio } from "effect"
import { Flag, Prompt } from "effect/cli"
import { type Inspector, type Transport } from "waybill"
import { IoRedis, RedisInspector } from "waybill/redis"
import { UsageError, NotConfirmed, ServerProblem } from "./Problem.ts"

/** Flags of every command. */
export const flags = {
  url: Flag.String("url").pipe(
    Flag.withAlias("u"),
    Flag.withDescription(
      "redis://host:port/db, redis-cluster://host:port,host:port, redis-sentinel://host:port,host:port/name/db, rediss for TLS, " +
        "or unix:///path?db=0. Default: REDIS_URL, or redis://127.0.0.1:6379"
    ),
    Flag.optional
  ),
  user: Flag.String("user").pipe(
    Flag.withDescription("User name on the server. Default: REDIS_USERNAME"),
    Flag.optional
  ),
  passwordFile: Flag.String("password-file").pipe(
    Flag.withDescription("File whose first line is the password. Default: REDIS_PASSWORD"),
    Flag.optional
  ),
  askPassword: Flag.Boolean("ask-password").pipe(Flag.withDescription("Ask for the password"), Flag.withDefault(false)),
  prefix: Flag.String("prefix").pipe(
    Flag.withAlias("p"),
    Flag.withDescription("Prefix of all keys. Default: WAYBILL_PREFIX, or waybill"),
    Flag.optional
  ),
  json: Flag.Boolean("json").pipe(Flag.withDescription("Print JSON, for programs"), Flag.withDefault(false))
}

export interface Flags {
  readonly url: Option.Option<string>
  readonly user: Option.Option<string>
  readonly passwordFile: Option.Option<string>
  readonly askPassword: boolean
  readonly prefix: Option.Option<string>
  readonly json: boolean
}

/** The settings from flags and environment. */
export class Server extends Context.Service<
  Server,
  {
    readonly json: boolean
    readonly prefix: string
    readonly address: string
    /** The last failover that this process has seen. */
    readonly failover: Effect.Effect<Failover | undefined>
  }
>()("@waybill/cli/Server") {}

export interface Failover {
  readonly server: string
  /** Milliseconds since the epoch, by this process's clock: when it was seen, and since when accepted messages may be lost. */
  readonly at: number
  readonly since: number | undefined
}

const fromEnvironment = (name: string) => Config.option(Config.Redacted(name))

/** Connects, and provides the services that commands need. */
export const layer = (flags: Flags) =>
  Layer.unwrap(
    Effect.gen(function* () {
      const prefix = Option.isSome(flags.prefix)
        ? flags.prefix.value
        : yield* Config.String("WAYBILL_PREFIX").pipe(Config.withDefault("waybill"))
      if (!/^[^\s{}:]{1,200}$/.test(prefix)) {
        return yield* new UsageError({
          detail: `invalid prefix "${prefix}": use 1 to 200 characters without white space, braces or colons`
        })
      }
      const given = Option.getOrUndefined(flags.url)
      const url = given ?? Option.getOrUndefined(yield* fromEnvironment("REDIS_URL")) ?? "redis://127.0.0.1:6379"
      const { address, hasPassword } = yield* Effect.mapError(
        IoRedis.addressOf(url),
        ({ message }) =>
          new UsageError({
            detail: `${given === undefined ? "REDIS_URL" : "--url"} is not a valid server address: ${message}`
          })
      )
      if (given !== undefined && hasPassword) {
        return yield* new UsageError({
          detail:
            "a password in --url is visible to every process on this machine: set REDIS_URL or REDIS_PASSWORD, " +
            "or use --password-file or --ask-password; that of a Sentinel can be in REDIS_SENTINEL_PASSWORD"
        })
      }
      const username =
        Option.getOrUndefined(flags.user) ??
        (yield* Config.option(Config.String("REDIS_USERNAME")).pipe(Effect.map(Option.getOrUndefined)))
      const password = yield* passwordOf(flags)
      const sentinelPassword = Option.getOrUndefined(yield* fromEnvironment("REDIS_SENTINEL_PASSWORD"))
      return Layer.mergeAll(
        RedisInspector.layer({ prefix }),
        Layer.effect(
          Server,
          Effect.map(lastFailover, (failover) => ({ json: flags.json, prefix, address, failover }))
        )
      ).pipe(
        Layer.provideMerge(
          IoRedis.layer({
            url,
            username,
            ...(password === undefined ? {} : { password }),
            ...(sentinelPassword === undefined ? {} : { sentinelPassword }),
            connectionName: "waybill-cli",
            startTimeout: Duration.seconds(5)
          })
        ),
        Layer.catchTag("TransportError", (error) =>
          Layer.effectContext<Services, ServerProblem, never>(toProblem(error))
        )
      )
    })
  )

const lastFailover = Effect.gen(function* () {
  const { listen } = yield* IoRedis.IoRedis
  const clock = yield* Clock.Clock
  let last: Failover | undefined
  yield* listen((event) => {
    if (event._tag !== "FailedOver") return
    last = { server: event.server, at: clock.currentTimeMillisUnsafe(), since: event.since }
  })
  return Effect.sync(() => last)
})

const passwordOf = Effect.fnUntraced(function* ({ askPassword, passwordFile }: Flags) {
  if (askPassword) {
    yield* askable("--ask-password")
    return yield* Prompt.run(Prompt.Password({ message: "Password" }))
  }
  if (Option.isSome(passwordFile)) {
    const fs = yield* FileSystem.FileSystem
    const text = yield* fs
      .readFileString(passwordFile.value)
      .pipe(Effect.mapError((error) => new UsageError({ detail: `cannot read the password file: ${error.message}` })))
    return Redacted.make(text.split(/\r?\n/, 1)[0] ?? "")
  }
  return Option.getOrUndefined(yield* fromEnvironment("REDIS_PASSWORD"))
})

/** Fails without a terminal on which the question can be asked. */
export const askable = Effect.fnUntraced(function* (what: string) {
  const { stdinIsTerminal, stdoutIsTerminal } = yield* Stdio.Stdio
  if ((yield* stdinIsTerminal) && (yield* stdoutIsTerminal)) return
  return yield* new NotConfirmed({ detail: `not done: ${what} needs a terminal` })
})

export type Services = Inspector.Inspector | IoRedis.IoRedis | Server

/** A transport error with its exit code. */
export const toProblem = (error: Transport.TransportError): ServerProblem =>
  new ServerProblem({ detail: error.message })

/** The clock of one server, in milliseconds since the epoch. */
export const millisOf = (server: IoRedis.Commands) =>
  Effect.map(
    server.run("time", [], (client) => client.time()),
    ([seconds, micros]) => Number(seconds) * 1000 + Number(micros) / 1000
  )

/** The same of any server. */
export const serverMillis = Effect.flatMap(IoRedis.IoRedis, ({ commands }) => millisOf(commands))
