/**
 * What became of every delivery, from evidence alone: the ids that the server said it had stored on one side, and on the
 * other the groups' own records, their dead letters, and what the store says it still holds. An id that shows up nowhere
 * is lost, whatever anybody believes.
 */
export interface Evidence {
  readonly group: string
  /** How often each delivery stands in the records that the group itself keeps. */
  readonly records: ReadonlyMap<string, number>
  /** Whether a delivery has to stand there, or is acked unread. */
  readonly wants: (id: string) => boolean
  /** Deliveries whose ack the store took. */
  readonly acked: ReadonlySet<string>
  readonly deadLetters: ReadonlyArray<{ readonly id: string; readonly reason: string }>
  /** Deliveries that the store still holds for the group: never taken, in some consumer's hands, or waiting. */
  readonly unfinished: number
  /** The reason a delivery was meant to be dead-lettered for; `undefined` when it was meant to be acked. */
  readonly expected: (id: string) => string | undefined
}

export interface Account {
  readonly group: string
  /** Done: recorded, or acked unread because the group does not care for such events. */
  readonly acked: number
  /** Those of `acked` that the group does not care for. */
  readonly ignored: number
  /** By reason. */
  readonly deadLettered: Readonly<Record<string, number>>
  /** Recorded more than once: at least once means that a crash may do this. */
  readonly repeated: number
  readonly unfinished: number
  readonly lost: number
  /** The ids that show up nowhere. More than `lost` while some are unfinished: the store does not say which. */
  readonly missing: ReadonlyArray<string>
  /** Ids that the server refused, and that the group saw all the same. */
  readonly strays: ReadonlyArray<string>
  /** Deliveries that ended otherwise than planned. */
  readonly surprises: ReadonlyArray<{ readonly id: string; readonly expected: string; readonly found: string }>
}

const acked = "acked"

/** Settles the account of one group over the ids that were `stored`; the `doubtful` ones may have been, or not. */
export const account = (stored: ReadonlySet<string>, doubtful: ReadonlySet<string>, evidence: Evidence): Account => {
  const reasons = new Map(evidence.deadLetters.map(({ id, reason }) => [id, reason]))
  const deadLettered: Record<string, number> = {}
  const missing: Array<string> = []
  const surprises: Array<Account["surprises"][number]> = []
  let done = 0
  let ignored = 0
  for (const id of stored) {
    const reason = reasons.get(id)
    const wanted = evidence.wants(id)
    const expected = evidence.expected(id) ?? acked
    if (reason !== undefined) {
      deadLettered[reason] = (deadLettered[reason] ?? 0) + 1
    } else if (wanted ? evidence.records.has(id) : evidence.acked.has(id)) {
      done++
      if (!wanted) ignored++
    } else {
      missing.push(id)
      continue
    }
    const found = reason ?? acked
    if (found !== expected) surprises.push({ id, expected, found })
  }
  return {
    group: evidence.group,
    acked: done,
    ignored,
    deadLettered,
    repeated: [...evidence.records.values()].filter((times) => times > 1).length,
    unfinished: evidence.unfinished,
    lost: Math.max(0, missing.length - evidence.unfinished),
    missing,
    strays: [...new Set([...evidence.records.keys(), ...evidence.acked, ...reasons.keys()])].filter(
      (id) => !stored.has(id) && !doubtful.has(id)
    ),
    surprises
  }
}
