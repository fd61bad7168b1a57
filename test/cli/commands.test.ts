/**
 * Every command of `waybill` on a real server, as a process: what it prints, for people and for programs, and how it ends.
 */
import { writeFileSync } from "node:fs"
import { join } from "node:path"
import { assert, layer } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Clock, Deferred, Effect, Fiber, Layer, References, Schedule, Schema } from "effect"
import { Consumer, Producer, Topic } from "waybill"
import { IoRedis, RedisStreams } from "waybill/redis"
// The command is a program and exports nothing.
import { failoverFindings, versionFindings } from "../../packages/cli/src/commands/Doctor.ts"
import { client } from "../redis/Fixture.ts"
import { process, run, until } from "./Terminal.ts"

class Declined extends Schema.TaggedError<Declined>()("Declined", { code: Schema.String }) {}
class Busy extends Schema.TaggedError<Busy>()("Busy", {}) {}

const Orders = Topic.make("orders", { payload: Schema.Struct({ id: Schema.String, cents: Schema.Int }) })

/** One order declined, one busy for an hour, one with a handler that does not end, and what nobody has looked at. */
const fixture = Effect.gen(function* () {
  const { url } = yield* RedisServer.RedisServer
  const entered = yield* Deferred.make<void>()
  const Billing = Consumer.make(Orders, { group: "billing", concurrency: 8, shutdown: "1 second" }).pipe(
    Consumer.process((order) =>
      order.id === "declined"
        ? Effect.fail(new Declined({ code: "limit\u202e" }))
        : order.id === "busy"
          ? Effect.fail(new Busy())
          : order.id === "slow"
            ? Effect.andThen(Deferred.succeed(entered, undefined), Effect.never)
            : Effect.void
    ),
    Consumer.onFailure({
      Declined: Consumer.deadLetter("Declined"),
      Busy: Consumer.retry(Schedule.spaced("1 hour"))
    }),
    Consumer.layer
  )
  const context = yield* Layer.build(
    Billing.pipe(Layer.provideMerge(RedisStreams.layer()), Layer.provideMerge(IoRedis.layer({ url })))
  )
  yield* Producer.publishAll(
    Orders,
    ["declined", "busy", "slow"].map((id) => ({ id, cents: 100 })),
    ({ id }) => ({ id })
  ).pipe(Effect.provideContext(context))
  yield* Deferred.await(entered)
  const json = (args: ReadonlyArray<string>) =>
    Effect.map(run([...args, "--json"], { url }), ({ err, out }) => {
      assert.notStrictEqual(out, "", err)
      return JSON.parse(out)
    })
  // What was settled is in the store a moment after its handler has ended.
  yield* json(["stats", "orders"]).pipe(
    Effect.flatMap(([info]) =>
      info.groups[0].deadLetters === 1 && info.groups[0].waiting === 1 ? Effect.void : Effect.fail("not yet")
    ),
    Effect.retry(Schedule.spaced("50 millis").pipe(Schedule.upTo({ times: 600 })))
  )
  return { url, context, json }
}).pipe(Effect.provideService(References.MinimumLogLevel, "None"))

