/**
 * The fault matrix: which fault is proven on which pattern, as read off the titles of the tests. A test only covers a fault if
 * it has a control: a mutant of the library, or a naive version, that fails in it.
 */
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { mutants } from "../mutants/Mutants.ts"
import { section } from "./Regressions.ts"

export const columns = ["streams", "lists", "exactly-once", "keyspace", "pub/sub"] as const

export type Column = (typeof columns)[number]

const storing: ReadonlyArray<Column> = ["streams", "lists", "exactly-once", "keyspace"]

interface Row {
  readonly fault: string
  /** Why the fault does not affect a pattern. */
  readonly not?: Partial<Record<Column, string>>
  /** Why it is not tested yet. */
  readonly later?: string
  /** The naive version that fails the check of the row: a test of `test/`, by file and title. */
  readonly naive?: ReadonlyArray<{
    readonly columns: ReadonlyArray<Column>
    readonly file: string
    readonly title: string
  }>
}

const nothingStored = { "pub/sub": "nothing is stored, so nothing is taken over, counted or settled" }
const nothingKept = { "pub/sub": "no message is kept" }
const killed = [
  {
    columns: ["streams"],
    file: "faults/naive.test.ts",
    title: "that acknowledges before it handles loses messages when it is killed"
  },
  {
    columns: ["lists", "exactly-once"],
    file: "faults/naive-lists.test.ts",
    title: "that pops a message and then handles it loses it when it is killed"
  }
] as const
const naiveSubscriber = {
  columns: ["pub/sub"],
  file: "redis/pubsub-gaps.test.ts",
  title: "a naive subscriber that subscribes again by itself fails the same check"
} as const
const naiveReader = {
  columns: ["keyspace"],
  file: "faults/keyspace.test.ts",
  title: "who only scans, listens and reads does not: it misses messages, and the same check finds it"
} as const
const cutInFront = {
  columns: storing,
  file: "faults/server.test.ts",
  title: "a log that is cut further in front: the same check finds what is missing"
} as const
const ownIssue = "planned with Cluster and Sentinel"

export const rows: Readonly<Record<number, Row>> = {
  1: { fault: "SIGKILL of a consumer in the middle of a handler", not: nothingStored, naive: killed },
  2: { fault: "SIGKILL between effect, settlement and taking", not: nothingStored, naive: killed },
  3: { fault: "SIGSTOP of a consumer for longer than its lease, then SIGCONT", not: nothingStored },
  4: { fault: "SIGTERM while messages are being handled", not: nothingStored },
  5: { fault: "SIGKILL of the server, appendfsync always", not: nothingKept },
  6: { fault: "SIGKILL of the server, appendfsync everysec", not: nothingKept },
  7: { fault: "power loss: the tail of the append-only file is cut", not: nothingKept, naive: [cutInFront] },
  8: { fault: "restart of the server with nothing on disk" },
  9: { fault: "SIGSTOP of the server" },
  10: {
    fault: "a connection is reset before or after the server executes a command",
    not: { "pub/sub": "lost subscriptions are E14, and publishing is shared with the other patterns" }
  },
  11: { fault: "black hole: a connection carries nothing" },
  12: { fault: "latency, jitter, throttling, fragmentation at every byte boundary" },
  13: { fault: "one consumer is partitioned" },
  14: { fault: "CLIENT KILL, all or one by one", naive: [naiveSubscriber, naiveReader] },
  15: { fault: "CLIENT PAUSE" },
  16: {
    fault: "SCRIPT FLUSH in a loop",
    not: { "pub/sub": "scripts are sent by the same module" }
  },
  17: { fault: "FLUSHALL, DEL, XGROUP DESTROY under consumers" },
  18: { fault: "the server is out of memory", not: nothingKept },
  19: { fault: "an eviction policy that drops messages" },
  20: { fault: "a foreign value under a key of Waybill" },
  21: { fault: "permissions denied, before and during the work" },
  22: { fault: "wrong password, password changed" },
  23: { fault: "TLS: wrong certificate, name, date" },
  24: { fault: "messages that no Waybill producer would write" },
  25: {
    fault: "messages of tens of megabytes"
  },
  26: { fault: "poison: a handler that always fails, or takes its process down", not: nothingStored },
  27: {
    fault: "the same message published or delivered twice",
    not: { "pub/sub": "ids are not remembered, and a caller that gives one gets `NotOffered`" }
  },
  28: { fault: "failover by Sentinel", later: ownIssue },
  29: { fault: "writes that were not replicated", later: ownIssue },
  30: { fault: "a master of a cluster is killed", later: ownIssue },
  31: { fault: "slots of a cluster move", later: ownIssue },
  32: { fault: "a cluster that is down", later: ownIssue },
  33: {
    fault: "keyspace events that are lost",
    not: Object.fromEntries(
      columns.filter((column) => column !== "keyspace").map((column) => [column, "uses no keyspace events"])
    ),
    naive: [naiveReader]
  },
  34: { fault: "the clock of the server jumps", not: { "pub/sub": "nothing stored has a due time or a lease" } },
  35: {
    fault: "a consumer's event loop is blocked for longer than its lease",
    not: nothingStored,
    naive: [
      {
        columns: ["streams"],
        file: "faults/naive.test.ts",
        title: "E35 that is blocked for longer than its lease doubles what it retries then, without a fence"
      }
    ]
  },
  36: { fault: "the server takes no more connections" },
  37: { fault: "a slow consumer behind a fast producer" },
  38: { fault: "rolling upgrade: two builds on one server", not: nothingKept },
  39: { fault: "many consumers that take over, promote and trim at once", not: nothingStored },
  40: { fault: "the server moves: another address or port" }
}

