/**
 * An inspector that refuses invalid names, limits and times, the same for every pattern.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type { BackwardPage, Inspector, Page } from "../Inspector.ts"
import { InvalidLimit, InvalidName, InvalidTime, TransportError } from "../TransportError.ts"
import { isName } from "./Name.ts"

/** Why the names are invalid, if they are. The name of a foreign group may contain white space or braces. */
export const nameProblem = (topic: string, group?: string): TransportError | undefined => {
  const reason = !isName(topic)
    ? new InvalidName({ kind: "topic", name: topic })
    : group !== undefined && (group === "" || !group.isWellFormed())
      ? new InvalidName({ kind: "group", name: group })
      : undefined
  return reason && new TransportError({ operation: "inspect", topic: topic.slice(0, 200).toWellFormed(), reason })
}

/** The last time that there is, ms since the epoch. */
const latest = 8.64e15

/** The same inspector, refusing invalid names of topics and groups, limits of pages, and times. */
export const checked = (inspector: Inspector["Service"]): Inspector["Service"] => {
  const named = <A>(topic: string, group: string | undefined, ask: () => Effect.Effect<A, TransportError>) => {
    const problem = nameProblem(topic, group)
    return problem === undefined ? ask() : Effect.fail(problem)
  }
  const page = <A>(
    topic: string,
    group: string | undefined,
    page: Page | BackwardPage,
    ask: () => Effect.Effect<A, TransportError>
  ) =>
    named(topic, group, () => {
      const { limit } = page
      if (Number.isSafeInteger(limit) && limit >= 1) return ask()
      return Effect.fail(new TransportError({ operation: "inspect", topic, reason: new InvalidLimit({ limit }) }))
    })
  const timed = <A>(topic: string, at: number, ask: () => Effect.Effect<A, TransportError>) => {
    if (Math.abs(at) <= latest) return ask()
    return Effect.fail(new TransportError({ operation: "inspect", topic, reason: new InvalidTime({ millis: at }) }))
  }
  return {
    topics: inspector.topics,
    describe: (topic) => named(topic, undefined, () => inspector.describe(topic)),
    messages: (topic, asked) => page(topic, undefined, asked, () => inspector.messages(topic, asked)),
    message: (topic, id) => named(topic, undefined, () => inspector.message(topic, id)),
    delayed: (topic, asked) => page(topic, undefined, asked, () => inspector.delayed(topic, asked)),
    removeMessage: (topic, id) => named(topic, undefined, () => inspector.removeMessage(topic, id)),
    cancel: (topic, id) => named(topic, undefined, () => inspector.cancel(topic, id)),
    reschedule: (topic, id, at) =>
      named(topic, undefined, () => timed(topic, at, () => inspector.reschedule(topic, id, at))),
    changePriority: (topic, id, priority) =>
      named(topic, undefined, () => inspector.changePriority(topic, id, priority)),
    runNow: (topic, id) => named(topic, undefined, () => inspector.runNow(topic, id)),
    pending: (topic, group, asked) => page(topic, group, asked, () => inspector.pending(topic, group, asked)),
    waiting: (topic, group, asked) => page(topic, group, asked, () => inspector.waiting(topic, group, asked)),
    deadLetters: (topic, group, asked) => page(topic, group, asked, () => inspector.deadLetters(topic, group, asked)),
    redrive: (topic, group, entries) => named(topic, group, () => inspector.redrive(topic, group, entries)),
    discard: (topic, group, entries) => named(topic, group, () => inspector.discard(topic, group, entries)),
    pause: (topic, group) => named(topic, group, () => inspector.pause(topic, group)),
    resume: (topic, group) => named(topic, group, () => inspector.resume(topic, group)),
    purge: (topic) => named(topic, undefined, () => inspector.purge(topic)),
    move: (topic, group, to) =>
      named(topic, group, () =>
        timed(topic, typeof to === "object" && "at" in to ? to.at : 0, () => inspector.move(topic, group, to))
      ),
    retire: (topic, group) => named(topic, group, () => inspector.retire(topic, group)),
    remove: (topic, options) => named(topic, undefined, () => inspector.remove(topic, options))
  }
}
