/**
 * Output of the command: tables for people, one JSON value for programs. Text from a message is data: no byte of it
 * reaches the terminal as a control sequence.
 *
 * @module
 */
import { Console, Effect } from "effect"
import { CliOutput } from "effect/cli"
import type { Failure, Inspector, Message } from "waybill"
import { safe } from "./SafeText.ts"

export { safe }

export const number = (value: number): string => value.toLocaleString("en-US")

/** 1 dead letter, 2 dead letters, no dead letter. */
export const count = (value: number, noun: string): string =>
  `${value === 0 ? "no" : number(value)} ${noun}${value === 0 || value === 1 ? "" : "s"}`

/** At most `width` columns, the last one an ellipsis if the text was cut. */
export const shortened = (text: string, width: number): string =>
  CliOutput.displayWidth(text) <= width ? text : `${[...text].slice(0, width - 1).join("")}…`

/** Aligned columns; numbers are right-aligned. */
export const table = (head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string | number>>): string => {
  const cells = [
    head,
    ...rows.map((row) => row.map((cell) => (typeof cell === "number" ? cell.toLocaleString("en-US") : safe(cell))))
  ]
  const widths = head.map((_, column) => Math.max(...cells.map((row) => CliOutput.displayWidth(row[column] ?? ""))))
  const right = head.map((_, column) => rows.length > 0 && rows.every((row) => typeof row[column] === "number"))
  return cells
    .map((row) =>
      row
        .map((cell, column) => {
          const space = " ".repeat((widths[column] ?? 0) - CliOutput.displayWidth(cell))
          return right[column] === true ? space + cell : cell + space
        })
        .join("  ")
        .trimEnd()
    )
    .join("\n")
}

/** A body as text, or as base64 if it is not text; JSON output marks that with `base64: true`. */
export const bodyText = (body: Message.Body): string =>
  typeof body === "string" ? body : Buffer.from(body.buffer, body.byteOffset, body.byteLength).toString("base64")

/** A body on one line of a table or a log, marked if it is base64. */
export const bodyShown = (body: Message.Body): string =>
  typeof body === "string" ? safe(body) : `(base64) ${bodyText(body)}`

export const firstLine = (text: string): string => text.split("\n", 1)[0] ?? ""

/** A message for JSON output. */
export const messageJson = <A extends Message.Message & Pick<Partial<Inspector.DeadLetter>, "fields">>({
  body,
  ...rest
}: A) => ({
  ...rest,
  ...(rest.fields === undefined
    ? {}
    : { fields: rest.fields.map(([name, value]) => [name, bodyText(value)] as const) }),
  body: bodyText(body),
  ...(typeof body === "string" ? {} : ({ base64: true } as const))
})

/** The version, the key and the headers of a message, a line each. */
export const metadataLines = ({ headers, key, version }: Message.Message): ReadonlyArray<string> => [
  `version    ${version}`,
  `key        ${key === undefined ? "" : safe(key)}`,
  ...Object.entries(headers).map(([name, value]) => `header     ${safe(name)}: ${safe(value)}`)
]

/** A body in full, below a line that says whether it is text. */
export const bodyLines = (body: Message.Body): ReadonlyArray<string> => [
  typeof body === "string" ? "body" : "body (not text: base64)",
  `  ${safe(bodyText(body))}`
]

/** The attempts that failed, the oldest first. */
export const attemptTable = (log: ReadonlyArray<Failure.FailedAttempt>): string =>
  table(
    ["ATTEMPT", "ENDED", "CONSUMER", "FAILURE"],
    log.map(({ attempt, consumer, endedAt, message, tag }) => [
      attempt,
      instant(endedAt),
      consumer,
      message === "" ? tag : `${tag}: ${message}`
    ])
  )

/** 1.5 s, 3 min, 2 h, 5 d. */
export const age = (millis: number): string => {
  if (millis < 1000) return `${Math.round(millis)} ms`
  const units = [
    ["s", 1000],
    ["min", 60_000],
    ["h", 3_600_000],
    ["d", 86_400_000]
  ] as const
  const [unit, size] = units.findLast(([, size]) => millis >= size) ?? units[0]
  const value = millis / size
  return `${value < 10 && unit === "s" ? value.toFixed(1) : Math.floor(value)} ${unit}`
}

/** For a group without living consumers: since when it has had none, if that is known. */
export const unattended = ({ unattendedMillis }: Pick<Inspector.GroupInfo, "unattendedMillis">): string =>
  unattendedMillis === undefined ? "no consumer is alive" : `no consumer has been alive for ${age(unattendedMillis)}`

export const instant = (epochMillis: number): string => new Date(epochMillis).toISOString().replace("T", " ")

/** Prints the value as JSON, or as text for people. */
export const print = (json: boolean, value: unknown, human: () => string): Effect.Effect<void> =>
  Effect.suspend(() => Console.log(json ? JSON.stringify(value) : human()))
