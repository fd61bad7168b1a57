/**
 * The names, units and attributes of every metric; they are API. Attributes are topic, group and outcome, so the number
 * of series does not grow with traffic.
 *
 * @module
 */
import * as Context from "effect/Context"
import * as Metric from "effect/Metric"

/** Messages accepted by `publish`. `outcome`: `stored` or `duplicate`. */
export const published = (topic: string, outcome: "stored" | "duplicate") =>
  Metric.counter("waybill_messages_published", { attributes: { topic, outcome }, incremental: true })

/** Deliveries taken from the transport, redeliveries included. */
export const received = (topic: string, group: string) =>
  Metric.counter("waybill_messages_received", { attributes: { topic, group }, incremental: true })

/** Deliveries that a consumer ended; a crash loop, which no consumer sees, is in the log and in Inspector's dead letters. `outcome`: `ack`, `retry`, `dead_letter`, `release`, or `stale` when the lease had moved on. */
export const settled = (topic: string, group: string, outcome: string) =>
  Metric.counter("waybill_messages_settled", { attributes: { topic, group, outcome }, incremental: true })

/** Milliseconds from handing a delivery to its handler until the handler's exit. */
export const handlerDuration = (topic: string, group: string) =>
  Metric.histogram("waybill_handler_duration_millis", {
    attributes: { topic, group },
    boundaries: [1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000]
  })

/** Deliveries whose lease was lost before they were settled, in a handler or on the way to one. */
export const leasesLost = (topic: string, group: string) =>
  Metric.counter("waybill_leases_lost", { attributes: { topic, group }, incremental: true })

/**
 * The series of a metric in this context, for what is counted with every message: looking it up each time costs more
 * than the counting.
 */
export const seriesOf = <Input, State>(
  metric: Metric.Metric<Input, State>,
  context: Context.Context<never>
): Metric.Metric.Hooks<Input, State> => {
  const registry = Context.get(context, Metric.MetricRegistry)
  // In a registry of its own the metric tells under which key it belongs into the one of the context.
  const alone: typeof registry = new Map()
  metric.valueUnsafe(Context.add(context, Metric.MetricRegistry, alone))
  for (const [key, made] of alone) {
    const metadata = registry.get(key) ?? made
    registry.set(key, metadata)
    return metadata.hooks
  }
  throw new Error("a metric registers itself when it is asked for its value")
}
