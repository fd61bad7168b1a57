/**
 * The environment of a fault test: a server of its own, the library on it for the test's own publishing and inspecting, and
 * workers.
 */
import { RedisServer } from "@waybill/testing"
import { Effect, Layer, Logger, type Scope } from "effect"
import type { Terms } from "./Jobs.ts"
import * as Member from "./Member.ts"
import * as Pattern from "./Pattern.ts"
import { client, disconnected, judge, publish, settled } from "./Verdict.ts"
import type { WaybillOrders } from "./waybill-worker.ts"
import * as WorkerProcess from "./WorkerProcess.ts"

/** The library's log would hide what the tests print, and the workers log separately. */
const Silent = Logger.layer([])

const layer = ({ pattern = "streams", ...options }: Options = {}) =>
  Layer.mergeAll(
    Layer.unwrap(Effect.map(RedisServer.RedisServer, (server) => Pattern.on(pattern, server.url))),
    Pattern.layer(pattern),
    WorkerProcess.layer
  ).pipe(Layer.provideMerge(RedisServer.layer(options)), Layer.provideMerge(Silent))

export interface Options extends RedisServer.Options {
  /** Streams by default. */
  readonly pattern?: Pattern.Name
}

/** Runs a test on a fixture of its own. Everything the test opened is closed before the server. */
export const run =
  (options?: Options) =>
  <A, E>(test: Effect.Effect<A, E, Layer.Success<ReturnType<typeof layer>> | Scope.Scope>) =>
    test.pipe(Effect.scoped, Effect.provide(layer(options)))

/** The parts that most tests need. */
export const make = Effect.gen(function* () {
  const server = yield* RedisServer.RedisServer
  const workers = yield* WorkerProcess.Workers
  const redis = yield* client(server.url)
  const pattern = yield* Pattern.Pattern
  const members: Array<Member.Member> = []
  return {
    pattern,
    server,
    redis,
    workers,
    publish: (jobs: Parameters<typeof publish>[1]) => publish(workers.recorder, jobs),
    /** `through` is the port of a proxy in front of the server. */
    spawn: ({
      through,
      ...orders
    }: Omit<WaybillOrders, "url" | "pattern"> & { readonly every?: number; readonly through?: number } = {}) =>
      workers.spawn("waybill-worker.ts", {
        ...orders,
        pattern: pattern.name,
        url: through === undefined ? server.url : `redis://127.0.0.1:${through}`
      }),
    /** Consumers in this process; `url` is the server's, or that of a proxy in front of it. */
    join: (url: string, terms?: Terms) =>
      Effect.gen(function* () {
        const member = yield* Member.join(`member-${members.length + 1}`, url, terms, pattern.name)
        members.push(member)
        yield* member.happens("ConsumerStarted")
        return member
      }),
    /** Waits for the end, stops all workers, and judges; `others` are not among them, and have left. */
    verdict: Effect.fnUntraced(function* (...others: ReadonlyArray<Member.Member>) {
      yield* settled(redis)
      yield* workers.stopAll
      yield* Effect.forEach(members, (member) => member.leave, { concurrency: "unbounded" })
      yield* disconnected(redis)
      const events = [...members, ...others].flatMap((member) => member.recorder.events)
      return yield* judge(redis, [...(yield* workers.history), ...events])
    })
  }
})
