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
