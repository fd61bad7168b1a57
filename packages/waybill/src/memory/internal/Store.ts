/**
 * The topics of one layer, whatever its pattern, and the two ports that lead to them.
 *
 * @module
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import type { Query } from "../../Commit.ts"
import {
  type BackwardPage,
  type Inspector,
  inUse,
  type Page,
  type RemoveOptions,
  type TopicInfo
} from "../../Inspector.ts"
import { markerProblem } from "../../internal/Marker.ts"
import { noMoves } from "../../internal/Unplaced.ts"
import { Lifecycle } from "../../Lifecycle.ts"
import {
  MessageNotFound,
  NotOffered,
  type Reason,
  TopicConflict,
  TopicInUse,
  type Transport,
  TransportError,
  WrongKeyType
} from "../../Transport.ts"
import { Commits } from "./Commits.ts"
import type { Group, Home } from "./Group.ts"
import { Member } from "./Member.ts"
import { MemoryReceiver } from "./MemoryReceiver.ts"
import { type All as AllSchedules, make as makeSchedules } from "./Schedules.ts"
import { make as makeSiblings, type Siblings } from "./Siblings.ts"
import { completed, step } from "./Step.ts"
import { type Pattern, type Remains, Topic } from "./Topic.ts"

/**
 * The transport of a pattern that keeps messages. With `markerMillis` it applies commits, and remembers them for that
 * long.
 */
export const make = (pattern: Pattern, markerMillis?: number) =>
  Effect.map(makeStore(pattern, markerMillis ?? Infinity), (store) => ({
    ...transportOf(store),
    priorities: pattern.priorities,
    filters: pattern.filters,
    durable: true,
    unique: pattern.unique,
    inspector: inspectorOf(store),
    records: markerMillis === undefined ? undefined : recordsOf(store),
    schedules: makeSchedules(store)
  }))

const makeStore = Effect.fnUntraced(function* (pattern: Pattern, markerMillis: number) {
  const instance = yield* Random.nextIntBetween(0x100000, 0xffffff)
  const topics = new Map<string, Topic>()
  const siblings = yield* makeSiblings({
    pattern: pattern.name,
    as: pattern.as,
    unsettled: (now) => unsettledOf(topics, now)
  })
  return new Store(pattern, markerMillis, instance.toString(16), topics, siblings)
})

function* unsettledOf(topics: ReadonlyMap<string, Topic>, now: number): Iterable<readonly [string, number]> {
  for (const [name, topic] of topics) {
    const { delayed, depth, groups } = topic.describe(now)
    const open = groups.reduce((sum, { lag, pending, waiting }) => sum + lag + pending + waiting, 0)
    const count = delayed + (groups.length === 0 ? depth : open)
    if (count > 0) yield [name, count]
  }
}

class Store {
  readonly topics: Map<string, Topic>
  readonly siblings: Siblings
  readonly lifecycle = new Lifecycle()
  readonly pattern: Pattern
  readonly markerMillis: number
  readonly commits: Commits
  readonly schedules: AllSchedules = new Map()
  readonly #instance: string
  /** What remains of removed topics, in order of removal. */
  readonly #remains = new Map<string, Remains>()
  readonly #commit: Home["commit"] = (delivery, commit, now, partial) =>
    this.commits.apply(delivery, commit, now, partial)
  #consumers = 0

  constructor(
    pattern: Pattern,
    markerMillis: number,
    instance: string,
    topics: Map<string, Topic>,
    siblings: Siblings
  ) {
    this.topics = topics
    this.siblings = siblings
    this.pattern = pattern
    this.markerMillis = markerMillis
    this.commits = new Commits({
      lifecycle: this.lifecycle,
      open: (topic) => this.open(topic),
      markerMillis,
      unique: pattern.unique
    })
    this.#instance = instance
  }

