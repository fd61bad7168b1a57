/** `waybill messages` and `waybill delayed` on a real server. */
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Deferred, Effect, Layer, References, Schedule, Schema } from "effect"
import { Consumer, Producer, Topic } from "waybill"
import { IoRedis, RedisStreams } from "waybill/redis"
import { becomes } from "../redis/Fixture.ts"
import { run } from "./Terminal.ts"

class Busy extends Schema.TaggedError<Busy>()("Busy", {}) {}

const Orders = Topic.make("orders", { payload: Schema.String })
const hour = 3_600_000

describe("waybill messages", () => {
  it.live(
    "shows, runs, reschedules, removes and cancels one message, and says why it cannot",
    () =>
      Effect.gen(function* () {
        const { url } = yield* RedisServer.RedisServer
        const slow = yield* Deferred.make<void>()
        const interrupted = yield* Deferred.make<void>()
        const Billing = Consumer.make(Orders, { group: "billing", concurrency: 8 }).pipe(
          Consumer.process((order) =>
            order === "busy"
              ? Effect.fail(new Busy())
              : order === "slow"
                ? Deferred.succeed(slow, undefined).pipe(
                    Effect.andThen(Effect.never),
                    Effect.onInterrupt(() => Deferred.succeed(interrupted, undefined))
                  )
                : Effect.void
          ),
          Consumer.onFailure({ Busy: Consumer.retry(Schedule.spaced("1 hour")) }),
          Consumer.layer
        )
        const context = yield* Layer.build(
          Billing.pipe(Layer.provideMerge(RedisStreams.layer()), Layer.provideMerge(IoRedis.layer({ url })))
        )
        const publish = (payload: string, options: Producer.Options) =>
          Effect.provide(Producer.publish(Orders, payload, options), context)
        const hostile = "late\u001b[2J"
        yield* publish("busy", { id: "busy", headers: { from: "web\u202e" } })
        yield* publish("slow", { id: "slow" })
        yield* publish("later", { id: hostile, delay: "2 hours" })
        yield* publish("never", { id: "never", delay: "1 hour", headers: { team: "a" } })
        yield* Deferred.await(slow)

        const waybill = (...args: ReadonlyArray<string>) => run(["messages", ...args], { url })
        const json = (...args: ReadonlyArray<string>) =>
          Effect.map(run([...args, "--json"], { url }), ({ err, out }) => {
            assert.notStrictEqual(out, "", err)
            return JSON.parse(out)
          })
        const placeOf = (id: string) =>
          Effect.map(json("messages", "show", "orders", id), ({ groups }) => groups[0]?._tag)
        const refused = Effect.fnUntraced(function* (code: number, message: RegExp, ...args: ReadonlyArray<string>) {
          const ended = yield* waybill(...args)
          assert.deepStrictEqual([ended.code, ended.out], [code, ""], args.join(" "))
          assert.match(ended.err, message)
          if (code !== 1) assert.notMatch(ended.err.trimEnd(), /\n/)
        })

        yield* becomes("busy", placeOf("busy"), "Waiting")
        const shown = yield* waybill("show", "orders", "busy")
        assert.match(shown.out, /^id +busy\npublished +\d{4}-\S+ \S+Z\nversion +1\nkey +\nheader +from: web\\u202e\n/)
        assert.match(shown.out, /\nbilling +waiting +attempt 2 in 59 min, after .*Busy/)
        assert.match(shown.out, /\nfailed attempts in billing\nATTEMPT +ENDED +CONSUMER +FAILURE\n +1 .* Busy\n/)
        assert.match(shown.out, /\nbody\n {2}"busy"\n$/)
        assert.match(
          (yield* waybill("show", "orders", "slow")).out,
          /billing +pending +attempt 1, held for .* by \S+\n/
        )

        const listed = yield* run(["delayed", "orders"], { url })
        assert.match(
          listed.out,
          /^ID +DUE +BODY\nnever +in 59 min +"never"\nlate\\u001b\[2J +in 1 h +"later"\n$/,
          listed.err
        )
        assert.match((yield* run(["delayed", "orders", "-n", "1"], { url })).out, /and 1 more: --limit shows them\n$/)
        const searched = (...flags: ReadonlyArray<string>) =>
          Effect.map(json("delayed", "orders", ...flags), (found: ReadonlyArray<{ readonly id: string }>) =>
            found.map(({ id }) => id.slice(0, 5))
          )
        assert.deepStrictEqual(yield* searched("--contains", "late"), ["late\u001b"])
        assert.deepStrictEqual(yield* searched("--contains", "nothing"), [])
        const dues = yield* json("delayed", "orders")
        const between = new Date(dues[1].dueAt).toISOString()
        assert.deepStrictEqual(yield* searched("--before", between), ["never"])
        assert.deepStrictEqual(yield* searched("--after", between), ["late\u001b"])
        assert.deepStrictEqual(yield* searched("--header", "team=a"), ["never"])
        assert.deepStrictEqual(yield* searched("--key", "k-2"), [])
        assert.match(
          (yield* run(["delayed", "orders", "--contains", "e", "-n", "1"], { url })).out,
          /\n1 shown; 2 messages are delayed; --limit shows more\.\n$/
        )
        const [next] = yield* json("delayed", "orders")
        assert.strictEqual(next.id, "never")

        const { dueAt } = yield* json("messages", "reschedule", "orders", "never", "3h")
        assert.approximately(dueAt - next.dueAt, 2 * hour, hour / 4)
        assert.strictEqual((yield* json("messages", "show", "orders", "never")).dueAt, dueAt)
        assert.strictEqual(
          (yield* waybill("reschedule", "orders", "never", "2100-01-01T01:00:00+01:00")).out,
          "never of orders is due 2100-01-01 00:00:00.000Z.\n"
        )
        assert.match((yield* waybill("show", "orders", "never")).out, /\ndue +2100-01-01 .*\n[^]*It is delayed/)
        for (const when of ["", "soon", "15", "3 moons", "2100-01-01", "2100-13-01T00:00:00Z", "9999999d"]) {
          yield* refused(
            1,
            /<when>.* Expected: a duration from now, such as 15min/,
            "reschedule",
            "orders",
            "never",
            when
          )
        }

        yield* refused(5, /Permanently delete .* It is delayed until 2100.*--yes/, "remove", "orders", "never")
        assert.strictEqual((yield* waybill("remove", "orders", "never", "--yes")).out, "Removed never of orders.\n")
        for (const action of [["show"], ["run"], ["remove"], ["remove", "--yes"], ["cancel", "--yes"]]) {
          const [name = "", ...flags] = action
          yield* refused(3, /topic orders stores no message never\. /, name, "orders", "never", ...flags)
        }
        yield* refused(3, /topic nowhere does not exist/, "show", "nowhere", "never")
        assert.strictEqual((yield* waybill("run", "orders", hostile)).out, "late\\u001b[2J of orders is due now.\n")

        yield* refused(
          5,
          /not done: .*slow is in use: .*`waybill messages cancel`/,
          "remove",
          "orders",
          "slow",
          "--yes"
        )
        yield* refused(5, /not done: .*slow does not wait.*`waybill messages show`/, "run", "orders", "slow")
        yield* refused(5, /Cancel message slow .*pending in billing/, "cancel", "orders", "slow")
        assert.deepStrictEqual(yield* json("messages", "cancel", "orders", "slow", "--yes"), {
          topic: "orders",
          id: "slow",
          cancelled: true,
          interrupted: ["billing"]
        })
        yield* Deferred.await(interrupted)
        yield* becomes("slow", placeOf("slow"), "Dead")
        assert.match(
          (yield* waybill("show", "orders", "slow")).out,
          /billing +dead +Cancelled after 1 attempt, entry \d/
        )
        yield* refused(5, /not done: message slow is settled already\./, "cancel", "orders", "slow", "--yes")
        assert.match(
          (yield* waybill("cancel", "orders", "busy", "--yes")).out,
          /no consumer held it, and it is deleted/
        )

        yield* refused(
          2,
          /orders has the pattern streams: .*only queues with the order `priority`/,
          "priority",
          "orders",
          "busy",
          "high"
        )

        yield* run(["publish", "fanout", "--pattern", "pubsub"], { url, stdin: "1\n" })
        yield* refused(2, /fanout has the pattern pubsub, which cannot find single messages/, "show", "fanout", "1")
        const none = yield* run(["delayed", "fanout"], { url })
        assert.deepStrictEqual(none, {
          code: 2,
          out: "",
          err: "waybill: topic fanout has the pattern pubsub, which cannot list delayed messages: `waybill stats fanout` counts what is stored\n"
        })
      }).pipe(
        Effect.scoped,
        Effect.provide(RedisServer.layer()),
        Effect.provideService(References.MinimumLogLevel, "Error")
      ),
    60_000
  )
})
