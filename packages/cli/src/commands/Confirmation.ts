/**
 * The question before a change that cannot be undone. Without a terminal it can only be answered beforehand, with `--yes`.
 *
 * @module
 */
import { Effect } from "effect"
import { Flag, Prompt } from "effect/cli"
import { NotConfirmed } from "../Problem.ts"
import { safe } from "../Screen.ts"
import { askable } from "../Server.ts"

export const yes = Flag.Boolean("yes").pipe(
  Flag.withAlias("y"),
  Flag.withDescription("Skip the confirmation"),
  Flag.withDefault(false)
)

/** Fails unless the answer is yes. */
export const confirm = Effect.fnUntraced(function* (question: string) {
  yield* askable(`confirming "${question}" without --yes`)
  if (!(yield* Prompt.run(Prompt.Confirm({ message: safe(question), initial: false })))) {
    return yield* new NotConfirmed({ detail: "not done" })
  }
})
