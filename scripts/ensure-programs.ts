/**
 * Makes sure that the tests find a Redis server program and a browser, and installs the Debian packages where that is
 * allowed. Without a server there is nothing to test; without a browser the tests of web pages are skipped, visibly.
 *
 * The tests start, stop and kill servers of their own, so a server that is already running, at `REDIS_URL` or elsewhere,
 * is neither needed nor touched.
 */
import { spawnSync } from "node:child_process"
import { existsSync, rmSync, writeFileSync } from "node:fs"

const answers = (name: string) => spawnSync(name, ["--version"], { stdio: "ignore" }).status === 0
const hasServer = () => ["redis-server", "valkey-server"].some(answers)
const hasBrowser = () =>
  ["chromium", "chromium-browser", "google-chrome"].some((name) => existsSync(`/usr/bin/${name}`))

/** Debian starts a service as it installs it, unless this file says no; the tests want the program, not a daemon. */
const policy = "/usr/sbin/policy-rc.d"

const install = (...packages: ReadonlyArray<string>): void => {
  const mayInstall = process.getuid?.() === 0 && spawnSync("apt-get", ["--version"], { stdio: "ignore" }).status === 0
  if (!mayInstall) return
  console.log(`Installing with apt-get what the tests need: ${packages.join(", ")}.`)
  const guarded = !existsSync(policy)
  if (guarded) writeFileSync(policy, "#!/bin/sh\nexit 101\n", { mode: 0o755 })
  try {
    const apt = (...args: ReadonlyArray<string>) =>
      spawnSync("apt-get", ["-qq", ...args], {
        env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
        stdio: ["ignore", "ignore", "inherit"]
      })
    apt("update")
    for (const name of packages) apt("install", "-y", "--no-install-recommends", name)
  } finally {
    if (guarded) rmSync(policy)
  }
}

const missing = [...(hasServer() ? [] : ["redis-server"]), ...(hasBrowser() ? [] : ["chromium"])]
if (missing.length > 0) install(...missing)
if (!hasBrowser())
  console.log("No Chromium in /usr/bin: the tests of web pages are skipped. Install chromium to run them.")
if (!hasServer()) {
  console.error(
    "The tests need a Redis server program: install redis-server (or valkey-server) 7.0 or newer so that it is on the PATH."
  )
  process.exitCode = 1
}
