import { assert, describe, it } from "@effect/vitest"
import { Effect, Result, Schedule, Schema } from "effect"
import { TestClock } from "effect/testing"
import { Consumer, type Delivery, Topic, Transport } from "waybill"
import { FakeTransport } from "./FakeTransport.ts"
import { quiet, run, stop, until } from "./Running.ts"

const Numbers = Topic.make("t", { payload: Schema.Int })

const between = (minimum: number, maximum: number) => Schema.Int.check(Schema.isBetween({ minimum, maximum }))

/** A program is nothing but numbers, so that a failing one can shrink. */
const Program = Schema.Struct({
  seed: between(0, 1_000_000),
  messages: between(1, 80),
  concurrency: between(1, 12),
  prefetch: between(0, 20),
  /** 0: one at a time. */
  batch: between(0, 5),
  /** In percent. */
  losses: between(0, 40),
  failures: between(0, 30),
  /** Steps before the shutdown. */
  steps: between(0, 25),
  shutdown: between(0, 3000)
})

type Program = typeof Program.Type

/** The same for the same seed, on every machine. */
const mulberry = (seed: number) => () => {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296
}

const turns = Effect.fnUntraced(function* (count: number) {
  for (let i = 0; i < count; i++) yield* Effect.yieldNow
})

/** How an attempt goes is drawn from the message and the attempt alone. */
const handle = (seed: number, n: number, attempt: number): Effect.Effect<string, string> => {
  const chance = mulberry(seed * 7919 + n * 31 + attempt)
  const millis = Math.floor(chance() * 400)
  const done = Effect.succeed(`done ${n}`)
  const ways: ReadonlyArray<() => Effect.Effect<string, string>> = [
    () => done,
    () => done,
    () => Effect.andThen(Effect.yieldNow, done),
    () => Effect.andThen(turns(millis % 7), done),
    () => Effect.andThen(Effect.sleep(millis), done),
    () => Effect.fail("at once"),
    () => Effect.andThen(Effect.sleep(millis), Effect.fail("later")),
    () => Effect.die("defect"),
    () => {
      throw new Error("thrown")
    },
    () => Effect.interrupt,
    () =>
      Effect.withFiber((fiber) => {
        fiber.interruptUnsafe()
        return Effect.never
      }),
    () => Effect.uninterruptible(Effect.andThen(Effect.sleep(millis), done)),
    () => Effect.ensuring(Effect.andThen(Effect.sleep(millis), done), Effect.sleep(millis % 50)),
    () => Effect.ensuring(Effect.andThen(Effect.sleep(millis), done), Effect.die("in the finalizer")),
    () => Effect.andThen(Effect.sleep("1 minute"), done),
    () => Effect.catchCause(Effect.andThen(Effect.sleep(millis), done), () => Effect.fail("was interrupted")),
    // JavaScript may do this.
    () => Effect.flatMap(turns(millis % 3), () => undefined as unknown as Effect.Effect<string>)
  ]
  return ways[Math.floor(chance() * ways.length)]!()
}

const policy = Schedule.spaced("300 millis").pipe(Schedule.upTo({ times: 3 }))

const consumerOf = ({ batch, concurrency, prefetch, seed, shutdown }: Program, gate: { closed: boolean }) => {
  const source = Consumer.make(Numbers, { group: "g", concurrency, prefetch, shutdown })
  const one = (n: number, delivery: Delivery.Delivery): Effect.Effect<string, string> =>
    gate.closed ? Effect.never : handle(seed, n, delivery.attempt)
  return batch === 0
    ? source.pipe(Consumer.process(one), Consumer.orElse(Consumer.retry(policy)))
    : source.pipe(
        Consumer.processBatch(batch, 50, (items) =>
          gate.closed
            ? Effect.never
            : // Some batches fail as a whole, with what their first item does.
              items[0].delivery.fence % 3 === 0
              ? Effect.map(one(items[0].payload, items[0].delivery), () => items.map(() => Result.void))
              : Effect.forEach(items, ({ delivery, payload }) => Effect.result(one(payload, delivery)))
        ),
        Consumer.orElse(Consumer.retry(policy))
      )
}

const refused = new Transport.TransportError({
  operation: "settle",
  topic: "t",
  reason: new Transport.Refused({ code: "LOADING", detail: "LOADING" })
})

