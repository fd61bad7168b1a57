import { join } from "node:path"
import { defineConfig } from "vitest/config"

// `.ci/run` counts from a JSON report; everyone else reads the terminal.
const report = process.env.TEST_REPORT

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks",
    maxWorkers: 4,
    // Hundreds of programs are started, and each would compile the same modules again.
    env: { NODE_COMPILE_CACHE: join(import.meta.dirname, "node_modules/.cache/node") },
    // For what hangs, not for what is slow: on a machine with other things to do a process takes seconds to start.
    testTimeout: 120_000,
    hookTimeout: 120_000,
    reporters: report === undefined ? ["default"] : ["default", ["json", { outputFile: report }]]
  }
})
