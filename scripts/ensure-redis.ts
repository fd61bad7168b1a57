/**
 * Makes sure that the tests find a Redis server program, and installs the Debian package where that is allowed.
 *
 * The tests start, stop and kill servers of their own, so a server that is already running, at `REDIS_URL` or elsewhere,
 * is neither needed nor touched.
 */
import { spawnSync } from "node:child_process"
import { existsSync, rmSync, writeFileSync } from "node:fs"

const programs = ["redis-server", "valkey-server"]
const onPath = () => programs.find((name) => spawnSync(name, ["--version"], { stdio: "ignore" }).status === 0)

/** Debian starts a service as it installs it, unless this file says no; the tests want the program, not a daemon. */
const policy = "/usr/sbin/policy-rc.d"

const install = (): void => {
  const mayInstall = process.getuid?.() === 0 && spawnSync("apt-get", ["--version"], { stdio: "ignore" }).status === 0
  if (!mayInstall) return
  console.log("No redis-server on the PATH: installing the package redis-server with apt-get.")
  const guarded = !existsSync(policy)
  if (guarded) writeFileSync(policy, "#!/bin/sh\nexit 101\n", { mode: 0o755 })
  try {
    const apt = (...args: ReadonlyArray<string>) =>
      spawnSync("apt-get", ["-qq", ...args], {
        env: { ...process.env, DEBIAN_FRONTEND: "noninteractive" },
        stdio: ["ignore", "ignore", "inherit"]
      })
    apt("update")
    apt("install", "-y", "--no-install-recommends", "redis-server")
  } finally {
    if (guarded) rmSync(policy)
  }
}

if (onPath() === undefined) {
  install()
  if (onPath() === undefined) {
    console.error(
      "The tests need a Redis server program: install redis-server (or valkey-server) 7.0 or newer so that it is on the PATH."
    )
    process.exitCode = 1
  }
}
