/**
 * Each mutant is applied to a copy of the sources, and the tests that claim to prove the opposite are run there. One that
 * passes them has survived: what they claim is not proven. `pnpm test:mutants` runs all, `pnpm test` two.
 */
import { spawn } from "node:child_process"
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { basename, join, relative } from "node:path"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import { sampled } from "../Sample.ts"
import { type Mutant, mutants, type Proof } from "./Mutants.ts"

const root = join(import.meta.dirname, "../..")
const copied = ["package.json", "vitest.config.ts", "packages", "test", "scripts", "docs/permissions.md"]

interface Report {
  readonly testResults: ReadonlyArray<{
    readonly name: string
    readonly message: string
    readonly assertionResults: ReadonlyArray<{ readonly fullName: string; readonly status: string }>
  }>
}

describe("mutants", () => {
  let copy = ""

  beforeAll(() => {
    copy = mkdtempSync(join(tmpdir(), "waybill-mutants-"))
    for (const name of copied) {
      cpSync(join(root, name), join(copy, name), {
        recursive: true,
        // A link between packages leads to the copy, one to what is installed to where that is.
        verbatimSymlinks: true,
        filter: (path) => !["dist", "coverage", ".tmp"].includes(basename(path))
      })
    }
    symlinkSync(join(root, "node_modules"), join(copy, "node_modules"))
  })
  afterAll(() => rmSync(copy, { recursive: true, force: true }))

  /** Runs the tests of one file in the copy. */
  const run = async (file: string, titles: ReadonlyArray<string>): Promise<Report> => {
    const report = join(copy, "report.json")
    rmSync(report, { force: true })
    const { TEST_REPORT: _, ...env } = process.env
    for (const name of Object.keys(env)) if (name.startsWith("VITEST")) delete env[name]
    const args = ["run", "--root", copy, `test/${file}`, "-t", titles.map((title) => `(?:${title})`).join("|")]
    let output = ""
    await new Promise((resolve) => {
      const child = spawn(
        process.execPath,
        [join(root, "node_modules/vitest/vitest.mjs"), ...args, "--reporter=json", `--outputFile=${report}`],
        // The copy has no history of its own, and two builds are to be compared.
        {
          cwd: copy,
          env: { ...env, WAYBILL_SAMPLE: "all", GIT_DIR: join(root, ".git") },
          stdio: ["ignore", "pipe", "pipe"]
        }
      )
      for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (output += String(chunk)))
      child.once("close", resolve)
    })
    try {
      // vitest's own format.
      return JSON.parse(readFileSync(report, "utf8")) as Report
    } catch {
      throw new Error(`no report of ${file}: ${output.slice(-2000)}`)
    }
  }

  const survived = async ({ proofs }: Mutant): Promise<ReadonlyArray<string>> => {
    const complaints: Array<string> = []
    for (const [file, some] of Map.groupBy(proofs, (proof: Proof) => proof.file)) {
      const titles = [...new Set(some.map(({ title }) => title))]
      const { testResults } = await run(file, titles)
      for (const title of titles) {
        const meant = testResults
          .flatMap(({ assertionResults }) => assertionResults)
          .filter(({ fullName, status }) => new RegExp(title).test(fullName) && /passed|failed/.test(status))
        const where = `${file}, "${title}"`
        if (meant.length === 0) complaints.push(`${where}: no test ran. ${testResults.map(({ message }) => message)}`)
        else if (meant.every(({ status }) => status === "passed")) complaints.push(`${where}: survived ${meant.length}`)
      }
    }
    return complaints
  }

  // As the first value: a name behind a `$` is cut short, and `-t` would not find it.
  const chosen = sampled("mutants", mutants, 2).map((mutant) => [mutant.name, mutant] as const)
  it.each(chosen)("%s", { timeout: 900_000 }, async (_, mutant) => {
    const path = join(copy, "packages/waybill/src", mutant.file)
    const source = readFileSync(path, "utf8")
    assert.strictEqual(source.split(mutant.find).length - 1, 1, `times that ${relative(copy, path)} has the text`)
    writeFileSync(
      path,
      source.replace(mutant.find, () => mutant.replace)
    )
    try {
      assert.deepStrictEqual(await survived(mutant), [])
    } finally {
      writeFileSync(path, source)
    }
  })
})

describe("a mutant", () => {
  it("has a name of its own, and stands in the sources", () => {
    assert.strictEqual(new Set(mutants.map(({ name }) => name)).size, mutants.length)
    for (const { file, find, name } of mutants) {
      const source = readFileSync(join(root, "packages/waybill/src", file), "utf8")
      assert.strictEqual(source.split(find).length - 1, 1, `${name}: times that ${file} has its text`)
    }
  })
})
