/**
 * What a handler finds in its context. A scope that is closed with its exit before anything is settled: handlers that put
 * nothing into theirs, as nearly all do, share one, and then a delivery costs no more than a look at it. The delivery it is
 * for, and that in all it logs: a context of its own, so that a fiber that outlives the handler keeps what it was forked for.
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

/** Of the handlers that run, one after the other, on the fiber of a worker. */
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

  /** Before a handler that does not succeed at once. */
  enter(delivery: Delivery): void {
    const { attempt, group, id, topic } = delivery
    this.#annotate(Context.add(this.#context, Current, delivery), { topic, group, messageId: id, attempt })
  }

  /** The same of a batch. */
  enterBatch(deliveries: ReadonlyArray<Delivery>): void {
    const { group, topic } = deliveries[0]! // a batch has some
    this.#annotate(this.#context, { topic, group, batchSize: deliveries.length })
  }

  /** Before the worker waits: what was handled last may be forgotten. */
  leave(): void {
    this.#fiber.setContext(this.#context)
  }

  #annotate(context: Context.Context<never>, annotations: Readonly<Record<string, unknown>>): void {
    const all = this.#annotations === undefined ? annotations : { ...this.#annotations, ...annotations }
    this.#fiber.setContext(Context.add(context, References.CurrentLogAnnotations, all))
  }

  /** To be asked after every handler: something was put into its scope, and `close` has to run. */
  get used(): boolean {
    return this.#scope.state._tag !== "Empty"
  }

  /** Closes the scope with the exit of the handler, and returns how both ended. The next handler has another one. */
  close<A, E>(exit: Exit.Exit<A, E>): Effect.Effect<Exit.Exit<A, E>> {
    const scope = this.#scope
    this.#scope = Scope.makeUnsafe()
    this.#context = this.#provide()
    return Effect.matchCause(Scope.close(scope, exit), {
      onSuccess: () => exit,
      // As when a release fails anywhere else: both are told.
      onFailure: (cause) => Exit.failCause(Exit.isFailure(exit) ? Cause.combine(exit.cause, cause) : cause)
    })
  }

  /** The worker is done: what a fiber that outlived its handler puts into the scope from now on is released at once. */
  readonly end: Effect.Effect<void> = Effect.suspend(() => Scope.close(this.#scope, Exit.void))

  #provide(): Context.Context<never> {
    return Context.add(this.#outer, Scope.Scope, this.#scope)
  }
}