  open(name: string): Topic {
    let topic = this.topics.get(name)
    if (topic === undefined) {
      topic = new Topic(name, this.pattern, this.#commit, this.#remains.get(name))
      this.#remains.delete(name)
      this.topics.set(name, topic)
    }
    return topic
  }

  remove(topic: Topic, options: RemoveOptions | undefined, now: number): TopicInUse | undefined {
    const reason = inUse(topic.describe(now), options)
    if (reason !== undefined) return reason
    if (options?.force !== true && (this.schedules.get(topic.name)?.size ?? 0) > 0) {
      return new TopicInUse({ topic: topic.name, found: "schedules" })
    }
    this.schedules.delete(topic.name)
    this.topics.delete(topic.name)
    for (const [name, { until }] of this.#remains) {
      if (until > now) break
      this.#remains.delete(name)
    }
    this.#remains.set(topic.name, topic.remains(now))
    return undefined
  }

  nextConsumer(): string {
    return `memory-${this.#instance}-${++this.#consumers}`
  }
}

const transportOf = (store: Store): Pick<Transport, "publish" | "receive" | "claimDeadLetters" | "lifecycle"> => ({
  lifecycle: store.lifecycle,
  claimDeadLetters: (claim) =>
    step((now, fiber) => {
      const topic = store.open(claim.topic)
      const claimed = topic.group(claim.group)?.claimDeadLetters(claim, now)
      return completed(store.lifecycle, topic, fiber, claimed ?? { letters: [], position: claim.from ?? "0" })
    }),
  publish: (name, messages) =>
    store.siblings.using(
      name,
      step((now, fiber) => {
        const topic = store.open(name)
        return completed(store.lifecycle, topic, fiber, topic.publish(messages, now))
      })
    ),
  receive: (subscription) =>
    store.siblings.using(
      subscription.topic,
      Effect.acquireRelease(
        step((now, fiber) => {
          const problem = markerProblem(
            store.markerMillis,
            store.pattern.limits(subscription.topic).deadLetters.maxAgeMillis,
            subscription
          )
          if (problem !== undefined) {
            const { topic } = subscription
            return Effect.fail(new TransportError({ operation: "receive", topic, reason: problem }))
          }
          const topic = store.open(subscription.topic)
          const group = topic.join(subscription, now)
          if (group instanceof TopicConflict || group instanceof NotOffered) {
            return Effect.fail(new TransportError({ operation: "receive", topic: topic.name, reason: group }))
          }
          const member = new Member(store.nextConsumer(), subscription)
          const receiver = new MemoryReceiver(
            {
              lifecycle: store.lifecycle,
              touched: () => store.commits.touched()
            },
            topic,
            group,
            member
          )
          return completed(store.lifecycle, topic, fiber, receiver)
        }),
        (receiver) => receiver.leave
      )
    )
})

const recordsOf = (store: Store): NonNullable<Transport["records"]> => ({
  read: <A, E>({ name: topic }: { readonly name: string }, query: Query<A, E>) =>
    step<A, TransportError | E, never>((now) => {
      const found = store.commits.records(topic).ask(query, now)
      if (found !== undefined) return found
      const reason = new WrongKeyType({ key: query.key, detail: `it is not a ${query.type}` })
      return Exit.fail(new TransportError({ operation: "inspect", topic, reason }))
    })
})

const inspectorOf = (store: Store): Context.Service.Shape<typeof Inspector> => {
  const { lifecycle } = store
  const inGroup = <A>(name: string, group: string, otherwise: A, f: (group: Group, now: number) => A) =>
    step((now, fiber) => {
      const topic = store.topics.get(name)
      const found = topic?.group(group)
      return topic === undefined || found === undefined
        ? Exit.succeed(otherwise)
        : completed(lifecycle, topic, fiber, f(found, now))
    })
  const inTopic = <A>(name: string, otherwise: A, f: (topic: Topic, now: number) => A) =>
    step((now, fiber) => {
      const topic = store.topics.get(name)
      return topic === undefined ? Exit.succeed(otherwise) : completed(lifecycle, topic, fiber, f(topic, now))
    })
  const refuse = (topic: string, reason: Reason) =>
    Effect.fail(new TransportError({ operation: "inspect", topic, reason }))
  /** Changes a topic, unless `change` says why not. `absent`: why not if there is no such topic. */
  const changing = (
    name: string,
    absent: Reason | undefined,
    change: (topic: Topic, now: number) => Reason | undefined
  ) =>
    Effect.flatMap(inTopic(name, absent, change), (reason) =>
      reason === undefined ? Effect.void : refuse(name, reason)
    )
  const changed = (name: string, change: (topic: Topic, now: number) => Reason | undefined) =>
    changing(name, undefined, change)
  const steer = (name: string, id: string, change: (topic: Topic, now: number) => Reason | undefined) =>
    changing(name, new MessageNotFound({ id }), change)
  const setPaused = (name: string, group: string, paused: boolean) =>
    step((_, fiber) => {
      const topic = store.open(name)
      topic.setPaused(group, paused)
      const told = completed(lifecycle, topic, fiber, undefined)
      const quiet = paused ? topic.group(group)?.quiet : undefined
      return quiet === undefined ? told : Effect.andThen(told, quiet)
    })
  const nothing = (topic: string): TopicInfo => ({
    topic,
    pattern: store.pattern.name,
    retention: store.pattern.retention(topic),
    depth: 0,
    delayed: 0,
    nextDelayedAt: undefined,
    groups: []
  })
  return {
    topics: Effect.sync(() => Array.from(store.topics.keys())),
    describe: (name) => inTopic(name, nothing(name), (topic, now) => topic.describe(now)),
    messages: (name, page) =>
      inTopic(name, [], (topic, now) =>
        page.before === undefined ? pageOf(topic.messages(now), page) : lastOf(topic.messages(now), page)
      ),
    message: (name, id) =>
      inTopic(name, Option.none(), (topic, now) => {
        const found = topic.locate(id, now)
        return found instanceof MessageNotFound ? Option.none() : Option.some(found)
      }),
    delayed: (name, page) => inTopic(name, [], (topic, now) => pageOf(topic.delayed(now), page)),
    removeMessage: (topic, id) => steer(topic, id, (topic, now) => topic.removeMessage(id, now)),
    cancel: (name, id) =>
      Effect.flatMap(
        inTopic<ReturnType<Topic["cancel"]>>(name, new MessageNotFound({ id }), (topic, now) => topic.cancel(id, now)),
        (found) => ("_tag" in found ? refuse(name, found) : Effect.succeed(found))
      ),
    reschedule: (topic, id, at) => steer(topic, id, (topic, now) => topic.reschedule(id, at, now)),
    runNow: (topic, id) => steer(topic, id, (topic, now) => topic.reschedule(id, now, now)),
    changePriority: (topic, id, priority) => steer(topic, id, (topic, now) => topic.changePriority(id, priority, now)),
    pending: (topic, group, page) => inGroup(topic, group, [], (group, now) => pageOf(group.pending(now), page)),
    waiting: (topic, group, page) => inGroup(topic, group, [], (group, now) => pageOf(group.waiting(now), page)),
    deadLetters: (topic, group, { after, limit }) =>
      inGroup(topic, group, [], (group, now) => group.deadLetters(Option.getOrUndefined(after), limit, now)),
    redrive: (topic, group, entries) => inGroup(topic, group, 0, (group, now) => group.redrive(entries, now)),
    discard: (topic, group, entries) => inGroup(topic, group, 0, (group, now) => group.discard(entries, now)),
    pause: (topic, group) => setPaused(topic, group, true),
    resume: (topic, group) => setPaused(topic, group, false),
    purge: (topic) =>
      changed(topic, (topic) => {
        topic.purge()
        return undefined
      }),
    move: (topic, group, to) =>
      store.pattern.positions === true
        ? Effect.map(
            changed(topic, (topic, now) => topic.move(group, to, now)),
            () => store.topics.get(topic)?.group(group) !== undefined
          )
        : refuse(topic, noMoves),
    retire: (topic, group) => changed(topic, (topic, now) => topic.retire(group, now)),
    remove: (topic, options) => changed(topic, (topic, now) => store.remove(topic, options, now))
  }
}

const lastOf = <A extends { readonly position: string }>(
  items: ReadonlyArray<A>,
  { before, limit }: BackwardPage
): ReadonlyArray<A> => {
  const end = Option.isNone(before) ? items.length : items.findIndex(({ position }) => position === before.value)
  return items.slice(Math.max(0, end - limit), Math.max(0, end))
}

const pageOf = <A extends { readonly position: string }>(
  items: ReadonlyArray<A>,
  { after, limit }: Page
): ReadonlyArray<A> => {
  const from = Option.isNone(after) ? 0 : items.findIndex(({ position }) => position === after.value) + 1
  return items.slice(from, from + limit)
}
