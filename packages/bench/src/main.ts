/**
 * `pnpm bench`: measures Waybill beside alternatives that one could use or write instead, on this machine, in one run.
 */
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { Console, Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import * as Checkout from "../../../scripts/Checkout.ts"
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
    against: Flag.String("against").pipe(
      Flag.withDescription("Measure this library beside another commit of it, and nothing else: nine rounds a measure"),
      Flag.optional
    ),
    profile: Flag.String("profile").pipe(
      Flag.withDescription("Write a CPU profile of every contender to this directory"),
      Flag.optional
    )
  },
  Effect.fnUntraced(function* (options) {
    const commit = Option.getOrUndefined(options.against)
    const other = commit === undefined ? undefined : { commit, checkout: yield* Checkout.make(commit) }
    const chosen = measures.filter(
      ({ name, own }) =>
        (Option.isNone(options.only) || options.only.value === name) && (other === undefined || own.length > 0)
    )
    const terms = { quick: options.quick, profile: Option.getOrUndefined(options.profile) }
    const results: Array<Result> = []
    const failures: Array<string> = []
    for (const measure of chosen) {
      yield* (other === undefined ? Bench.run(measure, terms) : Bench.runAgainst(measure, other, terms)).pipe(
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
  }, Effect.scoped)
).pipe(Command.withDescription("Measures Waybill beside what one could use or write instead."))

bench.pipe(Command.run({ version: "0.0.0" }), Effect.provide(NodeServices.layer), NodeRuntime.runMain)
