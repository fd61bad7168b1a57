import { join } from "node:path"
import { defineConfig } from "vitest/config"
import { BaseSequencer, type TestSpecification } from "vitest/node"

// `.ci/run` counts from a JSON report; everyone else reads the terminal.
const report = process.env.TEST_REPORT

/** They hold nothing but memory, and a process of its own for each would spend most of its time on loading the library. */
const inMemory = ["test/core/**/*.test.ts", "test/memory/**/*.test.ts"]

/** Small files that take long: where they came last, by their size, the others would have nothing left to do beside them. */
const long =
  /test\/(?:mutants|faults\/(?:crowd|hundred-thousand|ledger|naive|nemesis|processes|upgrade)|examples\/[a-z-]+\.test|documents|redis\/large)/

class LongFirst extends BaseSequencer {
  override async sort(files: Array<TestSpecification>): Promise<Array<TestSpecification>> {
    const sorted = await super.sort(files)
    const [rest, first] = [false, true].map((isLong) => sorted.filter(({ moduleId }) => long.test(moduleId) === isLong))
    return [...first!, ...rest!]
  }
}

export default defineConfig({
  test: {
    pool: "forks",
    maxWorkers: 5,
    // Hundreds of programs are started, and each would compile the same modules again.
    env: { NODE_COMPILE_CACHE: join(import.meta.dirname, "node_modules/.cache/node") },
    // For what hangs, not for what is slow: on a machine with other things to do a process takes seconds to start.
    testTimeout: 120_000,
    hookTimeout: 120_000,
    sequence: { sequencer: LongFirst },
    reporters: report === undefined ? ["default"] : ["default", ["json", { outputFile: report }]],
    projects: [
      { extends: true, test: { name: "tests", include: ["test/**/*.test.ts"], exclude: inMemory } },
      { extends: true, test: { name: "in memory", include: inMemory, isolate: false } }
    ]
  }
})
