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

const digests = new WeakMap<Script, string>()

/** The name under which the server caches the script; computed once a script. */
export const sha1 = (script: Script): string => {
  let digest = digests.get(script)
  if (digest === undefined) {
    digest = createHash("sha1").update(script.lua).digest("hex")
    digests.set(script, digest)
  }
  return digest
}

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
