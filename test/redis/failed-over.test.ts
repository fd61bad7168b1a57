/** What a program is told when another server, or a restarted one, takes the place of the one that it was connected to. */
import { assert, describe, it } from "@effect/vitest"
import { FaultProxy, RedisCluster, RedisServer } from "@waybill/testing"
import { Effect, Schedule } from "effect"
import type { Redis } from "ioredis"
import { IoRedis } from "waybill/redis"
import type { ConnectionEvent } from "../../packages/waybill/src/redis/internal/connection/Connection.ts"
import {
  type History,
  historyOf,
  lossOf,
  type Look
} from "../../packages/waybill/src/redis/internal/connection/ReplicationHistory.ts"
import { run } from "../cli/Terminal.ts"
import { ask, client } from "../faults/Verdict.ts"

const history = (of: Partial<History>): History => ({
  id: "a",
  offset: 100,
  before: undefined,
  beforeEnd: 0,
  life: "1",
  isMaster: true,
  ...of
})
const looks = (...offsets: ReadonlyArray<number>): ReadonlyArray<Look> =>
  offsets.map((offset, i) => ({ history: history({ offset }), at: i + 1 }))

describe("what a history tells", () => {
  it.each([
    ["the first connection", looks(), {}, true, undefined],
    ["the same server", looks(90, 100), { offset: 100 }, true, undefined],
    [
      "the same history, further back",
      looks(90, 100),
      { offset: 99, life: "2" },
      true,
      { mayBeLost: true, since: undefined }
    ],
    ["a restart", looks(100), { id: "b", life: "2" }, false, { mayBeLost: true, since: undefined }],
    ["a new history in the same life", looks(100), { id: "b" }, true, undefined],
    ["a replica in between, in the same life", looks(100), { id: "b", before: "a", beforeEnd: 101 }, true, undefined],
    [
      "a resynchronized server in the same life",
      looks(100),
      { id: "b", before: "c", beforeEnd: 900 },
      false,
      { mayBeLost: true, since: undefined }
    ],
    [
      "a replica that had all",
      looks(90, 100),
      { id: "b", before: "a", beforeEnd: 101, life: "2" },
      false,
      { mayBeLost: false, since: 2 }
    ],
    [
      "a replica that had all of the last look",
      looks(90, 100),
      { id: "b", before: "a", beforeEnd: 500, life: "2" },
      true,
      { mayBeLost: true, since: 2 }
    ],
    [
      "a replica that lacks one byte",
      looks(90, 100),
      { id: "b", before: "a", beforeEnd: 100, life: "2" },
      false,
      { mayBeLost: true, since: 1 }
    ],
    [
      "a replica that was further behind",
      looks(90, 100),
      { id: "b", before: "a", beforeEnd: 90, life: "2" },
      false,
      { mayBeLost: true, since: undefined }
    ],
    [
      "the second failover since",
      looks(100),
      { id: "c", before: "b", beforeEnd: 900, life: "3" },
      false,
      { mayBeLost: true, since: undefined }
    ]
  ] as const)("%s", (_, before, found, accepted, loss) => {
    assert.deepStrictEqual(lossOf(before, history(found), accepted), loss)
  })

  it("is read from INFO", () => {
    const info = (lines: Record<string, unknown>) =>
      ["# Replication", ...Object.entries(lines).map(([name, value]) => `${name}:${value}`), ""].join("\r\n")
    const zeros = "0".repeat(40)
    const master = {
      role: "master",
      master_replid: "a",
      master_replid2: zeros,
      master_repl_offset: 7,
      second_repl_offset: -1
    }
    assert.deepStrictEqual(historyOf(info(master)), history({ offset: 7, life: undefined }))
    assert.deepStrictEqual(
      historyOf(info({ ...master, master_replid2: "b", second_repl_offset: 5, run_id: "1" })),
      history({ offset: 7, before: "b", beforeEnd: 5 })
    )
    assert.strictEqual(historyOf(info({ role: "master" })), undefined)
  })
})

type FailedOver = Extract<ConnectionEvent, { readonly _tag: "FailedOver" }>

/** A connection to a master that a replica follows, and what it is told. */
const fixture = Effect.gen(function* () {
  const master = yield* RedisServer.make({ args: ["--repl-diskless-sync-delay", "0"] })
  const line = yield* FaultProxy.make(master.port)
  const replica = yield* RedisServer.make({ args: ["--replicaof", "127.0.0.1", `${line.port}`] })
  const [old, next] = [yield* client(master.url), yield* client(replica.url)]
  const field = (redis: Redis, name: string) =>
    Effect.map(
      ask(() => redis.info("replication")),
      (text) => new RegExp(`^${name}:(.*)$`, "m").exec(text)?.[1]?.trim()
    )
  yield* until(Effect.map(field(next, "master_link_status"), (status) => status === "up"))
  return {
    ...(yield* connected(master.url)),
    looked: looked(old),
    /** Everything written until now is on the replica. */
    replicated: Effect.gen(function* () {
      const written = Number(yield* field(old, "master_repl_offset"))
      yield* until(Effect.map(field(next, "slave_repl_offset"), (offset) => Number(offset) >= written))
    }),
    cut: line.blackhole,
    /** The master dies, and the replica takes its place, under its address. */
    failOver: Effect.gen(function* () {
      yield* master.kill
      yield* ask(() => next.replicaof("NO", "ONE"))
      yield* ask(() => next.config("SET", "port", master.port))
    })
  }
})

