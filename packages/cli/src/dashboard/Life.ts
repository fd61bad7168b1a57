/**
 * Where one message is, in each group of its topic. What cannot be known is reported as unknown, never guessed.
 *
 * @module
 */
import { Array as Arr, Effect, Option } from "effect"
import { Inspector, type Message, type Transport } from "waybill"
import { messageJson } from "../Screen.ts"
import type { Life, Seen } from "./Api.ts"

/** How many messages of each list are searched for one, from where it was seen and from the beginning. */
const searched = 1000
const pageSize = 100

type Read<A, Page> = (page: Page) => Effect.Effect<ReadonlyArray<A>, Transport.TransportError>
type Next<A, Page> = (page: Arr.NonEmptyReadonlyArray<A>) => Page

/** The first match, page by page. */
const sought = Effect.fnUntraced(function* <A, Page>(
  read: Read<A, Page>,
  first: Page,
  next: Next<A, Page>,
  fits: (one: A) => boolean
) {
  let page = first
  for (let seen = 0; seen < searched;) {
    const found = yield* read(page)
    const one = found.find(fits)
    if (one !== undefined || !Arr.isReadonlyArrayNonEmpty(found)) return one
    seen += found.length
    page = next(found)
  }
  return undefined
})

/** Where the message was seen: the search begins there. */
export interface Place {
  readonly group?: string | undefined
  readonly list?: Seen["list"] | undefined
  readonly at?: string | undefined
}

/** Asks the store for the message, and searches the lists if it does not find it: not every id is known for as long as its message. */
export const inspect = Effect.fnUntraced(function* (topic: string, id: string, seen: Place) {
  const inspector = yield* Inspector.Inspector
  const info = yield* inspector.describe(topic)
  const found = yield* Effect.catchIf(
    inspector.message(topic, id),
    ({ reason }) => reason._tag === "NotOffered",
    () => Effect.succeedNone
  )
  return Option.isSome(found) ? lifeOf(found.value, info) : yield* search(info, id, seen)
})

const lifeOf = (
  { dueAt, groups, storedAt, ...message }: Inspector.LocatedMessage,
  info: Inspector.TopicInfo
): Life => ({
  isFound: true,
  message: messageJson(message),
  dueAt: dueAt ?? becameDueAt({ ...message, storedAt }),
  isDelayed: dueAt !== undefined,
  groups: groups.map(({ group, ...place }) => {
    const lag = info.groups.find((one) => one.group === group)?.lag ?? 0
    const of = { group, lag, given: place._tag !== "Ready", pending: undefined, waiting: undefined, dead: undefined }
    switch (place._tag) {
      case "Pending":
        return { ...of, pending: messageJson({ ...message, ...place }) }
      case "Waiting":
        return { ...of, waiting: messageJson({ ...message, ...place }) }
      case "Dead":
        return { ...of, dead: messageJson(place.deadLetter) }
      default:
        return of
    }
  })
})

const search = Effect.fnUntraced(function* (info: Inspector.TopicInfo, id: string, seen: Place) {
  const inspector = yield* Inspector.Inspector
  const { topic } = info
  const find = Effect.fnUntraced(function* <A extends Message.Message, Page>(
    read: Read<A, Page>,
    from: (at: string | undefined) => Page,
    next: Next<A, Page>,
    start: string | undefined
  ) {
    const is = (one: A) => one.id === id
    const there = start === undefined ? undefined : yield* sought(read, from(start), next, is)
    return there ?? (yield* sought(read, from(undefined), next, is))
  })
  /** A list that is read from its beginning. */
  const forward = <A extends Message.Message>(
    read: Read<A, Inspector.Page>,
    positionOf: (one: A) => string,
    start?: string
  ) => {
    const from = (after: string | undefined): Inspector.Page => ({
      after: Option.fromNullishOr(after),
      limit: pageSize
    })
    return Effect.map(
      find(read, from, (page) => from(positionOf(Arr.lastNonEmpty(page))), start),
      (one) => one && messageJson(one)
    )
  }
  const newest = (before: string | undefined): Inspector.BackwardPage => ({
    before: Option.fromNullishOr(before),
    limit: pageSize
  })
  const stored = yield* find(
    (page) => inspector.messages(topic, page),
    newest,
    ([first]) => newest(first.position),
    seen.list === "messages" ? seen.at : undefined
  )
  const groups = yield* Effect.forEach(
    info.groups,
    Effect.fnUntraced(function* ({ group, lag, reached }) {
      const start = (list: Seen["list"]) => (group === seen.group && list === seen.list ? seen.at : undefined)
      const withConsumer = forward(
        (page) => inspector.pending(topic, group, page),
        ({ position }) => position,
        start("pending")
      )
      // In the order in which messages move, so that one that moves meanwhile is found in a later list.
      let pending = yield* withConsumer
      const waiting = yield* forward(
        (page) => inspector.waiting(topic, group, page),
        ({ position }) => position,
        start("waiting")
      )
      const dead = yield* forward(
        (page) => inspector.deadLetters(topic, group, page),
        ({ entry }) => entry,
        start("dead")
      )
      // It may have gone from waiting back to a consumer.
      if (pending === undefined && waiting === undefined && dead === undefined) pending = yield* withConsumer
      const held = pending !== undefined || waiting !== undefined || dead !== undefined
      return { group, lag, pending, waiting, dead, given: held || given(info, stored?.position, reached) }
    })
  )
  const life: Life = {
    isFound: false,
    message: stored && messageJson(stored),
    dueAt: stored && becameDueAt(stored),
    isDelayed: false,
    groups
  }
  return life
})

/** Whether a message that the group does not hold was delivered to it; `undefined` if unknown. */
const given = (
  { depth, retention }: Inspector.TopicInfo,
  position: string | undefined,
  reached: string | undefined
): boolean | undefined => {
  if (position !== undefined) return reached !== undefined && isUpTo(position, reached)
  // No longer stored: it was delivered to every group of that time. Unless it lies deeper than was searched.
  return retention === "none" || depth > searched ? undefined : true
}

/** A delayed message is stored when it is due. */
const becameDueAt = ({ publishedAt, storedAt = 0 }: Pick<Inspector.StoredMessage, "publishedAt" | "storedAt">) =>
  storedAt > publishedAt ? storedAt : undefined

/**
 * Whether the position is at most the other. Patterns that report how far a group got have positions of one number, or of
 * two separated by a dash, of up to 64 bits each.
 */
export const isUpTo = (position: string, reached: string): boolean => {
  const [first = 0n, second = 0n] = position.split("-").map(BigInt)
  const [upToFirst = 0n, upToSecond = 0n] = reached.split("-").map(BigInt)
  return first === upToFirst ? second <= upToSecond : first < upToFirst
}
