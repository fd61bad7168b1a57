/**
 * A consumer in a process of its own, for tests to kill. It records its history in a file as it goes, and reports on its
 * standard output what it is doing, so that a test can wait for the right moment.
 */
import * as ChildProcess from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { isAbsolute, join } from "node:path"
import { createInterface } from "node:readline"
import { History } from "@waybill/testing"
import { Context, Data, Effect, Layer, type Scope } from "effect"
import { bundled } from "../Program.ts"
import { gateOf, type Orders } from "./Orders.ts"

export class WorkerFailed extends Data.TaggedError("WorkerFailed")<{ readonly message: string }> {}

export interface WorkerProcess {
  /** Unique for each life. */
  readonly name: string
  /** Waits until the worker says a line, or has said it, so many times; once by default. */
  readonly says: (line: string, times?: number) => Effect.Effect<void, WorkerFailed>
  /** Waits until its handler has begun at least so many times; a multiple of `every`. */
  readonly handles: (count: number) => Effect.Effect<void, WorkerFailed>
  /** How often the worker has said this so far. */
  readonly said: (line: string) => number
  /** SIGKILL. Returns when the process is gone. */
  readonly kill: Effect.Effect<void>
  /** SIGSTOP: it is frozen between two instructions, without noticing. */
  readonly stop: Effect.Effect<void>
  /** SIGCONT. */
  readonly resume: Effect.Effect<void>
  /** Lets it go on where it blocks itself. */
  readonly unblock: Effect.Effect<void>
  /** SIGTERM. */
  readonly terminate: Effect.Effect<void>
  /** Waits for its end: the exit code, or the signal. */
  readonly gone: Effect.Effect<number | NodeJS.Signals>
}

/**
 * The workers of one test. They end with its scope, or with this process.
 */
export class Workers extends Context.Service<
  Workers,
  {
    /** Records what the test does to its workers. */
    readonly recorder: History.Recorder
    /** Starts a program of `test/faults` and waits until it is ready. */
    readonly spawn: <O extends object>(
      program:
        | "waybill-worker.ts"
        | "naive-worker.ts"
        | "ledger-worker.ts"
        | "naive-ledger-worker.ts"
        | "naive-list-worker.ts"
        | "schedule-worker.ts"
        // That of another build.
        | `/${string}`,
      orders: O & { readonly url: string; readonly every?: number },
      /** Where it kills itself, for programs that can: the environment variable `FAILPOINT`. */
      failpoint?: string
    ) => Effect.Effect<WorkerProcess, WorkerFailed, Scope.Scope>
    /** Asks all to stop, and waits until they have: then everything is recorded. */
    readonly stopAll: Effect.Effect<void, WorkerFailed>
    /** Everything recorded so far, by workers and by the test. */
    readonly history: Effect.Effect<ReadonlyArray<History.Event>, History.NoHistory>
  }
>()("waybill/test/Workers") {}

/** How long a test waits for a line from a worker. */
const patience = "60 seconds"

const make = Effect.gen(function* () {
  const dir = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "waybill-workers-"))),
    (dir) => Effect.sync(() => rmSync(dir, { recursive: true }))
  )
  const recorder = History.inMemory("test")
  const paths: Array<string> = []
  const spawned: Array<WorkerProcess> = []

  const spawn = Effect.fnUntraced(function* <O extends object>(
    program: string,
    orders: O & { readonly url: string; readonly every?: number },
    failpoint = ""
  ): Effect.fn.Return<WorkerProcess, WorkerFailed, Scope.Scope> {
    // Before it has a name: others are spawned meanwhile.
    const path = yield* runnable(program)
    const name = `worker-${paths.length + 1}`
    const history = join(dir, `${name}.ndjson`)
    // It may be killed before it has recorded anything.
    writeFileSync(history, "")
    const full: Orders = { ...orders, name, history, every: orders.every ?? 1 }
    const worker = yield* Effect.acquireRelease(
      Effect.sync(() => start(path, full, recorder, failpoint)),
      (worker) => worker.kill
    )
    paths.push(history)
    spawned.push(worker)
    yield* worker.says("ready")
    return worker
  })

  return Workers.of({
    recorder,
    spawn,
    stopAll: Effect.suspend(() =>
      Effect.forEach(spawned, (worker) => Effect.andThen(worker.terminate, worker.gone), { concurrency: "unbounded" })
    ).pipe(
      Effect.timeoutOrElse({
        duration: patience,
        orElse: () => Effect.fail(new WorkerFailed({ message: "a worker that was asked to stop did not" }))
      }),
      Effect.asVoid
    ),
    history: Effect.suspend(() => Effect.forEach(paths, (path) => History.read(path))).pipe(
      Effect.map((all) => [...recorder.events, ...all.flat()])
    )
  })
})

