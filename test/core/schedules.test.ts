import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Layer, Option, Schedule as Repetition, Schema, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Consumer, type Lifecycle, Schedules, Topic, Transport } from "waybill"
import { MemoryExactlyOnce, MemoryKeyspace, MemoryLists, MemoryPubSub, MemoryStreams } from "waybill/memory"
import { watch } from "../../packages/waybill/src/internal/Scheduler.ts"
import { turn } from "../../packages/waybill/src/internal/Timing.ts"
import { quiet, run } from "./Running.ts"

const Report = Topic.make("reports", { payload: Schema.String })
const at = (iso: string) => new Date(iso).getTime()

/** The ticks of the messages that are in the store, without the schedule's id. */
const ticks = Effect.gen(function* () {
  const { inspector } = yield* Transport.AtLeastOnce
  const messages = yield* inspector.messages(Report.name, { after: Option.none(), limit: 5000 })
  return messages.map(({ id }) => id.slice(id.indexOf("@") + 1))
})

/** What the lifecycle has told about schedules. */
const told = Effect.gen(function* () {
  const { lifecycle } = yield* Transport.AtLeastOnce
  const events: Array<Lifecycle.Event> = []
  yield* lifecycle.overhear((event) => events.push(event))
  return () => events.splice(0)
})

const infoOf = (id: string) =>
  Effect.map(Stream.runCollect(Schedules.list(Report)), (all) => all.find((info) => info.id === id))

/** Starts a release of a program, which runs until the test ends or it is stopped. */
const release = (...schedules: Parameters<typeof Schedules.layer<Transport.AtLeastOnce, never>>) =>
  Effect.gen(function* () {
    const scope = yield* Scope.fork(yield* Scope.Scope)
    yield* Layer.buildWithScope(Schedules.layer(...schedules), scope)
    return Effect.andThen(quiet(), Scope.close(scope, Exit.void))
  })

const nightly = (expression: string, options: { readonly zone?: string } = {}) =>
  Schedules.cron("nightly", expression, { topic: Report, payload: "nightly", ...options })

