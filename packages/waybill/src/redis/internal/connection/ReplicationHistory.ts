/**
 * Whether a server that takes over has everything that the one before it had accepted.
 *
 * Every server counts the bytes of its writes under the name of its history. A replica that becomes a master begins a new history
 * and keeps the name of the old one, and the count at which it left it: what its master had written beyond that is lost. So it is
 * enough to know how far the history had come at some moment. It is looked at once a second while commands run, which bounds
 * what may be lost and does not count it.
 *
 * @module
 */

/** What `INFO` says about a server's history. */
export interface History {
  readonly id: string
  /** How many bytes of writes it has. */
  readonly offset: number
  /** The history that this one continues, and the first byte that it does not have of it. */
  readonly before: string | undefined
  readonly beforeEnd: number
  /** The life of the process. */
  readonly life: string | undefined
  readonly isMaster: boolean
}

/** A history at a moment. */
export interface Look {
  readonly history: History
  /** Milliseconds since the epoch; everything accepted by then is in the history. */
  readonly at: number
}

/** What may be lost: nothing, or what was accepted after a moment, or everything. */
export interface Loss {
  readonly mayBeLost: boolean
  readonly since: number | undefined
}

/** Undefined if the server does not tell. */
export const historyOf = (info: string): History | undefined => {
  const field = (name: string) => new RegExp(`^${name}:(.*)$`, "m").exec(info)?.[1]?.trim()
  const id = field("master_replid")
  const offset = Number(field("master_repl_offset"))
  if (id === undefined || id === "" || !Number.isSafeInteger(offset)) return undefined
  const before = field("master_replid2")
  const beforeEnd = Number(field("second_repl_offset"))
  return {
    id,
    offset,
    ...(/^0*$/.test(before ?? "") || !(beforeEnd > 0) ? { before: undefined, beforeEnd: 0 } : { before, beforeEnd }),
    life: field("run_id"),
    isMaster: field("role") === "master"
  }
}

/**
 * What is missing on the server of `found`, after these looks at the one before it, the latest last. `accepted`: whether that
 * one has answered a command after the last look. Undefined if it is the same server, in the same life.
 */
export const lossOf = (looks: ReadonlyArray<Look>, found: History, accepted: boolean): Loss | undefined => {
  const last = looks.at(-1)
  if (last === undefined || (last.history.id === found.id && last.history.offset <= found.offset)) return undefined
  const continues = found.before === last.history.id && last.history.offset < found.beforeEnd
  // Without replicas, a master begins a new history after an hour; it does so too when it was a replica in between.
  const lives = last.history.life !== undefined && last.history.life === found.life
  if (lives && (continues || found.before === undefined)) return undefined
  const shared = looks.findLast(({ history }) => history.id === found.before && history.offset < found.beforeEnd)
  return { mayBeLost: shared !== last || accepted, since: shared?.at }
}

/** The looks at one server, the latest last, and whether it has accepted something since. */
export interface Watched {
  looks: ReadonlyArray<Look>
  readonly accepted: () => boolean
}
