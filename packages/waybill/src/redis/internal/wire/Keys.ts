/**
 * Every name of a key in Redis. All keys of a topic share one hash tag, so that a script may touch any of them, even on a
 * cluster; so do all topics whose names agree up to the first slash.
 *
 * @module
 */
import type { Kind } from "../connection/Script.ts"

/** The set of topics that were opened under a prefix. It is in a slot of its own: no script touches it. */
export const registry = (prefix: string): string => `${prefix}:topics`

/** The hash tag of a topic: `ledger/transfers` and `ledger/reports` share one, so one script may use both. */
export const tagOf = (prefix: string, topic: string): string => {
  const slash = topic.indexOf("/")
  return `{${prefix}:${slash < 0 ? topic : topic.slice(0, slash)}}`
}

/**
 * The beginning of a topic's keys: its hash tag, and the rest of its name after the first slash. A colon in there would
 * look like the beginning of the next part, so it is written as %3A.
 */
export const baseOf = (prefix: string, topic: string): string => {
  const slash = topic.indexOf("/")
  return tagOf(prefix, topic) + (slash < 0 ? "" : escaped(topic.slice(slash)))
}

const escaped = (text: string): string => text.replaceAll("%", "%25").replaceAll(":", "%3A")

/**
 * A group's name in a key. One with a colon is escaped and preceded by a colon of its own, so that it looks like no name without
 * one, and those stay unchanged.
 */
const segmentOf = (group: string): string => (group.includes(":") ? `:${escaped(group)}` : group)

/** A channel reaches every database of its server, so its name includes the database, except for 0. */
const channelOf = (name: string, db: number): string => (db === 0 ? name : `${name}@${db}`)

/** The channels of all topics that match a name with `*`, `?` or `[...]`. A star ends at the first slash. */
export const channelGlob = (prefix: string, topic: string, db: number): string => {
  const escaped = prefix.replace(/[*?[\]\\]/g, "\\$&")
  return channelOf(`${baseOf(escaped, topic)}:channel`, db)
}

/** The topic of a channel. */
export const topicOf = (prefix: string, channel: string): string => {
  // A colon in a topic is escaped, so the last one precedes the ending.
  const [first = "", rest = ""] = channel.slice(prefix.length + 2, channel.lastIndexOf(":")).split("}")
  return first + rest.replaceAll("%3A", ":").replaceAll("%25", "%")
}

/** What a key holds, and the end of its name. */
type Table = Readonly<Record<string, readonly [kind: Kind, ending: string]>>

type Named<T> = { readonly [Name in keyof T]: string }

/** The keys of a topic. Scripts know them, and those of a group, by the same names. */
const ofTopic = {
  /** The messages, one entry each. */
  stream: ["stream", "stream"],
  /** Which of its entries are of which type, as the groups that want some types have noted it lately. */
  types: ["stream", "types"],
  /** The numbers of messages, if each message is a key. */
  numbers: ["string", "numbers"],
  /** The beginning of messages' keys, if each message is a key. */
  messages: ["string", "message:"],
  /** The beginning of keys that say which version of a foreign key was copied; each expires with its key. */
  adopted: ["string", "adopted:"],
  /** The pattern and the wire version that the topic was opened with. */
  meta: ["hash", "meta"],
  /** Messages that are not due yet, by due time. */
  delayed: ["zset", "delayed"],
  /** Their bodies. */
  delayedBodies: ["hash", "delayed-bodies"],
  /** The ids of schedules, by the time of their next tick. */
  schedules: ["zset", "schedules"],
  /** Their revisions, and what they are. */
  scheduleEntries: ["hash", "schedule-entries"],
  /** How schedules differ from what processes declare, by until when that is known. Expires. */
  scheduleDrifts: ["zset", "schedule-drifts"],
  /** Delayed messages that became due, by the entry they are now (MessagePlaces.ts). */
  promoted: ["zset", "promoted"],
  /** By id, the places of messages that have their ids to themselves until they are settled or taken. */
  unique: ["hash", "unique"],
  /** By id, the messages of a queue that had their ids to themselves until they were taken. */
  named: ["hash", "named"],
  /** Ids that publishers chose, by the entry or the number of the message; negative by its member of `delayed`. */
  ownIds: ["zset", "own-ids"],
  /** The groups that hold back trimming, whether or not they exist at the moment. */
  groups: ["set", "groups"],
  /** The ids of urgent messages that no consumer has taken yet. `normal`, `low`: those of less urgent ones. */
  high: ["list", "ready:high"],
  normal: ["list", "ready"],
  low: ["list", "ready:low"],
  /** Of messages that became more or less urgent: the number of a list in which they no longer stand, a colon, and their ids. */
  moved: ["set", "moved"],
  /** The messages of the lists, by id. */
  bodies: ["hash", "bodies"],
  /** Messages of programs that write without our scripts. */
  inbox: ["list", "inbox"],
  /** The ids of messages that were removed and are still in those lists. */
  removed: ["set", "removed"],
  /** Something may be available to take. Not a key, but named like one. */
  wake: ["channel", "wake"],
  /** The messages of a topic that stores none. */
  channel: ["channel", "channel"]
} as const satisfies Table