layer(RedisServer.layer(), { excludeTestServices: true, timeout: "60 seconds" })("waybill", (it) => {
  it.effect(
    "shows what there is, and steers it",
    () =>
      Effect.gen(function* () {
        const { json, url } = yield* fixture
        const read = (...args: ReadonlyArray<string>) => Effect.map(run(args, { url }), ({ out }) => out)

        assert.match(yield* read("topics"), /TOPIC +PATTERN.*\norders +streams/)
        assert.strictEqual((yield* json(["topics"]))[0].topic, "orders")
        assert.match(yield* read("stats"), /orders +billing +0 +1 .* 1 +1 +1/)

        const [pending] = yield* json(["pending", "orders", "billing"])
        assert.strictEqual(pending.id, "slow")
        assert.strictEqual(pending.attempt, 1)
        assert.deepStrictEqual(JSON.parse(pending.body), { id: "slow", cents: 100 })
        assert.match(yield* read("pending", "orders", "billing"), /slow +\S+ +1 /)

        const [waiting] = yield* json(["retries", "orders", "billing"])
        assert.strictEqual(waiting.id, "busy")
        assert.strictEqual(waiting.attempts, 1)
        assert.include(waiting.cause, "Busy")
        assert.deepInclude(waiting.attemptLog[0], { attempt: 1, tag: "Busy", message: "" })
        assert.isAbove(waiting.dueAt, Date.now())
        assert.match(yield* read("retries", "orders", "billing"), /busy +1 +in 59 min/)
        // Whatever the clock of this machine says: the server's counts.
        const clock = yield* Clock.Clock
        const ahead = { currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + 7_200_000 }
        const late = { ...ahead, currentTimeMillis: Effect.sync(ahead.currentTimeMillisUnsafe) }
        const skewed: Clock.Clock = Object.assign(Object.create(clock), late)
        assert.match(
          yield* Effect.provideService(read("retries", "orders", "billing"), Clock.Clock, skewed),
          /busy +1 +in 59 min/
        )

        const consumers = yield* json(["consumers", "orders", "billing"])
        assert.deepStrictEqual(
          consumers.map(({ pending }: { pending: number }) => pending),
          [1]
        )
        assert.isAbove(consumers[0].leaseLeftMillis, 0)
        assert.match(yield* read("consumers", "orders", "billing"), /CONSUMER +PENDING +LEASE LEFT\n\S+ +1 +\d/)

        const [letter] = yield* json(["dead", "list", "orders", "billing"])
        assert.strictEqual(letter.id, "declined")
        assert.deepStrictEqual(yield* json(["dead", "list", "orders", "billing", "--reason", "Other"]), [])
        assert.deepStrictEqual(letter.failure, { tag: "Declined", message: "", fields: { code: "limit\u202e" } })
        const shown = yield* read("dead", "show", "orders", "billing", letter.entry)
        assert.include(shown, "reason     Declined")
        assert.match(shown, /ATTEMPT +ENDED +CONSUMER +FAILURE\n +1 +\S+ \S+ +\S+-\d+-\w+ +Declined\n/)
        assert.include(shown, 'failure    Declined\nfield      code: "limit\\u202e"\n')
        for (const entry of ["nonsense", "0-0", letter.entry.replace(/-.*/, "-999"), "99999999999999-1"]) {
          const ended = yield* run(["dead", "show", "orders", "billing", entry], { url })
          assert.strictEqual(ended.code, 3, entry)
          assert.include(ended.err, `has no dead letter ${entry}`)
        }

        assert.strictEqual((yield* run(["pause", "orders", "billing"], { url })).code, 0)
        assert.isTrue((yield* json(["stats", "orders"]))[0].groups[0].paused)
        assert.strictEqual((yield* run(["resume", "orders", "billing"], { url })).code, 0)
        assert.isFalse((yield* json(["stats", "orders"]))[0].groups[0].paused)

        const plan = yield* json(["dead", "redrive", "orders", "billing", "--dry-run"])
        assert.deepStrictEqual(plan, { examined: 1, selected: 1, done: 0, dryRun: true })
        const refused = yield* run(["dead", "redrive", "orders", "billing"], { url })
        assert.strictEqual(refused.code, 5)
        assert.match(refused.err, /^waybill: not done: confirming "Redrive 1 dead letter .*--yes.*\n$/)
        assert.strictEqual((yield* json(["dead", "redrive", "orders", "billing", "--yes"])).done, 1)
        // It is declined again, and then it is deleted.
        yield* json(["dead", "discard", "orders", "billing", "--id", "declined", "--yes"]).pipe(
          Effect.flatMap(({ done }) => (done === 1 ? Effect.void : Effect.fail("not dead again yet"))),
          Effect.retry(Schedule.spaced("50 millis").pipe(Schedule.upTo({ times: 600 })))
        )
        assert.deepStrictEqual(yield* json(["dead", "list", "orders", "billing"]), [])
      }).pipe(Effect.scoped),
    120_000
  )

  it.effect(
    "publishes lines, once for each id, and says which line makes no sense",
    () =>
      Effect.gen(function* () {
        const { url } = yield* RedisServer.RedisServer
        const lines = [
          '{"payload":{"n":1},"id":"one","headers":{"a":"b"}}',
          '{"payload":{"n":2},"id":"two","key":"k"}',
          ""
        ]
        const stdin = lines.join("\n")
        const args = ["publish", "lines", "--envelope", "--json"]
        assert.deepStrictEqual(JSON.parse((yield* run(args, { url, stdin })).out), { read: 2, stored: 2, duplicate: 0 })
        assert.deepStrictEqual(JSON.parse((yield* run(args, { url, stdin })).out), { read: 2, stored: 0, duplicate: 2 })

        const bad = yield* run(["publish", "lines"], { url, stdin: '"good"\n{no json\n"never"\n' })
        assert.strictEqual(bad.code, 1)
        assert.match(bad.err, /^waybill: line 2: not valid JSON .*The lines before it were published\n$/)
        const stored = (yield* run(["tail", "lines", "--json"], { url })).out
          .trim()
          .split("\n")
          .map((line) => JSON.parse(line))
        assert.deepStrictEqual(
          stored.map(({ body, id, key }) => [body, key ?? null, id === "one" || id === "two" ? id : "assigned"]),
          [
            ['{"n":1}', null, "one"],
            ['{"n":2}', "k", "two"],
            ['"good"', null, "assigned"]
          ]
        )
      }),
    120_000
  )

  it.effect(
    "case B15: removes a topic that is emptied, asks before, and says what is in the way",
    () =>
      Effect.gen(function* () {
        const { url } = yield* RedisServer.RedisServer
        const redis = yield* client(url)
        const stream = "{waybill:emptied}:stream"
        const remove = (...flags: ReadonlyArray<string>) => run(["topics", "remove", "emptied", ...flags], { url })
        yield* run(["publish", "emptied"], { url, stdin: "1\n" })
        assert.deepStrictEqual(yield* remove("--yes"), {
          code: 5,
          out: "",
          err:
            "waybill: not done: topic emptied is in use: it has messages, and no group. Let them be handled first, " +
            "or delete everything with --force\n"
        })
        yield* Effect.promise(() => redis.xgroup("CREATE", stream, "theirs", "0"))
        assert.include((yield* remove("--yes")).err, "its group theirs has messages that it was not given yet")
        yield* Effect.promise(async () => {
          await redis.xreadgroup("GROUP", "theirs", "c", "STREAMS", stream, ">")
          const [[entry] = [""]] = await redis.xrange(stream, "-", "+")
          await redis.xack(stream, "theirs", entry)
        })
        const asked = yield* remove()
        assert.strictEqual(asked.code, 5)
        assert.include(
          asked.err,
          'not done: confirming "Permanently remove topic emptied and its 1 group?" without --yes needs a terminal'
        )
        assert.deepStrictEqual(yield* remove("--yes", "--json"), {
          code: 0,
          out: '{"topic":"emptied","removed":true}\n',
          err: ""
        })
        assert.notInclude((yield* run(["topics"], { url })).out, "emptied")
        assert.strictEqual((yield* remove("--yes")).code, 3)
      }).pipe(Effect.scoped),
    120_000
  )

  it.effect(
    "retires and moves groups, and purges a topic, after it has said what that means",
    () =>
      Effect.gen(function* () {
        const { url } = yield* RedisServer.RedisServer
        const redis = yield* client(url)
        const stream = "{waybill:kept}:stream"
        const waybill = (...args: ReadonlyArray<string>) => run(args, { url })
        yield* run(["publish", "kept"], { url, stdin: "1\n2\n3\n" })
        yield* Effect.promise(async () => {
          await redis.xgroup("CREATE", stream, "old", "0")
          await redis.xgroup("CREATE", stream, "new", "$")
          // A consumer that lives for a minute.
          await redis.zadd("{waybill:kept}:group:old:consumers", Date.now() + 60_000, "someone")
        })
        const plan = {
          topic: "kept",
          group: "old",
          unsettled: 3,
          deadLetters: 0,
          heldBack: 3,
          dryRun: true
        }
        const told = yield* waybill("groups", "retire", "kept", "old", "--dry-run", "--json")
        assert.deepInclude(JSON.parse(told.out), plan)
        assert.include(
          (yield* waybill("groups", "retire", "kept", "old", "--dry-run")).out,
          "Group old of kept has 3 unsettled messages and no dead letter, and the topic keeps about 3 of its messages " +
            "for this group only. Stop its consumers first: someone."
        )
        for (const args of [
          ["retire", "kept", "old", "--yes"],
          ["move", "kept", "old", "latest", "--yes"]
        ]) {
          const refused = yield* waybill("groups", ...args)
          assert.deepStrictEqual(refused, {
            code: 5,
            out: "",
            err: "waybill: not done: topic kept is in use: its group old has living consumers. Stop them first\n"
          })
        }
        yield* Effect.promise(() => redis.del("{waybill:kept}:group:old:consumers"))
        assert.include((yield* waybill("doctor", "--watch", "0")).out, "`waybill groups retire kept old`")
        for (const place of ["2026-13-45", "2026-13-45T12:00:00Z", "2026-01-31T12:00:00"]) {
          const astray = yield* waybill("groups", "move", "kept", "old", place)
          assert.strictEqual(astray.code, 1)
          assert.include(astray.err, `${place} is not a place: use earliest, latest, a time with its zone such as`)
        }
        assert.include(
          (yield* waybill("topics", "remove", "kept", "--force")).err,
          "and its 2 groups, with 3 stored messages, 0 waiting for a retry, no dead letter and all schedules?"
        )
        const asked = yield* waybill("groups", "retire", "kept", "old")
        assert.include(asked.err, 'confirming "Permanently retire group old of topic kept? It has 3 unsettled messages')
        assert.include(
          (yield* waybill("groups", "move", "kept", "new", "earliest", "--yes")).out,
          "it had 0 to go, and now has 3"
        )
        for (const [time, lag] of [
          ["2100-01-01T01:00:00+01:00", 0],
          ["2000-01-01T00:00:00Z", 3]
        ] as const) {
          const moved = yield* waybill("groups", "move", "kept", "new", time, "--yes", "--json")
          assert.strictEqual(JSON.parse(moved.out).lag, lag, moved.err)
        }
        const [, second = ""] = (yield* Effect.promise(() => redis.xrange(stream, "-", "+"))).map(([id]) => id)
        const moved = JSON.parse((yield* waybill("groups", "move", "kept", "new", second, "--yes", "--json")).out)
        assert.deepStrictEqual(moved, { topic: "kept", group: "new", before: 3, lag: 1 })
        assert.strictEqual((yield* waybill("groups", "retire", "kept", "old", "--yes")).out, "Retired old of kept.\n")
        assert.strictEqual((yield* waybill("groups", "retire", "kept", "old", "--yes")).code, 3)
        assert.strictEqual((yield* waybill("topics", "purge", "kept", "--yes")).out, "Purged kept.\n")
        assert.strictEqual(yield* Effect.promise(() => redis.xlen(stream)), 0)
      }).pipe(Effect.scoped),
    120_000
  )

  it.effect(
    "follows a topic without consuming, and what it prints cannot steer the terminal",
    () =>
      Effect.gen(function* () {
        const { url } = yield* RedisServer.RedisServer
        const publish = (stdin: string) => run(["publish", "followed"], { url, stdin })
        yield* publish('"first"\n')
        let sent = false
        const seen = yield* until(
          ["tail", "followed", "--follow"],
          { url },
          (out) => out.includes("second"),
          (out) => {
            if (sent || !out.includes("first")) return
            sent = true
            Effect.runFork(publish('"\\u001b[2J second \\u202e"\n'))
          }
        )
        assert.notInclude(seen.out, "\u001b[2J")
        assert.include(seen.out, "\\u001b[2J second")
        assert.strictEqual(seen.code, 130)
        const [info] = JSON.parse((yield* run(["stats", "followed", "--json"], { url })).out)
        assert.deepStrictEqual([info.depth, info.groups.length], [2, 0])
      }),
    120_000
  )

  it.effect(
    "looks again and again with --watch",
    () =>
      Effect.gen(function* () {
        const { url } = yield* RedisServer.RedisServer
        yield* run(["publish", "watched"], { url, stdin: "1\n" })
        const { code, out } = yield* until(
          ["stats", "watched", "--watch", "--interval", "0.2", "--json"],
          { url },
          (text) => text.split("\n").length > 3
        )
        assert.strictEqual(code, 130)
        assert.strictEqual(JSON.parse(out.split("\n")[1] ?? "")[0].topic, "watched")
      }),
    120_000
  )

  it.effect(
    "tells scripts by its exit code what went wrong, in one line that helps",
    () =>
      Effect.gen(function* () {
        const { url } = yield* RedisServer.RedisServer
        const cases = [
          [["stats", "nope"], url, 3, /^waybill: topic nope does not exist\. /],
          [["pending", "orders-nowhere", "g"], url, 3, /topic orders-nowhere does not exist/],
          [
            ["topics"],
            "redis://127.0.0.1:1",
            2,
            /no connection to Redis at 127\.0\.0\.1:1 within 5s.*Start a server there/
          ],
          [["topics", "--url", "redis://u:secret@127.0.0.1:1"], url, 1, /REDIS_PASSWORD/],
          [["topics", "--url", "REDIS://u:secret@127.0.0.1:1"], url, 1, /REDIS_PASSWORD/],
          [["topics", "--prefix", "a b"], url, 1, /invalid prefix "a b"/],
          [["dead", "redrive"], url, 1, /Missing required argument: topic/],
          [["topics"], "127.0.0.1:6379", 1, /REDIS_URL is not a valid server address/],
          [["topics", "--url", "http://127.0.0.1"], url, 1, /--url is not a valid server address/],
          [["topics", "--ask-password"], url, 5, /--ask-password needs a terminal/],
          [["dashboard", "--port", "99999"], url, 1, /use a port from 0 to 65535/],
          [["dead", "list", "t", "g", "--limit", "0"], url, 1, /at least 1/],
          [["dead", "redrive", "t", "g", "--limit", "-3", "--yes"], url, 1, /at least 1/],
          [["tail", "t", "-n", "-4"], url, 1, /must not be negative/],
          [["nonsense"], url, 1, /nonsense/]
        ] as const
        for (const [args, address, code, message] of cases) {
          const ended = yield* run(args, { url: address })
          assert.strictEqual(ended.code, code, args.join(" "))
          assert.match(ended.err + ended.out, message)
          assert.notInclude(ended.err + ended.out, "secret")
        }
        // A process ends like that, too.
        const ended = yield* process(["stats", "nope"], { url })
        assert.strictEqual(ended.code, 3)
        assert.match(ended.err, /^waybill: topic nope does not exist\. [^\n]*\n$/)
        const help = yield* run(["dead", "redrive", "--help"], { url })
        assert.strictEqual(help.code, 0)
        assert.include(help.out, "waybill dead redrive orders billing --reason GatewayDown --dry-run")
        assert.include((yield* run(["--completions", "bash"], { url })).out, "waybill")
      }),
    120_000
  )

  it.effect(
    "publishes to a topic of every pattern, and inspects it as what it is",
    () =>
      Effect.gen(function* () {
        const { url } = yield* RedisServer.RedisServer
        for (const pattern of ["streams", "lists", "exactly-once", "keyspace", "pubsub"]) {
          const topic = `of-${pattern}`
          const opened = yield* run(["publish", topic, "--pattern", pattern], { url, stdin: '{"n":1}\n{"n":2}\n' })
          assert.deepStrictEqual(
            [opened.code, opened.out],
            [0, pattern === "pubsub" ? "2 sent.\n" : "2 stored.\n"],
            opened.err
          )
          const again = yield* run(["publish", topic], { url, stdin: '{"n":3}\n' })
          assert.strictEqual(again.code, 0, again.err)
          const [info] = JSON.parse((yield* run(["stats", topic, "--json"], { url })).out)
          assert.strictEqual(info.pattern, pattern)
          const tail = yield* run(["tail", topic, "--json"], { url })
          const bodies = tail.out.split("\n").flatMap((line) => (line === "" ? [] : [JSON.parse(line).body]))
          // A message that is not stored cannot be inspected.
          assert.deepStrictEqual(bodies, pattern === "pubsub" ? [] : ['{"n":1}', '{"n":2}', '{"n":3}'])
          assert.strictEqual(tail.code, pattern === "pubsub" ? 3 : 0)
          assert.match(tail.err, pattern === "pubsub" ? /stores no messages: there is nothing to show/ : /^$/)
        }
        const other = yield* run(["publish", "of-lists", "--pattern", "streams"], { url, stdin: "1\n" })
        assert.strictEqual(other.code, 1)
        assert.match(other.err, /has the pattern lists, not streams/)
      }),
    120_000
  )

  it.effect(
    "has a doctor who finds what endangers messages",
    () =>
      Effect.gen(function* () {
        const { url } = yield* RedisServer.make({ appendonly: "always" })
        const well = yield* run(["doctor"], { url })
        const redis = yield* client(url)
        const info = yield* Effect.promise(() => redis.info("server"))
        const found = (name: string) => new RegExp(`^${name}:(\\S+)`, "m").exec(info)?.[1]
        const valkey = found("valkey_version")
        const version = valkey === undefined ? `Redis ${found("redis_version")}` : `Valkey ${valkey}`
        assert.deepStrictEqual([well.code, well.out], [0, `${new URL(url).host} is healthy: ${version}.\n`], well.err)
        yield* Effect.promise(async () => {
          await redis.config("SET", "maxmemory", "100mb")
          await redis.config("SET", "maxmemory-policy", "allkeys-lru")
          await redis.sadd("waybill:topics", "stuck", "foreign")
          await redis.xadd("{waybill:stuck}:stream", "*", "payload", "1")
          await redis.xgroup("CREATE", "{waybill:stuck}:stream", "billing", "0")
          await redis.xreadgroup("GROUP", "billing", "gone", "STREAMS", "{waybill:stuck}:stream", ">")
          await redis.set("{waybill:foreign}:stream", "no stream")
        })
        const ill = yield* run(["doctor", "--json"], { url })
        assert.strictEqual(ill.code, 4)
        assert.match(ill.err, /^waybill: 3 problems need attention\n$/)
        assert.deepStrictEqual(JSON.parse(ill.out)[0], { level: "note", about: "server", detail: version })
        const problems = JSON.parse(ill.out).filter(({ level }: { level: string }) => level === "problem")
        assert.deepStrictEqual(
          problems.map(({ about }: { about: string }) => about),
          ["server, EvictionPolicy", "foreign", "stuck, group billing"]
        )
        assert.match(problems[0].detail, /allkeys-lru.*noeviction/)
        assert.match(problems[1].detail, /\{waybill:foreign\}:stream/)
        assert.match(problems[2].detail, /no consumer is alive, and 1 message is waiting/)
      }).pipe(Effect.scoped),
    120_000
  )

  it.effect(
    "the doctor says what the server does not permit to see, and what a keyspace topic needs",
    () =>
      Effect.gen(function* () {
        const { url } = yield* RedisServer.make({ appendonly: "always" })
        yield* run(["publish", "keys", "--pattern", "keyspace"], { url, stdin: "1\n" })
        const notes = (env?: Record<string, string>) =>
          Effect.map(run(["doctor", "--json"], { url, ...(env === undefined ? {} : { env }) }), ({ code, out }) => {
            assert.strictEqual(code, 0, out)
            return JSON.parse(out).map(({ detail }: { detail: string }) => detail)
          })
        assert.match((yield* notes()).join("\n"), /notify-keyspace-events is "", .* without K\$/)
        const redis = yield* client(url)
        yield* Effect.promise(async () => {
          await redis.config("SET", "notify-keyspace-events", "K$")
          await redis.call(
            "ACL",
            "SETUSER",
            "app",
            "on",
            ">geheim",
            "~*",
            "&*",
            "+@all",
            "-info",
            "-config",
            "-command"
          )
        })
        assert.notMatch((yield* notes()).join("\n"), /notify-keyspace-events/)
        const blind = yield* notes({ REDIS_USERNAME: "app", REDIS_PASSWORD: "geheim" })
        for (const what of [/permit INFO/, /COMMAND INFO is not permitted/, /CONFIG GET is not permitted/]) {
          assert.match(blind.join("\n"), what)
        }
      }).pipe(Effect.scoped),
    60_000
  )

  it.effect(
    "the doctor looks twice, and sees a backlog that grows although consumers are alive",
    () =>
      Effect.gen(function* () {
        const { url } = yield* RedisServer.make({ appendonly: "always" })
        const redis = yield* client(url)
        yield* Effect.promise(async () => {
          await redis.sadd("waybill:topics", "busy")
          await redis.xadd("{waybill:busy}:stream", "*", "payload", "1")
          await redis.xgroup("CREATE", "{waybill:busy}:stream", "billing", "0")
          await redis.sadd("{waybill:busy}:groups", "billing")
          await redis.zadd("{waybill:busy}:group:billing:consumers", Date.now() + 3_600_000, "slow")
        })
        const growth = /busy, group billing: its backlog of \S+ grows by \S+ per second with 1 consumer running/
        const calm = yield* run(["doctor", "--watch", "0.1"], { url })
        assert.notMatch(calm.out, growth)
        const add = Effect.promise(() =>
          Promise.all(Array.from({ length: 50 }, () => redis.xadd("{waybill:busy}:stream", "*", "payload", "1")))
        )
        const adding = yield* Effect.forkChild(Effect.forever(Effect.andThen(add, Effect.sleep("10 millis"))))
        const ill = yield* run(["doctor", "--watch", "1"], { url })
        yield* Fiber.interrupt(adding)
        assert.match(ill.out, growth)
        assert.notMatch((yield* run(["doctor", "--watch", "0"], { url })).out, growth)
      }).pipe(Effect.scoped),
    60_000
  )

  it.effect(
    "the doctor finds what nobody works on, what is not cut off, what the dead have left, and what is too new",
    () =>
      Effect.gen(function* () {
        const { url } = yield* RedisServer.make({ appendonly: "always" })
        const redis = yield* client(url)
        yield* Effect.promise(async () => {
          await redis.sadd("waybill:topics", "alone", "long", "left")
          await redis.xadd("{waybill:alone}:stream", "*", "payload", "1")
          const settled = redis.pipeline()
          for (let i = 0; i < 10_001; i++) settled.xadd("{waybill:long}:stream", "*", "payload", "1")
          await settled.exec()
          await redis.xgroup("CREATE", "{waybill:long}:stream", "billing", "$")
          await redis.xadd("{waybill:left}:stream", "*", "payload", "1")
          await redis.xgroup("CREATE", "{waybill:left}:stream", "billing", "0")
          await redis.xreadgroup("GROUP", "billing", "gone", "STREAMS", "{waybill:left}:stream", ">")
          await redis.zadd("{waybill:left}:group:billing:consumers", Date.now() + 3_600_000, "alive")
          await redis.zadd("{waybill:left}:group:billing:waiting", Date.now() + 60_000, "01-1")
          await redis.hset("{waybill:left}:group:billing:state", "newer", `${Date.now()} version 3 is newer than 2`)
        })
        const { code, out } = yield* run(["doctor"], { url })
        assert.strictEqual(code, 4)
        assert.match(out, / alone: 1 message, and no group has ever joined/)
        assert.match(out, /!! long: 10,001 messages that every group has settled are not trimmed/)
        assert.match(out, / left, group billing: 1 message held by consumers that are gone/)
        assert.match(out, /!! left, group billing: messages are set aside, because version 3 is newer than 2: update/)
        // A topic that keeps about so many keeps settled ones too.
        yield* Effect.promise(() => redis.hset("{waybill:long}:meta", "maxLength", "20000"))
        yield* Effect.promise(() =>
          redis.hset("{waybill:left}:group:billing:state", "newer", `${Date.now() - 120_001} version 3 is newer than 2`)
        )
        const after = yield* run(["doctor"], { url })
        assert.notInclude(after.out, "are not trimmed")
        assert.notInclude(after.out, "set aside")
      }).pipe(Effect.scoped),
    60_000
  )

  it.effect(
    "shows a dead letter that has no payload, field by field",
    () =>
      Effect.gen(function* () {
        const { url } = yield* RedisServer.RedisServer
        const redis = yield* client(url)
        const entry = yield* Effect.promise(async () => {
          await redis.sadd("waybill:topics", "loose")
          await redis.xgroup("CREATE", "{waybill:loose}:stream", "g", "0", "MKSTREAM")
          const head = ["reason", "Odd", "cause", "c", "attempts", "1", "fence", "1"]
          const more = ["id", "1-1", "at", "1", "origin", "1-1", "consumer", "c"]
          return redis.xadd(
            "{waybill:loose}:group:g:dead",
            "*",
            ...head,
            ...more,
            "temperature",
            "21",
            "raw",
            Buffer.from([255, 0])
          )
        })
        const shown = yield* run(["dead", "show", "loose", "g", String(entry)], { url })
        assert.match(shown.out, /no payload among them\)\n  temperature: 21\n  raw: \(base64\) \/wA=/)
        const json = JSON.parse((yield* run(["dead", "list", "loose", "g", "--json"], { url })).out)
        assert.deepStrictEqual(json[0].fields, [
          ["temperature", "21"],
          ["raw", "/wA="]
        ])
      }),
    60_000
  )

  it.effect("the doctor knows which versions are too old", () =>
    Effect.sync(() => {
      const about = (text: string) => versionFindings(text).map(({ detail, level }) => `${level}: ${detail}`)
      assert.deepStrictEqual(about("# Server\r\nredis_version:7.0.15\r\nos:Linux"), [])
      assert.deepStrictEqual(about("redis_version:8.2.1\r\nserver_name:valkey"), [])
      assert.deepStrictEqual(about("redis_version:6.2.14\r\n"), [
        "problem: it is version 6.2.14: use Redis 7.0 or newer"
      ])
      assert.deepStrictEqual(about(""), ["note: it does not report its version"])
    })
  )

  it.effect("the doctor knows what the next failover would lose, and that there was one", () =>
    Effect.sync(() => {
      const zeros = `master_replid2:${"0".repeat(40)}`
      const about = (text: string, cluster?: { readonly requiresFullCoverage: boolean }) =>
        failoverFindings("server", text, cluster).map(({ detail }) => detail.split(/[.:]/)[0])
      const accepts = "if it is replaced by a replica, it accepts writes until it learns of that, and loses them"
      assert.deepStrictEqual(about(`connected_slaves:0\r\n${zeros}\r\n`), [])
      assert.deepStrictEqual(about(`connected_slaves:1\r\n${zeros}\r\n`), [accepts])
      assert.deepStrictEqual(about(`connected_slaves:1\r\nmin_slaves_good_slaves:1\r\n${zeros}\r\n`), [])
      assert.deepStrictEqual(about(`connected_slaves:0\r\n${zeros}\r\n`, { requiresFullCoverage: true }), [
        "it has no replica",
        "if one master fails, all of them refuse commands until a replica has taken over"
      ])
      assert.deepStrictEqual(about("connected_slaves:0\r\nmaster_replid2:4f\r\n"), [
        "it has taken over from another master"
      ])
    })
  )

  it.effect(
    "takes the password from a file or the environment",
    () =>
      Effect.gen(function* () {
        const server = yield* RedisServer.make({ args: ["--requirepass", "geheim"] })
        const url = `redis://127.0.0.1:${server.port}`
        const refused = yield* run(["topics"], { url })
        assert.strictEqual(refused.code, 2)
        assert.match(refused.err, /Check the user name and password/)
        assert.strictEqual((yield* run(["topics"], { url, env: { REDIS_PASSWORD: "geheim" } })).code, 0)
        const file = join(server.dir, "password")
        yield* Effect.sync(() => writeFileSync(file, "geheim\nwhat else is in it\n"))
        assert.strictEqual((yield* run(["topics", "--password-file", file], { url })).code, 0)
        const missing = yield* run(["topics", "--password-file", `${file}-2`], { url })
        assert.strictEqual(missing.code, 1)
        assert.match(missing.err, /cannot read the password file/)
      }).pipe(Effect.scoped),
    120_000
  )
})