const until = (holds: Effect.Effect<boolean>) =>
  holds.pipe(Effect.repeat({ until: (is) => is, schedule: Schedule.spaced("10 millis") }), Effect.timeout("20 seconds"))

const connected = Effect.fnUntraced(function* (url: string) {
  const redis = yield* IoRedis.make({ url })
  const told: Array<FailedOver> = []
  yield* redis.listen((event) => void (event._tag === "FailedOver" && told.push(event)))
  const write = redis.commands.run("SET", "k", (client) => client.set("k", "v"))
  return {
    told,
    write: Effect.retry(write, { while: ({ permanent }) => !permanent, schedule: Schedule.spaced("10 millis") })
  }
})

/** The last command on the connection was its look at the server. */
const looked = (server: Redis) =>
  until(
    Effect.map(
      ask(() => server.client("LIST")),
      (text) => /name=waybill:commands:.* cmd=info /.test(String(text))
    )
  )

describe("FailedOver", () => {
  it.live("a replica that had everything: nothing may be lost", () =>
    Effect.gen(function* () {
      const { failOver, looked, replicated, told, write } = yield* fixture
      yield* write
      const accepted = Date.now()
      yield* looked
      yield* replicated
      assert.deepStrictEqual(told, [])
      yield* failOver
      yield* write
      yield* until(Effect.sync(() => told.length > 0))
      assert.deepInclude(told[0], { mayBeLost: false })
      assert.isAtLeast(told[0]?.since ?? 0, accepted)
    }).pipe(Effect.scoped)
  )

  it.live("a replica that was cut off: what was accepted since may be lost", () =>
    Effect.gen(function* () {
      const { cut, failOver, looked, replicated, told, write } = yield* fixture
      yield* write
      const before = Date.now()
      yield* looked
      yield* replicated
      yield* cut
      const after = Date.now()
      yield* write
      yield* looked
      yield* failOver
      yield* write
      yield* until(Effect.sync(() => told.length > 0))
      assert.deepInclude(told[0], { mayBeLost: true })
      assert.isAtLeast(told[0]?.since ?? 0, before)
      assert.isAtMost(told[0]?.since ?? Infinity, after)
    }).pipe(Effect.scoped)
  )

  it.live("a restart is one, a lost connection is none", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.make({ appendonly: "everysec" })
      const { told, write } = yield* connected(server.url)
      const redis = yield* client(server.url)
      yield* write
      yield* ask(() => redis.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
      yield* write
      yield* looked(redis)
      assert.deepStrictEqual(told, [])
      yield* server.kill
      yield* server.start
      yield* write
      yield* until(Effect.sync(() => told.length > 0))
      assert.deepStrictEqual(told, [
        { _tag: "FailedOver", role: "commands", server: `127.0.0.1:${server.port}`, mayBeLost: true, since: undefined }
      ])
    }).pipe(Effect.scoped)
  )

  it.live("a cluster: the replica in its master's place, behind another connection; not the new place of a slot", () =>
    Effect.gen(function* () {
      const { addresses, failOver, masterOf, migrate, nodes, replicaOf } = yield* RedisCluster.make()
      const { told, write } = yield* connected(`redis-cluster://${addresses[0]}`)
      yield* write
      const old = yield* masterOf("k")
      const next = yield* replicaOf("k")
      yield* looked(yield* client(old.url))
      yield* failOver("k")
      yield* write
      yield* until(Effect.sync(() => told.length > 0))
      assert.deepInclude(told[0], { server: `127.0.0.1:${next.port}`, mayBeLost: false })
      const other = nodes.slice(0, 3).find((node) => node !== old)
      assert(other !== undefined)
      yield* migrate("k", other)
      yield* write
      yield* looked(yield* client(other.url))
      assert.lengthOf(told, 1)
      const doctor = yield* run(["doctor", "--watch", "0"], { url: `redis-cluster://${addresses[1]}` })
      for (const { port } of [next, other])
        assert.match(doctor.out, new RegExp(`:${port}: .*cluster-require-full-coverage`))
      assert.match(doctor.out, new RegExp(`:${next.port}: it has taken over`))
    }).pipe(Effect.scoped)
  )
})
