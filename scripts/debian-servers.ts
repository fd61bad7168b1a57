/**
 * Brings server programs of Debian's newer suites onto a machine that has an older one, and changes nothing on it: apt
 * reads its own list of sources again with another suite in it, downloads a server with everything it is linked with,
 * loader included, and it is unpacked into a folder that git ignores.
 */
import { spawnSync } from "node:child_process"
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"

const cache = join(import.meta.dirname, "../.tmp/servers")
/** The stable one first: where both have a version, that is the one that people run. */
const suites = ["trixie", "sid"]
const packages = ["redis-server", "valkey-server"] as const

/** A server that can be had: `redis-8.0` from the package `redis-server` in the suite `trixie`. */
export interface Candidate {
  readonly name: string
  readonly version: string
  readonly suite: string
  readonly package: (typeof packages)[number]
}

/** Why something cannot be had, in words for the table. */
export class NotHad extends Error {}

/** What each suite offers, one of each `major.minor`; and which suites could not be asked, with the reason. */
export const offered = (): { candidates: ReadonlyArray<Candidate>; refused: ReadonlyArray<string> } => {
  const candidates = new Map<string, Candidate>()
  const refused: Array<string> = []
  for (const suite of suites) {
    try {
      const options = prepare(suite)
      apt("apt-get", options, "-qq", "update")
      for (const name of packages) {
        const version = versionOf(
          /Candidate: (?:\d+:)?(\S+)/.exec(apt("apt-cache", options, "policy", name))?.[1] ?? ""
        )
        if (version === undefined) refused.push(`${suite} has no ${name}`)
        else if (!candidates.has(shortName(name, version)))
          candidates.set(shortName(name, version), { name: shortName(name, version), version, suite, package: name })
      }
    } catch (error) {
      if (!(error instanceof NotHad)) throw error
      refused.push(`${suite} could not be asked: ${error.message}`)
    }
  }
  return { candidates: [...candidates.values()], refused }
}

/** The path of a program that runs this server; it is downloaded once a version. */
export const bring = (candidate: Candidate): string => {
  const root = join(cache, candidate.suite, `${candidate.package}-${candidate.version}`)
  const program = join(root, "server")
  if (existsSync(program)) return program
  const options = prepare(candidate.suite)
  apt("apt-get", options, "-qq", "clean")
  // Nothing counts as installed, so what comes is complete.
  apt("apt-get", options, "-qq", "-y", "--download-only", "install", candidate.package)
  const archives = join(cache, candidate.suite, "archives")
  const unpacked = `${root}.new`
  rmSync(unpacked, { recursive: true, force: true })
  mkdirSync(unpacked, { recursive: true })
  for (const file of readdirSync(archives).filter((name) => name.endsWith(".deb"))) {
    run("dpkg", ["-x", join(archives, file), unpacked])
  }
  apt("apt-get", options, "-qq", "clean")
  rmSync(root, { recursive: true, force: true })
  renameSync(unpacked, root)
  writeFileSync(program, runner(root, candidate.package))
  chmodSync(program, 0o755)
  return program
}

/** What the program says of itself, such as `redis-8.0` and `8.0.2`; nothing when it does not run. */
export const identify = (program: string): { name: string; version: string } | undefined => {
  const { status, stdout } = spawnSync(program, ["--version"], { encoding: "utf8" })
  const version = /v=(\d+\.\d+\.\d+)/.exec(stdout ?? "")?.[1]
  if (status !== 0 || version === undefined) return undefined
  return { name: shortName(/^Valkey/i.test(stdout) ? "valkey-server" : "redis-server", version), version }
}

const shortName = (name: (typeof packages)[number], version: string) =>
  `${name.replace("-server", "")}-${version.split(".").slice(0, 2).join(".")}`

const versionOf = (text: string): string | undefined => /^\d+\.\d+\.\d+/.exec(text)?.[0]

