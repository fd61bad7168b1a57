/**
 * A chart that moves on with every look.
 *
 * @module
 */
import { useEffect, useRef } from "preact/hooks"
import uPlot from "uplot"
import "uplot/dist/uPlot.min.css"

export interface Series {
  readonly label: string
  /** Name of a colour in the style sheet. */
  readonly colour: string
  readonly values: ReadonlyArray<number | undefined>
}

const colourOf = (name: string) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()

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
  const data = [at, ...series.map(({ values }) => values.map((value) => value ?? null))] as unknown as uPlot.AlignedData

  useEffect(() => {
    const element = place.current
    if (element === null) return
    const ink = colourOf("faint")
    const axis = {
      stroke: ink,
      grid: { stroke: colourOf("line"), width: 1 },
      ticks: { show: false },
      font: "11px system-ui"
    }
    const chart = new uPlot(
      {
        width: element.clientWidth,
        height: 170,
        cursor: { y: false },
        legend: { live: true },
        scales: { y: { range: (_, __, max) => [0, Math.max(1, max * 1.1)] } },
        axes: [axis, { ...axis, size: 56, values: (_, ticks) => ticks.map((tick) => tick.toLocaleString("en-US")) }],
        series: [
          {},
          ...series.map(({ colour, label }) => ({
            label,
            stroke: colourOf(colour),
            width: 2,
            fill: `${colourOf(colour)}22`,
            points: { show: false }
          }))
        ]
      },
      data,
      element
    )
    plot.current = chart
    const resized = new ResizeObserver(() => chart.setSize({ width: element.clientWidth, height: 170 }))
    resized.observe(element)
    return () => {
      resized.disconnect()
      chart.destroy()
    }
    // Made once; the data goes in below.
  }, [label])

  useEffect(() => plot.current?.setData(data), [at.at(-1)])

  return (
    <figure class="chart">
      <figcaption>{label}</figcaption>
      <div ref={place} />
    </figure>
  )
}
