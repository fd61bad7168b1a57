/**
 * A real Chromium, where the machine has one. It asks nobody but the page's own server.
 */
import { existsSync } from "node:fs"
import { Effect, type Scope } from "effect"
import { type Browser, chromium } from "playwright-core"

const path = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync)

/** `scripts/ensure-programs.ts` installs it where it may. */
export const hasBrowser = path !== undefined

export const browser: Effect.Effect<Browser, never, Scope.Scope> = Effect.acquireRelease(
  Effect.promise(() =>
    chromium.launch({
      executablePath: path!,
      args: [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync"
      ]
    })
  ),
  (browser) => Effect.promise(() => browser.close())
)
