import { spawnSync } from "node:child_process"
import { existsSync, readdirSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { sampled } from "../Sample.ts"

const root = join(import.meta.dirname, "../..")

/** As `pnpm example` runs it, without a Redis. */
const example = (...args: ReadonlyArray<string>) => {
  const { status, stderr, stdout } = spawnSync(process.execPath, ["scripts/example.ts", ...args], {
    cwd: root,
    encoding: "utf8",
    env: { ...process.env, REDIS_URL: undefined }
  })
  return { code: status, out: stdout, err: stderr }
}

const listed = [...example().out.matchAll(/^ {2}(\S+) {2,}\S.*\.$/gm)].map(([, name = ""]) => name)

/** These stay up until they are told to stop, and have a test of their own for it. */
const servers = new Set(["chat"])

describe("pnpm example", () => {
  it("lists every example with a sentence", () => {
    const folders = readdirSync(join(root, "examples")).filter((name) =>
      existsSync(join(root, "examples", name, "package.json"))
    )
    assert.deepStrictEqual(listed.toSorted(), folders.toSorted())
    assert.include(listed, "quickstart")
  })

  it("answers a name that is none with the list and exit code 2", () => {
    const { code, err, out } = example("nonesuch", "--help")
    assert.deepStrictEqual([code, out], [2, ""])
    assert.include(err, "There is no example nonesuch")
    for (const name of listed) assert.include(err, `\n  ${name} `)
  })

  it("--help says how, and --help after a name is the example's", () => {
    const own = example("--help")
    assert.strictEqual(own.code, 0)
    for (const name of ["USAGE", ...listed]) assert.include(own.out, name)
    const webhooks = example("webhooks", "--help")
    assert.strictEqual(webhooks.code, 0)
    assert.include(webhooks.out, "--lose")
  })

  it.each(
    sampled(
      "examples in memory",
      listed.filter((name) => !servers.has(name)),
      6
    )
  )("%s runs in memory and ends by itself", { timeout: 180_000 }, (name) => {
    const { code, err, out } = example(name)
    assert.strictEqual(code, 0, `${out}${err}`)
    assert.include(out, lines.get(name) ?? "\n", err)
  })
})

/** Something that only an example that has done its work says. What else it says is tested in a file of its own. */
const lines = new Map([
  ["critical-tasks", "20 of 20 invoices are out, 0 left in the store"],
  ["activepieces", "0 schedules are left, and 0 dead letters"],
  ["immich", "at most 2 at a time, 1 to look into"],
  ["hooks", "5 invoices have ended, and telling took 3 tries"],
  ["requests", "a house: no answer, TimedOut"],
  ["exactly-once", "applied 3 of 6 messages"],
  ["five-patterns", "a late group, 3"],
  ["lists", "9 pictures are shrunk, 0 left in the queue"],
  ["keyspace", "desk: 2 alerts expired before I came back"],
  ["pubsub", "lost for good: 4 5 6 7 8"],
  ["several-patterns", "250 cents in the bank"],
  ["quickstart", "charged o-1 on attempt 2"],
  ["telemetry", 'outcome="dead_letter",reason="CardDeclined"} 4'],
  ["webhooks", "0 of 996"]
])
