/**
 * What the patterns provide that keep their messages in lists: the same queue under a name of its own, with or without
 * commits.
 *
 * @module
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import { markerProblem, TransportError } from "../../../Transport.ts"
import { IoRedis } from "../../IoRedis.ts"
import type { ClaimedDelivery } from "../claims/ClaimedDelivery.ts"
import * as ClaimsInspector from "../claims/ClaimsInspector.ts"
import * as Members from "../claims/ClaimsReceiver.ts"
import type { ClaimsScripts } from "../claims/Scripts.ts"
import { Committer } from "../commit/Committer.ts"
import * as RecordReader from "../commit/RecordReader.ts"
import type { Script } from "../connection/Script.ts"
import { wire } from "../connection/ScriptReply.ts"
import { make as makeSubscriber } from "../connection/Subscriber.ts"
import { hear } from "../group/Wake.ts"
import type { Settings } from "../Settings.ts"
import { make as makeStore } from "../Store.ts"
import { topicKeys } from "../wire/Keys.ts"
import { targetOf } from "./CommitParts.ts"
import * as ListSource from "./ListSource.ts"
import * as Publish from "./PublishScript.ts"

export interface QueueOptions {
  readonly pattern: string
  readonly settings: Settings
  readonly order: ListSource.Order
  readonly scripts: ClaimsScripts
}

/** How a queue applies commits, and for how long it remembers that it has. */
export interface Commits {
  readonly script: Script
  readonly markerMillis: number
}

/** The transport of a queue; one that is told how applies commits. */
export const make = (options: QueueOptions, commits?: Commits) =>
  Effect.flatMap(IoRedis, (redis) => provide(redis, options, commits))

const provide = Effect.fnUntraced(function* (
  redis: Context.Service.Shape<typeof IoRedis>,
  { order, pattern, scripts, settings }: QueueOptions,
  commits: Commits | undefined
) {
  const keysOf = (topic: string) => topicKeys(settings.prefix, topic, redis.db)
  const subscriber = yield* makeSubscriber(redis)
  const store = yield* makeStore(redis, {
    name: pattern,
    settings,
    publishing: (topic) => {
      const keys = keysOf(topic)
      return {
        script: Publish.publish,
        keys: (publisher) => Publish.keysOf(keys, publisher),
        seen: keys.seen,
        setting: order
      }
    },
    join: (subscription, { clock, lifecycle, published, redis }, opened) => {
      const { group, topic } = subscription
      const problem =
        commits === undefined
          ? undefined
          : markerProblem(commits.markerMillis, settings.deadLetters.maxAgeMillis, subscription)
      if (problem !== undefined) {
        return Effect.fail(new TransportError({ operation: "receive", topic, reason: problem }))
      }
      const keys = keysOf(topic)
      return Members.make({
        commands: redis.commands,
        topic,
        keys,
        source: {
          pattern: pattern,
          scripts,
          keys: ListSource.keysOf(keys),
          expires: false,
          urgencyOf: order === "priority" ? ListSource.urgencyOf : undefined,
          listen: (heard) => hear(subscriber, topic, group, keys, heard)
        },
        subscription,
        lifecycle,
        clock,
        deadLetters: settings.deadLetters,
        pollMillis: settings.pollMillis,
        committer:
          commits &&
          ((consumer) => {
            const { done, marks, processing } = keys.group(group)
            return new Committer<ClaimedDelivery>({
              commands: redis.commands,
              clock,
              prefix: settings.prefix,
              topic,
              pattern,
              markerMillis: commits.markerMillis,
              script: commits.script,
              keys: [...ListSource.keysOf(keys), processing(consumer), marks],
              args: [pattern, wire, settings.deduplicationMillis, order],
              own: ({ receipt }) => [receipt],
              done,
              target: (topic) => {
                const keys = keysOf(topic)
                return { keys: targetOf(keys), seen: keys.seen }
              },
              published
            })
          }),
        opened
      })
    }
  })
  return {
    ...store.transport,
    inspector: ClaimsInspector.make(
      { commands: redis.commands, prefix: settings.prefix, keysOf, steered: store.steered },
      pattern,
      (topic) => ({ scripts, keys: ListSource.keysOf(keysOf(topic)) })
    ),
    records: commits && RecordReader.make(redis.commands, settings.prefix)
  }
})
