/**
 * How many characters a commit has, counted once: when it is made.
 *
 * @module
 */
import type { Outgoing } from "../Message.ts"
import { unitsOf } from "./Budget.ts"

interface Parts {
  readonly conditions: ReadonlyArray<{ readonly args: Arguments; readonly expected: string | null }>
  readonly writes: ReadonlyArray<{ readonly args: Arguments }>
  readonly messages: ReadonlyArray<{ readonly message: Outgoing }>
}

type Arguments = ReadonlyArray<string | number>

/** Base class of commits: only `Commit.make` makes one. */
export class Sized {
  readonly #units: number

  constructor(parts: Parts) {
    this.#units = measured(parts)
  }

  /** Undefined for anything else. Reads no property, because getters may throw. */
  static unitsOf(value: unknown): number | undefined {
    return typeof value === "object" && value !== null && #units in value ? value.#units : undefined
  }
}

/** Characters in the arguments of its writes and conditions, and in all that its messages consist of. */
export const sizeOf = (commit: Parts): number => Sized.unitsOf(commit) ?? measured(commit)

const measured = ({ conditions, messages, writes }: Parts): number => {
  let units = 0
  for (const { message } of messages) units += unitsOf(message)
  for (const { args } of writes) units += argumentsOf(args)
  for (const { args, expected } of conditions) units += argumentsOf(args) + (expected?.length ?? 0)
  return units
}

const argumentsOf = (args: Arguments): number => {
  let units = 0
  for (const arg of args) units += typeof arg === "string" ? arg.length : 8
  return units
}
