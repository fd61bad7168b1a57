/**
 * Builds the packages that are published, packs each one, and checks the tarball as its users will get it: in the
 * repository `exports` points at the sources, and only packing puts the published map in its place. The tarballs stay in
 * `tarballs`, for programs that want to try what is not published yet.
 */
import { spawnSync } from "node:child_process"
import { mkdirSync, readdirSync, rmSync } from "node:fs"
import { join } from "node:path"

const published = ["packages/waybill", "packages/testing", "packages/cli"]

/** Quiet when all is well, because three tools' reports on each package would hide the one line that matters. */
const run = (program: string, ...args: ReadonlyArray<string>): void => {
  const { status, error, stdout, stderr } = spawnSync(program, args, { encoding: "utf8" })
  if (status === 0) return
  console.error(stdout, stderr)
  throw error ?? new Error(`${program} ${args.join(" ")} ended with ${status}`)
}

const tarballs = join(import.meta.dirname, "../tarballs")
try {
  rmSync(tarballs, { recursive: true, force: true })
  mkdirSync(tarballs)
  for (const directory of published) rmSync(join(directory, "dist"), { recursive: true, force: true })
  // From the beginning: what tsc remembers of the last build is not in `dist`, which is gone.
  run("tsc", "--build", "--force", "tsconfig.build.json", "packages/cli/tsconfig.build.json")
  run("pnpm", "--dir", "packages/cli", "run", "page")
  for (const directory of published) run("pnpm", "--dir", directory, "pack", "--pack-destination", tarballs)
  for (const tarball of readdirSync(tarballs)) {
    run("publint", "--strict", join(tarballs, tarball))
    // The command has a program and nothing to import, so there are no types to look at.
    if (!tarball.startsWith("waybill-cli")) run("attw", "--profile", "esm-only", join(tarballs, tarball))
    console.log(`${tarball}: built, packed, publint and attw have nothing to say`)
  }
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  process.exitCode = 1
}
