/**
 * The sources of a commit in a folder of their own, with what they depend on installed: for comparing this library with
 * an older one. The folder is temporary, and this checkout is not touched.
 */
import { execFile } from "node:child_process"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { Effect, Schema, type Scope } from "effect"

/** The commit is not there: a shallow clone, an unknown name, or no git at all. */
export class NoCheckout extends Schema.TaggedError<NoCheckout>()("NoCheckout", {
  commit: Schema.String,
  message: Schema.String
}) {}

const root = join(import.meta.dirname, "..")

/** Answers the folder, which is removed with the scope. */
export const make = Effect.fn("Checkout.make")(function* (
  commit: string
): Effect.fn.Return<string, NoCheckout, Scope.Scope> {
  const run = (cwd: string, program: string, ...args: ReadonlyArray<string>) =>
    Effect.tryPromise({
      try: () => promisify(execFile)(program, args, { cwd }),
      catch: (cause) => new NoCheckout({ commit, message: `no checkout of ${commit}: ${String(cause)}` })
    })
  // An option of git would not be a commit.
  yield* run(root, "git", "rev-parse", "--verify", "--quiet", "--end-of-options", `${commit}^{commit}`)
  const folder = yield* Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "waybill-checkout-"))),
    (folder) =>
      Effect.andThen(
        Effect.ignore(run(root, "git", "worktree", "remove", "--force", folder)),
        Effect.promise(() => rm(folder, { recursive: true, force: true }))
      )
  )
  yield* run(root, "git", "worktree", "add", "--detach", folder, commit)
  yield* run(folder, "npx", "-y", "pnpm@12", "install", "--frozen-lockfile", "--prefer-offline")
  return folder
})