/** A test that names a fault. */
export interface Case {
  readonly file: string
  readonly describe: string
  readonly title: string
  readonly faults: ReadonlyArray<number>
  readonly columns: ReadonlyArray<Column>
}

const tests = join(import.meta.dirname, "..")

/** The patterns in the name of a suite: `, streams` or `, every pattern` at its end, or `%s` for each of a list, which its name tells. */
const columnsOf = (file: string, name: string, list: string): ReadonlyArray<Column> => {
  // What all of them have in common, such as connecting, is proven once.
  if (name.endsWith(", every pattern")) return columns
  const named = columns.filter((column) => name.endsWith(`, ${column}`))
  if (named.length > 0) return named
  if (name.includes("%s")) {
    if (/queues/.test(list)) return ["lists", "exactly-once"]
    if (/everyPattern/.test(list)) return columns
    if (/patterns|storing/i.test(list)) return storing
    const listed = columns.filter((column) => list.includes(`"${column}"`))
    if (listed.length > 0) return listed
  }
  if (/pubsub/.test(file)) return ["pub/sub"]
  if (/keyspace/.test(file)) return ["keyspace"]
  return []
}

const call =
  /\b(describe|it)(?:\.(?!each\b)\w+)*(?:\([^()]*\))?(?:\.each(?:<[^>]*>)?\(((?:[^()]|\((?:[^()]|\([^()]*\))*\))*)\))?\(\s*(?:title\()?(["'`])((?:\\.|(?!\3)[^\\])*)\3/g

/** Read off the sources: running them for their names would take minutes. */
export const casesIn = (file: string, source: string): ReadonlyArray<Case> => {
  const found: Array<Case> = []
  let describe = ""
  let of: ReadonlyArray<Column> = []
  for (const [, kind, list = "", , text = ""] of source.matchAll(call)) {
    const title = text.replaceAll(/\$\{[^}]*\}/g, "%s")
    const faults = [...title.matchAll(/\bE(\d+)\b/g)].map(([, number]) => Number(number))
    if (kind === "describe") {
      describe = title
      of = columnsOf(file, title, list)
    }
    if (faults.length === 0) continue
    // A test may be run for each pattern, too.
    const own = kind === "it" && list !== "" ? columnsOf("", title, list) : []
    found.push({ file, describe, title: kind === "it" ? title : "", faults, columns: own.length > 0 ? own : of })
  }
  return found
}

export const cases: ReadonlyArray<Case> = ["faults", "redis", "core", "testing"].flatMap((folder) =>
  readdirSync(join(tests, folder))
    // What is naive is a control, and covers nothing.
    .filter((name) => name.endsWith(".test.ts") && !name.startsWith("naive"))
    .flatMap((name) => casesIn(`${folder}/${name}`, readFileSync(join(tests, folder, name), "utf8")))
)

export type Cell =
  | { readonly _tag: "Covered"; readonly by: ReadonlyArray<string>; readonly files: ReadonlyArray<string> }
  /** There is a test, and nothing that shows that it can fail. */
  | { readonly _tag: "Uncontrolled"; readonly files: ReadonlyArray<string> }
  | { readonly _tag: "Not"; readonly reason: string }
  | { readonly _tag: "Later"; readonly reason: string }
  | { readonly _tag: "Open" }

const fullName = (test: Case, column: Column): string =>
  `${test.describe.replace("%s", column)}${test.title === "" ? "" : ` ${test.title}`}`

export const cell = (number: number, column: Column): Cell => {
  const row = rows[number]
  if (row === undefined) throw new Error(`there is no row E${number}`)
  const found = cases.filter(({ columns, faults }) => faults.includes(number) && columns.includes(column))
  const files = [...new Set(found.map(({ file }) => file))]
  if (found.length > 0) {
    const killers = mutants.filter(({ proofs }) =>
      proofs.some(({ file, title }) =>
        found.some((test) => test.file === file && new RegExp(title).test(fullName(test, column)))
      )
    )
    const naive = (row.naive ?? []).filter(({ columns }) => columns.includes(column))
    const by = [...killers.map(({ name }) => `mutant: ${name}`), ...naive.map(({ title }) => `naive: ${title}`)]
    return by.length > 0 ? { _tag: "Covered", by, files } : { _tag: "Uncontrolled", files }
  }
  const reason = row.not?.[column]
  if (reason !== undefined) return { _tag: "Not", reason }
  return row.later === undefined ? { _tag: "Open" } : { _tag: "Later", reason: row.later }
}

const word = (found: Cell): string => {
  switch (found._tag) {
    case "Covered":
      return "covered"
    case "Uncontrolled":
      return "tested"
    case "Not":
      return "–"
    case "Later":
      return "later"
    case "Open":
      return "open"
  }
}

/** `docs/fault-matrix.md`. */
export const page = (): string => {
  const numbers = Object.keys(rows).map(Number)
  const lines = numbers.map(
    (number) => `| E${number} | ${rows[number]!.fault} | ${columns.map((of) => word(cell(number, of))).join(" | ")} |`
  )
  const notes = numbers.flatMap((number) => {
    const said = new Map<string, Array<Column>>()
    for (const column of columns) {
      const found = cell(number, column)
      const text =
        found._tag === "Covered" || found._tag === "Uncontrolled"
          ? `${found.files.map((file) => `\`${file}\``).join(", ")}${found._tag === "Covered" ? `; fails with ${found.by.map((name) => `*${name}*`).join(", ")}` : "; without a control yet"}`
          : found._tag === "Open"
            ? "no test yet"
            : found.reason
      said.set(text, [...(said.get(text) ?? []), column])
    }
    return [
      `**E${number}** ${rows[number]!.fault}`,
      "",
      ...[...said].map(([text, of]) => `- ${of.join(", ")}: ${text}`),
      ""
    ]
  })
  return `# Faults, and the tests that prove them harmless

Titles of tests name the faults that they are about: \`E12\` is a row of the fault matrix, and \`case A5\` a fault that use has found.
This page lists both. \`npx -y pnpm@12 fault-matrix\` makes it from those titles, and a test fails when it is out of date. Files are
below \`test\`.

## The fault matrix

- **covered**: there is a test, and a control that fails in it: a mutant of the library (\`test/mutants\`), or a naive version.
- **tested**: there is a test without a control, so nothing shows that it can fail.
- **–**: the fault does not affect the pattern, for the reason given below.
- **later**: planned, see below. **open**: there is no test yet.

| | fault | ${columns.join(" | ")} |
|---|---|${columns.map(() => "---").join("|")}|
${lines.join("\n")}

## Faults that use has found

${section()}

## The matrix in detail

${notes.join("\n").trim()}
`
}
