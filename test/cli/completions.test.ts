/**
 * What `--completions bash` prints, in a real bash: it completes what is there, and nothing else.
 */
import { execFile } from "node:child_process"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { run } from "./Terminal.ts"

/** What bash offers after these words, the last of which may be a part of one. */
const complete = (script: string, ...words: ReadonlyArray<string>) =>
  Effect.callback<ReadonlyArray<string>, Error>((resume) => {
    const program = `
eval "$(cat)"
COMP_WORDS=("$@")
COMP_CWORD=$(( $# - 1 ))
COMP_LINE="$*"
COMP_POINT=\${#COMP_LINE}
wanted=$(complete -p waybill | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
"$wanted" waybill "\${COMP_WORDS[COMP_CWORD]}" "\${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "\${COMPREPLY[@]}"`
    const child = execFile("bash", ["--norc", "-c", program, "bash", "waybill", ...words], (error, stdout) =>
      resume(error === null ? Effect.succeed(stdout.split("\n").filter((line) => line !== "")) : Effect.fail(error))
    )
    child.stdin?.end(script)
  })

describe("the completions for bash", () => {
  it.live("complete subcommands, those of subcommands, and flags", () =>
    Effect.gen(function* () {
      const { out } = yield* run(["--completions", "bash"])
      assert.deepStrictEqual(yield* complete(out, "sta"), ["stats"])
      assert.deepStrictEqual((yield* complete(out, "p")).toSorted(), ["pause", "pending", "publish"])
      assert.deepStrictEqual(yield* complete(out, "dead", "red"), ["redrive"])
      assert.deepStrictEqual(yield* complete(out, "dead", "redrive", "--dr"), ["--dry-run"])
      assert.deepStrictEqual(yield* complete(out, "tail", "--gr"), ["--group"])
      assert.deepStrictEqual(yield* complete(out, "nothing-like-this"), [])
    })
  )
})
