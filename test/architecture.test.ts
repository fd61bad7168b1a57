import { readdirSync, readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { wordsBehindKey } from "../packages/waybill/src/redis/internal/connection/Evaluation.ts"

/** A module imports only modules that stand before it, in its row or in a row above. Give a new module its place here. */
const order = [
  [
    "internal/Freezable",
    "internal/SafeText",
    "internal/Name",
    "internal/Limits",
    "internal/Suspects",
    "internal/Wakeup",
    "Message",
    "internal/Uniqueness",
    "internal/Headers",
    "internal/Budget",
    "internal/CommitSize",
    "Gap",
    "Delivery",
    "Commit",
    "internal/Outline",
    "Failure",
    "Settlement",
    "internal/Attempts",
    "RetryPolicy",
    "internal/Replay",
    "internal/RetryCounts",
    "internal/Routing"
  ],
  [
    "Lifecycle",
    "TransportError",
    "internal/Filter",
    "internal/PlainMessage",
    "Inspector",
    "Health",
    "internal/CheckedInspector",
    "internal/Timing",
    "internal/ScheduleStore",
    "internal/Scheduler",
    "Transport",
    "internal/Marker",
    "Topic",
    "internal/Decoded",
    "Records",
    "internal/FailureLog",
    "internal/Recalls",
    "internal/Glob",
    "internal/Unplaced",
    "internal/Unstored",
    "internal/Inbox"
  ],
  ["internal/Durations", "internal/Instruments", "Metrics", "internal/Tracing"],
  [
    "internal/ConsumerMetrics",
    "internal/Prefetch",
    "internal/SettleLoop",
    "internal/HandlerContext",
    "internal/Workers",
    "internal/DeadLetterHook",
    "internal/Member",
    "internal/PulledDeliveries",
    "Replies",
    "Producer",
    "Schedules",
    "internal/Responder",
    "DeadLetters",
    "Consumer",
    "Log"
  ]
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

/** From the ground up: a file imports its own place and those in rows before it. A place is how the names of its files begin. */
const houses: Record<string, { readonly knows: ReadonlyArray<string>; readonly rows: ReadonlyArray<string> }> = {
  "packages/waybill/src": {
    knows: [],
    rows: [
      "", // everything that is no floor below: see `order`
      "redis/internal/Settings",
      "redis/(?:IoRedis|internal/connection/)",
      "redis/internal/wire/",
      "redis/internal/publish/",
      "redis/internal/commit/",
      "redis/internal/group/",
      "redis/internal/inspect/",
      "redis/internal/Pattern",
      "redis/internal/claims/",
      // A pattern knows no other: what several share is in `claims`.
      "redis/internal/streams/ redis/internal/lists/ redis/internal/keyspace/ redis/internal/pubsub/",
      "redis/internal/patterns",
      "redis/Redis"
    ]
  },
  "packages/testing/src": {
    knows: ["waybill"],
    rows: [
      "Port ServerClock Scheduling freeze temporaryKeys Command",
      "RedisServer ReplicaLink",
      "RedisCluster RedisSentinel",
      "FaultProxy [Hh]istory suite/",
      "Probe TransportSuite runUntilIdle"
    ]
  },
  "packages/cli": {
    knows: ["waybill"],
    rows: [
      "src/SafeText src/Problem src/Schedule",
      "src/Output src/Screen src/Server",
      "src/commands/",
      "src/dashboard/",
      "src/Waybill",
      "src/main page/"
    ]
  },
  "packages/bench/src": {
    knows: ["waybill", "@waybill/testing", "../../../scripts/Checkout"],
    rows: [
      "Work Report Client",
      "Peer Tally Measure",
      "Backlog",
      "Flow Publishing",
      "peers/",
      "measures/",
      "Measures Contender",
      "ContenderProcess Bench",
      "main"
    ]
  }
}
const top = join(import.meta.dirname, "..")
for (const name of readdirSync(join(top, "examples"))) {
  houses[`examples/${name}`] = {
    knows: ["waybill", "@waybill/testing/freeze", "@waybill/testing/temporaryKeys"],
    rows: [""]
  }
}

/** What files below a folder import: of each other by path, and packages of ours by name. */
const importsOf = (root: string): Array<Import> =>
  readdirSync(root, { recursive: true, encoding: "utf8" })
    .filter((path) => /\.tsx?$/.test(path) && !/^(?:.*\/)?(?:index|dist|node_modules)\b/.test(path))
    .flatMap((path) =>
      [
        ...readFileSync(join(root, path), "utf8").matchAll(
          /^(?:(?:import|export) (?:.* from )?|\} from )"((?:\.|@?waybill)[^"]+)"$/gm
        )
      ].map(([, to = ""]): Import => [
        path.replace(/\.tsx?$/, ""),
        to.startsWith(".") ? join(dirname(path), to).replace(/\.tsx?$/, "") : to
      ])
    )

