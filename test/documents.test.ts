import { execFileSync } from "node:child_process"
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"

const root = join(import.meta.dirname, "..")
/** Inside the workspace, so that the examples find the packages by name as a user's program does. */
const folder = join(import.meta.dirname, ".examples")

const below = (directory: string, ending: string): Array<string> =>
  readdirSync(join(root, directory), { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(ending) && !/node_modules|dist|^api\//.test(path))
    .map((path) => join(directory, path))

/** The `ts` blocks of a text; comment stars in front are no part of them. */
const blocksOf = (text: string): Array<string> =>
  [...text.matchAll(/^( \* )?```ts\n([\s\S]*?)^(?: \* )?```$/gm)].map(([, star, code = ""]) =>
    star === undefined ? code : code.replaceAll(/^ \* ?/gm, "")
  )

const sources = [...below("packages/waybill/src", ".ts"), ...below("packages/testing/src", ".ts")]
const pages = ["README.md", ...below("docs", ".md")]
const examples = [...sources, ...pages].flatMap((path) =>
  blocksOf(readFileSync(join(root, path), "utf8")).map((code, index) => ({
    name: `${path.replaceAll(/[^A-Za-z]+/g, "-")}-${index + 1}.ts`,
    code
  }))
)

describe("examples in docstrings and pages", () => {
  beforeAll(() => {
    mkdirSync(folder, { recursive: true })
    for (const { code, name } of examples) writeFileSync(join(folder, name), `${code}\nexport {}\n`)
    const compilerOptions = { noUnusedLocals: false, noUnusedParameters: false }
    writeFileSync(
      join(folder, "tsconfig.json"),
      JSON.stringify({ extends: "../../tsconfig.json", compilerOptions, include: ["*.ts", "../types/*.ts"] })
    )
  })
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  it("finds them", () => assert.isAbove(examples.length, 10))

  it.each([
    ["the workspace's TypeScript", "node_modules/typescript/bin/tsc"],
    ["TypeScript 6, which many users have", "docs/node_modules/typescript/bin/tsc"]
  ])("compile with %s", { timeout: 240_000 }, (_, compiler) => {
    try {
      execFileSync(process.execPath, [compiler, "--noEmit", "-p", folder], { cwd: root, encoding: "utf8" })
    } catch (error) {
      assert.fail(error instanceof Error && "stdout" in error ? String(error.stdout) : String(error))
    }
  })

  it("load", { timeout: 180_000 }, () => {
    const urls = examples
      .filter(({ code }) => !/it\.effect\(|TransportSuite\.run/.test(code))
      .map(({ name }) => pathToFileURL(join(folder, name)).href)
    const program = `for (const url of ${JSON.stringify(urls)}) await import(url)`
    execFileSync(process.execPath, ["--input-type=module", "-e", program])
  })
})

describe("README.md", () => {
  const readme = readFileSync(join(root, "README.md"), "utf8")

  // What these files do is tested where they are; here only that the page shows them as they are.
  it.each(["examples/quickstart/main.ts", "test/testing/readme.test.ts"])("shows %s", (path) => {
    assert.include(readme, readFileSync(join(root, path), "utf8").trim())
  })

  it("its program runs", () => {
    const output = execFileSync(process.execPath, ["examples/quickstart/main.ts"], { cwd: root, encoding: "utf8" })
    assert.include(output, "charged o-1 on attempt 2")
    assert.include(output, "over-limit")
    assert.strictEqual(output.split("charged").length, 2)
  })
})
