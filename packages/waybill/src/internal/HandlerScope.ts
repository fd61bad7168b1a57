/**
 * Gives each handler a scope that is closed with its exit before anything is settled. Handlers that put nothing into theirs,
 * as nearly all do, share one: then a delivery costs no more than a look at it.
 *
 * @module
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"

/** The scope of the handlers that run, one after the other, on the fiber of a worker. */
export class HandlerScope {
  readonly #fiber: Fiber.Fiber<unknown, unknown>
  readonly #context: Context.Context<never>
  #scope = Scope.makeUnsafe()

  constructor(fiber: Fiber.Fiber<unknown, unknown>) {
    this.#fiber = fiber
    this.#context = fiber.context
    this.#provide()
  }

  /** To be asked after every handler: something was put into its scope, and `close` has to run. */
  get used(): boolean {
    return this.#scope.state._tag !== "Empty"
  }

  /** Closes the scope with the exit of the handler, and returns how both ended. The next handler has another one. */
  close<A, E>(exit: Exit.Exit<A, E>): Effect.Effect<Exit.Exit<A, E>> {
    const scope = this.#scope
    this.#scope = Scope.makeUnsafe()
    this.#provide()
    return Effect.matchCause(Scope.close(scope, exit), {
      onSuccess: () => exit,
      // As when a release fails anywhere else: both are told.
      onFailure: (cause) => Exit.failCause(Exit.isFailure(exit) ? Cause.combine(exit.cause, cause) : cause)
    })
  }

  /** The worker is done: what a fiber that outlived its handler puts into the scope from now on is released at once. */
  readonly end: Effect.Effect<void> = Effect.suspend(() => Scope.close(this.#scope, Exit.void))

  #provide(): void {
    this.#fiber.setContext(Context.add(this.#context, Scope.Scope, this.#scope))
  }
}
