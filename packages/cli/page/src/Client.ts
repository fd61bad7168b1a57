/**
 * The page's requests to the server. The token comes from the URL, is kept for this tab, and is removed from the URL at
 * once, so that it is not copied with a link.
 *
 * @module
 */
import {
  type Change,
  type Dead,
  type Delayed,
  type Life,
  type MessageSteering,
  type Move,
  type Moved,
  type Overview,
  type Page,
  partOf,
  type Pending,
  type Purge,
  type Report,
  type Rescheduling,
  type Retirement,
  type ScheduleList,
  type Seen,
  type Selection,
  type Steering,
  type Stored,
  type Waiting
} from "../../src/dashboard/Api.ts"

const key = "waybill-token"

const token = (): string | null => {
  const given = /^#token=(.+)$/.exec(location.hash)?.[1]
  if (given !== undefined) {
    sessionStorage.setItem(key, given)
    history.replaceState(null, "", location.pathname)
  }
  return sessionStorage.getItem(key)
}

const bearer = token()

/** The server's own words for what went wrong. */
export class Refused extends Error {}

const ask = async <A>(path: string, body?: unknown): Promise<A> => {
  const response = await fetch(`./api/${path}`, {
    method: body === undefined ? "GET" : "POST",
    headers: {
      ...(bearer === null ? {} : { authorization: `Bearer ${bearer}` }),
      ...(body === undefined ? {} : { "content-type": "application/json" })
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) })
  })
  const answer: unknown = await response.json().catch(() => ({ why: `the server returned status ${response.status}` }))
  if (!response.ok) throw new Refused((answer as { readonly why: string }).why)
  return answer as A
}

const topicPath = (topic: string) => `topics/${partOf(topic)}`
const groupPath = (topic: string, group: string) => `${topicPath(topic)}/groups/${partOf(group)}`
const query = (after: string | undefined) =>
  `?limit=100${after === undefined ? "" : `&after=${encodeURIComponent(after)}`}`

export const overview = (): Promise<Overview> => ask("overview")
/** The newest messages, or those before a position. */
export const messages = (topic: string, before?: string): Promise<Page<Stored>> =>
  ask(
    `${topicPath(topic)}/messages${query(undefined)}&newest=1${before === undefined ? "" : `&before=${encodeURIComponent(before)}`}`
  )
export const life = (topic: string, id: string, group: string | undefined, seen: Seen | undefined): Promise<Life> => {
  const params = new URLSearchParams(seen === undefined ? {} : { list: seen.list })
  if (group !== undefined) params.set("group", group)
  if (seen?.at !== undefined) params.set("at", seen.at)
  return ask(`${topicPath(topic)}/life/${partOf(id)}?${params}`)
}
/** The messages that are not due yet, the next one first. */
export const delayed = (topic: string, after?: string): Promise<Page<Delayed>> =>
  ask(`${topicPath(topic)}/delayed${query(after)}`)
const messagePath = (topic: string, id: string) => `${topicPath(topic)}/messages/${partOf(id)}`
export const steerMessage = (verb: MessageSteering, topic: string, id: string): Promise<unknown> =>
  ask(`${messagePath(topic, id)}/${verb}`, {})
export const reschedule = (topic: string, id: string, at: number): Promise<unknown> =>
  ask(`${messagePath(topic, id)}/reschedule`, { at } satisfies Rescheduling)
export const pending = (topic: string, group: string, after?: string): Promise<Page<Pending>> =>
  ask(`${groupPath(topic, group)}/pending${query(after)}`)
export const waiting = (topic: string, group: string, after?: string): Promise<Page<Waiting>> =>
  ask(`${groupPath(topic, group)}/waiting${query(after)}`)
export const dead = (topic: string, group: string, after?: string): Promise<Page<Dead>> =>
  ask(`${groupPath(topic, group)}/dead${query(after)}`)
/** The first schedules, the next one first. */
export const schedules = (topic: string): Promise<ScheduleList> => ask(`${topicPath(topic)}/schedules`)
export const steer = (verb: Steering, topic: string, schedule: string): Promise<unknown> =>
  ask(`${topicPath(topic)}/schedules/${partOf(schedule)}/${verb}`, {})
export const move = (
  verb: "redrive" | "discard",
  topic: string,
  group: string,
  selection: Selection
): Promise<Report> => ask(`${groupPath(topic, group)}/${verb}`, selection)
/** As a dry run, what it would do. */
export const retire = (topic: string, group: string, dryRun: boolean): Promise<Retirement> =>
  ask(`${groupPath(topic, group)}/retire`, { dryRun } satisfies Change)
export const relocate = (topic: string, group: string, move: Move): Promise<Moved> =>
  ask(`${groupPath(topic, group)}/move`, move)
export const purge = (topic: string, dryRun: boolean): Promise<Purge> =>
  ask(`${topicPath(topic)}/purge`, { dryRun } satisfies Change)
export const setPaused = (verb: "pause" | "resume", topic: string, group: string): Promise<unknown> =>
  ask(`${groupPath(topic, group)}/${verb}`, {})
