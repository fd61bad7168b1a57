/** Every Lua text that is sent to a server is parsed, and has neither a global that nobody defines nor a local that nothing reads. */
import { readdirSync } from "node:fs"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import luaparse from "luaparse"

const root = join(import.meta.dirname, "../../packages/waybill/src/redis/internal")

interface Text {
  readonly name: string
  readonly lua: string
}

const isText = (value: object): value is Text =>
  "name" in value &&
  "lua" in value &&
  typeof value.name === "string" &&
  typeof value.lua === "string" &&
  !("fleeting" in value) &&
  !("opening" in value)

/** What the server gives a script, and what Lua has. */
const known = new Set(
  "KEYS ARGV redis cjson cmsgpack bit string math table error ipairs pairs pcall next select tonumber tostring type unpack".split(
    " "
  )
)

interface Scope {
  /** What the scope declares, and whether something reads it. */
  readonly names: Map<string, boolean>
  /** Those of them that are neither functions nor parameters. */
  readonly values: Set<string>
}

interface Reading {
  readonly problems: Array<string>
  /** What the text declares outside of functions. */
  readonly declared: Set<string>
  /** What functions use that the text does not declare. Of the functions that scripts share, not every script calls all. */
  readonly missing: Set<string>
}

const readingOf = (lua: string): Reading => {
  const reading: Reading = { problems: [], declared: new Set(), missing: new Set() }
  const scopes: Array<Scope> = []
  const close = (scope: Scope | undefined) => {
    for (const name of scope?.values ?? []) {
      if (!scope?.names.get(name) && !name.startsWith("_")) reading.problems.push(`nothing reads ${name}`)
    }
  }
  const chunk: luaparse.Chunk & { readonly globals?: ReadonlyArray<luaparse.Identifier> } = luaparse.parse(lua, {
    luaVersion: "5.1",
    scope: true,
    onCreateScope: () => scopes.push({ names: new Map(), values: new Set() }),
    onDestroyScope: () => {
      const scope = scopes.pop()
      if (scopes.length > 0) close(scope)
    },
    // It is a name, whatever its type says.
    onLocalDeclaration: (identifier) => {
      const name = String(identifier)
      scopes.at(-1)?.names.set(name, false)
      if (scopes.length === 1) reading.declared.add(name)
    },
    onCreateNode: (node) => {
      if (node.type === "LocalStatement") for (const { name } of node.variables) scopes.at(-1)?.values.add(name)
      if (node.type === "Identifier") scopes.findLast(({ names }) => names.has(node.name))?.names.set(node.name, true)
    }
  })
  for (const { name } of chunk.globals ?? []) if (!known.has(name)) reading.missing.add(name)
  return reading
}

/** What is wrong with texts that share functions. */
const problemsOf = (texts: ReadonlyMap<string, string>): Array<string> => {
  const readings = Array.from(texts, ([lua, name]) => ({ name, ...readingOf(lua) }))
  const declared = new Set(readings.flatMap(({ declared }) => [...declared]))
  return readings.flatMap(({ missing, name, problems }) => [
    ...problems.map((problem) => `${name}: ${problem}`),
    ...[...missing].filter((each) => !declared.has(each)).map((each) => `${name}: nobody defines ${each}`)
  ])
}

const texts = async (): Promise<ReadonlyMap<string, string>> => {
  const found = new Map<string, string>()
  const walk = (value: unknown): void => {
    if (typeof value !== "object" || value === null) return
    if (isText(value)) found.set(value.lua, value.name)
    else for (const part of Object.values(value)) walk(part)
  }
  for (const path of readdirSync(root, { recursive: true, encoding: "utf8" })) {
    if (path.endsWith(".ts")) walk({ ...(await import(join(root, path))) })
  }
  return found
}

describe("Lua", () => {
  it("every script is sound", async () => {
    const found = await texts()
    assert.isAtLeast(found.size, 55)
    assert.deepStrictEqual(problemsOf(found), [])
  })

  it.each([
    ["a global that nobody defines", "#!lua\nlocal count = 0\nreturn cuont", "it: nobody defines cuont"],
    ["a local that nothing reads", "#!lua\nfor i = 1, 3 do\n  local spare = i\nend", "it: nothing reads spare"]
  ])("%s is found", (_, lua, problem) => {
    assert.deepStrictEqual(problemsOf(new Map([[lua, "it"]])), [problem])
  })

  it("what Lua cannot parse is an error", () => {
    assert.throws(() => readingOf("#!lua\nif true do end"))
  })
})
