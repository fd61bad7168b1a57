/**
 * Every name that Waybill gives to a key in Redis. All keys of a topic share one hash tag, so that a script may touch
 * any of them, on a cluster too; so do all topics whose names begin alike up to the first slash.
 *
 * @module
 */

/** The set of topics that were opened under a prefix. It lies in a slot of its own: no script touches it. */
export const registry = (prefix: string): string => `${prefix}:topics`

/** The hash tag of a topic: `ledger/transfers` and `ledger/reports` share one, and so may stand in one script. */
export const tagOf = (prefix: string, topic: string): string => {
  const slash = topic.indexOf("/")
  return `{${prefix}:${slash < 0 ? topic : topic.slice(0, slash)}}`
}

/**
 * What the keys of a topic begin with: its hash tag, and what its name has after the first slash. A colon in there would
 * look like the beginning of the next part, so it is written as %3A.
 */
export const baseOf = (prefix: string, topic: string): string => {
  const slash = topic.indexOf("/")
  return tagOf(prefix, topic) + (slash < 0 ? "" : escaped(topic.slice(slash)))
}

const escaped = (text: string): string => text.replaceAll("%", "%25").replaceAll(":", "%3A")

/**
 * A group's name in a key. One with a colon is escaped, and stands behind a colon of its own: so it looks like no name without
 * one, and those stay as they always were.
 */
const segmentOf = (group: string): string => (group.includes(":") ? `:${escaped(group)}` : group)

/** A channel is heard in every database of its server, so its name says which one it is of. That of database 0 says nothing. */
const channelOf = (name: string, db: number): string => (db === 0 ? name : `${name}@${db}`)

/** The channels of all topics that fit a name with `*`, `?` or `[...]` in it. A star ends at the first slash. */
export const channelGlob = (prefix: string, topic: string, db: number): string => {
  const escaped = prefix.replace(/[*?[\]\\]/g, "\\$&")
  return channelOf(`${baseOf(escaped, topic)}:channel`, db)
}

/** The topic of a channel. */
export const topicOf = (prefix: string, channel: string): string => {
  // A colon of a topic is escaped, so the last one stands before the end.
  const [first = "", rest = ""] = channel.slice(prefix.length + 2, channel.lastIndexOf(":")).split("}")
  return first + rest.replaceAll("%3A", ":").replaceAll("%25", "%")
}

/** The keys of a topic. Scripts know them, and those of a group, by the same names. */
export interface TopicKeys {
  /** Stream: the messages, one entry each. */
  readonly stream: string
  /** String: which messages there were, where a message is a key: they are numbered. */
  readonly numbers: string
  /** What the keys of messages begin with, where a message is a key. */
  readonly messages: string
  /** What the keys begin with that say which version of a key of others was taken in. Strings; each expires with its key. */
  readonly adopted: string
  /** String: written to find out whether the server announces it. Expires at once. */
  readonly probe: (probe: string) => string
  /** Hash: the pattern and the wire version that the topic was opened with. */
  readonly meta: string
  /** Sorted set: messages that are not due yet, by due time. */
  readonly delayed: string
  /** Hash: their bodies. */
  readonly delayedBodies: string
  /** Set: the groups that hold back trimming, whether they exist at this moment or not. */
  readonly groups: string
  /** List: the ids of messages that no consumer has had yet and that are urgent. `normal`, `low`: that are less so. */
  readonly high: string
  readonly normal: string
  readonly low: string
  /** Hash: the messages of the lists, by id. */
  readonly bodies: string
  /** List: messages of programs that write without our scripts. */
  readonly inbox: string
  /** Channel: something may be there to take. No key, but a name among them. */
  readonly wake: string
  /** Channel: the messages of a topic that stores none. */
  readonly channel: string
  /** String: this message id was stored. Expires after the window. */
  readonly seen: (id: string) => string
  /** String: the last batch of one publisher and what was answered, so that a repetition is recognised. */
  readonly publisher: (publisher: string) => string
  readonly group: (group: string) => GroupKeys
}

