/**
 * The command as a user runs it: arguments, an environment and standard input. `run` runs it inside this process, which is
 * much quicker; `process` starts one.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { join } from "node:path"
import { env as environment, execPath } from "node:process"
import { NodeServices } from "@effect/platform-node"
import { ConfigProvider, Console, Effect, Runtime, Stdio, Stream } from "effect"
// The command is a program and exports nothing; its tests go around that, to be quick.
import * as Waybill from "../../packages/cli/src/Waybill.ts"
import { bundled } from "../Program.ts"

export const main = join(import.meta.dirname, "../../packages/cli/src/main.ts")

export interface Run {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

export interface Options {
  readonly url?: string
  readonly stdin?: string
  readonly env?: Readonly<Record<string, string>>
}

export const start = (args: ReadonlyArray<string>, { env, url }: Options): Effect.Effect<ChildProcess> =>
  Effect.map(
    Effect.promise(() => bundled(main)),
    (program) =>
      spawn(execPath, [program, ...args], {
        env: {
          PATH: environment["PATH"],
          NODE_COMPILE_CACHE: environment["NODE_COMPILE_CACHE"],
          NO_COLOR: "1",
          ...(url === undefined ? {} : { REDIS_URL: url }),
          ...env
        },
        stdio: ["pipe", "pipe", "pipe"]
      })
  )

/** What a process does until it has ended; it ends with the effect. */
export const running = <A>(
  args: ReadonlyArray<string>,
  options: Options,
  watch: (child: ChildProcess, resume: (effect: Effect.Effect<A>) => void) => void
): Effect.Effect<A> =>
  Effect.flatMap(start(args, options), (child) =>
    Effect.callback<A>((resume) => {
      watch(child, resume)
      return Effect.sync(() => child.kill("SIGKILL"))
    })
  )

const text = new TextEncoder()

/** Runs the command to its end, in this process. */
export const run = (args: ReadonlyArray<string>, { env, stdin, url }: Options = {}): Effect.Effect<Run> =>
  Effect.suspend(() => {
    let out = ""
    let err = ""
    const console: Console.Console = {
      ...globalThis.console,
      log: (...words: ReadonlyArray<unknown>) => void (out += `${words.join(" ")}\n`),
      error: (...words: ReadonlyArray<unknown>) => void (err += `${words.join(" ")}\n`)
    }
    return Waybill.run(args).pipe(
      Effect.provide(Stdio.layerTest({ stdin: Stream.make(text.encode(stdin ?? "")) })),
      Effect.provide(NodeServices.layer),
      Effect.provide(
        ConfigProvider.layer(ConfigProvider.fromUnknown({ ...(url === undefined ? {} : { REDIS_URL: url }), ...env }))
      ),
      Effect.provideService(Console.Console, console),
      Effect.exit,
      Effect.map((exit) => {
        let code = 0
        Runtime.defaultTeardown(exit, (told) => (code = told))
        return { code, out, err }
      })
    )
  })

/** Runs the command to its end, as a process. */
export const process = (args: ReadonlyArray<string>, options: Options = {}): Effect.Effect<Run> =>
  running(args, options, (child, resume) => {
    let out = ""
    let err = ""
    child.stdout?.on("data", (chunk) => (out += chunk))
    child.stderr?.on("data", (chunk) => (err += chunk))
    child.on("close", (code) => resume(Effect.succeed({ code, out, err })))
    child.stdin?.end(options.stdin ?? "")
  })

/** Runs a command that goes on until it is interrupted, and interrupts it once the output satisfies. */
export const until = (
  args: ReadonlyArray<string>,
  options: Options,
  enough: (out: string) => boolean,
  onOutput: (out: string) => void = () => {}
): Effect.Effect<Run> =>
  running(args, options, (child, resume) => {
    let out = ""
    let err = ""
    child.stdout?.on("data", (chunk) => {
      out += chunk
      onOutput(out)
      if (enough(out)) child.kill("SIGINT")
    })
    child.stderr?.on("data", (chunk) => (err += chunk))
    child.on("close", (code) => resume(Effect.succeed({ code, out, err })))
  })
