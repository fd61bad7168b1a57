import { readdirSync, readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { wordsBehindKey } from "../packages/waybill/src/redis/internal/connection/Script.ts"

/** A module imports only modules that stand before it, in its row or in a row above. Give a new module its place here. */
const order = [
  [
    "internal/SafeText",
    "internal/Limits",
    "internal/Suspects",
    "internal/Name",
    "Message",
    "internal/Headers",
    "internal/Budget",
    "Topic",
    "Gap",
    "Delivery",
    "Commit",
    "internal/Outline",
    "Failure",
    "Settlement",
    "RetryPolicy",
    "Routing"
  ],
  [
    "Lifecycle",
    "TransportError",
    "Inspector",
    "Records",
    "Health",
    "Transport",
    "internal/Recalls",
    "internal/Glob",
    "internal/Unstored",
    "internal/Inbox"
  ],
  ["internal/Durations", "Metrics", "internal/Tracing"],
  ["internal/HandlerScope", "Producer", "internal/Workers", "Consumer", "DeadLetters", "Log"]
].flat()
/** A folder of transports sees what travels and the ports, its own files, and no other folder. */
const folders = ["memory", "redis"]
const folderOf = (file: string) => folders.find((folder) => file.startsWith(`${folder}/`))
const ports = order.slice(0, order.indexOf("internal/Durations"))

type Import = readonly [from: string, to: string]

const mayImport = (from: string, to: string): boolean => {
  const folder = folderOf(from)
  if (folder !== undefined) return ports.includes(to) || folderOf(to) === folder
  return order.indexOf(to) >= 0 && order.indexOf(to) < order.indexOf(from)
}

const violations = (files: ReadonlyArray<string>, imports: ReadonlyArray<Import>): Array<string> => {
  const unranked = files.filter((file) => !order.includes(file) && folderOf(file) === undefined)
  const reaches = (from: string, goal: string, seen: Set<string>): boolean =>
    imports.some(([a, b]) => a === from && (b === goal || (!seen.has(b) && reaches(b, goal, seen.add(b)))))
  return [
    ...unranked.map((file) => `${file} has no place in the order`),
    ...imports.filter(([from, to]) => !mayImport(from, to)).map(([from, to]) => `${from} may not import ${to}`),
    ...files.filter((file) => reaches(file, file, new Set())).map((file) => `${file} imports itself in a circle`)
  ]
}

describe("architecture", () => {
  it("imports in packages/waybill/src point one way", () => {
    const root = join(import.meta.dirname, "../packages/waybill/src")
    const files = readdirSync(root, { recursive: true, encoding: "utf8" })
      .filter((path) => path.endsWith(".ts") && path !== "index.ts")
      .map((path) => path.slice(0, -".ts".length))
    const imports = files.flatMap((from) =>
      [...readFileSync(join(root, `${from}.ts`), "utf8").matchAll(/^(?:import|export|\}) .*"(\.[^"]+)\.ts"$/gm)].map(
        ([, to = ""]): Import => [from, join(dirname(from), to)]
      )
    )
    assert.deepStrictEqual(violations(files, imports), [])
  })

  it.each([
    ["a step back", ["Transport", "Consumer"], "Transport may not import Consumer"],
    ["a transport that knows an end", ["redis/RedisStreams", "Producer"], "redis/RedisStreams may not import Producer"],
    ["a twin that leans on the other", ["memory/Log", "redis/keys"], "memory/Log may not import redis/keys"],
    ["a circle inside a folder", ["redis/a", "redis/a"], "redis/a imports itself in a circle"],
    ["a module nobody placed", ["Toolbox", "Topic"], "Toolbox has no place in the order"]
  ] as const)("reports %s", (_, edge, report) => {
    assert.include(violations([edge[0]], [edge]), report)
  })

  it("case C11: every command that a script calls has its row in Script.ts, so that it is asked for first", () => {
    const root = join(import.meta.dirname, "../packages/waybill/src/redis/internal")
    const called = readdirSync(root, { recursive: true, encoding: "utf8" })
      .filter((path) => path.endsWith(".ts"))
      .flatMap((path) => [
        ...readFileSync(join(root, path), "utf8").matchAll(/\b(?:call|ask)\('([A-Z]+)'(?:, '([A-Z]+)')?/g)
      ])
      .map(([, command = "", sub]) => (command === "XGROUP" || command === "XINFO" ? `${command} ${sub}` : command))
    assert.isAbove(called.length, 100)
    assert.deepStrictEqual(
      called.filter((command) => !(command in wordsBehindKey)),
      [],
      "commands without a row in wordsBehindKey"
    )
  })
})
