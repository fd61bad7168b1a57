import { readFileSync } from "node:fs"
import { join } from "node:path"
import { assert, it } from "@effect/vitest"

const read = (path: string) => readFileSync(join(import.meta.dirname, "..", path), "utf8")

it("case D9: what dependencies need is held against the Node that is brought along, not against the machine's", () => {
  const brought: unknown = JSON.parse(read("package.json")).devDependencies.node
  assert.strictEqual(/^nodeVersion: (\S+)$/m.exec(read("pnpm-workspace.yaml"))?.[1], brought)
})

it("case D10: the tarballs of a build stay in a folder that git ignores, and the README says how to install them", () => {
  assert.match(read(".gitignore"), /^tarballs$/m)
  const build = read("scripts/build.ts")
  assert.include(build, '"../tarballs"')
  assert.notInclude(build, "mkdtemp")
  assert.match(read("README.md"), /^npm install \S+tarballs\/waybill-0\.0\.0\.tgz/m)
})
