/**
 * Long lists are sampled: a run takes a few of them, chosen by the commit, so that one commit is always judged by the same.
 * WAYBILL_SAMPLE=all takes all of them.
 */
import { execFileSync } from "node:child_process"
import { createHash } from "node:crypto"

export const complete = process.env.WAYBILL_SAMPLE === "all"

const commit = (): string => {
  try {
    return execFileSync("git", ["rev-parse", "HEAD"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }).trim()
  } catch {
    return "no commit"
  }
}

const digest = (text: string): string => createHash("sha256").update(text).digest("hex")

/** A seed for what is drawn. */
export const seedOf = (name: string): string => String(Number.parseInt(digest(`${commit()} ${name}`).slice(0, 8), 16))

export const sampled = <A>(name: string, all: ReadonlyArray<A>, count: number): ReadonlyArray<A> => {
  if (complete) return all
  const seed = seedOf(name)
  return all
    .map((one, i) => ({ one, rank: digest(`${seed} ${i}`) }))
    .toSorted((a, b) => (a.rank < b.rank ? -1 : 1))
    .slice(0, count)
    .map(({ one }) => one)
}
