/**
 * `pnpm bench`: measures Waybill beside what one could use or write instead, on this machine, in one run.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import * as Bench from "./Bench.ts"
import { measures } from "./Measures.ts"
import { json, type Result, table } from "./Report.ts"

const names = measures.map(({ name }) => name)

const bench = Command.make(
  "bench",
  {
    quick: Flag.Boolean("quick").pipe(
      Flag.withDescription("Everything in under a minute, with smaller numbers and fewer rounds"),
      Flag.withDefault(false)
    ),
    json: Flag.Boolean("json").pipe(
      Flag.withDescription("Print the results as one JSON object on the last line"),
      Flag.withDefault(false)
    ),
    only: Flag.Literals("only", names).pipe(Flag.withDescription("Run this measure alone"), Flag.optional),
    profile: Flag.String("profile").pipe(
      Flag.withDescription("Write a CPU profile of every contender to this directory"),
      Flag.optional
    )
  },
  Effect.fnUntraced(function* (options) {
    const chosen = measures.filter(({ name }) => Option.isNone(options.only) || options.only.value === name)
    const results: Array<Result> = []
    const failures: Array<string> = []
    for (const measure of chosen) {
      yield* Bench.run(measure, { quick: options.quick, profile: Option.getOrUndefined(options.profile) }).pipe(
        Effect.matchEffect({
          onSuccess: (found) => Effect.sync(() => void results.push(...found)),
          onFailure: (error) => {
            failures.push(`${measure.name}: ${error.message}`)
            return Console.error(`  failed: ${error.message}`)
          }
        })
      )
    }
    yield* Console.log(`\n${table(results)}`)
    for (const failure of failures) yield* Console.log(`no result for ${failure}`)
    if (options.json) yield* Console.log(json(results))
    if (failures.length > 0) process.exitCode = 1
  })
).pipe(Command.withDescription("Measures Waybill beside what one could use or write instead."))

bench.pipe(Command.run({ version: "0.0.0" }), Effect.provide(NodeServices.layer), NodeRuntime.runMain)
