/**
 * A real `redis-server` process of this test's own, on a private port of 127.0.0.1.
 *
 * The process lives as long as the scope that made it and ends with it, or with this process if that dies first, in
 * whatever way. Everything here runs on the real clock, also under `TestClock`: the server cannot be told to hurry.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import * as Net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Context, Effect, Layer, Schema, type Scope, Semaphore } from "effect"
import * as Port from "./Port.ts"
import type { ServerClock } from "./ServerClock.ts"

/**
 * The server could not be started: there is no program to run, or the one there is gave up.
 *
 * @category errors
 */
export class RedisServerUnavailable extends Schema.TaggedError<RedisServerUnavailable>(
  "@waybill/testing/RedisServerUnavailable"
)("RedisServerUnavailable", {
  message: Schema.String
}) {}

/**
 * Options that may differ between the servers of two tests. Nothing is kept on disk by default.
 *
 * @category models
 */
export interface Options {
  /** With a value other than "no", what was written survives `kill` and `start`. */
  readonly appendonly?: "no" | "everysec" | "always"
  /** Further arguments for the program, such as `["--maxmemory", "50mb"]`. */
  readonly args?: ReadonlyArray<string>
  /**
   * The program, by its name on the PATH or by its path. By default the one in the environment variable
   * `WAYBILL_SERVER`, else `redis-server`, else `valkey-server`.
   */
  readonly program?: string
  /** The wall clock it uses. */
  readonly clock?: ServerClock
  /** Runs it as a Sentinel instead, which starts with these lines of configuration and adds to them. */
  readonly sentinel?: ReadonlyArray<string>
}

/**
 * A running server, and the means to hurt it.
 *
 * @category services
 */
export class RedisServer extends Context.Service<
  RedisServer,
  {
    readonly port: number
    readonly url: string
    readonly dir: string
    /** The id of the process now running; a new one after `start`, none while the server is down. */
    readonly pid: Effect.Effect<number | undefined>
    /** Whether it can reply: started, and not paused. */
    readonly running: Effect.Effect<boolean>
    /** SIGKILL: the server is gone between two instructions. Returns once it is. */
    readonly kill: Effect.Effect<void>
    /** SIGTERM: the server persists its data and exits. Returns once it has. */
    readonly stop: Effect.Effect<void>
    /** Starts the server again on the same port and directory; does nothing while it runs. */
    readonly start: Effect.Effect<void, RedisServerUnavailable>
    /** SIGSTOP: connections stay open but get no replies. */
    readonly pause: Effect.Effect<void>
    /** SIGCONT: ends a pause. */
    readonly resume: Effect.Effect<void>
  }
>()("@waybill/testing/RedisServer") {}

/**
 * Starts a server and waits until it replies.
 *
 * @category constructors
 */
export const make = Effect.fn("RedisServer.make")(function* (
  options: Options = {}
): Effect.fn.Return<RedisServer["Service"], RedisServerUnavailable, Scope.Scope> {
  const dir = yield* Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "waybill-redis-"))),
    (dir) => Effect.promise(() => rm(dir, { recursive: true, force: true }))
  )
  const appendonly = options.appendonly ?? "no"
  const chosen = options.program ?? (process.env.WAYBILL_SERVER || undefined)
  const programs = chosen === undefined ? ["redis-server", "valkey-server"] : [chosen]
  const file = join(dir, "sentinel.conf")
  if (options.sentinel !== undefined) {
    const lines = options.sentinel.join("\n")
    yield* Effect.promise(() => writeFile(file, lines))
  }
  const argsAt = (port: number) => [
    ...(options.sentinel === undefined ? [] : [file, "--sentinel"]),
    "--port",
    `${port}`,
    "--bind",
    "127.0.0.1",
    "--dir",
    dir,
    "--logfile",
    join(dir, log),
    "--save",
    "",
    ...(appendonly === "no" ? ["--appendonly", "no"] : ["--appendonly", "yes", "--appendfsync", appendonly]),
    ...(options.args ?? [])
  ]

  let child: ChildProcess | undefined
  let paused = false
  const running = () => (child !== undefined && isAlive(child) ? child : undefined)
  const signal = (name: NodeJS.Signals) => Effect.sync(() => void running()?.kill(name))
  const end = (name: NodeJS.Signals) =>
    Effect.suspend(() => {
      const process = running()
      if (process === undefined) return Effect.void
      process.kill(name)
      process.kill("SIGCONT")
      paused = false
      return exited(process)
    })
  const startAt = Effect.fnUntraced(function* (port: number) {
    if (running() !== undefined) return
    // Uninterruptible up to the assignment: from there on the finalizer knows the process.
    const started = yield* spawnFirst(programs, argsAt(port), options.clock?.env).pipe(
      Effect.tap((process) => Effect.sync(() => (child = process))),
      Effect.uninterruptible
    )
    if (!(yield* answers(port, started))) {
      yield* end("SIGKILL")
      return yield* new RedisServerUnavailable({ message: yield* lastWords(dir, port) })
    }
  })

  yield* Effect.addFinalizer(() => end("SIGKILL"))
  // Between the check of a port and the bind a stranger may take it, so a failed start tries elsewhere.
  const port = yield* Effect.retry(Effect.tap(Port.reserve, startAt), { times: 3 })
  const oneAtATime = Semaphore.makeUnsafe(1).withPermits(1)

  return RedisServer.of({
    port,
    url: `redis://127.0.0.1:${port}`,
    dir,
    pid: Effect.sync(() => running()?.pid),
    running: Effect.sync(() => running() !== undefined && !paused),
    kill: oneAtATime(end("SIGKILL")),
    stop: oneAtATime(end("SIGTERM")),
    start: oneAtATime(Effect.suspend(() => startAt(port))),
    pause: Effect.tap(signal("SIGSTOP"), () => Effect.sync(() => (paused = true))),
    resume: Effect.tap(signal("SIGCONT"), () => Effect.sync(() => (paused = false)))
  })
})

