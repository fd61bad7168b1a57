/**
 * The series that a consumer counts in, looked up once.
 *
 * @module
 */
import type * as Context from "effect/Context"
import type * as Metric from "effect/Metric"
import { durationsOf } from "./Durations.ts"
import * as Instruments from "./Instruments.ts"

export type ConsumerMetrics = ReturnType<typeof consumerMetrics>

export const consumerMetrics = (topic: string, group: string, context: Context.Context<never>) => {
  const counted = Instruments.countedAs(topic, group, context)
  const seriesOf = <State>(metric: Metric.Metric<number, State>) => {
    const series = Instruments.seriesOf(metric, context)
    return {
      update: (value: number) => series.update(value, context),
      modify: (value: number) => series.modify(value, context)
    }
  }
  return {
    received: seriesOf(Instruments.received(counted.topic, counted.group)),
    lost: seriesOf(Instruments.leasesLost(counted.topic, counted.group)),
    ack: seriesOf(Instruments.settled(counted.topic, counted.group, "ack")),
    retry: seriesOf(Instruments.settled(counted.topic, counted.group, "retry")),
    release: seriesOf(Instruments.settled(counted.topic, counted.group, "release")),
    stale: seriesOf(Instruments.settled(counted.topic, counted.group, "stale")),
    buffered: seriesOf(Instruments.buffered(counted.topic, counted.group)),
    bufferSize: seriesOf(Instruments.bufferSize(counted.topic, counted.group)),
    handlerDuration: durationsOf(Instruments.handlerDuration(counted.topic, counted.group), context),
    settleDuration: durationsOf(Instruments.settleDuration(counted.topic, counted.group), context),
    waitingTime: durationsOf(Instruments.waitingTime(counted.topic, counted.group), context),
    deadLettered: Instruments.deadLettered(counted.topic, counted.group, context)
  }
}