const trespasses = (house: string, imports: ReadonlyArray<Import>): Array<string> => {
  const { knows, rows } = houses[house]! // named by the test
  const places = rows.flatMap((row, floor) =>
    row.split(" ").map((place) => ({ floor, place: new RegExp(`^${place}`) }))
  )
  const placeOf = (file: string) =>
    places
      .map((one) => ({ ...one, length: one.place.exec(file)?.[0].length ?? -1 }))
      .reduce((best, one) => (one.length > best.length ? one : best), { floor: -1, place: /^$/, length: -1 })
  return imports.flatMap(([from, to]) => {
    if (knows.some((name) => to === name || to.startsWith(`${name}/`))) return []
    const [here, there] = [placeOf(from), placeOf(to)]
    if (here.length < 0) return [`${from} has no place in ${house}`]
    return !/^(?:\.\.|@?waybill)/.test(to) &&
      there.length >= 0 &&
      (there.floor < here.floor || there.place === here.place)
      ? []
      : [`${from} may not import ${to}`]
  })
}

/** The calls of scripts whose reply is cast. The call of a plain command begins with its name. */
const castReplies = (source: string): Array<string> =>
  [...source.matchAll(/\b(?:eval|evalsha|evaluate|call)(?:Buffer)?\((?!["'])/g)].flatMap(({ 0: call, index }) => {
    let end = index + call.length
    for (let open = 1; open > 0 && end < source.length; end++) {
      if (source[end] === "(") open++
      if (source[end] === ")") open--
    }
    return /^\)?\s*as (?!const\b)/.test(source.slice(end)) ? [source.slice(index, end)] : []
  })

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

  it.each(Object.keys(houses))("files in %s stand on what lies below them", (house) => {
    const imports = importsOf(join(top, house))
    assert.isAbove(imports.length, 0)
    assert.deepStrictEqual(trespasses(house, imports), [])
  })

  it.each([
    ["a floor that knows a higher one", "redis/internal/wire/Keys", "redis/internal/claims/Source", "may not import"],
    [
      "a pattern that leans on another",
      "redis/internal/lists/Queue",
      "redis/internal/pubsub/Scripts",
      "may not import"
    ],
    ["a folder nobody placed", "redis/internal/tools/Box", "redis/internal/wire/Keys", "may not import"],
    ["a package that stands on this one", "redis/RedisLists", "@waybill/testing", "may not import"],
    ["a step out of the package", "redis/RedisLists", "../../cli/src/Screen", "may not import"]
  ])("reports %s", (_, from, to, report) => {
    assert.include(trespasses("packages/waybill/src", [[from, to]]).join(), report)
  })

  it("at most three files lie flat in redis/internal", () => {
    const files = readdirSync(join(top, "packages/waybill/src/redis/internal")).filter((name) => name.endsWith(".ts"))
    assert.isAtMost(files.length, 3, files.join(" "))
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

  it("a script's reply gets its type from the script, and no cast", () => {
    const root = join(top, "packages/waybill/src/redis")
    const sources = readdirSync(root, { recursive: true, encoding: "utf8" })
      .filter((path) => path.endsWith(".ts"))
      .map((path) => ({ path, source: readFileSync(join(root, path), "utf8") }))
    const untyped = sources.filter(({ source }) => /\.eval\(/.test(source)).map(({ path }) => path)
    assert.deepStrictEqual(untyped.sort(), [
      "internal/connection/Evaluation.ts",
      "internal/connection/Handshake.ts",
      "internal/connection/ScriptReply.ts"
    ])
    const casts = sources
      // Effect's own interface lets its caller name the type.
      .filter(({ path }) => path !== "internal/connection/EffectRedis.ts")
      .flatMap(({ path, source }) => castReplies(source).map((call) => `${path}: ${call}`))
    assert.deepStrictEqual(casts, [])
  })

  it.each([
    ["a cast behind a script", "const asked = client.eval(text, 0, ...of(keys)) as Promise<string>", 1],
    [
      "a cast around a script",
      "const { rows } = (yield* inspecting.call(\n  topic,\n  { from: first(ids) }\n)) as Rows",
      1
    ],
    ["no cast behind a plain command", 'client.call("HELLO") as Promise<string>', 0],
    ["no cast of an argument", "const { rows } = yield* inspecting.call(topic, { from: first(ids) as Id })", 0]
  ])("finds %s", (_, source, times) => {
    assert.lengthOf(castReplies(source), times)
  })

  it("case C11: every command that a script calls has its row in Evaluation.ts, so that it is asked for first", () => {
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
