/**
 * What a user's value looks like, at a price that does not grow with it: a failure may hold megabytes, circles, and
 * properties that throw when they are read.
 *
 * @module
 */

/** How many characters and parts of a value are looked at. */
const budget = 16_384
/** How much of a large value is shown: levels, parts of each, and characters of each text. */
const maxDepth = 4
const maxParts = 20
const maxText = 4096
const maxTextInside = 1000

/** The names of a value's parts. Listing them is what a large value costs most, so a render lists those of each but once. */
export type Names = WeakMap<object, ReadonlyArray<string>>

/** Whether all of it is small enough to be shown as its own type would show it. Getters are not called. */
export const isSmall = (value: unknown, names: Names): boolean => {
  let left = budget
  const seen = new Set<object>()
  const open: Array<unknown> = [value]
  while (open.length > 0) {
    const next = open.pop()
    left--
    if (typeof next === "string") left -= next.length
    else if (typeof next === "object" && next !== null && !seen.has(next)) {
      seen.add(next)
      const keys = keysOf(next, names)
      const size = sizeOf(next, keys)
      if (size > left) return false
      for (const [, part] of partsOf(next, Infinity, keys)) open.push(part)
      left -= size
    }
    if (left < 0) return false
  }
  return true
}

/** The value as text, cut short wherever it is long. */
export const outline = (value: unknown, names: Names, depth = 0): string => {
  const most = depth === 0 ? maxText : maxTextInside
  if (typeof value === "string") return value.length <= most ? value : `${value.slice(0, most)}...`
  if (typeof value === "function") return "[function]"
  if (typeof value !== "object" || value === null) return String(value)
  try {
    const said = value instanceof Error ? read(value, "message") : undefined
    const name = typeof said === "string" ? `${nameOf(value)}: ${outline(said, names, depth)}` : nameOf(value)
    if (depth === maxDepth) return name
    const keys = keysOf(value, names)
    const size = sizeOf(value, keys)
    const parts = partsOf(value, maxParts, keys).filter(([key]) => key !== "message" || typeof said !== "string")
    const shown = parts.map(([key, part]) => `${key.slice(0, 100)}: ${outline(part, names, depth + 1)}`)
    if (size > shown.length) shown.push("...")
    return shown.length === 0 ? name : `${name} { ${shown.join(", ")} }`
  } catch {
    return "[cannot be read]"
  }
}

const nameOf = (value: object): string => {
  for (const key of ["_tag", "name"]) {
    const found = read(value, key)
    if (typeof found === "string") return found.slice(0, 100)
  }
  if (Array.isArray(value)) return `Array(${value.length})`
  const made: unknown = read(Object.getPrototypeOf(value) ?? {}, "constructor")
  const name = typeof made === "function" ? read(made, "name") : undefined
  return typeof name === "string" ? name.slice(0, 100) : "Object"
}

/** Of a value with named parts. There is no way to ask for some of them only. */
const keysOf = (value: object, names: Names): ReadonlyArray<string> => {
  const known = names.get(value)
  if (known !== undefined) return known
  try {
    if (Array.isArray(value) || ArrayBuffer.isView(value)) return []
    const keys = Object.keys(value)
    names.set(value, keys)
    return keys
  } catch {
    return []
  }
}

/** How many parts it has, or bytes: without looking at them. */
const sizeOf = (value: object, keys: ReadonlyArray<string>): number => {
  try {
    if (Array.isArray(value)) return value.length
    if (ArrayBuffer.isView(value)) return value.byteLength
    if (value instanceof Map || value instanceof Set) return value.size
    return keys.length
  } catch {
    return 0
  }
}

/** The first parts, and of an error what it says: neither is listed among its keys. */
const partsOf = (
  value: object,
  most: number,
  named: ReadonlyArray<string>
): Array<readonly [key: string, part: unknown]> => {
  try {
    if (ArrayBuffer.isView(value)) return []
    const hidden = value instanceof Error ? ["message", "cause", "errors"] : []
    const keys = Array.isArray(value) ? Array.from({ length: Math.min(value.length, most) }, (_, i) => String(i)) : []
    const parts: Array<readonly [string, unknown]> = []
    if (value instanceof Map || value instanceof Set) {
      for (const part of value) {
        if (parts.length === most) break
        parts.push([String(parts.length), part])
      }
    }
    if (!Array.isArray(value)) keys.push(...hidden, ...named.slice(0, most))
    for (const key of keys) {
      const part = read(value, key)
      if (part !== undefined) parts.push([key, part])
    }
    return parts
  } catch {
    return []
  }
}

/** What stands there, without running anything. */
const read = (value: object, key: string): unknown => Object.getOwnPropertyDescriptor(value, key)?.value
