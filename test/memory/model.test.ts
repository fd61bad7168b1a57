import { assert, describe, it } from "@effect/vitest"
import { freeze } from "@waybill/testing"
import { Cause, Clock, Duration, Effect, Exit, Layer, Option, Scope } from "effect"
import { TestClock } from "effect/testing"
import { type Delivery, Inspector, type Message, Settlement, Transport } from "waybill"
import { MemoryKeyspace, MemoryLists, MemoryStreams } from "waybill/memory"

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
  frozen: Scope.Closeable | undefined
}

interface Member {
  readonly id: string
  readonly priority: string
  /** What the model expects of a message in this group. */
  attempt: number
  fence: number
  state: "delayed" | "stored" | "held" | "waiting" | "dead" | "acked" | "expired"
  expiresAt: number
}

/** What the model knows of a group. */
interface Model {
  readonly members: Map<string, Member>
  /** Stored and never delivered, in the order in which they were stored. */
  unseen: Array<Member>
  /** Expired unseen, and how many missed ones gaps have told of. */
  missed: number
  told: number
  lastId: string | undefined
}

interface Subject {
  readonly layer: Layer.Layer<Transport.AtMostOnce | Inspector.Inspector>
  readonly stores: boolean
  readonly groups: ReadonlyArray<string>
  /** Which of those that nobody has seen comes first. */
  readonly first: (unseen: ReadonlyArray<Member>) => Member | undefined
  readonly ttlMillis: number
}

const priorities = ["high", "normal", "low"]

/**
 * Random operations of several receivers in each group, next to a model that only knows: where a message must be, which of
 * the unseen comes next, which attempt comes next, that fences grow, and what has expired. At the end everything is
 * drained and nothing may be missing that no gap has told of.
 */
