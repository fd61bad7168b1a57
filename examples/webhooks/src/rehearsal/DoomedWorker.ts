import { fileURLToPath } from "node:url"
/**
 * A second worker of group `audit` that does its work for a while, then gets stuck with deliveries in its hands, and dies
 * there: it acks nothing, hands nothing back and says nothing. Others have to notice by themselves.
 *
 * On Redis it is a process, ended with SIGKILL. In memory there is no second process that could share the messages, so it
 * is a receiver that stops renewing its leases, which is all that others see of a dead process.
 */
import { freeze } from "@waybill/testing/freeze"
import { Config, Deferred, Effect, Layer, type Redacted, Scope, Stream } from "effect"
import { ChildProcess } from "effect/process"
import { Consumer, Transport } from "waybill"
import * as Audit from "../Audit.ts"

export interface DoomedWorker {
  /** Its name in the group. */
  readonly consumer: string
  /** Waits until it is stuck. */
  readonly stuck: Effect.Effect<void>
  readonly crash: Effect.Effect<void>
}

/** How many lines it writes before it gets stuck; there are more than 300 to write, for two workers. */
const linesToWrite = 30

/** An audit log whose disk stops answering after some lines. */
const stallingAudit = (path: string, stuck: Effect.Effect<unknown>) =>
  Layer.effect(
    Audit.Audit,
    Effect.gen(function* () {
      const audit = yield* Audit.Audit
      let lines = 0
      return {
        append: (entry) => (lines++ < linesToWrite ? audit.append(entry) : Effect.andThen(stuck, Effect.never))
      }
    })
  ).pipe(Layer.provide(Audit.Audit.layer(path, "doomed worker")))

/**
 * Works for as long as the scope is open. `stuck` runs whenever it gets stuck. What it settles while `dead` says yes never
 * reaches the transport.
 */
export const work = Effect.fn("DoomedWorker.work")(function* (
  path: string,
  stuck: Effect.Effect<unknown>,
  dead: () => boolean = () => false
) {
  const transport = yield* Transport.AtLeastOnce
  const joined = yield* Deferred.make<Transport.Receiver>()
  const observed: typeof transport = {
    ...transport,
    receive: Effect.fnUntraced(function* (subscription) {
      const receiver = yield* transport.receive(subscription)
      yield* Deferred.succeed(joined, receiver)
      return {
        consumer: receiver.consumer,
        take: (max) => receiver.take(max),
        settle: (all) => (dead() ? Effect.succeed(all.map(() => "Stale" as const)) : receiver.settle(all)),
        lost: receiver.lost
      }
    })
  }
  yield* Layer.build(
    Consumer.layer(Audit.consumer).pipe(
      Layer.provide(stallingAudit(path, stuck)),
      Layer.provide(Layer.succeed(Transport.AtLeastOnce, observed))
    )
  )
  return yield* Deferred.await(joined)
})

/** In this process, over `MemoryStreams`. */
export const inMemory = Effect.fn("DoomedWorker.inMemory")(function* (path: string) {
  const scope = yield* Effect.scope
  const stuck = yield* Deferred.make<void>()
  let dead = false
  const receiver = yield* work(path, Deferred.succeed(stuck, undefined), () => dead)
  const worker: DoomedWorker = {
    consumer: receiver.consumer,
    stuck: Deferred.await(stuck),
    crash: Effect.suspend(() => {
      dead = true
      return Scope.provide(freeze(receiver), scope)
    })
  }
  return worker
})

/** What the process is told, by its environment. */
export const settings = Config.all({
  url: Config.Redacted("REDIS_URL"),
  prefix: Config.String("WEBHOOKS_PREFIX"),
  path: Config.String("WEBHOOKS_AUDIT_LOG")
})

/** What the process says, a line each. */
export const says = { joined: "joined ", stuck: "stuck" } as const

/** In a process of its own, over `RedisStreams`. */
export const asProcess = Effect.fn("DoomedWorker.asProcess")(function* (options: {
  readonly url: Redacted.Redacted
  readonly prefix: string
  readonly path: string
}) {
  const joined = yield* Deferred.make<string>()
  const stuck = yield* Deferred.make<void>()
  const child = yield* ChildProcess.make(
    process.execPath,
    [fileURLToPath(new URL("DoomedProcess.ts", import.meta.url))],
    {
      env: { REDIS_URL: options.url, WEBHOOKS_PREFIX: options.prefix, WEBHOOKS_AUDIT_LOG: options.path },
      extendEnv: true,
      stderr: "inherit",
      killSignal: "SIGKILL"
    }
  )
  yield* child.stdout.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.runForEach((line) => {
      if (line === says.stuck) return Deferred.succeed(stuck, undefined)
      return line.startsWith(says.joined) ? Deferred.succeed(joined, line.slice(says.joined.length)) : Effect.void
    }),
    Effect.andThen(Deferred.die(joined, new Error("the doomed worker died before it had joined its group"))),
    Effect.forkScoped
  )
  const worker: DoomedWorker = {
    consumer: yield* Deferred.await(joined),
    stuck: Deferred.await(stuck),
    crash: Effect.orDie(child.kill({ killSignal: "SIGKILL" }))
  }
  return worker
})
