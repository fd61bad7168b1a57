import { execFileSync, spawnSync } from "node:child_process"
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

/** What the compiler says of a program that is wrong, in the last line: of all, it is the one that people read. */
const errors: ReadonlyArray<readonly [code: string, says: string]> = [
  [
    "Effect.runPromise(Effect.provide(Producer.publish(Plain, 1), MemoryPubSub.layer()))",
    `Type '"needs at-least-once"' is not assignable to type 'never'.`
  ],
  [
    "Effect.runPromise(Effect.provide(Producer.publish(Deposit, 1), MemoryLists.layer()))",
    `Type '"needs transactional"' is not assignable to type 'never'.`
  ],
  [
    "Effect.runPromise(Effect.provide(Producer.publish(OrderPlaced, 1), MemoryStreams.layer()))",
    "Type 'Orders' is not assignable to type 'never'."
  ],
  [
    "Effect.runPromise(Effect.provide(Effect.never, Consumer.layer(consumer)))",
    "Type 'Orders' is not assignable to type 'never'."
  ],
  [
    "RedisPubSub.layer({ as: Ledger })",
    `Type 'typeof Ledger' is not assignable to type '"shop/Ledger promises transactional, and this layer keeps at-most-once"'.`
  ],
  [
    'RedisLists.layer({ prefix: "shop", as: Ledger })',
    `Type 'typeof Ledger' is not assignable to type '"shop/Ledger promises transactional, and this layer keeps at-least-once"'.`
  ],
  [
    "MemoryPubSub.layer({ as: Orders })",
    `Type 'typeof Orders' is not assignable to type '"shop/Orders promises at-least-once, and this layer keeps at-most-once"'.`
  ],
  [
    'Consumer.make(OrderPlaced, { group: "g" }).pipe(Consumer.transactional(() => Effect.succeed(Commit.make({}))))',
    `Type '"at-least-once"' is not assignable to type '"transactional"'.`
  ],
  [
    'Records.read(OrderPlaced, Commit.counter("total").value)',
    `Type 'Name<Orders, Guarantee>' is not assignable to type '"only a transactional topic has records"'.`
  ]
]
const wrong = `
import { Effect, Schema } from "effect"
import { Commit, Consumer, Producer, Records, Topic, Transport } from "waybill"
import { MemoryLists, MemoryPubSub, MemoryStreams } from "waybill/memory"
import { RedisLists, RedisPubSub } from "waybill/redis"
class Orders extends Transport.Tag<Orders>()("shop/Orders", { guarantee: "at-least-once" }) {}
class Ledger extends Transport.Tag<Ledger>()("shop/Ledger", { guarantee: "transactional" }) {}
const Plain = Topic.make("plain", { payload: Schema.Int })
const Deposit = Topic.make("deposits", { payload: Schema.Int, guarantee: "transactional" })
const OrderPlaced = Topic.make("orders.placed", { payload: Schema.Int, on: Orders })
const consumer = Consumer.make(OrderPlaced, { group: "g" }).pipe(Consumer.process(() => Effect.void))
${errors.map(([code]) => code).join("\n")}
`

describe("examples in docstrings and pages", () => {
  beforeAll(() => {
    mkdirSync(folder, { recursive: true })
    for (const { code, name } of examples) writeFileSync(join(folder, name), `${code}\nexport {}\n`)
    writeFileSync(join(folder, "wrong.ts"), wrong)
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
  ])("compile with %s, and what is wrong is told in words", { timeout: 240_000 }, (_, compiler) => {
    const { status, stdout } = spawnSync(process.execPath, [compiler, "--noEmit", "-p", folder], {
      cwd: root,
      encoding: "utf8"
    })
    const found = stdout.split(/\n(?=\S)/).map((text) => text.trimEnd())
    const expected = found.filter((text) => /^\S*wrong\.ts\(/.test(text))
    assert.deepStrictEqual(
      found.filter((text) => text !== "" && !expected.includes(text)),
      []
    )
    assert.deepStrictEqual(
      expected.map((text) => text.split("\n").at(-1)?.trim()),
      errors.map(([, says]) => says)
    )
    assert.notStrictEqual(status, 0)
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
