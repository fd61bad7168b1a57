/**
 * How the rehearsal went, for people and for programs.
 */
import type { Account } from "./Ledger.ts"

export interface Report {
  readonly seed: string
  readonly store: "memory" | "redis"
  /** Requests sent and answered, redeliveries and bad ones included. */
  readonly received: number
  /** How many requests were refused, by reason. */
  readonly rejected: Readonly<Record<string, number>>
  /** Accepted requests that repeated a delivery: answered with 202, and stored before. */
  readonly duplicates: number
  /** Delivery ids that the server said it had stored. */
  readonly published: number
  readonly groups: ReadonlyArray<Account & { readonly retried: number }>
  readonly crash: Crash
  /** Over all groups. */
  readonly lost: number
  readonly unfinished: number
  readonly strays: number
  readonly surprises: number
  /** From the first request until the last group was done: waiting for retries and for the dead worker's leases included. */
  readonly seconds: number
  /** Deliveries that ended (acked or dead-lettered, over all groups) in each of these seconds. */
  readonly messagesPerSecond: number
  /** Requests that the server answered in each second while they were sent. */
  readonly requestsPerSecond: number
}

export interface Crash {
  readonly group: string
  readonly consumer: string
  /** Whether it came to the crash before all was done. */
  readonly happened: boolean
  /** Deliveries in its hands when it died. */
  readonly held: number
  /** Deliveries that others took over. */
  readonly takenOver: number
}

/** Nothing lost, and nothing left over that might be. */
export const isGood = (report: Report): boolean => report.lost === 0 && report.unfinished === 0 && report.strays === 0

const counts = (by: Readonly<Record<string, number>>): string => {
  const entries = Object.entries(by).sort(([, a], [, b]) => b - a)
  return entries.length === 0 ? "-" : entries.map(([word, count]) => `${count} ${word}`).join(", ")
}

/** Columns as wide as their widest cell, those in `numbers` to the right. */
const table = (rows: ReadonlyArray<ReadonlyArray<string>>, numbers: ReadonlyArray<number> = []) => {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)))
  return rows.map((row) =>
    row
      .map((cell, i) => (numbers.includes(i) ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0)))
      .join("  ")
      .trimEnd()
  )
}

export const render = (report: Report): string => {
  const { crash, groups } = report
  const facts: ReadonlyArray<readonly [string, string]> = [
    ["store", `${report.store}, seed ${report.seed}`],
    ["received", `${report.received} requests, ${report.requestsPerSecond} per second`],
    ["rejected", counts(report.rejected)],
    [
      "published",
      `${report.published} messages; ${report.duplicates} requests repeated one of them and stored nothing`
    ],
    [
      "crash",
      crash.happened
        ? `worker ${crash.consumer} of group ${crash.group} died with ${crash.held} deliveries in its hands; ` +
          `${crash.takenOver} were taken over`
        : `worker ${crash.consumer} of group ${crash.group} had nothing left to die with`
    ],
    [
      "lost",
      `${report.lost} of ${report.published * groups.length} (${report.published} messages, ${groups.length} groups)`
    ],
    ["unfinished", `${report.unfinished}`],
    ["not as planned", `${report.surprises}; seen by a group and never stored: ${report.strays}`],
    ["time", `${report.seconds} s, ${report.messagesPerSecond} messages per second`]
  ]
  const rows = [
    ["group", "acked", "not its own", "retried", "recorded twice", "unfinished", "lost", "dead-lettered"],
    ...groups.map((group) => [
      group.group,
      `${group.acked}`,
      `${group.ignored}`,
      `${group.retried}`,
      `${group.repeated}`,
      `${group.unfinished}`,
      `${group.lost}`,
      counts(group.deadLettered)
    ])
  ]
  const missing = groups.flatMap(({ group, missing }) => missing.slice(0, 10).map((id) => `missing in ${group}: ${id}`))
  return [
    "",
    ...table(facts),
    "",
    ...table(rows, [1, 2, 3, 4, 5, 6]),
    ...(missing.length > 0 ? ["", ...missing] : []),
    ""
  ].join("\n")
}
