/**
 * What the scripts of inspectors report about one group.
 *
 * @module
 */
import type { ConsumerInfo, GroupInfo } from "../../../Inspector.ts"
import { flag, listOf, number, type Part, type Shaped, text } from "../connection/Script.ts"

/** A page: the place after which it begins, or with `newest` = 1 before which it ends, "" for an end; and its maximum size. */
export const pageArgs = { from: "text", limit: "number" } as const

/**
 * Calls `later(position, member, due)` for what stands in the sorted set `waiting` behind the place that the locals `part` and `place`
 * name, a letter and a due time, a colon and the member, as far as `limit` and `room()` let `rows` grow.
 */
export const rowsOfWaiting = (letter: string) => /* lua */ `
if #rows < limit and room() then
  local rank = 0
  if part == '${letter}' then
    local score, member = string.match(place, '^(%-?%d+):(.*)$')
    rank = redis.call('ZRANK', waiting, member)
    rank = rank and rank + 1 or redis.call('ZCOUNT', waiting, '-inf', '(' .. score)
  end
  local page = redis.call('ZRANGE', waiting, rank, rank + limit - #rows - 1, 'WITHSCORES')
  for i = 1, #page, 2 do
    if not room() then break end
    local due = string.format('%.0f', tonumber(page[i + 1]))
    later('${letter}' .. due .. ':' .. page[i], page[i], tonumber(due))
  end
end
`

const nameOrNumber: Part<string | number> = (part) => (typeof part === "number" ? part : text(part))

export const figures = {
  lag: number,
  pending: number,
  /** Milliseconds. */
  oldest: number,
  waiting: number,
  /** When the next retry is due, -1 if none waits. */
  next: number,
  dead: number,
  dropped: number,
  paused: flag,
  /** Name, pending, ms until the lease ends, name... */
  living: listOf(nameOrNumber),
  /** The last id that the group was given, "" if unknown. */
  reached: text,
  /** Some of the counted dead letters are too old to count. */
  old: flag,
  /** Why messages were set aside lately, "" if none were. */
  newer: text,
  /** For how long it has had no living consumer, ms; -1 if it has one, or that is unknown. */
  alone: number
}

/**
 * `lately(newer, now)`: the cause in the field `newer` of a group's state, as long as consumers still find such messages: they look
 * once a minute at least.
 */
export const asides = /* lua */ `
local function lately(newer, now)
  local at, cause = string.match(newer or '', '^(%d+) (.*)$')
  return at and now - tonumber(at) < 120000 and cause or ''
end
`

/**
 * `alone(consumers, left, now)`: for how long a group without a living consumer has had none, ms, or -1. `left`: the field of its state
 * that says when the last one left. The heartbeats of those that died stay until another consumer takes over from them.
 */
export const loneliness = /* lua */ `
local function alone(consumers, left, now)
  local beat = redis.call('ZRANGE', consumers, -1, -1, 'WITHSCORES')[2]
  local since = math.max(tonumber(beat or '-1'), tonumber(left or '-1'))
  return since >= 0 and since <= now and now - since or -1
end
`

export type Figures = Shaped<typeof figures>

export const groupOf = (group: string, figures: Figures): GroupInfo => {
  const consumers: Array<ConsumerInfo> = []
  const { living, next, reached } = figures
  for (let i = 0; i + 2 < living.length; i += 3) {
    const [consumer, pending, leaseLeft] = living.slice(i, i + 3)
    consumers.push({ consumer: String(consumer), pending: Number(pending), leaseLeftMillis: Number(leaseLeft) })
  }
  return {
    group,
    lag: figures.lag,
    reached: reached === "" ? undefined : reached,
    pending: figures.pending,
    oldestPendingMillis: figures.oldest,
    waiting: figures.waiting,
    nextRetryAt: next < 0 ? undefined : next,
    deadLetters: figures.dead,
    deadLettersDropped: figures.dropped,
    paused: figures.paused,
    ...(figures.newer === "" ? {} : { newer: figures.newer }),
    ...(figures.alone < 0 ? {} : { unattendedMillis: figures.alone }),
    consumers
  }
}
