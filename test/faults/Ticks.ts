/** What the test of schedules and its processes agree on. */
export interface TickOrders {
  readonly naive: boolean
  /** How far the clock of the process is ahead, ms. */
  readonly ahead: number
}

export const topic = "ticks"
export const ids = Array.from({ length: 100 }, (_, i) => `s${i}`)
