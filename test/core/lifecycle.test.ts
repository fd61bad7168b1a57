import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Logger, Scope, Stream } from "effect"
import { Lifecycle } from "waybill"
import { FakeTransport } from "./FakeTransport.ts"
import { quiet } from "./Running.ts"

const paused = (topic: string): Lifecycle.Event => ({ _tag: "ConsumerPaused", topic, group: "g" })

/** What is logged meanwhile, as level and text. */
const logging = Effect.gen(function* () {
  const lines: Array<readonly [level: string, text: string]> = []
  const logger = Logger.make<unknown, void>(({ logLevel, message }) => {
    lines.push([logLevel, JSON.stringify(message)])
  })
  return { lines, provide: Effect.provide(Logger.layer([logger])) }
})

describe("Lifecycle", () => {
  it.effect("every listener sees every event, in order, until its scope closes", () =>
    Effect.gen(function* () {
      const lifecycle = new Lifecycle.Lifecycle()
      assert.isFalse(lifecycle.active)
      lifecycle.emit(paused("nobody hears it"))
      const first: Array<Lifecycle.Event> = []
      const second: Array<Lifecycle.Event> = []
      const scope = yield* Scope.make()
      yield* lifecycle.listen((event) => first.push(event))
      yield* Scope.provide(
        lifecycle.listen((event) => second.push(event)),
        scope
      )
      assert.isTrue(lifecycle.active)
      lifecycle.emit(paused("a"))
      lifecycle.emit(paused("b"))
      yield* Scope.close(scope, Exit.void)
      lifecycle.emit(paused("c"))
      assert.deepStrictEqual(first, [paused("a"), paused("b"), paused("c")])
      assert.deepStrictEqual(second, [paused("a"), paused("b")])
    })
  )

  it.effect("the same function may listen twice, and stops once at a time", () =>
    Effect.gen(function* () {
      const lifecycle = new Lifecycle.Lifecycle()
      let heard = 0
      const listener = () => {
        heard++
      }
      const scope = yield* Scope.make()
      yield* lifecycle.listen(listener)
      yield* Scope.provide(lifecycle.listen(listener), scope)
      lifecycle.emit(paused("a"))
      assert.strictEqual(heard, 2)
      yield* Scope.close(scope, Exit.void)
      lifecycle.emit(paused("b"))
      assert.strictEqual(heard, 3)
    })
  )

  it.effect("a listener that throws is logged once, and neither those who emit nor other listeners notice", () =>
    Effect.gen(function* () {
      const { lines, provide } = yield* logging
      yield* Effect.gen(function* () {
        const lifecycle = new Lifecycle.Lifecycle()
        const heard: Array<Lifecycle.Event> = []
        yield* lifecycle.listen(() => {
          throw new Error("a listener's bug")
        })
        yield* lifecycle.listen((event) => heard.push(event))
        lifecycle.emit(paused("a"))
        lifecycle.emit(paused("b"))
        assert.deepStrictEqual(heard, [paused("a"), paused("b")])
        yield* quiet()
      }).pipe(Effect.scoped, provide)
      assert.deepStrictEqual(
        lines.map(([level]) => level),
        ["Error"]
      )
      assert.include(lines[0]?.[1], "threw on ConsumerPaused")
    })
  )

  it.effect("a listener may end itself, and others may come, while an event goes round", () =>
    Effect.gen(function* () {
      const lifecycle = new Lifecycle.Lifecycle()
      const heard: Array<string> = []
      const scope = yield* Scope.make()
      const context = yield* Effect.context<Scope.Scope>()
      yield* Scope.provide(
        lifecycle.listen(() => {
          heard.push("first")
          Effect.runForkWith(context)(Scope.close(scope, Exit.void))
          Effect.runForkWith(context)(lifecycle.listen(() => heard.push("late")))
        }),
        scope
      )
      yield* lifecycle.listen(() => heard.push("second"))
      lifecycle.emit(paused("a"))
      yield* quiet()
      lifecycle.emit(paused("b"))
      assert.deepStrictEqual(
        heard.filter((name) => name === "first"),
        ["first"]
      )
      assert.strictEqual(heard.filter((name) => name === "second").length, 2)
      assert.include(heard, "late")
    })
  )

  it.effect("a stream has all events from its start on, and leaves nothing behind", () =>
    Effect.gen(function* () {
      const lifecycle = new Lifecycle.Lifecycle()
      const stream = lifecycle.stream()
      lifecycle.emit(paused("before"))
      const fiber = yield* Effect.forkChild(Stream.runCollect(Stream.take(stream, 2)), { startImmediately: true })
      yield* quiet()
      lifecycle.emit(paused("a"))
      lifecycle.emit(paused("b"))
      assert.deepStrictEqual(yield* Fiber.join(fiber), [paused("a"), paused("b")])
      assert.isFalse(lifecycle.active)
    })
  )

  it.effect("a slow reader of a stream loses the oldest events, and delays no one", () =>
    Effect.gen(function* () {
      const lifecycle = new Lifecycle.Lifecycle()
      const seen: Array<string> = []
      const gate = yield* Deferred.make<void>()
      const fiber = yield* lifecycle.stream(3).pipe(
        Stream.runForEach((event) =>
          Effect.andThen(
            Effect.sync(() => seen.push("topic" in event ? event.topic : "")),
            Deferred.await(gate)
          )
        ),
        Effect.forkChild({ startImmediately: true })
      )
      yield* quiet()
      lifecycle.emit(paused("first"))
      yield* quiet()
      for (let n = 0; n < 100; n++) lifecycle.emit(paused(`${n}`))
      yield* Deferred.succeed(gate, undefined)
      yield* quiet()
      assert.deepStrictEqual(seen, ["first", "97", "98", "99"])
      yield* Fiber.interrupt(fiber)
      assert.isFalse(lifecycle.active)
    })
  )

  it.effect("what is reported is told and logged, at the level that fits", () =>
    Effect.gen(function* () {
      const lifecycle = new Lifecycle.Lifecycle()
      const { lines, provide } = yield* logging
      const heard: Array<string> = []
      yield* lifecycle.listen((event) => heard.push(event._tag))
      const group = { topic: "t", group: "g" }
      yield* provide(
        Effect.gen(function* () {
          yield* lifecycle.report({ _tag: "ConsumerStarted", ...group, consumer: "c" })
          yield* lifecycle.report({ _tag: "ConsumerFailing", ...group, permanent: true, error: "no permission" })
          yield* lifecycle.report({ _tag: "Disconnected", role: "reader", cause: "reset" })
          yield* lifecycle.report({ _tag: "Truncated", ...group, count: 3 })
          yield* lifecycle.report({ _tag: "Reconnected", role: "reader", afterMillis: 7 })
        })
      )
      const tags = ["ConsumerStarted", "ConsumerFailing", "Disconnected", "Truncated", "Reconnected"]
      assert.deepStrictEqual(heard, tags)
      assert.deepStrictEqual(
        lines.map(([level]) => level),
        ["Info", "Error", "Warn", "Error", "Info"]
      )
      for (const [i, [, text]] of lines.entries()) assert.include(text, tags[i]!)
      assert.include(lines[1]![1], "no permission")
    })
  )

  it.effect("lost deliveries are logged by id; their payloads stay out of the log", () =>
    Effect.gen(function* () {
      const { lines, provide } = yield* logging
      const transport = yield* FakeTransport.make
      const deliveries = [transport.delivery("secret", { id: "m-1" }), transport.delivery("secret", { id: "m-2" })]
      yield* provide(transport.lifecycle.report({ _tag: "LeaseLost", topic: "t", group: "g", deliveries }))
      assert.strictEqual(lines.length, 1)
      assert.include(lines[0]![1], "m-1")
      assert.include(lines[0]![1], "m-2")
      assert.notInclude(lines[0]![1], "secret")
      const [event] = transport.events
      assert.deepStrictEqual(event?._tag === "LeaseLost" && event.deliveries, deliveries)
    })
  )

  it.effect("a line about lost leases says topic and group, names some messages and counts all", () =>
    Effect.gen(function* () {
      const { lines, provide } = yield* logging
      const transport = yield* FakeTransport.make
      const deliveries = Array.from({ length: 5000 }, (_, i) => transport.delivery("x", { id: `m-${i}` }))
      yield* provide(
        transport.lifecycle.report({ _tag: "LeaseLost", topic: "my-topic", group: "my-group", deliveries })
      )
      const text = lines[0]![1]
      for (const word of ["LeaseLost", "my-topic", "my-group", "m-0", "m-19", "5000"]) assert.include(text, word)
      assert.notInclude(text, "m-20")
      assert.isBelow(text.length, 1000)
    })
  )
})
