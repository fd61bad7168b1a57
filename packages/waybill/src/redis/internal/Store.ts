/**
 * What the parts of one layer know of each other, whatever its pattern: one publisher a topic, the receivers of this
 * process, and the registry of topics. Closing the layer closes all of it.
 *
 * @module
 */
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { Lifecycle } from "../../Lifecycle.ts"
import type { Receiver, Subscription, Transport, TransportError } from "../../Transport.ts"
import type { IoRedis } from "../IoRedis.ts"
import type { Published } from "./commit/Committer.ts"
import type { Sender } from "./publish/Outbox.ts"
import { Publisher, type PublisherOptions, type Publishing } from "./publish/Publisher.ts"
import type { Settings } from "./Settings.ts"
import { registry } from "./wire/Keys.ts"

/** A receiver, as the others of its process know it. */
export interface Member extends Receiver {
  /** A message of the topic will be due in so many milliseconds. */
  expect(millis: number): void
  /** Looks at once whether its group is paused; returns when it knows, or soon. */
  readonly look: Effect.Effect<void>
}

/** What a pattern brings. */
export interface Pattern {
  /** Its name in the meta key of a topic. */
  readonly name: string
  readonly settings: Settings
  /** The script that stores messages; or, for a pattern that stores none, what sends them. */
  readonly publishing: (topic: string) => Publishing | ((options: SenderOptions) => Sender)
  /** `opened` is to run after the topic has come to be in the store. */
  readonly join: (
    subscription: Subscription,
    store: Shared,
    opened: Effect.Effect<void>
  ) => Effect.Effect<Member, TransportError, Scope.Scope>
}

/** A publisher, and whether it was used since the last look. */
interface Opened {
  readonly publisher: Sender
  readonly scope: Scope.Closeable
  used: boolean
}

/** A publisher that is not used for so long, or up to twice as long, is closed: a process may publish to topics by the thousand. */
const sweepMillis = 5000

/** What everything that sends messages is given. */
export type SenderOptions = Pick<PublisherOptions, "commands" | "topic" | "clock" | "timeoutMillis" | "opened">

/** What every part works with. */
export interface Shared {
  readonly redis: Context.Service.Shape<typeof IoRedis>
  readonly clock: Clock.Clock
  readonly lifecycle: Lifecycle
  /** Messages were stored, and not by a publisher: the registry, the lifecycle and those who wait for them learn of it. */
  readonly published: (published: Published) => Effect.Effect<void>
}

export interface Store extends Shared {
  readonly transport: Context.Service.Shape<typeof Transport>
  /** Makes the receivers of a group in this process look at once whether they are paused. */
  readonly steered: (topic: string, group: string) => Effect.Effect<void>
}

export const make = Effect.fnUntraced(function* (
  redis: Shared["redis"],
  pattern: Pattern
): Effect.fn.Return<Store, never, Scope.Scope> {
  const { settings } = pattern
  const clock = yield* Clock.Clock
  const scope = yield* Scope.Scope
  const lifecycle = new Lifecycle()
  const run = Effect.runForkWith(yield* Effect.context<never>())
  yield* redis.listen((event) => run(lifecycle.report(event)))

  const publishers = new Map<string, Opened>()
  const members = new Set<{ readonly topic: string; readonly group: string; readonly member: Member }>()

  /** Puts the topic into the registry. Failing does not undo what was done; the next opening tries again. */
  const register = (topic: string): Effect.Effect<void> => {
    const key = registry(settings.prefix)
    return Effect.ignore(redis.commands.run("sadd", (client) => client.sadd(key, topic), { key }))
  }

  const used = (topic: string): Sender | undefined => {
    const known = publishers.get(topic)
    if (known !== undefined) known.used = true
    return known?.publisher
  }

  const open = (topic: string): Effect.Effect<Sender> =>
    Effect.suspend(() => {
      const known = used(topic)
      if (known !== undefined) return Effect.succeed(known)
      const publishing = pattern.publishing(topic)
      const options: SenderOptions = {
        commands: redis.commands,
        topic,
        clock,
        timeoutMillis: settings.publishMillis,
        opened: register(topic)
      }
      const publisher =
        typeof publishing === "function"
          ? publishing(options)
          : new Publisher({
              ...options,
              pattern: pattern.name,
              publishing,
              deduplicationMillis: settings.deduplicationMillis,
              delayed: (millis) => expect(topic, millis)
            })
      const opening = Scope.forkUnsafe(scope)
      publishers.set(topic, { publisher, scope: opening, used: true })
      return Scope.addFinalizer(opening, publisher.close).pipe(
        Effect.andThen(Effect.forkIn(publisher.run, opening)),
        Effect.andThen(
          Effect.suspend(() => {
            if (sweeping) return Effect.void
            sweeping = true
            return Effect.forkIn(sweep, scope)
          })
        ),
        Effect.as(publisher)
      )
    })

  /** Closes the publishers that were not used from one look to the next, until none is left. */
  const sweep = Effect.gen(function* () {
    while (publishers.size > 0) {
      yield* Effect.sleep(sweepMillis)
      for (const [topic, one] of publishers) {
        if (one.used || one.publisher.busy) {
          one.used = false
        } else {
          publishers.delete(topic)
          yield* Scope.close(one.scope, Exit.void)
        }
      }
    }
    sweeping = false
  })
  let sweeping = false

  const expect = (topic: string, millis: number) => {
    for (const one of members) if (one.topic === topic) one.member.expect(millis)
  }

  const shared: Shared = {
    redis,
    clock,
    lifecycle,
    published: ({ dueIn, messages, opened, receipts, topic }) =>
      Effect.suspend(() => {
        if (dueIn < Infinity) expect(topic, dueIn)
        if (lifecycle.active) lifecycle.emit({ _tag: "Published", topic, messages, receipts })
        return opened ? register(topic) : Effect.void
      })
  }
  return {
    ...shared,
    transport: {
      lifecycle,
      // Looked up as it runs: until then a publisher that is known now may be closed.
      publish: (topic, messages) =>
        Effect.suspend(
          () => used(topic)?.publish(messages) ?? Effect.flatMap(open(topic), (opened) => opened.publish(messages))
        ),
      receive: Effect.fnUntraced(function* (subscription) {
        const { group, topic } = subscription
        const member = yield* pattern.join(subscription, shared, register(topic))
        const entry = { topic, group, member }
        yield* Effect.acquireRelease(
          Effect.sync(() => members.add(entry)),
          () => Effect.sync(() => members.delete(entry))
        )
        return member
      })
    },
    steered: (topic, group) =>
      Effect.forEach(
        [...members].filter((one) => one.topic === topic && one.group === group),
        ({ member }) => member.look,
        { discard: true }
      )
  }
})
