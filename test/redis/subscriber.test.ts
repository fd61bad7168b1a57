/**
 * Subscriptions that come back by themselves, and tell of the hole before the first message behind it.
 */
import { assert, describe, it } from "@effect/vitest"
import { FaultProxy, RedisServer } from "@waybill/testing"
import { Context, Deferred, Effect, Exit, Layer, References, Scope } from "effect"
import { IoRedis } from "waybill/redis"
import { type Kind, make } from "../../packages/waybill/src/redis/internal/connection/Subscriber.ts"
import { becomes, client } from "./Fixture.ts"

/** What a listener was told, in order. */
const listening = () => {
  const told: Array<string> = []
  return {
    told,
    listener: {
      message: (payload: Buffer, channel: string) => void told.push(`${channel}: ${payload.toString()}`),
      interrupted: () => void told.push("interrupted"),
      refused: (reason: { readonly _tag: string }) => void told.push(reason._tag)
    }
  }
}

const fixture = Effect.gen(function* () {
  const server = yield* RedisServer.RedisServer
  const proxy = yield* FaultProxy.FaultProxy
  const context = yield* Layer.build(IoRedis.layer({ url: proxy.url }))
  const redis = Context.get(context, IoRedis.IoRedis)
  const subscriber = yield* make(redis)
  const gone = yield* Deferred.make<void>()
  yield* redis.listen(({ _tag, role }) => {
    if (_tag === "Disconnected" && role.startsWith("subscriber")) Deferred.doneUnsafe(gone, Exit.void)
  })
  const other = yield* client(server.url)
  const publish = (channel: string, ...payloads: ReadonlyArray<string>) =>
    Effect.promise(async () => {
      for (const payload of payloads) await other.publish(channel, payload)
    })
  const subscribers = (channel: string) => Effect.promise(() => other.call("PUBSUB", "NUMSUB", channel))
  /** A connection of the subscriber was lost. */
  const lost = Deferred.await(gone)
  return { lost, proxy, subscriber, other, publish, subscribers }
}).pipe(Effect.provideService(References.MinimumLogLevel, "None"))

const quietly = FaultProxy.layer.pipe(Layer.provideMerge(RedisServer.layer()))

const kinds: ReadonlyArray<readonly [Kind, string]> = [
  ["channel", "news"],
  ["pattern", "n[e]w?"],
  ["shard", "news"]
]

