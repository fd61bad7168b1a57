import { defineConfig } from "vitest/config"

// `.ci/run` counts from a JSON report; everyone else reads the terminal.
const report = process.env.TEST_REPORT

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 60_000,
    reporters: report === undefined ? ["default"] : ["default", ["json", { outputFile: report }]]
  }
})
