import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Option, Scope } from "effect"
import { TestClock } from "effect/testing"
import { type Delivery, Inspector, type Message, Settlement, Transport } from "waybill"
import { MemoryStreams } from "waybill/memory"

/** A small generator with a seed: a failure is repeated by its seed. */
const randomOf = (seed: number) => {
  let state = seed >>> 0
  return (below: number): number => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}

interface Seat {
  readonly receiver: Transport.Receiver
  readonly scope: Scope.Closeable
  readonly held: Map<string, Delivery.Delivery>
  silence: Scope.Closeable | undefined
}

interface Member {
  /** What the model expects of a message in this group. */
  attempt: number
  fence: number
  state: "stored" | "held" | "waiting" | "dead" | "acked"
}

/**
 * Random operations of several receivers in two groups, next to a model that only knows: where a message must be, which
 * attempt comes next, and that fences grow. At the end everything is drained and nothing may be missing.
 */
const walk = Effect.fnUntraced(function* (seed: number, length: number) {
  const below = randomOf(seed)
  const transport = yield* Transport.Transport
  const inspector = yield* Inspector.Inspector
  const groups = ["g1", "g2"]
  const models = new Map(groups.map((group) => [group, new Map<string, Member>()]))
  const seats = new Map<string, Array<Seat>>(groups.map((group) => [group, []]))
  let published = 0

  const context = (what: string) => `${what} (seed ${seed})`

  const join = Effect.fnUntraced(function* (group: string) {
    const scope = yield* Scope.make()
    const receiver = yield* transport
      .receive({
        topic: "t",
        group,
        start: "earliest",
        lease: Duration.seconds(30),
        maxDeliveries: 1_000_000,
        shutdown: Duration.seconds(1)
      })
      .pipe(Scope.provide(scope))
    seats.get(group)?.push({ receiver, scope, held: new Map(), silence: undefined })
  })

  const memberOf = (group: string, id: string): Member => {
    const member = models.get(group)?.get(id)
    assert(member !== undefined, context(`${id} was never published`))
    return member
  }

  const arrive = (group: string, seat: Seat, delivery: Delivery.Delivery, others: ReadonlyArray<Seat>) => {
    const member = memberOf(group, delivery.id)
    const former = others.find((other) => other.held.has(delivery.id))
    if (former !== undefined) {
      assert(former.silence !== undefined, context(`${delivery.id} was taken from a living receiver`))
      former.held.delete(delivery.id)
    } else {
      assert(member.state === "stored" || member.state === "waiting", context(`${delivery.id} was ${member.state}`))
    }
    assert.strictEqual(delivery.attempt, member.attempt + 1, context(`attempt of ${delivery.id}`))
    assert.isAbove(delivery.fence, member.fence, context(`fence of ${delivery.id}`))
    member.attempt = delivery.attempt
    member.fence = delivery.fence
    member.state = "held"
    seat.held.set(delivery.id, delivery)
  }

  /** What others have taken from a silent receiver waits for its next attempt, or has arrived there already. */
  const learnLosses = Effect.fnUntraced(function* (group: string, seat: Seat) {
    const fiber = yield* Effect.forkChild(seat.receiver.lost, { startImmediately: true })
    yield* Effect.yieldNow
    const exit = fiber.pollUnsafe()
    if (exit === undefined) return fiber.interruptUnsafe()
    for (const { fence, id } of yield* exit) {
      if (seat.held.get(id)?.fence !== fence) continue
      seat.held.delete(id)
      memberOf(group, id).state = "waiting"
    }
  })

  const take = Effect.fnUntraced(function* (group: string, seat: Seat) {
    if (seat.silence !== undefined) return 0
    const max = 1 + below(5)
    const fiber = yield* Effect.forkChild(seat.receiver.take(max), { startImmediately: true })
    for (let i = 0; i < 3; i++) yield* Effect.yieldNow
    const exit = fiber.pollUnsafe()
    if (exit === undefined) {
      fiber.interruptUnsafe()
      return 0
    }
    const deliveries = yield* exit
    assert.isAtMost(deliveries.length, max, context("size of a batch"))
    const others = (seats.get(group) ?? []).filter((other) => other !== seat)
    for (const delivery of deliveries) arrive(group, seat, delivery, others)
    return deliveries.length
  })

  const settle = Effect.fnUntraced(function* (group: string, seat: Seat, choice: number) {
    const [delivery] = seat.held.values()
    if (delivery === undefined) return
    const settlement = [
      Settlement.ack,
      Settlement.retry(Duration.seconds(below(100)), "cause"),
      Settlement.deadLetter("Broken", "cause"),
      Settlement.release
    ][choice]
    assert(settlement !== undefined)
    seat.held.delete(delivery.id)
    const [answer] = yield* seat.receiver.settle([[delivery, settlement]])
    assert.strictEqual(answer, "Settled", context(`${settlement._tag} of ${delivery.id}`))
    const member = memberOf(group, delivery.id)
    if (settlement._tag === "Release") member.attempt--
    member.state = ({ Ack: "acked", Retry: "waiting", DeadLetter: "dead", Release: "waiting" } as const)[
      settlement._tag
    ]
    const [again] = yield* seat.receiver.settle([[delivery, Settlement.deadLetter("Twice", "cause")]])
    assert.strictEqual(again, "Stale", context(`settling ${delivery.id} twice`))
  })

  const leave = Effect.fnUntraced(function* (group: string, seat: Seat) {
    if (seat.silence !== undefined) yield* wake(seat)
    yield* Scope.close(seat.scope, yield* Effect.exit(Effect.void))
    for (const id of seat.held.keys()) {
      const member = memberOf(group, id)
      member.attempt--
      member.state = "waiting"
    }
    seats.set(
      group,
      (seats.get(group) ?? []).filter((other) => other !== seat)
    )
  })

  const wake = Effect.fnUntraced(function* (seat: Seat) {
    if (seat.silence === undefined) return
    yield* Scope.close(seat.silence, yield* Effect.exit(Effect.void))
    seat.silence = undefined
  })

  const redrive = Effect.fnUntraced(function* (group: string) {
    const letters = yield* inspector.deadLetters("t", group, { after: Option.none(), limit: 1 + below(3) })
    const entries = letters.map((letter) => letter.entry)
    assert.strictEqual(yield* inspector.redrive("t", group, entries), entries.length, context("redriven"))
    for (const letter of letters) {
      const member = memberOf(group, letter.id)
      assert.strictEqual(letter.attempts, member.attempt, context(`attempts of the dead letter ${letter.id}`))
      member.attempt = 0
      member.state = "waiting"
    }
  })

  const verify = Effect.gen(function* () {
    for (const group of groups) for (const seat of seats.get(group) ?? []) yield* learnLosses(group, seat)
    const info = yield* inspector.describe("t")
    for (const group of groups) {
      const found = info.groups.find((candidate) => candidate.group === group)
      const states = Array.from(models.get(group)?.values() ?? [], (member) => member.state)
      const count = (state: Member["state"]) => states.filter((candidate) => candidate === state).length
      // A delayed message is in the model as stored from the start.
      assert.deepStrictEqual(
        {
          lag: (found?.lag ?? 0) + info.delayed,
          pending: found?.pending,
          waiting: found?.waiting,
          deadLetters: found?.deadLetters
        },
        { lag: count("stored"), pending: count("held"), waiting: count("waiting"), deadLetters: count("dead") },
        context(`figures of ${group}`)
      )
    }
  })

  const publish = Effect.fnUntraced(function* () {
    const messages = Array.from({ length: 1 + below(4) }, (): Message.Outgoing => {
      const id = `m${published++}`
      for (const model of models.values()) model.set(id, { attempt: 0, fence: 0, state: "stored" })
      const due = below(4) === 0 ? ({ _tag: "After", delay: Duration.seconds(below(60)) } as const) : undefined
      return { id, body: id, headers: {}, key: undefined, version: 1, due }
    })
    const [first, ...rest] = messages
    assert(first !== undefined)
    yield* transport.publish("t", [first, ...rest])
  })

  for (const group of groups) yield* join(group)
  for (let i = 0; i < length; i++) {
    const group = groups[below(2)] ?? "g1"
    const present = seats.get(group) ?? []
    const seat = present[below(present.length)]
    const dice = below(100)
    if (dice < 20) yield* publish()
    else if (dice < 25 && present.length < 4) yield* join(group)
    else if (dice < 30) yield* TestClock.adjust(Duration.seconds(below(40)))
    else if (dice < 34) yield* redrive(group)
    else if (seat === undefined) yield* join(group)
    else if (dice < 60) yield* take(group, seat)
    else if (dice < 90) yield* settle(group, seat, below(4))
    else if (dice < 93) yield* leave(group, seat)
    else if (dice < 97 && seat.silence === undefined) {
      const scope = yield* Scope.make()
      yield* Scope.provide(MemoryStreams.silence(seat.receiver), scope)
      seat.silence = scope
    } else {
      yield* wake(seat)
    }
    yield* verify
  }

  for (const group of groups) {
    for (const seat of seats.get(group) ?? []) yield* leave(group, seat)
    yield* join(group)
    const [seat] = seats.get(group) ?? []
    assert(seat !== undefined)
    yield* TestClock.adjust("1 hour")
    while ((yield* inspector.describe("t")).groups.some((info) => info.group === group && info.deadLetters > 0)) {
      yield* redrive(group)
    }
    while ((yield* take(group, seat)) > 0) while (seat.held.size > 0) yield* settle(group, seat, 0)
    for (const [id, member] of models.get(group) ?? []) {
      assert.strictEqual(member.state, "acked", context(`the end of ${id} in ${group}`))
    }
  }
  const info = yield* inspector.describe("t")
  assert.strictEqual(info.depth, 0, context("what every group has settled is dropped"))
  return published
})

describe("MemoryStreams, against a model", () => {
  const seeds = Array.from({ length: 40 }, (_, i) => 1000 + i)
  it.effect.each(seeds)("a random walk keeps every message in exactly one place: seed %s", (seed) =>
    Effect.gen(function* () {
      assert.isAbove(yield* walk(seed, 300), 20)
    }).pipe(Effect.provide(MemoryStreams.layer()))
  )
})
