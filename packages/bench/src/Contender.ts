/**
 * A contender as seen by the bench: a process that lives through all rounds of a measure, so that its code is hot and
 * its heap is its own, and that is idle while another one runs.
 */
import { type ChildProcess, fork } from "node:child_process"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { Effect, Schema, type Scope } from "effect"
import type { Sample, Size } from "./Measure.ts"

/** The process of the contender died, or its round failed. */
export class RoundFailed extends Schema.TaggedError<RoundFailed>("@waybill/bench/RoundFailed")("RoundFailed", {
  contender: Schema.String,
  message: Schema.String
}) {}

export interface Contender {
  readonly name: string
  /** Runs one round; nothing else may run at the same time. */
  readonly round: (size: Size) => Effect.Effect<Sample, RoundFailed>
}

/** The process's reply to a `Size`. */
export type Reply = { readonly sample: Sample } | { readonly error: string }

const own = fileURLToPath(new URL("ContenderProcess.ts", import.meta.url))

/** The same program in a checkout of another commit. */
export const programIn = (checkout: string): string => join(checkout, "packages/bench/src/ContenderProcess.ts")

/** Starts the process. It ends with the scope, or with this process. */
export const make = Effect.fnUntraced(function* (options: {
  readonly measure: string
  readonly name: string
  /** Its name in the report, if different. */
  readonly label?: string
  /** The program of another commit; this commit's by default. */
  readonly program?: string
  readonly port: number
  /** Where the process writes a CPU profile when it ends. */
  readonly profile: string | undefined
}): Effect.fn.Return<Contender, never, Scope.Scope> {
  const { label = options.name, measure, name, port, profile, program = own } = options
  const child = yield* Effect.acquireRelease(
    Effect.sync(() =>
      fork(program, [measure, name, `${port}`], {
        execArgv: [
          "--expose-gc",
          ...(profile === undefined
            ? []
            : ["--cpu-prof", "--cpu-prof-dir", profile, "--cpu-prof-name", `${measure}-${label}.cpuprofile`])
        ],
        stdio: ["ignore", "ignore", "inherit", "ipc"]
      })
    ),
    leave
  )
  return {
    name: label,
    round: (size) =>
      Effect.callback<Sample, RoundFailed>((resume) => {
        const done = (effect: Effect.Effect<Sample, RoundFailed>) => {
          child.off("message", onMessage).off("exit", onExit)
          resume(effect)
        }
        const failed = (message: string) => done(new RoundFailed({ contender: label, message }))
        // The process sends the replies that this type describes.
        const onMessage = (reply: Reply) =>
          "error" in reply ? failed(reply.error) : done(Effect.succeed(reply.sample))
        const onExit = (code: number | null, signal: string | null) => failed(`its process ended (${signal ?? code})`)
        if (!isAlive(child)) return onExit(child.exitCode, child.signalCode)
        child.once("message", onMessage)
        child.once("exit", onExit)
        child.send(size)
        return Effect.sync(() => child.off("message", onMessage).off("exit", onExit))
      })
  }
})

const isAlive = (child: ChildProcess) => child.exitCode === null && child.signalCode === null

/** Without its channel the process has nothing left to do; one that hangs is killed. */
const leave = (child: ChildProcess) =>
  Effect.callback<void>((resume) => {
    if (!isAlive(child)) return resume(Effect.void)
    const killer = setTimeout(() => child.kill("SIGKILL"), 5000)
    child.once("exit", () => {
      clearTimeout(killer)
      resume(Effect.void)
    })
    child.disconnect()
  })