const walk = Effect.fnUntraced(function* (subject: Subject, seed: number, length: number) {
  const below = randomOf(seed)
  const transport = yield* Transport.AtMostOnce
  const inspector = yield* Inspector.Inspector
  const { groups } = subject
  const models = new Map(
    groups.map((group): [string, Model] => [
      group,
      { members: new Map(), unseen: [], missed: 0, told: 0, lastId: undefined }
    ])
  )
  const seats = new Map<string, Array<Seat>>(groups.map((group) => [group, []]))
  const delayed: Array<{ readonly id: string; readonly due: number }> = []
  let published = 0

  const context = (what: string) => `${what} (seed ${seed})`

  const modelOf = (group: string): Model => {
    const model = models.get(group)
    assert(model !== undefined)
    return model
  }

  const memberOf = (group: string, id: string): Member => {
    const member = modelOf(group).members.get(id)
    assert(member !== undefined, context(`${id} was never published`))
    return member
  }

  const store = (id: string, now: number) => {
    for (const { members, unseen } of models.values()) {
      const member = members.get(id)
      assert(member !== undefined)
      member.state = "stored"
      member.expiresAt = now + subject.ttlMillis
      unseen.push(member)
    }
  }

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
    seats.get(group)?.push({ receiver, scope, held: new Map(), frozen: undefined })
  })

  const arrive = (group: string, seat: Seat, delivery: Delivery.Delivery, others: ReadonlyArray<Seat>, now: number) => {
    const model = modelOf(group)
    const member = memberOf(group, delivery.id)
    const former = others.find((other) => other.held.has(delivery.id))
    if (delivery.gap !== undefined) {
      const { missed = 0, ...rest } = delivery.gap
      assert.deepStrictEqual(rest, { after: model.lastId, before: delivery.id, reason: "expired" }, context("a gap"))
      assert.isAbove(missed, 0, context("a gap of nothing"))
      model.told += missed
    }
    if (former !== undefined) {
      assert(former.frozen !== undefined, context(`${delivery.id} was taken from a living receiver`))
      former.held.delete(delivery.id)
    } else if (member.state === "stored") {
      assert.strictEqual(delivery.id, subject.first(model.unseen)?.id, context("the next of the unseen"))
      assert.isAtLeast(model.told, model.missed, context(`what expired before ${delivery.id}`))
      model.unseen = model.unseen.filter((other) => other !== member)
    } else {
      assert.strictEqual(member.state, "waiting", context(delivery.id))
    }
    assert.isAbove(member.expiresAt, now, context(`${delivery.id} had expired`))
    assert.strictEqual(delivery.attempt, member.attempt + 1, context(`attempt of ${delivery.id}`))
    assert.isAbove(delivery.fence, member.fence, context(`fence of ${delivery.id}`))
    member.attempt = delivery.attempt
    member.fence = delivery.fence
    member.state = "held"
    model.lastId = delivery.id
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
    if (seat.frozen !== undefined) return 0
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
    const now = yield* Clock.currentTimeMillis
    for (const delivery of deliveries) arrive(group, seat, delivery, others, now)
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
    if (seat.frozen !== undefined) yield* wake(seat)
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
    if (seat.frozen === undefined) return
    yield* Scope.close(seat.frozen, yield* Effect.exit(Effect.void))
    seat.frozen = undefined
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
      member.expiresAt = Infinity
    }
  })

  const pass = Effect.fnUntraced(function* (duration: Duration.Duration) {
    yield* TestClock.adjust(duration)
    const now = yield* Clock.currentTimeMillis
    const due = delayed.filter((message) => message.due <= now).sort((a, b) => a.due - b.due)
    for (const message of due) {
      delayed.splice(delayed.indexOf(message), 1)
      store(message.id, message.due)
    }
    for (const model of models.values()) {
      for (const member of model.unseen) {
        if (member.expiresAt > now) continue
        member.state = "expired"
        model.missed++
      }
      model.unseen = model.unseen.filter((member) => member.state === "stored")
    }
  })

  const verify = Effect.gen(function* () {
    for (const group of groups) for (const seat of seats.get(group) ?? []) yield* learnLosses(group, seat)
    const now = yield* Clock.currentTimeMillis
    const info = yield* inspector.describe("t")
    assert.strictEqual(info.delayed, delayed.length, context("delayed"))
    for (const group of groups) {
      const found = info.groups.find((candidate) => candidate.group === group)
      const members = Array.from(modelOf(group).members.values())
      const count = (state: Member["state"]) => members.filter((member) => member.state === state).length
      assert.deepStrictEqual(
        { lag: found?.lag, pending: found?.pending, deadLetters: found?.deadLetters },
        { lag: count("stored"), pending: count("held"), deadLetters: count("dead") },
        context(`figures of ${group}`)
      )
      // What has expired may wait until its turn comes: only then it is known to be missing.
      const waiting = members.filter((member) => member.state === "waiting")
      assert.isAtMost(found?.waiting ?? Infinity, waiting.length, context(`waiting in ${group}`))
      assert.isAtLeast(
        found?.waiting ?? 0,
        waiting.filter((member) => member.expiresAt > now).length,
        context(`waiting in ${group}`)
      )
    }
  })

  const publish = Effect.fnUntraced(function* () {
    const now = yield* Clock.currentTimeMillis
    const messages = Array.from({ length: 1 + below(4) }, (): Message.Outgoing => {
      const id = `m${published++}`
      const priority = priorities[below(3)] ?? "normal"
      const seconds = below(4) === 0 ? below(60) : 0
      for (const { members } of models.values()) {
        members.set(id, { id, priority, attempt: 0, fence: 0, state: "delayed", expiresAt: Infinity })
      }
      if (seconds === 0) store(id, now)
      else delayed.push({ id, due: now + seconds * 1000 })
      const due = seconds === 0 ? undefined : ({ _tag: "After", delay: Duration.seconds(seconds) } as const)
      return { id, body: id, headers: { priority }, key: undefined, version: 1, due }
    })
    const [first, ...rest] = messages
    assert(first !== undefined)
    yield* transport.publish("t", [first, ...rest])
  })

  for (const group of groups) yield* join(group)
  for (let i = 0; i < length; i++) {
    const group = groups[below(groups.length)] ?? ""
    const present = seats.get(group) ?? []
    const seat = present[below(present.length)]
    const dice = below(100)
    if (dice < 20) yield* publish()
    else if (dice < 25 && present.length < 4) yield* join(group)
    else if (dice < 30) yield* pass(Duration.seconds(below(40)))
    else if (dice < 34) yield* redrive(group)
    else if (seat === undefined) yield* join(group)
    else if (dice < 60) yield* take(group, seat)
    else if (dice < 90) yield* settle(group, seat, below(4))
    else if (dice < 93) yield* leave(group, seat)
    else if (dice < 97 && seat.frozen === undefined) {
      const scope = yield* Scope.make()
      if (subject.stores) yield* Scope.provide(freeze(seat.receiver), scope)
      seat.frozen = scope
    } else {
      yield* wake(seat)
    }
    yield* verify
  }

  let expired = 0
  yield* pass(Duration.hours(1))
  yield* publish()
  yield* pass(Duration.minutes(1))
  for (const group of groups) {
    for (const seat of seats.get(group) ?? []) yield* leave(group, seat)
    yield* join(group)
    const [seat] = seats.get(group) ?? []
    assert(seat !== undefined)
    while ((yield* inspector.describe("t")).groups.some((info) => info.group === group && info.deadLetters > 0)) {
      yield* redrive(group)
    }
    while ((yield* take(group, seat)) > 0) while (seat.held.size > 0) yield* settle(group, seat, 0)
  }
  // One more for everybody: what is missing since the last delivery is told with it.
  const [receipt] = yield* transport.publish("t", [
    { id: "last", body: "last", headers: {}, key: undefined, version: 1, due: undefined }
  ])
  for (const group of groups) {
    const model = modelOf(group)
    const [delivery] = yield* (seats.get(group)?.[0] ?? assert.fail()).receiver.take(1)
    assert.strictEqual(delivery.id, receipt?.id, context("the last one"))
    model.told += delivery.gap?.missed ?? 0
    const now = yield* Clock.currentTimeMillis
    const missing = Array.from(model.members.values()).filter(({ state }) => state !== "acked")
    for (const member of missing) {
      const gone = member.state === "expired" || (member.state === "waiting" && member.expiresAt <= now)
      assert.isTrue(gone, context(`the end of ${member.id} in ${group}: ${member.state}`))
    }
    assert.strictEqual(model.told, missing.length, context(`gaps have told of all that are missing in ${group}`))
    expired += missing.length
    yield* seats.get(group)?.[0]?.receiver.settle([[delivery, Settlement.ack]]) ?? Effect.void
  }
  yield* pass(Duration.hours(1))
  const info = yield* inspector.describe("t")
  assert.strictEqual(info.depth, 0, context("what every group has settled, or what has expired, is dropped"))
  return { published, expired }
})

