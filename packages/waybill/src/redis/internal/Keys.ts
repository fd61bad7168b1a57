/**
 * Every name that Waybill gives to a key in Redis. All keys of a topic share one hash tag, so that a script may touch
 * any of them, on a cluster too.
 *
 * @module
 */

/** The set of topics that were opened under a prefix. It lies in a slot of its own: no script touches it. */
export const registry = (prefix: string): string => `${prefix}:topics`

/** The keys of a topic. */
export interface TopicKeys {
  /** Stream: the messages, one entry each. */
  readonly stream: string
  /** Hash: the pattern and the wire version that the topic was opened with. */
  readonly meta: string
  /** Sorted set: messages that are not due yet, by due time. */
  readonly delayed: string
  /** Hash: their bodies. */
  readonly delayedBodies: string
  /** Set: the groups that hold back trimming, whether they exist at this moment or not. */
  readonly groups: string
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
  /** Hash: paused or not, the position to start from when the group is lost, counters. */
  readonly state: string
}

/**
 * The keys of `topic` under `prefix`. A group's name stands between two fixed parts, so no two groups share a key
 * whatever they are called.
 */
export const topicKeys = (prefix: string, topic: string): TopicKeys => {
  const tag = `{${prefix}:${topic}}`
  return {
    stream: `${tag}:stream`,
    meta: `${tag}:meta`,
    delayed: `${tag}:delayed`,
    delayedBodies: `${tag}:delayed-bodies`,
    groups: `${tag}:groups`,
    seen: (id) => `${tag}:seen:${id}`,
    publisher: (publisher) => `${tag}:publisher:${publisher}`,
    group: (group) => {
      const base = `${tag}:group:${group}`
      return {
        retry: `${base}:retry`,
        waiting: `${base}:waiting`,
        waitingBodies: `${base}:waiting-bodies`,
        dead: `${base}:dead`,
        consumers: `${base}:consumers`,
        released: `${base}:released`,
        state: `${base}:state`
      }
    }
  }
}
