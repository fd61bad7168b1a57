/**
 * Renders a user's value at a cost that does not grow with it: a failure may hold megabytes, cycles, and properties that
 * throw when they are read.
 *
 * @module
 */
import * as Redacted from "effect/Redacted"
import type * as Schema from "effect/Schema"

/** How many characters and parts of a value are inspected. */
const budget = 16_384
/** How much of a large value is shown: levels, parts of each, and characters of each text. */
const maxDepth = 4
const maxParts = 20
const maxText = 4096
const maxTextInside = 1000

/**
 * The names of a value's parts. Listing them is the main cost of a large value, so a render lists those of each
 * object once.
 */
export type Names = WeakMap<object, ReadonlyArray<string>>

/**
 * Whether the whole value is small enough to be rendered by its own type, and no part of it is `hidden`. Getters are not
 * called.
 */
export const isSmall = (value: unknown, names: Names, hidden?: (part: object) => boolean): boolean => {
  let left = budget
  const seen = new Set<object>()
  const open: Array<unknown> = [value]
  while (open.length > 0) {
    const next = open.pop()
    left--
    if (typeof next === "string") left -= next.length
    else if (typeof next === "object" && next !== null && !seen.has(next)) {
      if (hidden?.(next) === true) return false
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

/** The value as text, truncated wherever it is long. */
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

/** Where an error was created, as lines to follow its outline. Its message comes before them, however long it is. */
export const stackOf = (value: unknown): string => {
  try {
    const stack: unknown = value instanceof Error ? value.stack : undefined
    const lines = typeof stack === "string" ? /\n {4}at [^]*/.exec(stack.slice(-maxText)) : null
    return lines === null ? "" : lines[0].slice(0, maxTextInside)
  } catch {
    return ""
  }
}

/** The value as JSON of about that many characters, truncated wherever it is long. Throws where the value does. */
export const jsonOf = (value: object, characters: number): Schema.Json => {
  const names: Names = new WeakMap()
  let left = characters
  const part = (value: unknown, depth: number): Schema.Json => {
    left -= 8
    if (typeof value === "number" && Number.isFinite(value)) return value
    if (typeof value === "boolean" || value === null) return value
    if (typeof value !== "object" || depth === maxDepth || !isPlain(value)) {
      const most = Math.max(0, Math.min(left, maxTextInside))
      const text = opaque(value, names)
      left -= Math.min(most, text.length)
      return (text.length <= most ? text : `${text.slice(0, most)}...`).toWellFormed()
    }
    const keys = keysOf(value, names)
    const parts: Array<readonly [string, Schema.Json]> = []
    for (const [key, inner] of partsOf(value, maxParts, keys)) {
      left -= key.length
      if (left <= 0) break
      parts.push([key.toWellFormed(), part(inner, depth + 1)])
    }
    if (Array.isArray(value)) return parts.map(([, inner]) => inner)
    return Object.fromEntries(parts)
  }
  return part(value, 0)
}

/** Whether its named parts are all there is to it. */
const isPlain = (value: object): boolean =>
  !(value instanceof Date || value instanceof Map || value instanceof Set) &&
  !ArrayBuffer.isView(value) &&
  !Redacted.isRedacted(value)

const opaque = (value: unknown, names: Names): string => {
  if (Redacted.isRedacted(value)) return "<redacted>"
  if (value instanceof Date) return new Date(value).toJSON() ?? "Invalid Date"
  return outline(value, names, maxDepth - 1)
}

export const nameOf = (value: object): string => {
  for (const key of ["_tag", "name"]) {
    const found = read(value, key)
    if (typeof found === "string") return found.slice(0, 100)
  }
  if (Array.isArray(value)) return `Array(${value.length})`
  const made: unknown = read(Object.getPrototypeOf(value) ?? {}, "constructor")
  const name = typeof made === "function" ? read(made, "name") : undefined
  return typeof name === "string" ? name.slice(0, 100) : "Object"
}

/** The keys of a value with named parts. JavaScript has no way to list only some of them. */
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

/** How many parts or bytes it has, without reading them. */
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

/** The first parts; for an error also its name and message, which are not listed among its keys. */
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

/** The property's value, without running a getter. */
export const read = (value: object, key: string): unknown => Object.getOwnPropertyDescriptor(value, key)?.value