/** A program linked for a newer system runs with the loader and the libraries of that system. */
const runner = (root: string, name: string): string => {
  const libraries = readdirSync(join(root, "usr/lib"), { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && entry.name.includes("-linux-"))
    .map((entry) => join(root, "usr/lib", entry.name))
  const loader = libraries
    .flatMap((directory) => readdirSync(directory).map((file) => join(directory, file)))
    .find((path) => /\/ld-linux[^/]*\.so\.\d+$/.test(path))
  if (loader === undefined) throw new NotHad("the packages brought no loader")
  const quoted = (path: string) => `'${path.replaceAll("'", String.raw`'\''`)}'`
  const path = libraries.map(quoted).join(":")
  return `#!/bin/sh\nexec ${quoted(loader)} --library-path ${path} ${quoted(join(root, "usr/bin", name))} "$@"\n`
}

/** Writes the private list of sources, and returns the options that make apt use it and nothing of the machine's. */
const prepare = (suite: string): ReadonlyArray<string> => {
  const root = join(cache, suite)
  const sources = join(root, "sources")
  for (const directory of ["lists/partial", "archives/partial", "sources"]) {
    mkdirSync(join(root, directory), { recursive: true })
  }
  writeFileSync(join(root, "status"), "")
  const { extension, text } = sourcesOf(suite)
  writeFileSync(join(sources, `waybill.${extension}`), text)
  return [
    "Dir::Etc::SourceList=/dev/null",
    `Dir::Etc::SourceParts=${sources}`,
    `Dir::State::Lists=${join(root, "lists")}`,
    `Dir::State::status=${join(root, "status")}`,
    `Dir::Cache=${root}`,
    `Dir::Cache::archives=${join(root, "archives")}`,
    "Dir::Etc::Preferences=/dev/null",
    "Dir::Etc::PreferencesParts=/dev/null",
    "Acquire::Languages=none",
    "APT::Install-Recommends=false",
    "APT::Get::List-Cleanup=false",
    "Debug::NoLocking=true"
  ].flatMap((option) => ["-o", option])
}

/** The first source of this machine that has its own release, in whichever of the two forms, with another suite in it. */
const sourcesOf = (suite: string): { extension: "sources" | "list"; text: string } => {
  if (spawnSync("apt-get", ["--version"], { stdio: "ignore" }).status !== 0) throw new NotHad("there is no apt here")
  const release = existsSync("/etc/os-release") ? readFileSync("/etc/os-release", "utf8") : ""
  const codename = /^VERSION_CODENAME="?([a-z]+)/m.exec(release)?.[1]
  if (!/^ID="?debian/m.test(release)) throw new NotHad("this is not Debian")
  const directory = "/etc/apt/sources.list.d"
  const files = [
    "/etc/apt/sources.list",
    ...(existsSync(directory) ? readdirSync(directory).map((name) => join(directory, name)) : [])
  ].filter((path) => existsSync(path))
  const own = (suites: string) =>
    suites.split(/\s+/).some((name) => ["stable", "testing", "unstable", "sid", codename].includes(name))

  for (const path of files.filter((path) => path.endsWith(".sources"))) {
    for (const stanza of readFileSync(path, "utf8").split(/\n\s*\n/)) {
      const field = (name: string) => new RegExp(`^${name}:(.*)$`, "im").exec(stanza)?.[1]?.trim() ?? ""
      if (!own(field("Suites")) || !/\bdeb\b/.test(field("Types")) || /^no$/i.test(field("Enabled"))) continue
      const text = stanza.replace(/^Suites:.*$/im, `Suites: ${suite}`).replace(/^Types:.*$/im, "Types: deb")
      return { extension: "sources", text: `${text.trim()}\n` }
    }
  }
  for (const path of files.filter((path) => path.endsWith(".list"))) {
    for (const line of readFileSync(path, "utf8").split("\n")) {
      const entry = /^\s*deb(\s+(?:\[[^\]]*\]\s+)?\S+\s+)(\S+)(\s.*\bmain\b.*)$/.exec(line)
      if (entry !== null && own(entry[2] ?? "")) return { extension: "list", text: `deb${entry[1]}${suite} main\n` }
    }
  }
  throw new NotHad("apt has no source of Debian's main archive here")
}

const apt = (
  program: "apt-get" | "apt-cache",
  options: ReadonlyArray<string>,
  ...args: ReadonlyArray<string>
): string => run(program, [...options, ...args])

const run = (program: string, args: ReadonlyArray<string>): string => {
  const { error, status, stderr, stdout } = spawnSync(program, args, {
    encoding: "utf8",
    env: { ...process.env, LC_ALL: "C", DEBIAN_FRONTEND: "noninteractive" },
    timeout: 300_000
  })
  if (status === 0) return stdout
  // Which host said it stands in apt's words and in no file of ours.
  const words = (stderr ?? "").trim().split("\n").at(-1) || error?.message || `status ${status}`
  throw new NotHad(`${program} ${args.find((word) => /^[a-z]+$/.test(word)) ?? ""}: ${words}`)
}
