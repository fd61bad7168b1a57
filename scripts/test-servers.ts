/**
 * Runs the suites that talk to Redis on other servers than the installed one, and says what it could not have.
 *
 *     pnpm test:servers                                          test/redis and test/faults, on every server
 *     pnpm test:servers --only redis-8,valkey-9 --suites transport
 *
 * `--only` takes the beginnings of names, one server for each; `--suites transport` is what every pattern promises on Redis,
 * `--suites test/redis/lists.test.ts,test/faults` is these. The last line is `N passed, N failed, N skipped`, where a
 * server that cannot be had is one skipped; the exit code is 0 when nothing failed.
 */
import { spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import { bring, identify, NotHad, offered } from "./debian-servers.ts"

/** What the README says was tested, in the order of its table. */
const named = ["redis-7.0", "redis-8.0", "valkey-8.1", "valkey-9.1"]
const transport = ["streams", "lists", "exactly-once", "keyspace", "pubsub"].map((name) => `test/redis/${name}.test.ts`)

const { values } = parseArgs({
  options: { only: { type: "string" }, suites: { type: "string", default: "test/redis,test/faults" } }
})
const wanted = values.only?.split(",") ?? named
const files = values.suites === "transport" ? transport : values.suites.split(",")

interface Row {
  readonly server: string
  readonly passed: number
  readonly failed: number
  readonly words: string
}

const report = (path: string, status: number | null): Pick<Row, "passed" | "failed"> => {
  try {
    const { numFailedTests, numPassedTests, testResults } = JSON.parse(readFileSync(path, "utf8")) as {
      readonly numPassedTests: number
      readonly numFailedTests: number
      readonly testResults: ReadonlyArray<{
        readonly status: string
        readonly assertionResults: ReadonlyArray<{ readonly status: string }>
      }>
    }
    // A file that does not load has no tests to fail.
    const broken = testResults.filter(
      (file) => file.status === "failed" && file.assertionResults.every((test) => test.status !== "failed")
    ).length
    const failed = numFailedTests + broken
    return { passed: numPassedTests, failed: failed === 0 && status !== 0 ? 1 : failed }
  } catch {
    return { passed: 0, failed: 1 }
  }
}

const runOn = (program: string): Row => {
  const { name = "", version = "" } = identify(program) ?? {}
  const work = mkdtempSync(join(tmpdir(), "waybill-servers-"))
  console.log(`\n${name} (${version}): ${files.join(" ")}`)
  try {
    const path = join(work, "tests.json")
    const started = performance.now()
    const { status } = spawnSync("vitest", ["run", ...files], {
      env: { ...process.env, WAYBILL_SERVER: program, TEST_REPORT: path },
      stdio: "inherit"
    })
    const seconds = Math.round((performance.now() - started) / 1000)
    return { server: `${name} (${version})`, ...report(path, status), words: `${seconds} s` }
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

const matches = (name: string, wish: string) => name === wish || name.startsWith(`${wish}.`)
const installed = ["redis-server", "valkey-server"].flatMap((program) => {
  const found = identify(program)
  return found === undefined ? [] : [{ ...found, program }]
})
const fromDebian = wanted.every((wish) => installed.some(({ name }) => matches(name, wish)))
  ? { candidates: [], refused: [] }
  : offered()

const rows = wanted.map((wish): Row => {
  const skipped = (words: string): Row => ({ server: wish, passed: 0, failed: 0, words: `skipped: ${words}` })
  const here = installed.find(({ name }) => matches(name, wish))
  if (here !== undefined) return runOn(here.program)
  const candidate = fromDebian.candidates.find(({ name }) => matches(name, wish))
  if (candidate === undefined) {
    const others = fromDebian.candidates.map(({ name }) => name).join(", ")
    return skipped(
      [...fromDebian.refused, `Debian's newer suites offer ${others === "" ? "nothing here" : others}`].join("; ")
    )
  }
  try {
    const program = bring(candidate)
    return identify(program)?.version === candidate.version
      ? runOn(program)
      : skipped(`${candidate.package} ${candidate.version} from ${candidate.suite} does not run here`)
  } catch (error) {
    if (!(error instanceof NotHad)) throw error
    return skipped(error.message)
  }
})

console.log("\n| server | passed | failed | |\n|---|---|---|---|")
for (const { failed, passed, server, words } of rows) console.log(`| ${server} | ${passed} | ${failed} | ${words} |`)
const sum = (of: (row: Row) => number) => rows.reduce((total, row) => total + of(row), 0)
const failed = sum((row) => row.failed)
const skipped = sum((row) => (row.words.startsWith("skipped") ? 1 : 0))
console.log(`\n${sum((row) => row.passed)} passed, ${failed} failed, ${skipped} skipped`)
process.exitCode = failed === 0 ? 0 : 1
