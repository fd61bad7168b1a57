/**
 * A chart that advances with every refresh, with the last values, or those under the pointer, beside it.
 *
 * @module
 */
import { useEffect, useRef, useState } from "preact/hooks"
import uPlot from "uplot"
import "uplot/dist/uPlot.min.css"
import { rate } from "./Figures.ts"

export interface Series {
  readonly label: string
  /** Name of a colour in the style sheet. */
  readonly colour: string
  readonly values: ReadonlyArray<number | undefined>
}

const colourOf = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()

const height = 150

/** Seconds: a short history is not stretched to the whole width. */
const shortest = 60

const time = (seconds: boolean) =>
  new Intl.DateTimeFormat(undefined, {
    hour: "2-digit",
    minute: "2-digit",
    ...(seconds ? { second: "2-digit" } : {}),
    hourCycle: "h23"
  })
const toSeconds = time(true)
const toMinutes = time(false)

export const Chart = ({
  at,
  label,
  series
}: {
  readonly label: string
  readonly at: ReadonlyArray<number>
  readonly series: ReadonlyArray<Series>
}) => {
  const place = useRef<HTMLDivElement>(null)
  const plot = useRef<uPlot>(undefined)
  const [pointed, setPointed] = useState<number>()
  const data: uPlot.AlignedData = [[...at], ...series.map(({ values }) => values.map((value) => value ?? null))]

  useEffect(() => {
    const element = place.current
    if (element === null) return
    const axis = {
      stroke: colourOf("faint"),
      grid: { stroke: colourOf("line"), width: 1 },
      ticks: { show: false },
      font: "11px system-ui"
    }
    const chart = new uPlot(
      {
        width: element.clientWidth,
        height,
        cursor: { y: false },
        legend: { show: false },
        scales: {
          x: { range: (_, min, max) => [Math.min(min, max - shortest), max] },
          y: { range: (_, __, max) => [0, Math.max(1, max * 1.1)] }
        },
        axes: [
          {
            ...axis,
            size: 28,
            space: 70,
            incrs: [5, 10, 15, 30, 60, 120, 300, 600],
            values: (_, ticks, __, ___, step) =>
              ticks.map((tick) => (step < 60 ? toSeconds : toMinutes).format(tick * 1000))
          },
          { ...axis, size: 56, values: (_, ticks) => ticks.map((tick) => tick.toLocaleString("en-US")) }
        ],
        series: [
          {},
          ...series.map(({ colour, label }) => ({
            label,
            stroke: colourOf(colour),
            width: 2,
            fill: `${colourOf(colour)}22`,
            points: { show: false }
          }))
        ],
        hooks: { setCursor: [({ cursor }) => setPointed(cursor.idx ?? undefined)] }
      },
      data,
      element
    )
    plot.current = chart
    const resized = new ResizeObserver(() => chart.setSize({ width: element.clientWidth, height }))
    resized.observe(element)
    return () => {
      resized.disconnect()
      chart.destroy()
    }
    // Created once; the data is set below.
  }, [label])

  useEffect(() => plot.current?.setData(data), [at.at(-1)])

  const shown = pointed ?? at.length - 1
  const shownAt = at[shown]
  return (
    <figure class="chart">
      <figcaption>
        <span>{label}</span>
        {series.map(({ colour, label, values }) => (
          <span key={label} class="key">
            <i style={{ background: `var(--${colour})` }} /> {label} <b>{rate(values[shown])}</b>
          </span>
        ))}
        {pointed !== undefined && shownAt !== undefined && <span>{toSeconds.format(shownAt * 1000)}</span>}
      </figcaption>
      <div ref={place} />
    </figure>
  )
}
