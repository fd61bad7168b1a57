/**
 * For how long messages have their ids to themselves: what callers may ask for, and what a transport offers of it.
 *
 * @module
 */
import type { Coalescing, Outgoing, Unique, Uniqueness } from "../Message.ts"
import { oneOf } from "./Limits.ts"

/** Refuses what is none of them. */
export const uniqueOf = (unique: Unique): Unique =>
  typeof unique === "object" && unique?._tag === "Coalescing"
    ? unique
    : // Callers without types may pass anything else.
      oneOf("unique", unique as Exclude<Unique, Coalescing>, ["window", "until-settled", "until-taken"])

/** What the message asks for that a transport which offers this much cannot keep. */
export const unoffered = (
  { due, unique }: Pick<Outgoing, "due" | "unique">,
  offered: ReadonlyArray<Uniqueness> = []
): { readonly feature: string; readonly detail: string } | undefined => {
  if (unique === undefined) return undefined
  if (typeof unique === "string") {
    return offered.includes(unique)
      ? undefined
      : { feature: `unique: "${unique}"`, detail: "this layer cannot keep it. Use the window instead" }
  }
  if (!offered.includes("coalescing")) {
    return { feature: "coalescing", detail: "this layer does not replace messages. Use the window instead" }
  }
  return due !== undefined || offered.includes("until-taken")
    ? undefined
    : {
        feature: "coalescing without a delay",
        detail: "this layer replaces messages only while they are delayed. Delay them, or use a queue"
      }
}
