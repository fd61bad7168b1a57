/**
 * Pictures of the pages for the documents: what a reader sees there is what the programs show today.
 */
import { mkdirSync, statSync } from "node:fs"
import { join } from "node:path"
import { Console, Effect } from "effect"
import type { Page } from "playwright-core"

export const root = join(import.meta.dirname, "../..")

export const desktop = { viewport: { width: 1280, height: 760 }, colorScheme: "light" } as const
export const phone = { viewport: { width: 390, height: 780 }, colorScheme: "dark" } as const

/** Into `docs/images`. A picture that is too large for a document is an error. */
export const take = Effect.fnUntraced(function* (page: Page, name: string) {
  const path = join(root, "docs/images", `${name}.png`)
  mkdirSync(join(root, "docs/images"), { recursive: true })
  yield* Effect.promise(() => page.screenshot({ path, animations: "disabled", caret: "hide" }))
  const { size } = statSync(path)
  if (size > 150_000) return yield* Effect.die(new Error(`${path} has ${size} bytes`))
  yield* Console.log(`${path}: ${size} bytes`)
})
