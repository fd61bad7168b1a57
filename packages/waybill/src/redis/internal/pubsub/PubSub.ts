/**
 * The pub/sub pattern: channels, and for each subscriber an inbox.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import { isGlob } from "../../../internal/Glob.ts"
import { startProblem } from "../../../internal/Unplaced.ts"
import { NotOffered, TransportError } from "../../../Transport.ts"
import type { Pattern } from "../Pattern.ts"
import * as ChannelPublisher from "./ChannelPublisher.ts"
import * as PubSubInspector from "./PubSubInspector.ts"
import * as PubSubReceiver from "./PubSubReceiver.ts"
import { pattern } from "./Scripts.ts"

export type PubSubOptions = Pick<PubSubReceiver.ReceiverOptions, "sharded" | "capacity" | "capacityBytes" | "overflow">

export const make = (options: PubSubOptions): Pattern<"at-most-once"> => ({
  name: pattern,
  guarantee: "at-most-once",
  broadcasts: true,
  inspector: PubSubInspector.make,
  open: (store) =>
    Effect.sync(() => {
      const command = options.sharded ? "SPUBLISH" : "PUBLISH"
      // Subscribers detect losses by the numbers, so these outlast the publishers.
      const rows = new Map<string, ChannelPublisher.Row>()
      return {
        publishing: (sender) => {
          let mine = rows.get(sender.topic)
          if (mine === undefined) rows.set(sender.topic, (mine = ChannelPublisher.row()))
          return ChannelPublisher.make(sender, command, mine)
        },
        join: (subscription, opened) => {
          const { topic } = subscription
          const problem = options.sharded && isGlob(topic) ? noGlobs : startProblem(subscription.start)
          return problem !== undefined
            ? Effect.fail(new TransportError({ operation: "receive", topic, reason: problem }))
            : PubSubReceiver.make({
                ...store,
                ...store.limitsOf(topic),
                ...options,
                keys: store.keysOf(topic),
                subscription,
                opened
              })
        }
      }
    })
})

const noGlobs = new NotOffered({
  feature: "patterns over sharded channels",
  detail: "a shard only knows its own channels. Name a single topic, or use plain channels"
})
