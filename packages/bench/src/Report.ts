/**
 * Evaluates the numbers: medians of the rounds, ratios of contenders that ran side by side, and whether a bar is met.
 */

/** One comparison. Without a bar, `bar` and `met` are null: the line is informative. */
export interface Result {
  readonly measure: string
  readonly value: number
  readonly unit: string
  readonly against: string
  /** The value divided by the one it is compared with; null if that is a fixed number. */
  readonly ratio: number | null
  readonly bar: string | null
  readonly met: boolean | null
}

/** The bar for a comparison. */
export type Bar = { readonly atLeast: number } | { readonly atMost: number }

/** Of at least one value. */
export const median = (values: ReadonlyArray<number>): number => {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/** The smallest value with at least `share` of the values below it. Needs at least one value. */
export const percentile = (values: ReadonlyArray<number>, share: number): number => {
  const sorted = values.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))]!
}

/**
 * The median of our rounds, and the median of the ratios round by round: a disturbance of the machine that lasts
 * longer than a round affects both sides of a ratio.
 */
export const compare = (options: {
  readonly measure: string
  readonly unit: string
  readonly ours: ReadonlyArray<number>
  readonly theirs: ReadonlyArray<number>
  readonly against: string
  readonly bar?: Bar
}): Result => {
  const { against, bar, measure, ours, theirs, unit } = options
  // Both ran the same rounds.
  const ratio = median(ours.map((value, round) => value / theirs[round]!))
  return {
    measure,
    value: median(ours),
    unit,
    against: `${against}: ${format(median(theirs))} ${unit}`,
    ratio,
    bar: bar === undefined ? null : `${describeBar(bar)} x`,
    met: bar === undefined ? null : meets(bar, ratio)
  }
}

/** A value compared with a fixed number. */
export const limit = (options: {
  readonly measure: string
  readonly value: number
  readonly unit: string
  readonly against: string
  readonly bar: Bar
}): Result => {
  const { against, bar, measure, unit, value } = options
  return { measure, value, unit, against, ratio: null, bar: `${describeBar(bar)} ${unit}`, met: meets(bar, value) }
}

const meets = (bar: Bar, value: number): boolean => ("atLeast" in bar ? value >= bar.atLeast : value <= bar.atMost)

const describeBar = (bar: Bar): string => ("atLeast" in bar ? `>= ${bar.atLeast}` : `<= ${bar.atMost}`)

/** Integers from a hundred on, two decimals below. */
export const format = (value: number): string =>
  Math.abs(value) >= 100 ? Math.round(value).toLocaleString("en-US") : value.toFixed(2)

const columns = ["measure", "value", "against", "ratio", "bar", "met"] as const

/** A table for a terminal. */
export const table = (results: ReadonlyArray<Result>): string => {
  const rows: ReadonlyArray<ReadonlyArray<string>> = [
    columns,
    ...results.map((result) => [
      result.measure,
      `${format(result.value)} ${result.unit}`,
      result.against,
      result.ratio === null ? "" : result.ratio.toFixed(2),
      result.bar ?? "",
      result.met === null ? "" : result.met ? "yes" : "NO"
    ])
  ]
  const widths = columns.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  return rows
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join("  ")
        .trimEnd()
    )
    .join("\n")
}

/** One object on one line. */
export const json = (results: ReadonlyArray<Result>): string =>
  JSON.stringify({
    results: results.map((result) => ({
      ...result,
      value: rounded(result.value),
      ratio: result.ratio === null ? null : rounded(result.ratio)
    }))
  })

const rounded = (value: number): number => Number(value.toPrecision(4))