export const layer = Layer.effect(Workers, make)

/** That of another build has other sources. */
const runnable = (program: string): Effect.Effect<string> =>
  isAbsolute(program) ? Effect.succeed(program) : Effect.promise(() => bundled(join(import.meta.dirname, program)))

const start = (path: string, orders: Orders, recorder: History.Recorder, failpoint: string): WorkerProcess => {
  const { name } = orders
  const child = ChildProcess.spawn(process.execPath, [path, JSON.stringify(orders)], {
    // Its standard input ends with this process, and the worker with its standard input.
    stdio: ["pipe", "pipe", "pipe"],
    env: { ...process.env, FAILPOINT: failpoint, NODE_NO_WARNINGS: "1" }
  })
  const said = new Map<string, number>()
  let handled = 0
  let complaints = ""
  const watchers = new Set<() => void>()
  const notify = () => {
    for (const watcher of watchers) watcher()
  }
  createInterface({ input: child.stdout }).on("line", (line) => {
    if (line.startsWith("handled ")) handled = Number(line.slice("handled ".length))
    else said.set(line, (said.get(line) ?? 0) + 1)
    notify()
  })
  child.stderr.on("data", (chunk) => {
    complaints = (complaints + String(chunk)).slice(-4000)
  })
  let end: number | NodeJS.Signals | undefined
  // Everything that it said has been read by then.
  child.once("close", (code, signal) => {
    end = code ?? signal ?? "SIGKILL"
    notify()
  })

  const until = <A>(look: () => A | undefined) =>
    Effect.callback<A>((resume) => {
      const watcher = () => {
        const found = look()
        if (found === undefined) return
        watchers.delete(watcher)
        resume(Effect.succeed(found))
      }
      watchers.add(watcher)
      watcher()
      return Effect.sync(() => watchers.delete(watcher))
    })
  const expect = (what: string, look: () => boolean): Effect.Effect<void, WorkerFailed> => {
    const fail = (how: string) =>
      Effect.fail(
        new WorkerFailed({
          message: `${name} ${how} "${what}"; it said ${[...said.keys()].slice(-10).join(", ")}\n${complaints}`
        })
      )
    return Effect.flatMap(
      until(() => (look() ? true : end === undefined ? undefined : false)),
      (found) => (found ? Effect.void : fail(`ended (${end}) before`))
    ).pipe(Effect.timeoutOrElse({ duration: patience, orElse: () => fail("has not come to") }))
  }
  const signal = (signal: NodeJS.Signals) => Effect.sync(() => void child.kill(signal))
  const gone = until(() => end)

  return {
    name,
    says: (line, times = 1) => expect(line, () => (said.get(line) ?? 0) >= times),
    handles: (count) => expect(`handled ${count}`, () => handled >= count),
    said: (line) => said.get(line) ?? 0,
    kill: Effect.suspend(() => {
      if (end !== undefined) return Effect.void
      recorder.record({ _tag: "Fault", fault: "Killed", target: name })
      child.kill("SIGKILL")
      return Effect.asVoid(gone)
    }),
    stop: Effect.andThen(
      Effect.sync(() => recorder.record({ _tag: "Fault", fault: "Stopped", target: name })),
      signal("SIGSTOP")
    ),
    resume: Effect.andThen(
      signal("SIGCONT"),
      Effect.sync(() => recorder.record({ _tag: "Healed", target: name }))
    ),
    unblock: Effect.sync(() => writeFileSync(gateOf(orders), "")),
    terminate: signal("SIGTERM"),
    gone
  }
}