const oldest = (unseen: ReadonlyArray<Member>) => unseen[0]
const newest = (unseen: ReadonlyArray<Member>) => unseen.at(-1)
const mostUrgent = (unseen: ReadonlyArray<Member>) =>
  unseen.toSorted((a, b) => priorities.indexOf(a.priority) - priorities.indexOf(b.priority))[0]

const lists = { stores: true, groups: ["g1"], ttlMillis: Infinity }
const streams: Subject = {
  layer: MemoryStreams.layer(),
  stores: true,
  groups: ["g1", "g2"],
  first: oldest,
  ttlMillis: Infinity
}
const keyspace: Subject = {
  layer: MemoryKeyspace.layer({ ttl: "1 minute" }),
  stores: true,
  groups: ["g1", "g2"],
  first: oldest,
  ttlMillis: 60_000
}
const subjects: ReadonlyArray<readonly [name: string, subject: Subject]> = [
  ["MemoryStreams", streams],
  ["MemoryLists, fifo", { ...lists, layer: MemoryLists.layer(), first: oldest }],
  ["MemoryLists, lifo", { ...lists, layer: MemoryLists.layer({ order: "lifo" }), first: newest }],
  ["MemoryLists, priority", { ...lists, layer: MemoryLists.layer({ order: "priority" }), first: mostUrgent }],
  ["MemoryKeyspace", keyspace]
]