/**
 * The server as a layer; `Layer.fresh` gives each test one of its own.
 *
 * @category layers
 */
export const layer = (options?: Options): Layer.Layer<RedisServer, RedisServerUnavailable> =>
  Layer.effect(RedisServer, make(options))

const log = "redis.log"

const isAlive = (child: ChildProcess): boolean => child.exitCode === null && child.signalCode === null

const exited = (child: ChildProcess): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (!isAlive(child)) return resume(Effect.void)
    child.once("exit", () => resume(Effect.void))
  })

/** Runs the first of these programs that exists on this machine. */
const spawnFirst = (
  names: ReadonlyArray<string>,
  args: ReadonlyArray<string>,
  env: Readonly<Record<string, string>> | undefined,
  tried: ReadonlyArray<string> = []
): Effect.Effect<ChildProcess, RedisServerUnavailable> => {
  const [name, ...others] = names
  if (name === undefined) {
    return Effect.fail(
      new RedisServerUnavailable({
        message:
          tried.length === 1
            ? `${tried[0]} cannot be run: it is not there, or is not a program.`
            : "No redis-server or valkey-server on the PATH: install one, for example with `apt-get install redis-server`."
      })
    )
  }
  return Effect.callback<ChildProcess, RedisServerUnavailable>((resume) => {
    const child = spawn(name, args, { stdio: "ignore", env: { ...process.env, ...env } })
    child.once("error", () => resume(spawnFirst(others, args, env, [...tried, name])))
    child.once("spawn", () => {
      endWithThisProcess(child)
      resume(Effect.succeed(child))
    })
  })
}

/**
 * If this process is killed, none of its handlers run, but its end of a pipe closes: a shell waiting on the other end then
 * kills the server.
 */
const endWithThisProcess = (child: ChildProcess): void => {
  const guard = spawn("sh", ["-c", 'read -r _; kill -9 "$0"', `${child.pid}`], {
    stdio: ["pipe", "ignore", "ignore"],
    detached: true
  })
  guard.once("error", () => {})
  guard.unref()
  child.once("exit", () => guard.kill("SIGKILL"))
}

/** Polls until the server replies; false once the process is gone or 20 seconds have passed. */
const answers = (port: number, child: ChildProcess): Effect.Effect<boolean> =>
  Effect.callback<boolean>((resume) => {
    const deadline = performance.now() + 20_000
    let timer: NodeJS.Timeout | undefined
    let socket: Net.Socket | undefined
    const ask = () => {
      if (!isAlive(child) || performance.now() > deadline) return resume(Effect.succeed(false))
      const attempt = (socket = Net.connect(port, "127.0.0.1", () => attempt.write("PING\r\n")))
      let ready = false
      attempt.setTimeout(1000, () => attempt.destroy())
      attempt.once("error", () => {})
      attempt.once("data", (reply) => {
        // An error reply such as NOAUTH counts too; only a server that still loads its files is not ready.
        ready = !reply.toString().startsWith("-LOADING")
        attempt.destroy()
      })
      attempt.once("close", () => {
        if (ready) return resume(Effect.succeed(isAlive(child)))
        timer = setTimeout(ask, 10)
      })
    }
    ask()
    return Effect.sync(() => {
      clearTimeout(timer)
      socket?.removeAllListeners("close").destroy()
    })
  })

const lastWords = (dir: string, port: number): Effect.Effect<string> =>
  Effect.promise(async () => {
    const text = await readFile(join(dir, log), "utf8").catch(() => "")
    const words = text.trim().split("\n").slice(-3).join(" | ")
    return `The Redis server on port ${port} did not answer. Its log ends with: ${words || "nothing"}`
  })
