/**
 * The patterns that keep their messages in lists: the same queue under its own name, with or without commits.
 *
 * @module
 */
import * as ClaimsPattern from "../claims/ClaimsPattern.ts"
import { make as makeScripts } from "../claims/Scripts.ts"
import { Committer } from "../commit/Committer.ts"
import { calling } from "../connection/ScriptReply.ts"
import type { Pattern } from "../Pattern.ts"
import { claimsKeys } from "../wire/Keys.ts"
import { commit } from "./CommitParts.ts"
import { source, urgencyOf } from "./ListSource.ts"
import { storage } from "./ListStorage.ts"

export type Order = "fifo" | "lifo" | "priority" | "any"

/** The scripts of each pattern, by its name in the topic's meta key. */
export const scripts = {
  lists: makeScripts(source("lists"), storage),
  "exactly-once": makeScripts(source("exactly-once"), storage)
}

const unique = ["until-settled", "until-taken", "coalescing"] as const

const queue = (name: keyof typeof scripts, order: Order) =>
  ({
    name,
    scripts: scripts[name],
    setting: order,
    unique,
    expires: false,
    // With any order, the topic decides.
    priorities: order === "priority" || order === "any",
    urgencyOf: order === "priority" ? urgencyOf : undefined
  }) satisfies Partial<ClaimsPattern.ClaimsOptions<never>>

/** A queue that delivers at least once. */
export const lists = (order: Order): Pattern<"at-least-once"> =>
  ClaimsPattern.make({ ...queue("lists", order), guarantee: "at-least-once" })

const pattern = "exactly-once"

/** A queue that applies commits. */
export const exactlyOnce = (order: Order, markerMillis: number): Pattern<"transactional"> =>
  ClaimsPattern.make({
    ...queue(pattern, order),
    guarantee: "transactional",
    markerMillis,
    committer: (store, { group, topic }, consumer) => {
      const keys = store.keysOf(topic)
      const call = calling(store.commands, { topic, pattern }, claimsKeys(keys, group, consumer))
      return new Committer({
        ...store,
        topic,
        markerMillis,
        storage,
        keys: commit.keyNames.length,
        settingOf: () => order,
        unique,
        run: (args, more) => call(commit, args, more),
        own: ({ first, id, receipt }) => [receipt, first === undefined ? "" : id],
        done: keys.group(group).done
      })
    }
  })
