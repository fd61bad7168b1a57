/**
 * Effect's own PersistedQueue on the Redis client for which Effect ships a layer, with its default options and 64
 * fibers that take.
 */
import { NodeRedis } from "@effect/platform-node"
import { Effect, Layer } from "effect"
import { PersistedQueue, Redis } from "effect/persistence"
import { concurrency, type Peer, publishers } from "../Peer.ts"
import type { Numbered, Work } from "../Work.ts"

const name = "bench"
const prefix = "bench:"

export const make = (work: Work) =>
  Effect.fnUntraced(function* (port: number) {
    const context = yield* Layer.build(
      PersistedQueue.layer.pipe(
        Layer.provide(PersistedQueue.layerStoreRedis({ prefix })),
        Layer.provideMerge(NodeRedis.layer({ socket: { host: "127.0.0.1", port } }))
      )
    )
    const queue = yield* PersistedQueue.make({ name, schema: work.schema }).pipe(Effect.provideContext(context))
    const publishSingly = (messages: ReadonlyArray<Numbered>) =>
      Effect.suspend(() => {
        let next = 0
        const publisher = Effect.gen(function* () {
          // next is within bounds: just checked.
          while (next < messages.length) yield* queue.offer(messages[next++] as Numbered)
        })
        return Effect.all(
          Array.from({ length: publishers }, () => publisher),
          { concurrency: "unbounded", discard: true }
        )
      })

    const peer: Peer = {
      // It has no call for many messages.
      publishBatches: publishSingly,
      publishSingly,
      publishOne: (message) => Effect.runPromise(queue.offer(message)),
      consume: (handle) => {
        const take = queue.take((message) => {
          handle(message)
          return Effect.void
        })
        return Effect.forEach(Array.from({ length: concurrency }), () => Effect.forkScoped(Effect.forever(take)), {
          discard: true
        })
      },
      left: Effect.gen(function* () {
        const redis = yield* Redis.Redis
        const waiting = yield* redis.send<number>("LLEN", `${prefix}${name}`)
        const pending = yield* redis.send<number>("HLEN", `${prefix}${name}:pending`)
        const delayed = yield* redis.send<number>("ZCARD", `${prefix}${name}:delayed`)
        return waiting + pending + delayed
      }).pipe(Effect.provideContext(context))
    }
    return peer
  })
