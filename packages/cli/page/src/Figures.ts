/**
 * The data of the charts: the last ten minutes of a group, as seen by this page.
 *
 * @module
 */
import type { Overview } from "../../src/dashboard/Api.ts"

export interface Point {
  /** Seconds since the epoch. */
  readonly at: number
  readonly lag: number
  readonly pending: number
  readonly waiting: number
  readonly dead: number
  /** Messages per second; `undefined` in the first point, and if the store does not count. */
  readonly publishedRate: number | undefined
  readonly settledRate: number | undefined
  readonly published: number | undefined
}

const kept = 300

const history = new Map<string, Array<Point>>()

export const nameOf = (topic: string, group: string): string => `${topic}\n${group}`

export const pointsOf = (topic: string, group: string): ReadonlyArray<Point> => history.get(nameOf(topic, group)) ?? []

/** Records the figures just seen. */
export const note = ({ now, topics }: Overview): void => {
  for (const { groups, published, topic } of topics) {
    for (const group of groups) {
      const name = nameOf(topic, group.group)
      const points = history.get(name) ?? []
      const before = points.at(-1)
      const at = now / 1000
      const seconds = before === undefined ? 0 : at - before.at
      const publishedRate =
        before?.published === undefined || published === undefined || seconds <= 0
          ? undefined
          : Math.max(0, (published - before.published) / seconds)
      // Arrivals minus the growth of the backlog were acked or dead-lettered.
      const open = group.lag + group.pending + group.waiting
      const openBefore = before === undefined ? 0 : before.lag + before.pending + before.waiting
      const settledRate =
        publishedRate === undefined || seconds <= 0
          ? undefined
          : Math.max(0, publishedRate - (open - openBefore) / seconds)
      points.push({
        at,
        lag: group.lag,
        pending: group.pending,
        waiting: group.waiting,
        dead: group.deadLetters,
        published,
        publishedRate,
        settledRate
      })
      if (points.length > kept) points.shift()
      history.set(name, points)
    }
  }
}

export const rate = (value: number | undefined): string =>
  value === undefined
    ? "–"
    : value < 10 && !Number.isInteger(value)
      ? value.toFixed(1)
      : Math.round(value).toLocaleString("en-US")