describe("schedules", () => {
  it.effect("a cron schedule is due by the clock of its zone, also on the days when that changes", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(at("2026-03-27T12:00:00Z"))
      yield* release([nightly("30 2 * * *", { zone: "Europe/Berlin" })])
      yield* TestClock.adjust("3 days")
      // On the 29th there is no half past two.
      assert.deepStrictEqual(yield* ticks, [
        "2026-03-28T01:30:00.000Z",
        "2026-03-29T01:30:00.000Z",
        "2026-03-30T00:30:00.000Z"
      ])
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  it.effect("an hourly cron schedule goes on in the hour that a change of the clock repeats", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(at("2026-10-24T22:30:00Z"))
      yield* release([
        nightly("0 * * * *", { zone: "Europe/Berlin" }),
        Schedules.cron("two", "0 2 * * *", { zone: "Europe/Berlin", topic: Report, payload: "" })
      ])
      yield* TestClock.adjust("4 hours")
      assert.deepStrictEqual((yield* ticks).map((tick) => tick.slice(11, 16)).toSorted(), [
        "00:00",
        "00:00",
        "01:00",
        "02:00",
        "23:00"
      ])
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  it.effect("a message says which tick of which schedule it is, and its trace is not that of the program", () =>
    Effect.gen(function* () {
      const { inspector } = yield* Transport.AtLeastOnce
      yield* release([
        Schedules.every("hourly", "1 hour", { topic: Report, payload: "body", headers: { shop: "1" } })
      ]).pipe(Effect.withSpan("start"))
      yield* TestClock.adjust("1 hour")
      const [message] = yield* inspector.messages(Report.name, { after: Option.none(), limit: 2 })
      assert.deepStrictEqual(
        [message?.id, message?.body, message?.headers],
        [
          "hourly@1970-01-01T01:00:00.000Z",
          '"body"',
          { shop: "1", schedule: "hourly", tick: "1970-01-01T01:00:00.000Z" }
        ]
      )
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  it.effect("what is declared is reconciled on start, and what others have stored is left alone", () =>
    Effect.gen(function* () {
      const events = yield* told
      const changes = () =>
        events().flatMap((event) => (event._tag === "ScheduleChanged" ? [`${event.change} ${event.schedule}`] : []))
      const other = Schedules.every("other", "1 hour", { topic: Report, payload: "other" })
      yield* Schedules.upsert(Schedules.every("dynamic", "1 hour", { topic: Report, payload: "dynamic" }))
      yield* release([other], { owner: "another program" })
      changes()
      const stop = yield* release([
        nightly("0 3 * * *"),
        Schedules.every("gone", "1 day", { topic: Report, payload: "" })
      ])
      assert.deepStrictEqual(changes(), ["created nightly", "created gone"])
      yield* stop
      yield* yield* release([nightly("0 3 * * *"), Schedules.every("gone", "1 day", { topic: Report, payload: "" })])
      assert.deepStrictEqual(changes(), [])
      yield* yield* release([nightly("0 4 * * *")])
      assert.deepStrictEqual(changes(), ["changed nightly", "removed gone"])
      assert.strictEqual((yield* infoOf("nightly"))?.next, at("1970-01-01T04:00:00Z"))
      yield* yield* release([], { topics: [Report], removed: "report" })
      assert.deepStrictEqual(
        events().map(({ _tag }) => _tag),
        ["ScheduleDrifted"]
      )
      yield* yield* release([], { topics: [Report] })
      assert.deepStrictEqual(changes(), ["removed nightly"])
      assert.isDefined(yield* infoOf("other"))
      assert.isDefined(yield* infoOf("dynamic"))
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  /** The drifts that are recorded. */
  const known = Effect.map(Schedules.drifts(Report), (all) => all.map(({ found, schedule }) => `${found} ${schedule}`))

  it.effect("a drift is known until it is over, or the program that declares something else ends", () =>
    Effect.gen(function* () {
      const stop = yield* release([
        nightly("0 3 * * *"),
        Schedules.every("sync", "1 day", { topic: Report, payload: "" })
      ])
      yield* yield* release([nightly("0 4 * * *")])
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual((yield* known).sort(), ["changed nightly", "missing sync"])
      yield* yield* release([nightly("0 3 * * *"), Schedules.every("sync", "2 days", { topic: Report, payload: "" })])
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(yield* known, ["changed sync"])
      yield* stop
      assert.deepStrictEqual(yield* known, [])
      const reporting = yield* release([], { topics: [Report], removed: "report" })
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual((yield* known).sort(), ["undeclared nightly", "undeclared sync"])
      yield* Schedules.remove(Report, "sync")
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(yield* known, ["undeclared nightly"])
      yield* reporting
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  const patterns = [
    ["streams", MemoryStreams.layer()],
    ["lists", MemoryLists.layer()],
    ["exactly-once", MemoryExactlyOnce.layer()],
    ["keyspace", MemoryKeyspace.layer({ ttl: "7 days" })]
  ] as const
  it.effect.each(patterns)(
    "%s: it is told for how long a tick is overdue, and what has become of the last one",
    ([name, pattern]) =>
      Effect.gen(function* () {
        const every = (id: string, options: { readonly jitter?: "1 day"; readonly overlap?: "skip" } = {}) =>
          Schedules.every(id, "1 hour", { topic: Report, payload: id, times: 2, ...options })
        const ids = ["settles", "holds", "waits", "dies"]
        for (const id of ids) yield* Schedules.upsert(every(id))
        yield* Schedules.upsert(every("delayed", { jitter: "1 day" }))
        yield* Schedules.upsert(every("overlaps", { overlap: "skip" }))
        const states = Effect.gen(function* () {
          const infos = yield* Stream.runCollect(Schedules.list(Report))
          const found: Record<string, string | undefined> = {}
          for (const info of infos) {
            const outcome = yield* Schedules.outcome(Report, info)
            const { group, reason, state } = outcome ?? { state: `overdue ${info.overdueMillis}` }
            found[info.id] = [state, group, reason].filter((part) => part !== undefined).join(" ")
          }
          return found
        })
        yield* TestClock.adjust("65 minutes")
        assert.strictEqual((yield* states)["holds"], "overdue 300000")
        const { schedules } = yield* Transport.AtLeastOnce
        yield* schedules!.watch(Report.name)
        yield* quiet()
        assert.deepStrictEqual(yield* states, {
          settles: "ready",
          holds: "ready",
          waits: "ready",
          dies: "ready",
          delayed: "delayed",
          overlaps: "ready"
        })
        const consuming = (group: string, handle: (payload: string) => Effect.Effect<void, string>) =>
          Consumer.make(Report, { group, concurrency: 10 }).pipe(
            Consumer.process(handle),
            Consumer.orElse((payload) =>
              payload === "dies" ? Consumer.deadLetter("Broken") : Consumer.retry(Repetition.spaced("1 day"))
            )
          )
        const transports = Layer.succeedContext(yield* Effect.context<Transport.AtLeastOnce>())
        // A queue has no messages for a second group.
        const isQueue = name === "lists" || name === "exactly-once"
        if (!isQueue) {
          yield* run(
            consuming("calm", () => Effect.void),
            transports
          )
        }
        yield* run(
          consuming("g", (payload) =>
            payload === "holds" || payload === "overlaps"
              ? Effect.never
              : payload === "settles"
                ? Effect.void
                : Effect.fail(payload)
          ),
          transports
        )
        yield* TestClock.adjust("1 second")
        const after = {
          // It has left the queue, and others are still there.
          settles: isQueue ? "unknown" : "settled",
          holds: "pending g",
          waits: "waiting g",
          dies: "dead g Broken",
          delayed: "delayed",
          overlaps: "pending g"
        }
        assert.deepStrictEqual(yield* states, after)
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(yield* states, { ...after, overlaps: "skipped" })
        // An id that is no longer known.
        const transport = yield* Transport.AtLeastOnce
        const message = () => Effect.succeedNone
        const forgetting = Effect.provideService(states, Transport.AtLeastOnce, {
          ...transport,
          inspector: { ...transport.inspector, message }
        })
        assert.strictEqual((yield* forgetting)["settles"], isQueue ? "unknown" : "settled")
      }).pipe(Effect.provide(pattern))
  )

  it.effect("of two releases that disagree the later one decides, and the other one says so once", () =>
    Effect.gen(function* () {
      const events = yield* told
      const drifts = () =>
        events().flatMap((event) => (event._tag === "ScheduleDrifted" ? [`${event.found} ${event.schedule}`] : []))
      yield* release([nightly("0 3 * * *"), Schedules.every("sync", "1 day", { topic: Report, payload: "" })])
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(drifts(), [])
      yield* release([nightly("0 4 * * *")])
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(drifts().sort(), ["changed nightly", "missing sync"])
      assert.deepStrictEqual((yield* known).sort(), ["changed nightly", "missing sync"])
      yield* Schedules.upsert(Schedules.every("other", "1 day", { topic: Report, payload: "" }))
      yield* TestClock.adjust("1 day")
      assert.deepStrictEqual(drifts(), [])
      assert.deepStrictEqual(
        (yield* ticks).filter((tick) => tick.includes("T04")),
        ["1970-01-01T04:00:00.000Z"]
      )
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  /** Runs a test over schedules some of whose operations are others. */
  const withStore =
    (change: (schedules: Transport.Schedules) => Partial<Transport.Schedules>) =>
    <A, E, R>(self: Effect.Effect<A, E, R>) =>
      Effect.gen(function* () {
        const transport = yield* Transport.AtLeastOnce
        const schedules = { ...transport.schedules!, ...change(transport.schedules!) }
        return yield* Effect.provideService(self, Transport.AtLeastOnce, { ...transport, schedules })
      }).pipe(Effect.provide(MemoryStreams.layer()))

  it.effect("a drift whose announcement is not heard is noticed by polling, and one on start at once", () =>
    Effect.gen(function* () {
      const events = yield* told
      const drifts = () =>
        events().flatMap((event) => (event._tag === "ScheduleDrifted" ? [`${event.found} ${event.schedule}`] : []))
      const gone = Schedules.every("gone", "1 day", { topic: Report, payload: "" })
      yield* yield* release([nightly("0 3 * * *"), gone])
      yield* release([nightly("0 4 * * *")])
      yield* Schedules.upsert(nightly("0 5 * * *"))
      yield* quiet()
      assert.deepStrictEqual(drifts(), ["changed nightly"])
      yield* release([gone], { removed: "report" })
      drifts()
      yield* TestClock.adjust("12 seconds")
      assert.deepStrictEqual(drifts(), ["undeclared gone"])
    }).pipe(withStore(() => ({ pollMillis: 10_000, listen: () => Effect.void })))
  )

  it.effect("a layer that cannot reach the store says so once, and goes on trying", () =>
    Effect.gen(function* () {
      const events = yield* told
      yield* Effect.forkScoped(release([nightly("0 3 * * *")]))
      yield* TestClock.adjust("2500 millis")
      assert.deepStrictEqual(
        events().map(({ _tag }) => _tag),
        ["SchedulesFailing"]
      )
      yield* TestClock.adjust("2 seconds")
      assert.isDefined(yield* infoOf("nightly"))
    }).pipe(
      withStore(({ page }) => {
        let left = 4
        const reason = new Transport.Disconnected({ ambiguous: false, cause: "away" })
        return {
          page: (...args) =>
            left-- > 0 ? Effect.fail(new Transport.TransportError({ operation: "schedule", reason })) : page(...args)
        }
      })
    )
  )

  it.effect("one that is no longer declared is removed, although a tick of it is published meanwhile", () =>
    Effect.gen(function* () {
      yield* Schedules.upsert(Schedules.every("other", "1 hour", { topic: Report, payload: "" }))
      yield* yield* release([nightly("0 3 * * *")])
      yield* release([], { topics: [Report] })
      assert.isUndefined(yield* infoOf("nightly"))
      assert.isDefined(yield* infoOf("other"))
    }).pipe(
      withStore(({ page }) => ({
        // Of before the tick.
        page: (...args) =>
          Effect.map(page(...args), (reply) => ({
            ...reply,
            schedules: reply.schedules.map((one) => ({ ...one, revision: "0" }))
          }))
      }))
    )
  )

  it.effect("a watch outlives a defect, and reports it", () =>
    Effect.gen(function* () {
      const events = yield* told
      const { lifecycle, schedules } = yield* Transport.AtLeastOnce
      let due = () => Effect.die(new Error("odd"))
      const failing: typeof schedules = { ...schedules!, due: (topic) => Effect.andThen(due(), schedules!.due(topic)) }
      yield* Schedules.upsert(Schedules.every("s", "1 hour", { topic: Report, payload: "" }))
      yield* watch(failing, lifecycle, Report.name)
      yield* TestClock.adjust("2 seconds")
      const [event, ...more] = events()
      assert(event?._tag === "SchedulesFailing" && event.error.includes("odd") && more.length === 0)
      due = () => Effect.void as Effect.Effect<never> // of no value
      yield* TestClock.adjust("1 hour")
      assert.strictEqual((yield* ticks).length, 1)
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  it.effect("an invalid schedule of one topic keeps a layer from changing another one", () =>
    Effect.gen(function* () {
      const Other = Topic.make("others", { payload: Schema.String })
      const failure = yield* Effect.flip(
        release([nightly("0 3 * * *"), Schedules.every("bad", "1 milli", { topic: Other, payload: "" })])
      )
      assert.strictEqual(failure._tag, "InvalidSchedule")
      assert.isUndefined(yield* infoOf("nightly"))
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  it("after a long outage only some of the ticks are computed that are not published", () => {
    const now = at("2026-11-30T12:00:30Z")
    const minutely = { cron: "* * * * *", zone: "Europe/Berlin" }
    const { next, publish, skipped } = turn(minutely, at("2026-11-27T12:00:00Z"), now, 0)
    assert.deepStrictEqual([publish, next], [[at("2026-11-30T12:00:00Z")], at("2026-11-30T12:01:00Z")])
    assert.isAtMost(skipped, 100)
    assert.strictEqual(turn({ ...minutely, missed: "skip" }, at("2026-11-30T11:51:00Z"), now, 0).skipped, 9)
  })

  it.effect("one that is stored again unchanged keeps its next tick, and a changed one its count", () =>
    Effect.gen(function* () {
      const poll = (payload: string) =>
        Schedules.upsert(Schedules.every("poll", "10 minutes", { topic: Report, payload, times: 3 }))
      const { schedules } = yield* Transport.AtLeastOnce
      yield* schedules!.watch(Report.name)
      assert.strictEqual(yield* poll("a"), "Created")
      yield* TestClock.adjust("15 minutes")
      assert.strictEqual(yield* poll("a"), "Unchanged")
      assert.strictEqual(yield* poll("b"), "Changed")
      yield* TestClock.adjust("1 day")
      assert.deepStrictEqual(
        (yield* ticks).map((tick) => tick.slice(11, 16)),
        ["00:10", "00:20", "00:30"]
      )
      const info = yield* infoOf("poll")
      assert.deepStrictEqual(
        [info?.state, info?.next, info?.published, info?.last],
        ["ended", undefined, 3, 30 * 60_000]
      )
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  it.effect("a paused schedule has no ticks until it is resumed, and running one changes none", () =>
    Effect.gen(function* () {
      yield* release([nightly("0 3 * * *")])
      assert.isTrue(yield* Schedules.pause(Report, "nightly"))
      yield* TestClock.adjust("3 days")
      assert.deepStrictEqual(yield* ticks, [])
      assert.strictEqual((yield* infoOf("nightly"))?.state, "paused")
      const ran = yield* Schedules.run(Report, "nightly")
      assert.deepStrictEqual(yield* ticks, [ran?.slice("nightly@".length)])
      assert.isTrue(yield* Schedules.resume(Report, "nightly"))
      yield* TestClock.adjust("1 day")
      assert.strictEqual((yield* ticks)[1], "1970-01-04T03:00:00.000Z")
      assert.isTrue(yield* Schedules.remove(Report, "nightly"))
      assert.isFalse(yield* Schedules.remove(Report, "nightly"))
      assert.isFalse(yield* Schedules.pause(Report, "nightly"))
      assert.isUndefined(yield* Schedules.run(Report, "nightly"))
      yield* TestClock.adjust("1 day")
      assert.strictEqual((yield* ticks).length, 2)
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  const outages = [
    ["last", undefined, ["04:00"], 3],
    ["all", undefined, ["01:00", "02:00", "03:00", "04:00"], 0],
    ["all", "2 hours", ["03:00", "04:00"], 2],
    ["skip", undefined, [], 4]
  ] as const
  for (const [missed, window, expected, skipped] of outages) {
    it.effect(`missed: ${missed}${window === undefined ? "" : `, within ${window}`}`, () =>
      Effect.gen(function* () {
        const events = yield* told
        const hourly = Schedules.every("hourly", "1 hour", { topic: Report, payload: "", missed, window })
        yield* yield* release([hourly])
        yield* TestClock.adjust("270 minutes")
        yield* release([hourly])
        yield* quiet()
        assert.deepStrictEqual(
          (yield* ticks).map((tick) => tick.slice(11, 16)),
          [...expected]
        )
        const missing = events().flatMap((event) => (event._tag === "TicksMissed" ? [event.count] : []))
        assert.deepStrictEqual(missing, skipped === 0 ? [] : [skipped])
        yield* TestClock.adjust("30 minutes")
        assert.strictEqual((yield* ticks).at(-1)?.slice(11, 16), "05:00")
      }).pipe(Effect.provide(MemoryStreams.layer()))
    )
  }

  for (const how of ["declared", "stored"] as const) {
    it.effect(`a tick that is due when a change is ${how} is published as it was defined`, () =>
      Effect.gen(function* () {
        const { inspector } = yield* Transport.AtLeastOnce
        const hourly = (payload: string) =>
          Schedules.every("hourly", "1 hour", { topic: Report, payload, missed: "all" })
        yield* yield* release([hourly("a")])
        yield* TestClock.adjust("130 minutes")
        if (how === "declared") yield* yield* release([hourly("b")])
        else assert.strictEqual(yield* Schedules.upsert(hourly("b")), "Changed")
        const messages = yield* inspector.messages(Report.name, { after: Option.none(), limit: 10 })
        assert.deepStrictEqual(
          messages.map(({ body, headers }) => `${headers["tick"]?.slice(11, 16)} ${body}`),
          ['01:00 "a"', '02:00 "a"']
        )
        const info = yield* infoOf("hourly")
        assert.deepStrictEqual([info?.next, info?.published], [3 * 3_600_000, 2])
      }).pipe(Effect.provide(MemoryStreams.layer()))
    )
  }

  /** Stores a schedule as another build does. */
  const storeAs = (fields: object, next?: number) =>
    Effect.gen(function* () {
      const { schedules } = yield* Transport.AtLeastOnce
      const text = JSON.stringify({ message: { body: "" }, ...fields })
      yield* schedules!.change(Report.name, [{ id: "s", revision: "", next, text, messages: [] }], true)
    })

  it.effect("one whose time zone is unknown here is left to other processes", () =>
    Effect.gen(function* () {
      yield* storeAs({ cron: "0 3 * * *", zone: "Mars/Olympus" }, 1000)
      yield* release([], { topics: [Report] })
      yield* TestClock.adjust("5 seconds")
      const info = yield* infoOf("s")
      assert.deepStrictEqual([info?.state, info?.next], ["unreadable", 1000])
      for (const steer of [Schedules.pause, Schedules.resume, Schedules.run]) {
        const { reason } = yield* Effect.flip<unknown, Transport.TransportError, Transport.AtLeastOnce>(
          steer(Report, "s")
        )
        assert.strictEqual(reason._tag, "UnreadableSchedule")
      }
      assert.deepStrictEqual(yield* ticks, [])
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  it.effect("one of a newer build keeps its count, and stays paused, when an older one declares it", () =>
    Effect.gen(function* () {
      yield* storeAs({ every: 3_600_000, new: 1, count: 7, last: 1, paused: true })
      yield* release([Schedules.every("s", "1 hour", { topic: Report, payload: "" })])
      const info = yield* infoOf("s")
      assert.deepStrictEqual([info?.state, info?.published, info?.last], ["paused", 7, 1])
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  it.effect("of a long outage the newest thousand ticks are published, in steps", () =>
    Effect.gen(function* () {
      const seconds = Schedules.cron("seconds", "* * * * * *", { topic: Report, payload: "", missed: "all" })
      yield* yield* release([seconds])
      yield* TestClock.adjust("1 hour")
      yield* release([seconds])
      yield* quiet()
      const all = yield* ticks
      assert.deepStrictEqual(
        [all.length, all[0], all.at(-1)],
        [1000, "1970-01-01T00:43:21.000Z", "1970-01-01T01:00:00.000Z"]
      )
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  it.effect("jitter delays a message, by the same time in every process", () =>
    Effect.gen(function* () {
      const { inspector } = yield* Transport.AtLeastOnce
      yield* release([Schedules.every("poll", "1 hour", { topic: Report, payload: "", jitter: "10 minutes" })])
      yield* TestClock.adjust("1 hour")
      assert.strictEqual((yield* inspector.describe(Report.name)).nextDelayedAt, 3_600_000 + 109_384)
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  it.effect("an invalid schedule changes nothing and says what is wrong", () =>
    Effect.gen(function* () {
      const options = { topic: Report, payload: "" }
      const issueOf = (schedule: Schedules.Schedule<Transport.AtLeastOnce>) =>
        Schedules.upsert(schedule).pipe(Effect.catchTag("InvalidSchedule", ({ issue }) => Effect.succeed(issue)))
      assert.include(yield* issueOf(Schedules.cron("a", "0 25 * * *", options)), "25")
      assert.include(
        yield* issueOf(Schedules.cron("a", "0 3 * * *", { ...options, zone: "Mars/Olympus" })),
        "Mars/Olympus"
      )
      assert.include(yield* issueOf(Schedules.every("a", "10 millis", options)), "one second")
      assert.include(yield* issueOf(Schedules.every("a", "1 hour", { ...options, jitter: Number.NaN })), "jitter")
      assert.include(yield* issueOf(Schedules.every("a b", "1 hour", options)), "white space")
      for (const times of [2.5, Number.NaN, 0])
        assert.include(yield* issueOf(Schedules.every("a", "1 hour", { ...options, times })), "times")
      // A program without types.
      const missed = "never" as "last"
      assert.include(yield* issueOf(Schedules.every("a", "1 hour", { ...options, missed })), "missed")
      const before = performance.now()
      assert.include(yield* issueOf(Schedules.cron("a", "0 0 30 2 *", options)), "no date")
      assert.isBelow(performance.now() - before, 500)
      assert.deepStrictEqual(yield* Stream.runCollect(Schedules.list(Report)), [])
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  it.effect("parts of milliseconds are rounded", () =>
    Effect.gen(function* () {
      const options = { jitter: Duration.nanos(1_500_000n), window: "1.4 millis" } as const
      yield* Schedules.upsert(Schedules.every("a", "1 hour", { topic: Report, payload: "", ...options }))
      const info = yield* infoOf("a")
      assert.deepStrictEqual([info?.state, info?.definition?.jitter, info?.definition?.window], ["active", 2, 1])
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )

  it.effect("a pattern that stores nothing offers none", () =>
    Effect.gen(function* () {
      const Price = Topic.make("prices", { payload: Schema.String, guarantee: "at-most-once" })
      const result = yield* Effect.flip(Schedules.upsert(Schedules.every("a", "1 hour", { topic: Price, payload: "" })))
      assert(result._tag === "TransportError" && result.reason._tag === "NotOffered")
    }).pipe(Effect.provide(MemoryPubSub.layer()))
  )
})
