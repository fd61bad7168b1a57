/**
 * The context of handlers. A scope that is closed with the handler's exit before anything is settled: handlers that
 * leave theirs empty, as nearly all do, share one, so that a delivery costs no more than a check. And the current
 * delivery, also in log annotations: a new context for each, so that a fiber that outlives the handler keeps the
 * delivery it was forked for.
 *
 * @module
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import { Current, type Delivery } from "../Delivery.ts"

/** For the handlers that run one after the other on the fiber of a worker. */
export class HandlerContext {
  readonly #fiber: Fiber.Fiber<unknown, unknown>
  readonly #outer: Context.Context<never>
  readonly #annotations: Readonly<Record<string, unknown>> | undefined
  #scope = Scope.makeUnsafe()
  #context: Context.Context<never>

  constructor(fiber: Fiber.Fiber<unknown, unknown>) {
    this.#fiber = fiber
    this.#outer = fiber.context
    const annotations = fiber.getRef(References.CurrentLogAnnotations)
    this.#annotations = Object.keys(annotations).length === 0 ? undefined : annotations
    this.#context = this.#provide()
    fiber.setContext(this.#context)
  }

  /** Called before a handler that does not succeed at once. */
  enter(delivery: Delivery): void {
    const { attempt, group, id, topic } = delivery
    this.#annotate(Context.add(this.#context, Current, delivery), { topic, group, messageId: id, attempt })
  }

  /** The same for a batch. */
  enterBatch(deliveries: ReadonlyArray<Delivery>): void {
    const { group, topic } = deliveries[0]! // a batch has some
    this.#annotate(this.#context, { topic, group, batchSize: deliveries.length })
  }

  /** Called before the worker waits: the last delivery may be forgotten. */
  leave(): void {
    this.#fiber.setContext(this.#context)
  }

  #annotate(context: Context.Context<never>, annotations: Readonly<Record<string, unknown>>): void {
    const all = this.#annotations === undefined ? annotations : { ...this.#annotations, ...annotations }
    this.#fiber.setContext(Context.add(context, References.CurrentLogAnnotations, all))
  }

  /** Checked after every handler: whether its scope was used and `close` has to run. */
  get used(): boolean {
    return this.#scope.state._tag !== "Empty"
  }

  /** Closes the scope with the handler's exit, and returns how both ended. The next handler gets another scope. */
  close<A, E>(exit: Exit.Exit<A, E>): Effect.Effect<Exit.Exit<A, E>> {
    const scope = this.#scope
    this.#scope = Scope.makeUnsafe()
    this.#context = this.#provide()
    return Effect.matchCause(Scope.close(scope, exit), {
      onSuccess: () => exit,
      // As wherever a release fails: both are reported.
      onFailure: (cause) => Exit.failCause(Exit.isFailure(exit) ? Cause.combine(exit.cause, cause) : cause)
    })
  }

  /** The worker is done: whatever a fiber that outlived its handler adds to the scope from now on is released at once. */
  readonly end: Effect.Effect<void> = Effect.suspend(() => Scope.close(this.#scope, Exit.void))

  #provide(): Context.Context<never> {
    return Context.add(this.#outer, Scope.Scope, this.#scope)
  }
}
