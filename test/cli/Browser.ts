/**
 * A real Chromium, where the machine has one. It asks nobody but the page's own server.
 */
import { existsSync } from "node:fs"
import { Effect, type Scope } from "effect"
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core"

const path = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync)

/** `scripts/ensure-programs.ts` installs it where it may. */
export const hasBrowser = path !== undefined

/** The last list of this name is the one that counts: what Playwright switches off, and the toolbar, which is a page of its own. */
const withoutFeatures = [
  "HttpsUpgrades",
  "HttpsFirstBalancedModeAutoEnable",
  "LensOverlay",
  "MediaRouter",
  "PaintHolding",
  "OptimizationHints",
  "NetworkTimeServiceQuerying",
  "AimEnabled",
  "PreconnectToSearch",
  "InitialWebUI",
  "WebUIReloadButton",
  "WebUIToolbar"
]

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
        "--disable-sync",
        `--disable-features=${withoutFeatures.join(",")}`
      ]
    })
  ),
  (browser) => Effect.promise(() => browser.close())
)

/** A window as another person has it, which closes with the scope: one that is left open goes on asking and drawing. */
export const windowOf = (
  browser: Browser,
  options: BrowserContextOptions = {}
): Effect.Effect<Page, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.promise(() => browser.newPage(options)),
    (page) => Effect.promise(() => page.close())
  )
