/**
 * Topic names that stand for all topics that fit them, as Redis understands `*`, `?` and `[...]`.
 *
 * @module
 */

/** Whether a topic's name stands for others. */
export const isGlob = (topic: string): boolean => /[*?[\]\\]/.test(topic)

/**
 * Tells whether a topic fits. What stands before the first slash of a name is a part of its own: a star ends there, and
 * a name without a slash fits no pattern with one.
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
