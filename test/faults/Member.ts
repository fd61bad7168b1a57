/**
 * The consumer under test in this process, on connections of its own, for faults that need no process to die.
 */
import { History } from "@waybill/testing"
import { Context, Data, Effect, Exit, Fiber, Layer, Scope } from "effect"
import { Consumer, type Lifecycle, Transport } from "waybill"
import { consumer, type Terms } from "./Jobs.ts"
import * as Pattern from "./Pattern.ts"

export class Missed extends Data.TaggedError("Missed")<{ readonly message: string }> {}

/** How long a test waits for what has to happen. */
const patience = "45 seconds"

export interface Member {
  readonly name: string
  readonly recorder: ReturnType<typeof History.inMemory>
  readonly transport: Transport.Transport
  /** Waits until this has happened so often, counted from the start. */
  readonly happens: (tag: Lifecycle.Event["_tag"], times?: number) => Effect.Effect<void, Missed>
  /** Waits for a line of a handler. */
  readonly says: (line: string) => Effect.Effect<void, Missed>
  readonly happened: (tag: Lifecycle.Event["_tag"]) => number
  /** Stops it as a shutdown does. How the consumer ended, if it had failed before. */
  readonly leave: Effect.Effect<Exit.Exit<never, Transport.TransportError>>
  /** Waits for the consumer to fail by itself. */
  readonly fails: Effect.Effect<Transport.TransportError, Missed>
}

/** Joins the group over `url`, and leaves it with the scope. */
export const join = Effect.fnUntraced(function* (
  name: string,
  url: string,
  terms: Terms = {},
  pattern: Pattern.Name = "streams"
) {
  const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
  const context = yield* Effect.provideService(Layer.build(Pattern.on(pattern, url, name)), Scope.Scope, scope)
  const transport = Context.get(context, Transport.AtMostOnce)
  const recorder = History.inMemory(name)
  const counts = new Map<string, number>()
  const watchers = new Set<() => void>()
  const note = (what: string) => {
    counts.set(what, (counts.get(what) ?? 0) + 1)
    for (const watcher of watchers) watcher()
  }
  yield* Effect.provideService(
    Effect.andThen(
      History.follow(recorder, transport.lifecycle),
      transport.lifecycle.listen((event) => note(event._tag))
    ),
    Scope.Scope,
    scope
  )
  const until = (what: string, times: number): Effect.Effect<void, Missed> =>
    Effect.callback<void>((resume) => {
      const watcher = () => {
        if ((counts.get(what) ?? 0) < times) return
        watchers.delete(watcher)
        resume(Effect.void)
      }
      watchers.add(watcher)
      watcher()
      return Effect.sync(() => watchers.delete(watcher))
    }).pipe(
      Effect.timeoutOrElse({
        duration: patience,
        orElse: () =>
          Effect.fail(
            new Missed({
              message: `${name} timed out waiting for "${what}"; there was ${JSON.stringify([...counts].slice(-20))}`
            })
          )
      })
    )
  let writes = 0
  const site = {
    recorder,
    say: note,
    block: () => {
      throw new Error("a member of this process would block the test")
    },
    die: () => {
      throw new Error("a member of this process cannot die")
    },
    write: () => Effect.sync(() => ++writes)
  }
  const fiber = yield* Consumer.run(consumer(site, terms)).pipe(Effect.provide(context), Effect.forkIn(scope))
  const member: Member = {
    name,
    recorder,
    transport,
    happens: (tag, times = 1) => until(tag, times),
    says: (line) => until(line, 1),
    happened: (tag) => counts.get(tag) ?? 0,
    leave: Effect.gen(function* () {
      yield* Fiber.interrupt(fiber)
      const exit = yield* Fiber.await(fiber)
      yield* Scope.close(scope, Exit.void)
      return exit
    }),
    fails: Fiber.await(fiber).pipe(
      Effect.timeoutOrElse({
        duration: patience,
        orElse: () => Effect.fail(new Missed({ message: `${name} has not failed` }))
      }),
      Effect.flatMap((exit) =>
        Exit.match(exit, {
          onSuccess: () => Effect.die("a consumer never ends by itself"),
          onFailure: (cause) => {
            const [reason] = cause.reasons
            return reason?._tag === "Fail" ? Effect.succeed(reason.error) : Effect.die(cause)
          }
        })
      )
    )
  }
  return member
})
