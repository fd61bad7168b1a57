/**
 * Every metric by name, and how the number of its series is bounded. Attributes are topics, groups and words of closed
 * sets, so the number of series does not grow with traffic.
 *
 * @module
 */
import * as Context from "effect/Context"
import * as Metric from "effect/Metric"
import type { GroupInfo, TopicInfo } from "../Inspector.ts"
import type { Receipt } from "../Message.ts"

/** Everything without a series of its own is counted under this name. */
const other = "other"

/** How many topics of a process have a publishing series of their own; later ones share one. */
export const maxPublishedTopics = 1000

/** How many groups have consuming series of their own in this process; later ones share one. */
export const maxConsumedGroups = 1000

const counter = (name: string, description: string, attributes: Record<string, string>) =>
  Metric.counter(name, { description, attributes, incremental: true })

const gauge = (name: string, description: string, attributes: Record<string, string> = {}) =>
  Metric.gauge(name, { description, attributes })

const seconds = (name: string, description: string, attributes: Record<string, string>, longest: number) =>
  Metric.histogram(name, {
    description,
    // OTLP has the unit beside the name, Prometheus in it.
    attributes: { ...attributes, unit: "s" },
    boundaries: boundaries.filter((boundary) => boundary <= longest)
  })

const boundaries = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600]

/**
 * Messages accepted by `publish`. `outcome`: `stored`, `duplicate`, `replaced`, or `sent` if nothing is stored. After the first
 * 1,000 topics of a process, counted under the topic `other`.
 */
export const published = (topic: string, outcome: "stored" | "duplicate" | "replaced" | "sent") =>
  counter("waybill_messages_published_total", "Messages accepted by publish", { topic, outcome })

/** Deliveries taken from the transport, redeliveries included. */
export const received = (topic: string, group: string) =>
  counter("waybill_messages_received_total", "Deliveries taken, redeliveries included", { topic, group })

/** How a delivery may end; `stale` when the lease had moved on and nothing was changed. */
export type Outcome = "ack" | "retry" | "dead_letter" | "release" | "stale"

/**
 * Deliveries that ended. Dead letters also have a `reason`, from `deadLettered`. Those of crash loops, which no
 * consumer ever sees, are counted by `layer`.
 */
export const settled = (topic: string, group: string, outcome: Outcome, reason?: string) =>
  counter("waybill_messages_settled_total", "Deliveries that ended, by how", {
    topic,
    group,
    outcome,
    ...(reason === undefined ? {} : { reason })
  })

/**
 * Seconds from publishing, by the store's clock, until the message is first given to a handler, by this process's
 * clock. Includes a requested delay.
 */
export const waitingTime = (topic: string, group: string) =>
  seconds("waybill_message_wait_seconds", "From publishing to the first handler", { topic, group }, 3600)

/** Seconds from handing a delivery, or a batch, to its handler until the handler's exit. */
export const handlerDuration = (topic: string, group: string) =>
  seconds("waybill_handler_duration_seconds", "From a handler's start to its exit", { topic, group }, 60)

/** Seconds that one round of settlements took, whatever its size, including retries. */
export const settleDuration = (topic: string, group: string) =>
  seconds("waybill_settle_duration_seconds", "How long a round of settlements took", { topic, group }, 60)

/** Deliveries whose lease was lost before they were settled, while being handled or waiting for it. */
export const leasesLost = (topic: string, group: string) =>
  counter("waybill_leases_lost_total", "Deliveries whose lease was lost unsettled", { topic, group })

/** Deliveries waiting in this process for a free handler, as of the last batch taken or settled. */
export const buffered = (topic: string, group: string) =>
  gauge("waybill_consumer_buffered", "Deliveries waiting in this process for a handler", { topic, group })

/** Their maximum: the `prefetch` of the group's consumers in this process. */
export const bufferSize = (topic: string, group: string) =>
  gauge("waybill_consumer_buffer_size", "How many deliveries may wait in this process", { topic, group })

/** Failures of the transport under a consumer, one per try. */
export const consumerFailures = (topic: string, group: string, permanent: boolean) =>
  counter("waybill_consumer_failures_total", "Failures of the transport under a consumer", {
    topic,
    group,
    permanent: String(permanent)
  })

/** Deliveries taken over from consumers that died or stalled. */
export const claimed = (topic: string, group: string) =>
  counter("waybill_messages_claimed_total", "Deliveries taken over from other consumers", { topic, group })

