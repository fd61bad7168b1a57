import { readFileSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { cases, casesIn, cell, columns, page, rows } from "./faults/Matrix.ts"
import { kinds, named, regressions } from "./faults/Regressions.ts"

describe("the fault matrix", () => {
  it("is the page that is in docs", () => {
    const found = readFileSync(join(import.meta.dirname, "../docs/fault-matrix.md"), "utf8")
    assert.strictEqual(found, page(), "run `npx -y pnpm@12 fault-matrix`")
  })

  it("knows every fault that a title names, and on which patterns", () => {
    for (const { columns, describe, faults, file, title } of cases) {
      for (const number of faults) assert.isDefined(rows[number], `${file}: E${number}`)
      assert.isNotEmpty(columns, `${file}: the suite "${describe}" of "${title}" does not name its pattern`)
    }
  })

  it("lists every case that a test names, and each of them has a test", () => {
    assert.deepStrictEqual([...named.keys()].toSorted(), Object.keys(regressions).toSorted())
    for (const number of Object.keys(regressions)) assert.property(kinds, number[0]!)
  })

  it("names controls that exist", () => {
    for (const [number, { naive = [] }] of Object.entries(rows)) {
      for (const { file, title } of naive) {
        assert.include(readFileSync(join(import.meta.dirname, file), "utf8"), title, `E${number}`)
      }
    }
  })

  it("covers nothing by a title alone", () => {
    const found = Object.keys(rows).flatMap((number) => columns.map((column) => cell(Number(number), column)))
    for (const one of found) if (one._tag === "Covered") assert.isNotEmpty(one.by)
    assert.isTrue(found.some(({ _tag }) => _tag === "Covered"))
  })

  it("reads titles off sources", () => {
    const source = `
      describe("a thing, streams", () => { it.live("E1 one", () => {}); it.live.each([f("x")])("E2 two %s", () => {}) })
      describe.each(Pattern.patterns)("a thing, %s", () => { it.live(\n "three (E3, E4)", () => {}) })
      it(\`\${a} E5\`, () => {})
      describe("connecting, every pattern", () => { it.live("E6 refused", () => {}) })`
    assert.deepStrictEqual(
      casesIn("faults/x.test.ts", source).map(({ columns, faults, title }) => [title, faults, columns.length]),
      [
        ["E1 one", [1], 1],
        ["E2 two %s", [2], 1],
        ["three (E3, E4)", [3, 4], 4],
        ["%s E5", [5], 4],
        ["E6 refused", [6], 5]
      ]
    )
  })
})
