/**
 * Topic names that stand for all topics that match them, with `*`, `?` and `[...]` as in Redis.
 *
 * @module
 */

/** Whether a topic's name is a pattern. */
export const isGlob = (topic: string): boolean => /[*?[\]\\]/.test(topic)

/**
 * Matches topic names. The part before the first slash is matched separately: a star ends there, and a name without a slash
 * matches no pattern with one.
 */
export const matcher = (glob: string): ((topic: string) => boolean) => {
  if (!isGlob(glob)) return (topic) => topic === glob
  const slash = glob.indexOf("/")
  const [first, rest] = slash < 0 ? [glob, ""] : [glob.slice(0, slash), glob.slice(slash)]
  const expression = new RegExp(`^${translated(first, "[^/]")}${translated(rest, ".")}$`, "su")
  return (topic) => expression.test(topic)
}

const translated = (glob: string, any: string): string =>
  glob.replace(/\\(.)|\[(\^?)((?:\\.|[^\]\\])*)\]|(.)/gsu, (_, escaped, not, set, plain) => {
    if (escaped !== undefined) return literal(escaped)
    if (set !== undefined) return `[${not}${set.replace(/\\(.)|([[^&~])/gsu, "\\$1$2")}]`
    return plain === "*" ? `${any}*` : plain === "?" ? any : literal(plain)
  })

const literal = (character: string): string => character.replace(/[\\^$.*+?()[\]{}|/]/gu, "\\$&")
