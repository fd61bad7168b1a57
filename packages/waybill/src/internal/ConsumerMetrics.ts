/**
 * The series that a consumer counts in, looked up once.
 *
 * @module
 */
import type * as Context from "effect/Context"
import type * as Metric from "effect/Metric"
import * as Metrics from "../Metrics.ts"
import { durationsOf } from "./Durations.ts"

export type ConsumerMetrics = ReturnType<typeof consumerMetrics>

export const consumerMetrics = (topic: string, group: string, context: Context.Context<never>) => {
  const counted = Metrics.countedAs(topic, group, context)
  const seriesOf = <State>(metric: Metric.Metric<number, State>) => {
    const series = Metrics.seriesOf(metric, context)
    return {
      update: (value: number) => series.update(value, context),
      modify: (value: number) => series.modify(value, context)
    }
  }
  return {
    received: seriesOf(Metrics.received(counted.topic, counted.group)),
    lost: seriesOf(Metrics.leasesLost(counted.topic, counted.group)),
    ack: seriesOf(Metrics.settled(counted.topic, counted.group, "ack")),
    retry: seriesOf(Metrics.settled(counted.topic, counted.group, "retry")),
    release: seriesOf(Metrics.settled(counted.topic, counted.group, "release")),
    stale: seriesOf(Metrics.settled(counted.topic, counted.group, "stale")),
    buffered: seriesOf(Metrics.buffered(counted.topic, counted.group)),
    bufferSize: seriesOf(Metrics.bufferSize(counted.topic, counted.group)),
    handlerDuration: durationsOf(Metrics.handlerDuration(counted.topic, counted.group), context),
    settleDuration: durationsOf(Metrics.settleDuration(counted.topic, counted.group), context),
    waitingTime: durationsOf(Metrics.waitingTime(counted.topic, counted.group), context),
    deadLettered: Metrics.deadLettered(counted.topic, counted.group, context)
  }
}
