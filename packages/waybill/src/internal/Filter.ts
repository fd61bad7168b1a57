/**
 * The filter of a group, in the one form in which members compare it and scripts apply it.
 *
 * @module
 */
import type { Filter, Message } from "../Message.ts"
import { TopicConflict } from "../TransportError.ts"

/** JSON: `k`, the keys, and `h`, the values of each header, all as names of objects in order; "" without a filter. */
export const textOf = (filter: Filter | undefined): string => {
  const { headers, key } = filter ?? {}
  if (key === undefined && headers === undefined) return ""
  const h = Object.entries(headers ?? {}).toSorted(([a], [b]) => (a < b ? -1 : 1))
  return JSON.stringify({
    ...(key && { k: namesOf(key) }),
    h: Object.fromEntries(h.map(([name, values]) => [name, namesOf(values)]))
  })
}

const namesOf = (values: ReadonlyArray<string>) => Object.fromEntries(values.toSorted().map((value) => [value, 1]))

/** Whether the group wants the message. */
export const wants = (filter: Filter | undefined, { headers, key }: Pick<Message, "headers" | "key">): boolean => {
  if (filter === undefined) return true
  if (filter.key !== undefined && (key === undefined || !filter.key.includes(key))) return false
  return Object.entries(filter.headers ?? {}).every(([name, values]) => {
    const value = Object.hasOwn(headers, name) ? headers[name] : undefined
    return value !== undefined && values.includes(value)
  })
}

/** Members of one group want different messages. */
export const disagreement = (topic: string, mine: string, theirs: string): TopicConflict => {
  const filtered = (text: string) =>
    text === "" ? "a group that wants every message" : `a group that wants only ${text}`
  return new TopicConflict({ topic, expected: filtered(mine), found: filtered(theirs) })
}
