/**
 * Programs that tests start as processes, each bundled into one file: Node takes most of a second of a core to load the
 * thousand files that they are made of. A bundle is made again when a source has changed.
 */
import { createHash } from "node:crypto"
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync } from "node:fs"
import { dirname, join, relative } from "node:path"
import type { Plugin } from "vite"

const root = join(import.meta.dirname, "..")
const cache = join(root, "node_modules/.cache/programs")

const filesOf = (path: string): ReadonlyArray<string> =>
  readdirSync(path, { withFileTypes: true }).flatMap((entry) => {
    const one = join(path, entry.name)
    if (!entry.isDirectory()) return [one]
    return /^(?:node_modules|dist|\.examples)$/.test(entry.name) ? [] : filesOf(one)
  })

/** Of everything that a program may be made of. */
const version = (): string => {
  const hash = createHash("sha256")
  const folders = ["packages", "test", "examples"].map((name) => join(root, name)).filter(existsSync)
  for (const file of folders.flatMap(filesOf)) {
    // Other tests write sources of their own, and delete them.
    const found = statSync(file, { throwIfNoEntry: false })
    hash.update(`${file} ${found?.mtimeMs} ${found?.size}\n`)
  }
  return hash.digest("hex").slice(0, 16)
}

/** What stands beside a source is beside it still. */
const inPlace: Plugin = {
  name: "in-place",
  transform: (code, id) =>
    id.includes("node_modules") ? undefined : code.replaceAll("import.meta.dirname", JSON.stringify(dirname(id)))
}

const bundle = async (path: string): Promise<string> => {
  const folder = join(cache, version())
  const program = join(folder, relative(root, path), "program.mjs")
  if (existsSync(program)) return program
  mkdirSync(dirname(dirname(program)), { recursive: true })
  const outDir = mkdtempSync(join(folder, "making-"))
  const { build } = await import("vite")
  await build({
    root,
    configFile: false,
    logLevel: "error",
    plugins: [inPlace],
    ssr: { noExternal: true },
    build: { ssr: path, outDir, minify: false, rolldownOptions: { output: { entryFileNames: "program.mjs" } } }
  })
  try {
    renameSync(outDir, dirname(program))
  } catch {
    // Another process was quicker.
    rmSync(outDir, { recursive: true })
  }
  const hourAgo = Date.now() - 3_600_000
  for (const old of readdirSync(cache).map((name) => join(cache, name))) {
    if ((statSync(old, { throwIfNoEntry: false })?.mtimeMs ?? hourAgo) < hourAgo) rmSync(old, { recursive: true })
  }
  return program
}

const made = new Map<string, Promise<string>>()

/** Where the bundle of the program at this path is. */
export const bundled = (path: string): Promise<string> => {
  const found = made.get(path) ?? bundle(path)
  made.set(path, found)
  return found
}
