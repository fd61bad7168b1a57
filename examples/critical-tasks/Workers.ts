/**
 * Starts workers that can be stopped, or frozen like a process whose machine is paused: it neither works nor renews its
 * leases, and does not notice.
 *
 * On Redis a worker is a process, frozen by SIGSTOP. In memory it is part of this process, and a switch of the transport
 * freezes it.
 */
import { fileURLToPath } from "node:url"
import { freeze } from "@waybill/testing/freeze"
import { Clock, Config, Deferred, Effect, Exit, type Redacted, Schema, Scope, Stream } from "effect"
import { ChildProcess } from "effect/process"
import { Entry, type Fact, type Timeline } from "./Timeline.ts"
import { Fault, tellClaims, work } from "./Worker.ts"

export interface Worker {
  readonly stop: Effect.Effect<void>
  readonly standStill: Effect.Effect<void>
  readonly wakeUp: Effect.Effect<void>
}

/** Over the transport of this process. */
export const inMemory = Effect.fn("Workers.inMemory")(function* (timeline: Timeline) {
  const clock = yield* Clock.Clock
  const tellAs = (who: string) => (fact: Fact) => timeline.add({ ...fact, who, at: clock.currentTimeMillisUnsafe() })
  yield* tellClaims(tellAs("store"))
  const all = yield* Effect.scope
  return Effect.fnUntraced(function* (who: string, fault: Fault) {
    const tell = tellAs(who)
    // A frozen process reports what happened to it when it wakes up.
    let unsaid: Array<Fact> | undefined
    const scope = yield* Scope.fork(all)
    const receiver = yield* Scope.provide(
      work(fault, (fact) => (unsaid === undefined ? tell(fact) : void unsaid.push(fact))),
      scope
    )
    tell({ state: "started", detail: `as ${receiver.consumer}` })
    const stillness = yield* Scope.fork(scope)
    const worker: Worker = {
      stop: Scope.close(scope, Exit.void),
      standStill: Effect.suspend(() => {
        unsaid = []
        return Scope.provide(freeze(receiver), stillness)
      }),
      wakeUp: Effect.andThen(
        Scope.close(stillness, Exit.void),
        Effect.sync(() => {
          for (const fact of unsaid ?? []) tell(fact)
          unsaid = undefined
        })
      )
    }
    return worker
  })
})

/** The settings that a process reads from its environment. */
export const settings = Config.all({
  url: Config.Redacted("REDIS_URL"),
  prefix: Config.String("CRITICAL_TASKS_PREFIX"),
  who: Config.String("CRITICAL_TASKS_WHO"),
  fault: Config.schema(Fault, "CRITICAL_TASKS_FAULT")
})

const decode = Schema.decodeSync(Schema.fromJsonString(Entry))

/** Each worker is a process of its own, over Redis, that writes a line of JSON for every fact. */
export const asProcesses = Effect.fn("Workers.asProcesses")(function* (
  timeline: Timeline,
  options: { readonly url: Redacted.Redacted; readonly prefix: string }
) {
  const all = yield* Effect.scope
  return Effect.fnUntraced(function* (who: string, fault: Fault) {
    const child = yield* ChildProcess.make(
      process.execPath,
      [fileURLToPath(new URL("WorkerProcess.ts", import.meta.url))],
      {
        env: {
          REDIS_URL: options.url,
          CRITICAL_TASKS_PREFIX: options.prefix,
          CRITICAL_TASKS_WHO: who,
          CRITICAL_TASKS_FAULT: fault
        },
        extendEnv: true,
        stderr: "inherit",
        // A frozen process reacts to no other signal.
        killSignal: "SIGKILL"
      }
    ).pipe(Scope.provide(all))
    const started = yield* Deferred.make<void>()
    yield* child.stdout.pipe(
      Stream.decodeText(),
      Stream.splitLines,
      Stream.runForEach((line) => {
        const entry = decode(line)
        timeline.add(entry)
        return entry.state === "started" ? Deferred.succeed(started, undefined) : Effect.void
      }),
      Effect.andThen(Deferred.die(started, new Error(`${who} ended before it had joined its group`))),
      Effect.forkIn(all)
    )
    yield* Deferred.await(started)
    const signal = (name: NodeJS.Signals) => Effect.sync(() => void process.kill(child.pid, name))
    const worker: Worker = {
      stop: Effect.orDie(child.kill({ killSignal: "SIGTERM" })),
      standStill: signal("SIGSTOP"),
      wakeUp: signal("SIGCONT")
    }
    return worker
  })
})
