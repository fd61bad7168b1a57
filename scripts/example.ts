/**
 * `pnpm example`: lists the examples, or runs one. An example is a folder under `examples`; its `package.json` says in
 * `description` what it shows and in `main` where it begins, and nothing else has to know of it.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, Option, Runtime, Schema } from "effect"
import { Argument, CliConfig, Command, GlobalFlag } from "effect/cli"

const root = join(import.meta.dirname, "../examples")

const Manifest = Schema.Struct({
  description: Schema.NonEmptyString,
  main: Schema.NonEmptyString,
  /** False: it is about something else, and runs in memory only. */
  redis: Schema.optional(Schema.Boolean)
})
const decode = Schema.decodeUnknownSync(Schema.fromJsonString(Manifest))

const manifestOf = (name: string) => join(root, name, "package.json")
const examples = new Map(
  readdirSync(root)
    // What git leaves of an example that another branch has is no example.
    .filter((name) => existsSync(manifestOf(name)))
    .map((name) => [name, decode(readFileSync(manifestOf(name), "utf8"))])
)

const width = Math.max(...[...examples.keys()].map((name) => name.length))
const list = [...examples].map(([name, { description }]) => `  ${name.padEnd(width)}  ${description}`).join("\n")

/** The answer to a name that is none. The list has been printed. */
class NoSuchExample extends Schema.TaggedError<NoSuchExample>()("NoSuchExample", { name: Schema.String }) {
  override readonly [Runtime.errorReported] = false
  override readonly [Runtime.errorExitCode] = 2
}

/** An example with a page for browsers has it built before it is started for the first time. */
const pageOf = Effect.fnUntraced(function* (name: string) {
  const configFile = join(root, name, "page/vite.config.ts")
  if (!existsSync(configFile) || existsSync(join(root, name, "dist/page/index.html"))) return
  yield* Console.error("Building its page, once ...")
  yield* Effect.promise(async () => {
    const { build } = await import("vite")
    await build({ configFile, logLevel: "error" })
  })
})

// What stands behind the name belongs to the example, `--help` included.
const [, , ...args] = process.argv
const end = args.findIndex((arg) => !arg.startsWith("-")) + 1
const [own, passedOn] = end === 0 ? [args, []] : [args.slice(0, end), args.slice(end)]

const command = Command.make(
  "example",
  {
    name: Argument.String("name").pipe(
      Argument.withDescription("The example to run; what follows is passed on to it"),
      Argument.optional
    )
  },
  Effect.fnUntraced(function* ({ name }) {
    if (Option.isNone(name)) return yield* Console.log(list)
    const manifest = examples.get(name.value)
    if (manifest === undefined) {
      yield* Console.error(`There is no example ${name.value}. There are:\n\n${list}`)
      return yield* new NoSuchExample({ name: name.value })
    }
    if (manifest.redis === false && process.env["REDIS_URL"] !== undefined) {
      yield* Console.error(`${name.value} runs in memory: it does not use REDIS_URL.\n`)
    }
    yield* pageOf(name.value)
    // It takes this process over, as if it had been started alone.
    const main = join(root, name.value, manifest.main)
    process.argv = [process.execPath, main, ...passedOn]
    yield* Effect.promise(() => import(pathToFileURL(main).href))
  })
).pipe(
  Command.withDescription(
    `Lists the examples, or runs one: in memory, or on the Redis of REDIS_URL where it is about Redis.\n\n${list}`
  )
)

Command.runWith(command, { version: "0.0.0" })(own).pipe(
  Effect.provide(CliConfig.layer({ builtIns: [GlobalFlag.Help] })),
  Effect.provide(NodeServices.layer),
  NodeRuntime.runMain
)
