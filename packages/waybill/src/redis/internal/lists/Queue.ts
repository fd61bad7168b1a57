/**
 * The patterns that keep their messages in lists: the same queue under a name of its own, with or without commits.
 *
 * @module
 */
import * as ClaimsPattern from "../claims/ClaimsPattern.ts"
import { Committer } from "../commit/Committer.ts"
import { evaluate, wire } from "../connection/ScriptReply.ts"
import type { Pattern } from "../Pattern.ts"
import { claimsKeys } from "../wire/Keys.ts"
import * as CommitParts from "./CommitParts.ts"
import * as ListSource from "./ListSource.ts"
import * as Publish from "./PublishScript.ts"

const queue = (order: ListSource.Order) =>
  ({
    expires: false,
    // Where any order will do, the topic knows.
    priorities: order === "priority" || order === "any",
    urgencyOf: order === "priority" ? ListSource.urgencyOf : undefined,
    publishing: (keys) => ({
      script: Publish.publish,
      keys: (publisher) => Publish.keysOf(keys, publisher),
      seen: keys.seen,
      setting: order
    })
  }) satisfies Partial<ClaimsPattern.ClaimsOptions<never>>

/** A queue that delivers at least once. */
export const lists = (order: ListSource.Order): Pattern<"at-least-once"> =>
  ClaimsPattern.make({
    ...queue(order),
    name: ListSource.pattern,
    guarantee: "at-least-once",
    scripts: ListSource.scripts(order)
  })

/** A queue that applies commits. */
export const exactlyOnce = (order: ListSource.Order, markerMillis: number): Pattern<"transactional"> => {
  const { commit, scripts } = CommitParts.of(order)
  const { pattern, targetOf } = CommitParts
  return ClaimsPattern.make({
    ...queue(order),
    name: pattern,
    guarantee: "transactional",
    markerMillis,
    scripts,
    committer: (store, { group, topic }, consumer) => {
      const keys = store.keysOf(topic)
      const { done } = keys.group(group)
      return new Committer({
        ...store,
        topic,
        markerMillis,
        keys: commit.keyNames.length,
        run: (deliveries, more) =>
          evaluate(
            store.commands,
            { topic, pattern },
            commit,
            claimsKeys(keys, group, consumer),
            { pattern, wire, remembered: store.deduplicationMillis, asked: order, deliveries, ttl: markerMillis },
            more
          ),
        own: ({ receipt }) => [receipt],
        done,
        target: (topic) => {
          const keys = store.keysOf(topic)
          return { keys: targetOf(keys), seen: keys.seen }
        }
      })
    }
  })
}
