/**
 * The log of failed attempts that travels with a message: the last ten, as lines of at most 200 bytes. A log is a
 * single text without white space, so that a store passes it on unchanged.
 *
 * A line is `|`, then attempt number, consumer, tag and message separated by commas, then `@` and the time it ended. Spaces
 * become `+`, and reserved characters are percent-encoded.
 *
 * @module
 */
import type { FailedAttempt, Said } from "../Failure.ts"
import type { DeadLetter, Retry } from "../Settlement.ts"

export const maxLines = 10
const maxBytes = 200
const maxConsumer = 64
const maxTag = 48
/** `@` and milliseconds since the epoch. */
const timeBytes = 14

const utf8 = new TextEncoder()

/** The log with a line for the attempt that ends like this. The caller appends the time. */
export const untimed = (log: string, attempt: number, consumer: string, ending: Retry | DeadLetter): string => {
  const { message, tag } = ending.failure ?? unsaid(ending)
  const head = `|${attempt},${fitting(consumer, maxConsumer)},${fitting(tag, maxTag)},`
  const line = `${head}${fitting(message, maxBytes - timeBytes - utf8.encode(head).length)}@`
  return `${lastOf(log, maxLines - 1)}${line}`
}

/** The same with the time. */
export const noted = (
  log: string,
  attempt: number,
  consumer: string,
  ending: Retry | DeadLetter,
  now: number
): string => untimed(log, attempt, consumer, ending) + now

/** How an attempt ends whose consumer died or stalled. */
export const consumerDied: Said = { tag: "ConsumerDied", message: "its consumer died or stalled" }

/** A log and its continuation. */
export const joined = (log: string, more: string): string => lastOf(log + more, maxLines)

const lastOf = (log: string, lines: number): string => {
  const all = log.split("|")
  return all.length - 1 <= lines ? log : ["", ...all.slice(-lines)].join("|")
}

/** For an ending without a failure of a handler. */
const unsaid = (ending: Retry | DeadLetter): Said => ({
  tag: ending._tag === "DeadLetter" ? ending.reason : "Retry",
  message: ending.cause.slice(0, maxBytes)
})

// White space as older versions define it, and the separators.
const reserved = /\s+|[%+,;=@|\p{Cc}]/gu

/** As many whole characters as fit. */
const fitting = (text: string, bytes: number): string => {
  const encoded = text
    .slice(0, maxBytes)
    .toWellFormed()
    .trim()
    .replace(reserved, (found) => (found.trim() === "" ? "+" : encodeURIComponent(found)))
  let left = bytes
  let end = 0
  let cut = 0
  for (const [character] of encoded.matchAll(/%..|[^]/gu)) {
    left -= utf8.encode(character).length
    if (left < 0) return `${encoded.slice(0, cut)}...`
    end += character.length
    if (left >= 3) cut = end
  }
  return encoded
}

/** The attempts in a log, the oldest first. Malformed lines are skipped. */
export const read = (log: string): ReadonlyArray<FailedAttempt> =>
  log.split("|").flatMap((line): ReadonlyArray<FailedAttempt> => {
    const parts = /^(\d{1,15}),([^,]*),([^,]*),([^,]*)@(\d{1,15})$/.exec(line)
    if (parts === null) return []
    const [, attempt, consumer = "", tag = "", message = "", endedAt] = parts
    return [
      {
        attempt: Number(attempt),
        endedAt: Number(endedAt),
        consumer: decoded(consumer),
        tag: decoded(tag),
        message: decoded(message)
      }
    ]
  })

const decoded = (text: string): string => {
  const spaced = text.replaceAll("+", " ")
  try {
    return decodeURIComponent(spaced)
  } catch {
    return spaced
  }
}