/** Messages that were trimmed before the group had settled them. */
export const truncated = (topic: string, group: string) =>
  counter("waybill_messages_truncated_total", "Unsettled messages that were trimmed", { topic, group })

/** Dead letters that the cap dropped, counted in the process that did it. */
export const deadLettersDropped = (topic: string, group: string) =>
  counter("waybill_dead_letters_dropped_total", "Dead letters dropped by the cap", { topic, group })

/** Dead letters for which the consumer's hook has failed for good. */
export const deadLettersUnhandled = (topic: string, group: string) =>
  counter("waybill_dead_letters_unhandled_total", "Dead letters whose hook failed", { topic, group })

/** How often the group was lost and recreated. */
export const groupsRecreated = (topic: string, group: string) =>
  counter("waybill_groups_recreated_total", "How often a lost group was recreated", { topic, group })

/** How often a subscriber noticed that it had missed messages. */
export const gaps = (group: string, reason: string) =>
  counter("waybill_gaps_total", "How often a subscriber noticed that it had missed messages", { group, reason })

/** How many messages were missed, if known. */
export const missed = (group: string, reason: string) =>
  counter("waybill_messages_missed_total", "Messages missed in gaps, where the number is known", { group, reason })

/** Connections that were lost. `role`: the first word of the connection's role, such as `commands` or `reader`. */
export const disconnects = (role: string) =>
  counter("waybill_disconnects_total", "Connections to the store that were lost", { role })

/** Connections that were restored; while this is less than were lost, some are down. */
export const reconnects = (role: string) =>
  counter("waybill_reconnects_total", "Connections to the store that were restored", { role })

/** Servers that took the place of others. `may_be_lost`: whether they may lack what was accepted. */
export const failovers = (mayBeLost: boolean) =>
  counter("waybill_failovers_total", "Servers that took the place of the one before, by failover or restart", {
    may_be_lost: String(mayBeLost)
  })

/** 1 if the last round of `layerInspector` could read everything, otherwise 0. */
export const inspectorUp = gauge(
  "waybill_inspector_up",
  "Whether the last inspection of the store succeeded (1) or not (0)"
)

/** The gauges of a topic, each with the figure it shows. */
export const topicGauges: ReadonlyArray<
  readonly [gauge: (topic: string) => Metric.Gauge<number>, figure: (info: TopicInfo) => number]
> = [
  [(topic) => gauge("waybill_topic_messages", "Messages in the store", { topic }), (info) => info.depth],
  [(topic) => gauge("waybill_topic_delayed", "Messages published and not yet due", { topic }), (info) => info.delayed]
]

/** The gauges of a group, each with the figure it shows. */
export const groupGauges: ReadonlyArray<
  readonly [gauge: (topic: string, group: string) => Metric.Gauge<number>, figure: (info: GroupInfo) => number]
> = [
  [
    (topic, group) => gauge("waybill_group_lag", "Messages never delivered to the group", { topic, group }),
    (info) => info.lag
  ],
  [
    (topic, group) => gauge("waybill_group_pending", "Messages delivered and not settled", { topic, group }),
    (info) => info.pending
  ],
  [
    (topic, group) =>
      gauge("waybill_group_oldest_pending_seconds", "Time since the oldest pending message was delivered", {
        topic,
        group,
        unit: "s"
      }),
    (info) => info.oldestPendingMillis / 1000
  ],
  [
    (topic, group) => gauge("waybill_group_waiting", "Messages waiting for their next attempt", { topic, group }),
    (info) => info.waiting
  ],
  [
    (topic, group) => gauge("waybill_group_dead_letters", "Dead letters of the group", { topic, group }),
    (info) => info.deadLetters
  ],
  [
    (topic, group) => gauge("waybill_group_consumers", "Consumers whose heartbeat is alive", { topic, group }),
    (info) => info.consumers.length
  ],
  [
    (topic, group) => gauge("waybill_group_paused", "Whether the group is paused (1) or not (0)", { topic, group }),
    (info) => (info.paused ? 1 : 0)
  ]
]

/**
 * The series of a metric in this context, for per-message counting: looking it up every time costs more than the counting
 * itself.
 */
