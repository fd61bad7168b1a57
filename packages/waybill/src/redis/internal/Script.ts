/**
 * A Lua script and the name errors know it by.
 *
 * @module
 */
import { createHash } from "node:crypto"

export interface Script {
  readonly name: string
  readonly lua: string
}

/** What is sent to the server, and the name under which the server caches it. */
export interface Sent {
  readonly text: string
  readonly sha1: string
}

const sents = new WeakMap<Script, Sent>()

/** Computed once a script. */
export const sent = (script: Script): Sent => {
  let found = sents.get(script)
  if (found === undefined) {
    const text = guarded(script.lua)
    found = { text, sha1: createHash("sha1").update(text).digest("hex") }
    sents.set(script, found)
  }
  return found
}

/**
 * A script that writes asks for all its permissions before it does anything: one that is refused in the middle has
 * written already, and nothing takes that back. Servers that cannot tell let it pass. What a script does with `pcall` it can
 * do without. A script that need not ask in every call says where it asks, with a line that says `-- permissions`.
 */
const guarded = (lua: string): string => {
  const [header = "", ...rest] = lua.split("\n")
  if (!header.startsWith("#!lua") || header.includes("no-writes")) return lua
  const commands = new Set(
    [...lua.matchAll(/\b(?:call|ask)\('([A-Z]+)'(?:, '([A-Z]+)')?/g)].map(([, command, sub]) =>
      sub === undefined ? `'${command}'` : `'${command}', '${sub}'`
    )
  )
  const checks = [...commands].map((command) => `  need(${command}, KEYS[1])`)
  const asking = [
    "if redis.acl_check_cmd then",
    "  local function need(...)",
    "    if redis.acl_check_cmd(...) then return end",
    "    local command = string.lower(select('#', ...) > 2 and (...) .. '|' .. select(2, ...) or (...))",
    '    error({err = "NOPERM this user has no permissions to run the \'" .. command .. "\' command"})',
    "  end",
    ...checks,
    "end"
  ].join("\n")
  return lua.includes(here) ? lua.replace(here, () => asking) : [header, asking, ...rest].join("\n")
}

const here = "-- permissions"

/**
 * The commands that may be in a script, a subcommand behind its command: every word in capitals between quotes. More
 * words than commands, but whoever asks can tell.
 */
export const commandsOf = (script: Script): ReadonlyArray<string> => {
  const found = new Set<string>()
  for (const [, word = "", next] of script.lua.matchAll(/'([A-Z]{3,})'(?=(?:, '([A-Z]{3,})')?)/g)) {
    found.add(word)
    if (next !== undefined) found.add(`${word} ${next}`)
  }
  return [...found]
}

/** Asks which of the commands in ARGV the user lacks; the first of them, in the words of the server, or nothing. */
export const firstDenied: Script = {
  name: "waybill/denied",
  lua: `#!lua flags=no-writes
for _, command in ipairs(ARGV) do
  local words = {}
  for word in string.gmatch(command, '%a+') do words[#words + 1] = word end
  words[#words + 1] = KEYS[1]
  -- What is no command raises an error.
  local known, allowed = pcall(redis.acl_check_cmd, unpack(words))
  if known and not allowed then return string.lower(string.gsub(command, ' ', '|')) end
end
`
}
