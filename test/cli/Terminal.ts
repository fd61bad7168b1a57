/**
 * The command as a user runs it: a process with arguments, an environment and standard input.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { join } from "node:path"
import { Effect } from "effect"

const main = join(import.meta.dirname, "../../packages/cli/src/main.ts")

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

const start = (args: ReadonlyArray<string>, { env, url }: Options): ChildProcess =>
  spawn(process.execPath, [main, ...args], {
    env: { PATH: process.env["PATH"], NO_COLOR: "1", ...(url === undefined ? {} : { REDIS_URL: url }), ...env },
    stdio: ["pipe", "pipe", "pipe"]
  })

/** Runs the command to its end. */
export const run = (args: ReadonlyArray<string>, options: Options = {}): Effect.Effect<Run> =>
  Effect.callback((resume) => {
    const child = start(args, options)
    let out = ""
    let err = ""
    child.stdout?.on("data", (chunk) => (out += chunk))
    child.stderr?.on("data", (chunk) => (err += chunk))
    child.on("close", (code) => resume(Effect.succeed({ code, out, err })))
    child.stdin?.end(options.stdin ?? "")
    return Effect.sync(() => child.kill("SIGKILL"))
  })

/** Runs a command that goes on until it is interrupted, and interrupts it once the output satisfies. */
export const until = (
  args: ReadonlyArray<string>,
  options: Options,
  enough: (out: string) => boolean,
  onOutput: (out: string) => void = () => {}
): Effect.Effect<Run> =>
  Effect.callback((resume) => {
    const child = start(args, options)
    let out = ""
    let err = ""
    child.stdout?.on("data", (chunk) => {
      out += chunk
      onOutput(out)
      if (enough(out)) child.kill("SIGINT")
    })
    child.stderr?.on("data", (chunk) => (err += chunk))
    child.on("close", (code) => resume(Effect.succeed({ code, out, err })))
    return Effect.sync(() => child.kill("SIGKILL"))
  })