export const seriesOf = <Input, State>(
  metric: Metric.Metric<Input, State>,
  context: Context.Context<never>
): Metric.Metric.Hooks<Input, State> => {
  const registry = Context.get(context, Metric.MetricRegistry)
  // Read in a registry of its own, the metric reveals its key in the context's registry.
  const alone: typeof registry = new Map()
  metric.valueUnsafe(Context.add(context, Metric.MetricRegistry, alone))
  for (const [key, made] of alone) {
    const metadata = registry.get(key) ?? made
    registry.set(key, metadata)
    return metadata.hooks
  }
  throw new Error("reading a metric should have registered it: a bug in waybill")
}

/** The counters of the messages that a process publishes to a topic, by outcome. Most topics have one. */
type Publishing = Partial<Record<Receipt["_tag"], Metric.Counter<number>>>

const outcomes = { Stored: "stored", Duplicate: "duplicate", Replaced: "replaced", Sent: "sent" } as const

/** By registry and topic. */
const publishing = new WeakMap<object, Map<string, Publishing>>()

/**
 * The counter of an outcome of publishing to a topic. A process may publish to any number of topics, and a series is never
 * freed. So the first 1,000 topics have series of their own, and later ones are counted under the topic `other`.
 */
export const publishedTo = (
  topic: string,
  outcome: Receipt["_tag"],
  context: Context.Context<never>
): Metric.Counter<number> => {
  const registry = Context.get(context, Metric.MetricRegistry)
  let topics = publishing.get(registry)
  if (topics === undefined) publishing.set(registry, (topics = new Map()))
  const name = topics.has(topic) || topics.size < maxPublishedTopics ? topic : other
  let counters = topics.get(name)
  if (counters === undefined) topics.set(name, (counters = {}))
  return (counters[outcome] ??= published(name, outcomes[outcome]))
}

/** By registry, topic and group. */
const consuming = new WeakMap<object, Set<string>>()

/**
 * The names under which a group of a topic is counted here. Consumers may come and go for any number of topics, and most of
 * what remains of them would be their series: the first 1,000 have their own, and later ones are `other` of `other`.
 */
export const countedAs = (
  topic: string,
  group: string,
  context: Context.Context<never>
): { readonly topic: string; readonly group: string } => {
  const registry = Context.get(context, Metric.MetricRegistry)
  let groups = consuming.get(registry)
  if (groups === undefined) consuming.set(registry, (groups = new Set()))
  const name = JSON.stringify([topic, group])
  if (!groups.has(name)) {
    if (groups.size >= maxConsumedGroups) return { topic: other, group: other }
    groups.add(name)
  }
  return { topic, group }
}

/** The library's own reasons, which always have a series. */
const ownReasons: ReadonlySet<string> = new Set([
  "CommitRejected",
  "CrashLoop",
  "DecodeFailure",
  "Defect",
  "Failure",
  "HandlerTimeout",
  "Interrupted",
  "PartialCommit",
  "Unrouted"
])

/** How many other reasons of a group get a series, in the life of the process. */
const maxReasons = 20

/** A reason is a short word; a longer one probably contains data. */
const maxReasonLength = 64

/**
 * Counts dead letters by reason. Reasons come from users and may contain anything, even an id, so they are bounded:
 * the first 20 foreign reasons of a group are counted by name; later ones, and those over 64 characters, as `other`.
 */
export const deadLettered = (
  topic: string,
  group: string,
  context: Context.Context<never>
): ((reason: string) => void) => {
  const named = new Map<string, Metric.Metric.Hooks<number, unknown>>()
  const name = (reason: string) => {
    const series = seriesOf(settled(topic, group, "dead_letter", reason), context)
    named.set(reason, series)
    return series
  }
  let full = false
  /** Whether there is room for one more. Checked in the registry, because other consumers of the group count there too. */
  const room = (reason: string) => {
    if (ownReasons.has(reason)) return true
    if (full || reason.length > maxReasonLength) return false
    const { id } = settled(topic, group, "dead_letter")
    const known = new Set<string>()
    for (const { attributes, id: otherId } of Context.get(context, Metric.MetricRegistry).values()) {
      if (otherId !== id || attributes?.["topic"] !== topic || attributes["group"] !== group) continue
      const found = attributes["reason"]
      if (found !== undefined && found !== other && !ownReasons.has(found)) known.add(found)
    }
    if (known.has(reason) || known.size < maxReasons) return true
    full = true
    for (const found of known) name(found)
    return false
  }
  return (reason) => {
    const series = named.get(reason) ?? (room(reason) ? name(reason) : (named.get(other) ?? name(other)))
    series.update(1, context)
  }
}