/** The keys of one group of a topic. */
export interface GroupKeys {
  /** Stream: messages that are due again, for this group only. */
  readonly retry: string
  /** Sorted set: messages that wait for their next attempt, by due time. */
  readonly waiting: string
  /** Hash: their bodies. */
  readonly waitingBodies: string
  /** Stream: the dead letters. */
  readonly dead: string
  /** Sorted set: the consumers, by the time at which their heartbeat runs out. */
  readonly consumers: string
  /** Hash: how many deliveries of a pending entry ended unfinished and do not count. */
  readonly released: string
  /** List: ids that came back, for the next that takes. */
  readonly returned: string
  /** List: ids that came back and that more than one consumer has died with. */
  readonly suspects: string
  /** Hash: attempts, fence, deaths and last cause of ids that came back. */
  readonly marks: string
  /** Channel: dead letters that were sent back to the group. */
  readonly redriven: string
  /** Set: what a consumer has been given and has not settled. */
  readonly processing: (consumer: string) => string
  /** Hash: the number up to which the group was given messages, and the one it began behind. */
  readonly position: string
  /** Hash: records of messages that came back from the dead letters. */
  readonly restored: string
  /** Hash: paused or not, the position to start from when the group is lost, counters. */
  readonly state: string
  /** String: the commit of this message was applied, by the delivery with the fence that it holds. Expires. */
  readonly done: (id: string) => string
}

/** The keys of a topic, of one group, and of a consumer of it. */
export type ClaimsKeys = TopicKeys & Omit<GroupKeys, "processing"> & { readonly processing: string }

export const claimsKeys = (keys: TopicKeys, group: string, consumer: string): ClaimsKeys => {
  const mine = keys.group(group)
  return { ...keys, ...mine, processing: mine.processing(consumer) }
}

/** The names of keys: the others are functions of a name. */
export type StringKeys<Keys> = { [Name in keyof Keys]: Keys[Name] extends string ? Name : never }[keyof Keys] & string

/** The key of a record beside `topic`: one for all topics that share the hash tag. */
export const dataKey = (prefix: string, topic: string, name: string): string => `${tagOf(prefix, topic)}:data:${name}`

/**
 * The keys of `topic` under `prefix` in a database. No two names share a key, whatever topics, groups and message ids are
 * called; no two databases share a channel.
 */
export const topicKeys = (prefix: string, topic: string, db: number): TopicKeys => {
  const base = baseOf(prefix, topic)
  return {
    stream: `${base}:stream`,
    numbers: `${base}:numbers`,
    messages: `${base}:message:`,
    adopted: `${base}:adopted:`,
    probe: (probe) => `${base}:probe:${probe}`,
    meta: `${base}:meta`,
    delayed: `${base}:delayed`,
    delayedBodies: `${base}:delayed-bodies`,
    groups: `${base}:groups`,
    high: `${base}:ready:high`,
    normal: `${base}:ready`,
    low: `${base}:ready:low`,
    bodies: `${base}:bodies`,
    inbox: `${base}:inbox`,
    wake: channelOf(`${base}:wake`, db),
    channel: channelOf(`${base}:channel`, db),
    seen: (id) => `${base}:seen:${id}`,
    publisher: (publisher) => `${base}:publisher:${publisher}`,
    group: (group) => {
      const mine = `${base}:group:${segmentOf(group)}`
      return {
        retry: `${mine}:retry`,
        waiting: `${mine}:waiting`,
        waitingBodies: `${mine}:waiting-bodies`,
        dead: `${mine}:dead`,
        consumers: `${mine}:consumers`,
        released: `${mine}:released`,
        returned: `${mine}:returned`,
        suspects: `${mine}:suspects`,
        marks: `${mine}:marks`,
        redriven: channelOf(`${mine}:redriven`, db),
        processing: (consumer) => `${mine}:processing:${consumer}`,
        position: `${mine}:position`,
        restored: `${mine}:restored`,
        state: `${mine}:state`,
        done: (id) => `${mine}:done:${id}`
      }
    }
  }
}