describe("Subscriber", () => {
  for (const [kind, name] of kinds) {
    it.live(
      `a ${kind}: what is published after subscribing arrives, and a lost connection is told before what follows`,
      () =>
        Effect.gen(function* () {
          const { other, proxy, subscriber } = yield* fixture
          const say = (payload: string) =>
            Effect.promise(() => (kind === "shard" ? other.spublish("news", payload) : other.publish("news", payload)))
          const { listener, told } = listening()
          yield* subscriber.subscribe(kind, name, listener)
          yield* say("1")
          yield* becomes("the first message", Effect.succeed(told), ["news: 1"])
          yield* proxy.reset
          yield* becomes(
            "the news of the loss",
            Effect.sync(() => told.slice(1)),
            ["interrupted"]
          )
          yield* say("2")
          yield* becomes(
            "what follows",
            Effect.sync(() => told.slice(1)),
            ["interrupted", "news: 2"]
          )
        }).pipe(Effect.scoped, Effect.provide(quietly))
    )
  }

  it.live("no message that follows a loss comes before the news of it, however fast they are published", () =>
    Effect.gen(function* () {
      const { other, publish, subscriber } = yield* fixture
      const { listener, told } = listening()
      yield* subscriber.subscribe("channel", "news", listener)
      yield* publish("news", "0")
      for (let i = 1; i <= 20; i++) {
        yield* Effect.promise(() => other.call("CLIENT", "KILL", "TYPE", "pubsub"))
        // Until somebody listens again nobody counts.
        for (let heard = 0; heard === 0;) heard = yield* Effect.promise(() => other.publish("news", `${i}`))
      }
      yield* becomes(
        "all that was heard",
        Effect.sync(() => told),
        Array.from({ length: 21 }, (_, i) => (i === 0 ? ["news: 0"] : ["interrupted", `news: ${i}`])).flat()
      )
    }).pipe(Effect.scoped, Effect.provide(quietly))
  )

  it.live("listeners of one name share a subscription, and the last to leave ends it", () =>
    Effect.gen(function* () {
      const { publish, subscriber, subscribers } = yield* fixture
      const [a, b] = [listening(), listening()]
      const [first, second] = [yield* Scope.make(), yield* Scope.make()]
      yield* Scope.provide(subscriber.subscribe("channel", "news", a.listener), first)
      yield* Scope.provide(subscriber.subscribe("channel", "news", b.listener), second)
      yield* publish("news", "1")
      yield* becomes("both heard", Effect.succeed([a.told, b.told]), [["news: 1"], ["news: 1"]])
      assert.deepStrictEqual(yield* subscribers("news"), ["news", 1])
      yield* Scope.close(first, Exit.void)
      yield* publish("news", "2")
      yield* becomes("one heard", Effect.succeed([a.told, b.told]), [["news: 1"], ["news: 1", "news: 2"]])
      yield* Scope.close(second, Exit.void)
      yield* becomes("nobody is subscribed", subscribers("news"), ["news", 0])
      const c = listening()
      yield* subscriber.subscribe("channel", "news", c.listener)
      yield* publish("news", "3")
      yield* becomes("a later one heard", Effect.succeed(c.told), ["news: 3"])
    }).pipe(Effect.scoped, Effect.provide(quietly))
  )

  it.live("a connection that has gone silent is found out and replaced", () =>
    Effect.gen(function* () {
      const { lost, proxy, publish, subscriber } = yield* fixture
      const { listener, told } = listening()
      yield* subscriber.subscribe("channel", "news", listener)
      yield* proxy.blackhole
      yield* lost
      yield* proxy.pass
      yield* becomes("the news of the loss", Effect.succeed(told), ["interrupted"])
      yield* publish("news", "1")
      yield* becomes("what follows", Effect.succeed(told), ["interrupted", "news: 1"])
    }).pipe(Effect.scoped, Effect.provide(quietly))
  )

  it.live("a refused subscription is requested again, even while the others are busy", () =>
    Effect.gen(function* () {
      const { other, publish, subscriber } = yield* fixture
      const [news, secrets] = [listening(), listening()]
      yield* subscriber.subscribe("channel", "news", news.listener)
      yield* subscriber.subscribe("channel", "secrets", secrets.listener)
      yield* Effect.forkScoped(Effect.forever(Effect.andThen(publish("news", "1"), Effect.sleep("100 millis"))))
      // The server ends the connection of who hears what it may not hear any more.
      yield* Effect.promise(() => other.acl("SETUSER", "default", "resetchannels", "&news"))
      yield* becomes(
        "refused",
        Effect.sync(() => secrets.told.includes("NotPermitted")),
        true
      )
      yield* Effect.promise(() => other.acl("SETUSER", "default", "allchannels"))
      yield* becomes(
        "back",
        Effect.sync(() => secrets.told.at(-1)),
        "interrupted"
      )
    }).pipe(Effect.scoped, Effect.provide(quietly))
  )

  it.live("a channel that the user may not hear is a typed failure, and the others live on", () =>
    Effect.gen(function* () {
      const { other, publish, subscriber } = yield* fixture
      yield* Effect.promise(() => other.acl("SETUSER", "default", "resetchannels", "&news"))
      const { listener, told } = listening()
      yield* subscriber.subscribe("channel", "news", listener)
      const failure = yield* Effect.flip(subscriber.subscribe("channel", "secrets", listening().listener))
      assert.strictEqual(failure._tag, "NotPermitted")
      yield* publish("news", "1")
      yield* becomes("what is permitted", Effect.succeed(told), ["news: 1"])
    }).pipe(Effect.scoped, Effect.provide(quietly))
  )
})