/** The same store, with a fault in it. */
const broken = (
  subject: Subject,
  settle: (settlement: Settlement.Settlement) => Settlement.Settlement,
  arrive: (delivery: Delivery.Delivery) => Delivery.Delivery = (delivery) => delivery
): Subject => ({
  ...subject,
  stores: false,
  layer: Layer.effect(
    Transport.AtMostOnce,
    Effect.map(Transport.AtMostOnce, (transport) => ({
      ...transport,
      receive: (subscription) =>
        Effect.map(transport.receive(subscription), (receiver) => ({
          ...receiver,
          take: (max) =>
            Effect.map(receiver.take(max), ([first, ...rest]) => [arrive(first), ...rest.map(arrive)] as const),
          settle: ([first, ...rest]) =>
            receiver.settle([
              // Changed or not, each ends what it ended: a saboteur cares for no type.
              [first[0], settle(first[1])] as unknown as Transport.Ending,
              ...rest.map(([handle, settlement]) => [handle, settle(settlement)] as unknown as Transport.Ending)
            ])
        }))
    }))
  ).pipe(Layer.provideMerge(subject.layer))
})

const seeds = Array.from({ length: 24 }, (_, i) => 1000 + i)

describe.each(subjects)("%s, against a model", (_, subject) => {
  it.effect.each(seeds)("a random walk keeps every message in exactly one place: seed %s", (seed) =>
    Effect.gen(function* () {
      const { expired, published } = yield* walk(subject, seed, 300)
      assert.isAbove(published, 20)
      assert.strictEqual(expired > 0, subject.ttlMillis < Infinity)
    }).pipe(Effect.provide(subject.layer))
  )
})

describe("the model notices", () => {
  it.effect.each([
    [
      "a queue of another order",
      { ...lists, layer: MemoryLists.layer({ order: "lifo" }), first: oldest },
      /the next of/
    ],
    ["priorities that nobody looks at", { ...lists, layer: MemoryLists.layer(), first: mostUrgent }, /the next of/],
    ["a log that is cut", { ...streams, layer: MemoryStreams.layer({ retention: { maxLength: 3 } }) }, /figures of/],
    ["messages that live too long", { ...keyspace, layer: MemoryKeyspace.layer() }, /figures of|had expired/],
    [
      "gaps that are not told",
      broken(
        keyspace,
        (settlement) => settlement,
        (delivery) => ({ ...delivery, gap: undefined })
      ),
      /what expired before/
    ],
    [
      "retries that are lost",
      broken(streams, (settlement) => (settlement._tag === "Retry" ? Settlement.ack : settlement)),
      /waiting in/
    ],
    [
      "a release that counts",
      broken({ ...lists, layer: MemoryLists.layer(), first: oldest }, (settlement) =>
        settlement._tag === "Release" ? Settlement.retry(Duration.zero, "") : settlement
      ),
      /attempt of/
    ]
  ] as const)("%s", ([, subject, complaint]) =>
    Effect.gen(function* () {
      const exits = yield* Effect.forEach(seeds.slice(0, 5), (seed) =>
        Effect.exit(Effect.provide(walk(subject, seed, 300), subject.layer, { local: true }))
      )
      const complaints = exits.map((exit) => (Exit.isFailure(exit) ? Cause.pretty(exit.cause) : "nothing"))
      for (const found of complaints) assert.match(found, complaint)
    })
  )
})