/** A transport that is slow, fails at times, takes leases away, and delivers again what is due to come again. */
const chaotic = Effect.fnUntraced(function* ({ failures, losses, messages, seed }: Program) {
  const transport = yield* FakeTransport.make
  const chance = mulberry(seed)
  const whim = Effect.suspend((): Effect.Effect<void, Transport.TransportError> => {
    const draw = chance() * 100
    if (draw < failures) return Effect.fail(refused)
    if (draw < 50) return Effect.void
    return draw < 80 ? turns(Math.ceil(draw % 5)) : Effect.sleep(Math.ceil(draw))
  })
  transport.onTake = whim
  transport.onSettle = whim
  const again: Array<readonly [Delivery.Delivery, number]> = []
  transport.onEnd = (delivery, end) => {
    if (end === "Retry" || end === "Lost") again.push([delivery, delivery.attempt + 1])
    if (end === "Release") again.push([delivery, delivery.attempt])
  }
  transport.deliver(...Array.from({ length: messages }, (_, n) => (chance() < 0.05 ? "rubbish" : n)))

  const deliverAgain = () => {
    for (const [delivery, attempt] of again.splice(0)) transport.again(delivery, attempt)
  }
  /** Moves the world on by a random bit. */
  const step = Effect.gen(function* () {
    if (chance() < 0.5) yield* turns(Math.ceil(chance() * 20))
    else yield* TestClock.adjust(Math.ceil(chance() * 200))
    for (const delivery of transport.held.values()) if (chance() * 100 < losses / 4) transport.lose(delivery)
    deliverAgain()
  })
  /** The chaos ends, and all that is left to do gets done: at most four attempts of at most a minute each. */
  const rest = Effect.gen(function* () {
    transport.onTake = Effect.void
    transport.onSettle = Effect.void
    for (let round = 0; round < 1000; round++) {
      deliverAgain()
      yield* TestClock.adjust("1 minute")
      yield* quiet()
      if (transport.held.size === 0 && transport.waiting === 0 && again.length === 0) return
    }
    assert.fail(`${transport.held.size} held, ${transport.waiting} waiting, ${again.length} to come again`)
  })
  return { rest, step, transport }
})

const fails = (complaints: ReadonlyArray<string>, program: Program) =>
  assert.deepStrictEqual(complaints, [], JSON.stringify(program))

describe("under stress", () => {
  it.effect.prop(
    "each delivery ends once, whenever the consumer is stopped, and it stops in time",
    [Program],
    ([program]) =>
      Effect.scoped(
        Effect.gen(function* () {
          yield* TestClock.adjust(1)
          const { step, transport } = yield* chaotic(program)
          const fiber = yield* run(consumerOf(program, { closed: false }), transport.layer)
          for (let i = 0; i < program.steps; i++) yield* step
          const { millis } = yield* stop(fiber)
          fails(transport.complaints(), program)
          assert.strictEqual(transport.held.size, 0)
          assert.isAtMost(millis, program.shutdown + 10_000)
          const window = program.concurrency * Math.max(1, program.batch) + program.prefetch
          assert.isAtMost(transport.mostHeld, window)
        })
      ),
    { arbitrary: { runs: 100 }, timeout: 30_000 }
  )

  it.effect.prop(
    "left alone it comes to rest with nothing held, and has all its room again",
    [Program],
    ([program]) =>
      Effect.scoped(
        Effect.gen(function* () {
          yield* TestClock.adjust(1)
          const gate = { closed: false }
          const { rest, step, transport } = yield* chaotic(program)
          const fiber = yield* run(consumerOf({ ...program, shutdown: 0 }, gate), transport.layer)
          for (let i = 0; i < program.steps; i++) yield* step
          yield* rest
          fails(transport.complaints(), program)
          gate.closed = true
          const window = program.concurrency * Math.max(1, program.batch)
          transport.mostHeld = 0
          transport.deliver(...Array.from({ length: window + program.prefetch + 10 }, (_, n) => n))
          yield* TestClock.adjust("1 minute")
          yield* until("all its room is used", () => transport.held.size >= window)
          yield* quiet()
          assert.isAtMost(transport.mostHeld, window + program.prefetch)
          yield* stop(fiber)
          fails(transport.complaints(), program)
        })
      ),
    { arbitrary: { runs: 40 }, timeout: 30_000 }
  )

  describe("the check itself", () => {
    const program: Program = {
      seed: 7,
      messages: 10,
      concurrency: 4,
      prefetch: 10,
      batch: 0,
      losses: 0,
      failures: 0,
      steps: 20,
      shutdown: 100
    }
    const broken = Effect.fnUntraced(function* (breakIt: (transport: FakeTransport) => void) {
      const { step, transport } = yield* chaotic(program)
      breakIt(transport)
      const fiber = yield* run(consumerOf(program, { closed: false }), transport.layer)
      for (let i = 0; i < program.steps; i++) yield* step
      yield* stop(fiber)
      return transport.complaints()
    })

    it.effect("has nothing to say when nothing is broken", () =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* broken(() => undefined), [])
      })
    )

    it.effect("sees a settlement that was dropped on the way", () =>
      Effect.gen(function* () {
        const complaints = yield* broken((transport) => {
          transport.drop = (delivery) => delivery.body === "3" || delivery.body === "4"
        })
        assert.isAbove(complaints.length, 0)
        assert.match(complaints[0]!, /and the consumer says/)
      })
    )

    it.effect("sees a delivery that is settled twice", () =>
      Effect.gen(function* () {
        const complaints = yield* broken((transport) => {
          transport.offer(...transport.deliver(0))
        })
        assert.isAbove(complaints.length, 0)
      })
    )

    it.effect("sees a delivery that is forgotten", () =>
      Effect.gen(function* () {
        const complaints = yield* broken((transport) => {
          transport.onLeave = Effect.never
          transport.deliver(...Array.from({ length: 50 }, (_, n) => n))
        })
        assert.match(complaints[0]!, /ended never/)
      })
    )
  })
})