/** The keys of one group of a topic. */
const ofGroup = {
  /** Messages that are due again, for this group only. */
  retry: ["stream", "retry"],
  /** Messages that wait for their next attempt, by due time. */
  waiting: ["zset", "waiting"],
  /** Their bodies. */
  waitingBodies: ["hash", "waiting-bodies"],
  /** The ids of messages that were retried, by the entry they were last (MessagePlaces.ts). */
  retryIds: ["zset", "retry-ids"],
  /** The dead letters. */
  dead: ["stream", "dead"],
  /** Their messages' ids, by their entries. */
  deadIds: ["zset", "dead-ids"],
  /** Deliveries that an operator has cancelled, by when: source and entry, or member and consumer. Kept until they are settled. */
  cancelled: ["zset", "cancelled"],
  /** The consumers, by the time their heartbeat expires. */
  consumers: ["zset", "consumers"],
  /** How many deliveries of a pending entry ended unfinished and do not count. */
  released: ["hash", "released"],
  /** Ids that came back, for the next consumer that takes. */
  returned: ["list", "returned"],
  /** Ids that came back and that more than one consumer has died with. */
  suspects: ["list", "suspects"],
  /** Attempts, fence, deaths and last cause of ids that came back. */
  marks: ["hash", "marks"],
  /** The ids of messages that were removed, and that the group comes across again: of those that came back, with the score 0. */
  omitted: ["zset", "omitted"],
  /** Dead letters that were redriven to the group. */
  redriven: ["channel", "redriven"],
  /** The number up to which the group was given messages, and the one after which it began. */
  position: ["hash", "position"],
  /** Records of messages that came back from the dead letters. */
  restored: ["hash", "restored"],
  /** Paused or not, the position to start from when the group is lost, counters. */
  state: ["hash", "state"]
} as const satisfies Table

/** Keys that every consumer or publisher has for itself. */
const ofMember = { processing: ["set", ""], publisher: ["string", ""] } as const satisfies Table

const table = { ...ofTopic, ...ofGroup, ...ofMember }

/** What these keys hold, for a script that uses them by these names. */
export const keys = <const Names extends ReadonlyArray<keyof typeof table>>(...names: Names) =>
  // Made from the names, each with its kind.
  Object.fromEntries(names.map((name) => [name, table[name][0]])) as {
    readonly [Name in Names[number]]: (typeof table)[Name][0]
  }

export interface TopicKeys extends Named<typeof ofTopic> {
  /** Written to find out whether the server publishes events. Expires at once. */
  readonly probe: (probe: string) => string
  /** This message id was stored, and where. Expires after the window. */
  readonly seen: (id: string) => string
  /** The last batch of one publisher and its reply, to recognise a repetition. */
  readonly publisher: (publisher: string) => string
  readonly group: (group: string) => GroupKeys
}

export interface GroupKeys extends Named<typeof ofGroup> {
  /** The messages that a consumer holds. */
  readonly processing: (consumer: string) => string
  /** The commit of this message was applied, by the delivery with the stored fence. Expires. */
  readonly done: (id: string) => string
}

/** The keys of a topic, of one group, and of a consumer of it. */
export type ClaimsKeys = TopicKeys & Omit<GroupKeys, "processing"> & { readonly processing: string }

export const claimsKeys = (keys: TopicKeys, group: string, consumer: string): ClaimsKeys => {
  const mine = keys.group(group)
  return { ...keys, ...mine, processing: mine.processing(consumer) }
}

/** The key of a record beside `topic`: one for all topics that share the hash tag. */
export const dataKey = (prefix: string, topic: string, name: string): string => `${tagOf(prefix, topic)}:data:${name}`

const named = <T extends Table>(table: T, base: string, db: number): Named<T> => {
  const keys: Record<string, string> = {}
  for (const [name, [kind, ending]] of Object.entries(table)) {
    keys[name] = kind === "channel" ? channelOf(`${base}:${ending}`, db) : `${base}:${ending}`
  }
  // Each name of the table has been given its key.
  return keys as Named<T>
}

/**
 * The keys of `topic` under `prefix` in a database. No two names share a key, whatever topics, groups and message ids are
 * called; no two databases share a channel.
 */
export const topicKeys = (prefix: string, topic: string, db: number): TopicKeys => {
  const base = baseOf(prefix, topic)
  return {
    ...named(ofTopic, base, db),
    probe: (probe) => `${base}:probe:${probe}`,
    seen: (id) => `${base}:seen:${id}`,
    publisher: (publisher) => `${base}:publisher:${publisher}`,
    group: (group) => {
      const mine = `${base}:group:${segmentOf(group)}`
      return {
        ...named(ofGroup, mine, db),
        processing: (consumer) => `${mine}:processing:${consumer}`,
        done: (id) => `${mine}:done:${id}`
      }
    }
  }
}
