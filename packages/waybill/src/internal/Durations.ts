/**
 * A histogram of durations that costs next to nothing for runs of equal values: durations are rounded to whole
 * milliseconds, and a run is added up when it ends or when it is read. Exported in seconds.
 *
 * @module
 */
import * as Context from "effect/Context"
import * as Metric from "effect/Metric"

/** Stored under a metric's key in the registry, in place of Effect's own hooks. */
export class Durations implements Metric.Metric.Hooks<number, Metric.HistogramState> {
  readonly #boundaries: ReadonlyArray<number>
  /** One more than there are boundaries, for durations beyond the last. */
  readonly #counts: Array<number>
  #count = 0
  #sum = 0
  #min = Number.MAX_VALUE
  #max = -Number.MAX_VALUE
  /** The current run. */
  #millis = 0
  #times = 0

  constructor(boundaries: ReadonlyArray<number>) {
    this.#boundaries = boundaries
    this.#counts = Array.from({ length: boundaries.length + 1 }, () => 0)
  }

  add(millis: number): void {
    if (millis === this.#millis) {
      this.#times++
    } else {
      this.#endRun()
      this.#millis = millis
      this.#times = 1
    }
  }

  readonly update = (seconds: number): void => this.add(seconds * 1000)
  readonly modify = this.update

  readonly get = (): Metric.HistogramState => {
    this.#endRun()
    let cumulated = 0
    return {
      buckets: this.#boundaries.map((boundary, i) => [boundary, (cumulated += this.#counts[i] ?? 0)]),
      count: this.#count,
      min: this.#min,
      max: this.#max,
      sum: this.#sum
    }
  }

  #endRun(): void {
    const times = this.#times
    if (times === 0) return
    const seconds = this.#millis / 1000
    let bucket = 0
    // Most durations are short.
    while (seconds > (this.#boundaries[bucket] ?? Infinity)) bucket++
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + times
    this.#count += times
    this.#sum += seconds * times
    this.#min = Math.min(this.#min, seconds)
    this.#max = Math.max(this.#max, seconds)
    this.#times = 0
  }
}

/** The durations of a metric in this context, shared by all callers. */
export const durationsOf = (metric: Metric.Histogram<number>, context: Context.Context<never>): Durations => {
  const registry = Context.get(context, Metric.MetricRegistry)
  // Read in a registry of its own, the metric reveals its key in the context's registry.
  const alone: typeof registry = new Map()
  const { buckets } = metric.valueUnsafe(Context.add(context, Metric.MetricRegistry, alone))
  for (const [key, made] of alone) {
    const hooks = registry.get(key)?.hooks
    if (hooks instanceof Durations) return hooks
    const durations = new Durations(buckets.map(([boundary]) => boundary))
    registry.set(key, { ...made, hooks: durations })
    return durations
  }
  throw new Error("reading a metric should have registered it: a bug in waybill")
}
