import { appendFileSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { History } from "@waybill/testing"
import { Effect, Exit } from "effect"

type Lines = ReadonlyArray<readonly [writer: string, fact: History.Fact]>

/** A story is told line by line; each line happens one millisecond after the one above it. */
const story = (lines: Lines): Array<History.Event> =>
  lines.map(([writer, fact], i) => ({ writer, at: 1000 * (i + 1), fact }))

const g = "g"
const publishing = (id: string, key?: string): History.Fact => ({
  _tag: "Publishing",
  id,
  ...(key === undefined ? {} : { key })
})
const published = (id: string): History.Fact => ({ _tag: "Published", id })
const started = (id: string, fence: number, attempt: number): History.Fact => ({
  _tag: "Started",
  group: g,
  id,
  attempt,
  fence
})
const ended = (
  id: string,
  fence: number,
  outcome: "success" | "failure" | "interrupted" = "success"
): History.Fact => ({
  _tag: "Ended",
  group: g,
  id,
  fence,
  outcome
})
const settled = (
  id: string,
  fence: number,
  as: "Ack" | "Retry" | "DeadLetter" | "Release",
  stale = false
): History.Fact => ({ _tag: "Settled", group: g, id, fence, as, stale })
const leaseLost = (id: string, fence: number): History.Fact => ({ _tag: "LeaseLost", group: g, id, fence })
const effect = (id: string, fence: number, accepted = true, order = fence): History.Fact => ({
  _tag: "Effect",
  group: g,
  id,
  fence,
  accepted,
  order
})
const fault = (kind: "Killed" | "Stopped" | "Unreachable" | "StateLost", target: string): History.Fact => ({
  _tag: "Fault",
  fault: kind,
  target
})

const nothing: History.Remains = { group: g, undelivered: [], pending: [], waiting: [], deadLetters: [] }
const left = (what: Partial<History.Remains>): History.Remains => ({ ...nothing, ...what })

const p = "producer"
const [a, b] = ["worker-a", "worker-b"]

interface Case {
  readonly name: string
  readonly lines: Lines
  readonly remains?: History.Remains
  readonly promises?: History.Promises
}

const handledOnce: Lines = [
  [p, publishing("1")],
  [p, published("1")],
  [a, started("1", 1, 1)],
  [a, ended("1", 1)],
  [a, settled("1", 1, "Ack")]
]

const kept: ReadonlyArray<Case & { readonly again?: ReadonlyArray<History.Report["repetitions"][number]["because"]> }> =
  [
    { name: "handled once and acknowledged", lines: handledOnce },
    {
      name: "failed, waited, and failed for good",
      lines: [
        [p, published("1")],
        [a, started("1", 1, 1)],
        [a, ended("1", 1, "failure")],
        [a, settled("1", 1, "Retry")],
        [b, started("1", 2, 2)],
        [b, ended("1", 2, "failure")],
        [b, settled("1", 2, "DeadLetter")]
      ],
      remains: left({ deadLetters: ["1"] }),
      again: ["Retry"]
    },
    {
      name: "handed back by a shutdown, with the same attempt",
      lines: [
        [p, published("1")],
        [a, started("1", 1, 1)],
        [a, ended("1", 1, "interrupted")],
        [a, settled("1", 1, "Release")],
        [b, started("1", 2, 1)],
        [b, ended("1", 2)],
        [b, settled("1", 2, "Ack")]
      ],
      again: ["Release"]
    },
    {
      name: "handled again after its handler was killed",
      lines: [
        [p, published("1")],
        [a, started("1", 1, 1)],
        ["test", fault("Killed", a)],
        [b, started("1", 2, 2)],
        [b, ended("1", 2)],
        [b, settled("1", 2, "Ack")]
      ],
      again: ["Killed"]
    },
    {
      name: "begun between the note of a kill and the kill",
      lines: [
        [p, published("1")],
        ["test", fault("Killed", a)],
        [a, started("1", 1, 1)],
        [b, started("1", 2, 2)],
        [b, ended("1", 2)],
        [b, settled("1", 2, "Ack")]
      ],
      again: ["Killed"]
    },
    {
      name: "handled again after its handler was killed between the effect and the acknowledgement",
      lines: [
        [p, published("1")],
        [a, started("1", 1, 1)],
        [a, ended("1", 1)],
        ["test", fault("Killed", a)],
        [b, started("1", 2, 2)],
        [b, ended("1", 2)],
        [b, settled("1", 2, "Ack")]
      ],
      again: ["Killed"]
    },
    {
      name: "acknowledged by a process that was killed before it heard so",
      lines: [
        [p, published("1")],
        [a, started("1", 1, 1)],
        [a, ended("1", 1)],
        ["test", fault("Killed", a)]
      ]
    },
    {
      name: "taken by a process that was killed before the handler began: an attempt that nobody tells of",
      lines: [
        [p, published("1")],
        ["test", fault("Killed", a)],
        [b, started("1", 2, 2)],
        [b, ended("1", 2)],
        [b, settled("1", 2, "Ack")]
      ]
    },
    {
      name: "a zombie whose effect and settlement are refused",
      lines: [
        [p, published("1")],
        [a, started("1", 1, 1)],
        ["test", fault("Stopped", a)],
        [b, started("1", 2, 2)],
        [b, effect("1", 2)],
        [b, ended("1", 2)],
        [b, settled("1", 2, "Ack")],
        ["test", { _tag: "Healed", target: a }],
        [a, effect("1", 1, false)],
        [a, ended("1", 1)],
        [a, settled("1", 1, "Ack", true)]
      ],
      promises: { effectsOnce: true },
      again: ["LeaseLost"]
    },
    {
      name: "an ack that was held up on its way, until somebody else had been given the message",
      lines: [
        [p, published("1")],
        [a, started("1", 1, 1)],
        [a, ended("1", 1)],
        ["test", fault("Unreachable", a)],
        [a, settled("1", 1, "Ack")],
        [b, started("1", 2, 2)],
        [b, ended("1", 2, "interrupted")],
        [b, leaseLost("1", 2)]
      ],
      again: ["Unreachable"]
    },
    {
      name: "an ack that was held up on its way, and said again by who did the work again",
      lines: [
        [p, published("1")],
        [a, started("1", 1, 1)],
        ["test", fault("Stopped", a)],
        [b, started("1", 2, 2)],
        [a, ended("1", 1)],
        [a, settled("1", 1, "Ack")],
        [b, ended("1", 2)],
        [b, settled("1", 2, "Ack")]
      ],
      again: ["Stopped"]
    },
    {
      name: "effects in order, whose answers arrived in another",
      lines: [
        [p, published("1")],
        [a, started("1", 1, 1)],
        ["test", fault("Unreachable", a)],
        [b, started("1", 2, 2)],
        [b, effect("1", 2, true, 2)],
        [b, ended("1", 2)],
        [b, settled("1", 2, "Ack")],
        [a, effect("1", 1, true, 1)],
        [a, ended("1", 1)],
        [a, settled("1", 1, "Ack", true)]
      ],
      again: ["LeaseLost"]
    },
    {
      name: "a zombie that begins with what it had in hand when it was stopped",
      lines: [
        [p, published("1")],
        ["test", fault("Stopped", a)],
        [b, started("1", 2, 2)],
        [b, ended("1", 2)],
        [b, settled("1", 2, "Ack")],
        [a, started("1", 1, 1)],
        [a, ended("1", 1, "interrupted")],
        [a, leaseLost("1", 1)]
      ],
      again: ["Stopped"]
    },
    {
      name: "gone with a store that forgot everything",
      lines: [
        [p, published("1")],
        ["test", fault("StateLost", "*")],
        [p, published("2")],
        [a, started("2", 1, 1)],
        [a, ended("2", 1)],
        [a, settled("2", 1, "Ack")]
      ]
    },
    {
      name: "of an unknown receipt: there or not",
      lines: [
        [p, publishing("1")],
        [p, publishing("2")],
        [a, started("2", 1, 1)],
        [a, ended("2", 1)],
        [a, settled("2", 1, "Ack")]
      ]
    },
    {
      name: "misshapen, dead-lettered without a handler",
      lines: [
        [p, published("1")],
        [a, settled("1", 1, "DeadLetter")]
      ],
      remains: left({ deadLetters: ["1"] })
    },
    {
      name: "one key, in order",
      lines: [
        [p, publishing("1", "k")],
        [p, published("1")],
        [p, publishing("2", "k")],
        [p, published("2")],
        [a, started("1", 1, 1)],
        [a, ended("1", 1)],
        [b, started("2", 1, 1)],
        [a, settled("1", 1, "Ack")],
        [b, ended("2", 1)],
        [b, settled("2", 1, "Ack")]
      ],
      promises: { ordered: true }
    }
  ]

const broken: ReadonlyArray<Case & { readonly tags: ReadonlyArray<History.Report["violations"][number]["_tag"]> }> = [
  { name: "published and never seen again", tags: ["Lost"], lines: [[p, published("1")]] },
  {
    name: "acknowledged before it was handled, and killed in between",
    tags: ["Lost"],
    lines: [
      [p, published("1")],
      [a, settled("1", 1, "Ack")],
      [a, started("1", 1, 1)],
      ["test", fault("Killed", a)]
    ]
  },
  {
    name: "gone after a failure that was to be tried again",
    tags: ["Lost"],
    lines: [
      [p, published("1")],
      [a, started("1", 1, 1)],
      [a, ended("1", 1, "failure")],
      [a, settled("1", 1, "Retry")]
    ]
  },
  {
    name: "gone from the dead letters",
    tags: ["Lost"],
    lines: [
      [p, published("1")],
      [a, started("1", 1, 1)],
      [a, ended("1", 1, "failure")],
      [a, settled("1", 1, "DeadLetter")]
    ]
  },
  {
    name: "lost after the store had forgotten what was before",
    tags: ["Lost"],
    lines: [
      ["test", fault("StateLost", "*")],
      [p, published("1")]
    ]
  },
  { name: "not delivered", tags: ["Leftover"], lines: [[p, published("1")]], remains: left({ undelivered: ["1"] }) },
  { name: "pending", tags: ["Leftover"], lines: [[p, published("1")]], remains: left({ pending: ["1"] }) },
  { name: "waiting", tags: ["Leftover"], lines: [[p, published("1")]], remains: left({ waiting: ["1"] }) },
  {
    name: "acknowledged twice, with nobody hurt",
    tags: ["TwoEnds", "Unexplained"],
    lines: [
      [p, published("1")],
      [a, started("1", 1, 1)],
      [b, started("1", 2, 2)],
      [a, ended("1", 1)],
      [a, settled("1", 1, "Ack")],
      [b, ended("1", 2)],
      [b, settled("1", 2, "Ack")]
    ]
  },
  {
    name: "acknowledged by a zombie, and dead-lettered",
    tags: ["TwoEnds"],
    lines: [
      [p, published("1")],
      [a, started("1", 1, 1)],
      ["test", fault("Stopped", a)],
      [b, started("1", 2, 2)],
      [a, ended("1", 1)],
      [a, settled("1", 1, "Ack")],
      [b, ended("1", 2, "failure")],
      [b, settled("1", 2, "DeadLetter")]
    ],
    remains: left({ deadLetters: ["1"] })
  },
  { name: "acknowledged and dead", tags: ["TwoEnds"], lines: handledOnce, remains: left({ deadLetters: ["1"] }) },
  {
    name: "acknowledged and still there",
    tags: ["TwoEnds", "Leftover"],
    lines: handledOnce,
    remains: left({ waiting: ["1"] })
  },
  {
    name: "dead twice",
    tags: ["TwoEnds"],
    lines: [
      [p, published("1")],
      [a, settled("1", 1, "DeadLetter")]
    ],
    remains: left({ deadLetters: ["1", "1"] })
  },
  {
    name: "handled again after it was acknowledged",
    tags: ["Unexplained", "TwoEnds"],
    lines: [
      ...handledOnce,
      ["test", fault("Killed", a)],
      [b, started("1", 2, 2)],
      [b, ended("1", 2)],
      [b, settled("1", 2, "Ack")]
    ]
  },
  {
    name: "handled again after it was acknowledged, and after that somebody could not be reached",
    tags: ["Unexplained"],
    lines: [
      ...handledOnce,
      ["test", fault("Unreachable", a)],
      [b, started("1", 2, 2)],
      [b, ended("1", 2, "interrupted")],
      [b, leaseLost("1", 2)]
    ]
  },
  {
    name: "handled twice at a time, with nobody hurt",
    tags: ["Unexplained"],
    lines: [
      [p, published("1")],
      [a, started("1", 1, 1)],
      [b, started("1", 2, 2)],
      [a, ended("1", 1)],
      [b, ended("1", 2)],
      [b, settled("1", 2, "Ack")]
    ]
  },
  {
    name: "handled again before its handler was killed",
    tags: ["Unexplained"],
    lines: [
      [p, published("1")],
      [a, started("1", 1, 1)],
      [b, started("1", 2, 2)],
      ["test", fault("Killed", a)],
      [b, ended("1", 2)],
      [b, settled("1", 2, "Ack")]
    ]
  },
  {
    name: "handled again after somebody else was killed",
    tags: ["Unexplained"],
    lines: [
      [p, published("1")],
      [a, started("1", 1, 1)],
      ["test", fault("Killed", "worker-c")],
      [b, started("1", 2, 2)],
      [b, ended("1", 2)],
      [b, settled("1", 2, "Ack")]
    ]
  },
  {
    name: "handled again after a fault that was over before it began",
    tags: ["Unexplained"],
    lines: [
      [p, published("1")],
      ["test", fault("Stopped", a)],
      ["test", { _tag: "Healed", target: a }],
      [a, started("1", 1, 1)],
      [b, started("1", 2, 2)],
      [b, ended("1", 2)],
      [b, settled("1", 2, "Ack")]
    ]
  },
  {
    name: "the same fence twice",
    tags: ["StaleFence"],
    lines: [
      [p, published("1")],
      [a, started("1", 1, 1)],
      ["test", fault("Killed", a)],
      [b, started("1", 1, 2)],
      [b, ended("1", 1)],
      [b, settled("1", 1, "Ack")]
    ]
  },
  {
    name: "a smaller fence in a process that nobody stopped",
    tags: ["StaleFence"],
    lines: [
      [p, published("1")],
      ["test", fault("Killed", a)],
      [a, started("1", 2, 2)],
      [b, started("1", 1, 1)],
      [b, ended("1", 1)],
      [b, settled("1", 1, "Ack")]
    ]
  },
  {
    name: "an effect of a zombie that was accepted",
    tags: ["StaleEffect"],
    lines: [
      [p, published("1")],
      [a, started("1", 1, 1)],
      ["test", fault("Stopped", a)],
      [b, started("1", 2, 2)],
      [b, effect("1", 2, true, 1)],
      [b, ended("1", 2)],
      [b, settled("1", 2, "Ack")],
      [a, effect("1", 1, true, 2)],
      [a, settled("1", 1, "Ack", true)]
    ]
  },
  {
    name: "an effect twice, where once was promised",
    tags: ["EffectTwice"],
    lines: [
      [p, published("1")],
      [a, started("1", 1, 1)],
      [a, effect("1", 1)],
      ["test", fault("Killed", a)],
      [b, started("1", 2, 2)],
      [b, effect("1", 2)],
      [b, ended("1", 2)],
      [b, settled("1", 2, "Ack")]
    ],
    promises: { effectsOnce: true }
  },
  {
    name: "a retry that is counted twice",
    tags: ["WrongAttempt"],
    lines: [
      [p, published("1")],
      [a, started("1", 1, 1)],
      [a, ended("1", 1, "failure")],
      [a, settled("1", 1, "Retry")],
      [b, started("1", 2, 3)],
      [b, ended("1", 2)],
      [b, settled("1", 2, "Ack")]
    ]
  },
  {
    name: "a crash that is not counted",
    tags: ["WrongAttempt"],
    lines: [
      [p, published("1")],
      [a, started("1", 1, 1)],
      ["test", fault("Killed", a)],
      [b, started("1", 2, 1)],
      [b, ended("1", 2)],
      [b, settled("1", 2, "Ack")]
    ]
  },
  {
    name: "a release that is counted",
    tags: ["WrongAttempt"],
    lines: [
      [p, published("1")],
      [a, started("1", 1, 1)],
      [a, ended("1", 1, "interrupted")],
      [a, settled("1", 1, "Release")],
      [b, started("1", 2, 2)],
      [b, ended("1", 2)],
      [b, settled("1", 2, "Ack")]
    ]
  },
  {
    name: "handled, and never published",
    tags: ["Invented"],
    lines: [
      [a, started("1", 1, 1)],
      [a, ended("1", 1)],
      [a, settled("1", 1, "Ack")]
    ]
  },
  {
    name: "the second of a key before the first has ended",
    tags: ["OutOfOrder"],
    lines: [
      [p, publishing("1", "k")],
      [p, published("1")],
      [p, publishing("2", "k")],
      [p, published("2")],
      [a, started("1", 1, 1)],
      [b, started("2", 1, 1)],
      [a, ended("1", 1)],
      [b, ended("2", 1)],
      [a, settled("1", 1, "Ack")],
      [b, settled("2", 1, "Ack")]
    ],
    promises: { ordered: true }
  }
]

describe("History", () => {
  it.each(kept)("accepts: $name", ({ again = [], lines, promises, remains = nothing }) => {
    const report = History.check(story(lines), [remains], promises)
    assert.deepStrictEqual(report.violations, [], History.render(report))
    assert.deepStrictEqual(
      report.repetitions.map((repetition) => repetition.because),
      again
    )
  })

  it.each(broken)("reports $tags: $name", ({ lines, promises, remains = nothing, tags }) => {
    const report = History.check(story(lines), [remains], promises)
    assert.deepStrictEqual(
      report.violations.map((violation) => violation._tag).toSorted(),
      tags.toSorted(),
      History.render(report)
    )
    for (const tag of tags) assert.include(History.render(report), tag)
  })

  it("a kill explains only what its victim held, and a fault that is over explains nothing", () => {
    const second = 1_000_000
    const at = (seconds: number, writer: string, fact: History.Fact): History.Event => ({
      writer,
      at: Math.round(seconds * second),
      fact
    })
    const tags = (events: ReadonlyArray<History.Event>) =>
      History.check(events, [nothing]).violations.map(({ _tag }) => _tag)
    const again = [at(20, b, started("1", 2, 2)), at(21, b, ended("1", 2)), at(22, b, settled("1", 2, "Ack"))]
    const began = [at(1, p, published("1")), at(10, a, started("1", 1, 1))]

    assert.deepStrictEqual(tags([...began, at(11, "test", fault("Killed", a)), ...again]), [])
    // It lived to hand it back, and somebody had it already.
    const late = [at(11, "test", fault("Killed", a)), at(20.5, a, settled("1", 1, "Retry", true))]
    assert.deepStrictEqual(tags([...began, ...late, ...again]), [])
    const kept = [at(11, "test", fault("Killed", a)), at(20.5, a, settled("1", 1, "Ack"))]
    assert.deepStrictEqual(tags([...began, ...kept, ...again]), ["TwoEnds", "Unexplained"])

    // An attempt that nobody saw was in the hands of somebody who died between the two that were seen.
    const third = [at(20, b, started("1", 3, 3)), at(21, b, ended("1", 3)), at(22, b, settled("1", 3, "Ack"))]
    const failed = [at(12, a, ended("1", 1, "failure")), at(13, a, settled("1", 1, "Retry"))]
    assert.deepStrictEqual(tags([...began, ...failed, at(15, "test", fault("Killed", "c")), ...third]), [])
    assert.deepStrictEqual(tags([...began, ...failed, at(2, "test", fault("Killed", "c")), ...third]), ["WrongAttempt"])

    // Or in the hands of who lost its lease: it stood still. Its fence was counted too, and no more than that explains.
    const lost = [at(12, a, leaseLost("1", 1)), at(13, a, ended("1", 1, "interrupted"))]
    assert.deepStrictEqual(tags([...began, ...lost, ...third]), [])
    const twice = [at(20, b, started("1", 2, 3)), at(21, b, ended("1", 2)), at(22, b, settled("1", 2, "Ack"))]
    assert.deepStrictEqual(tags([...began, ...lost, ...twice]), ["WrongAttempt"])
    const first = [at(20, b, started("1", 2, 1)), at(21, b, ended("1", 2)), at(22, b, settled("1", 2, "Ack"))]
    assert.deepStrictEqual(tags([...began, ...lost, ...first]), ["WrongAttempt"])

    // It had been running for long when somebody else was given the message.
    const zombie = [
      at(1, p, published("1")),
      at(2, "test", fault("Stopped", a)),
      at(5, "test", { _tag: "Healed", target: a }),
      ...again,
      at(23, a, started("1", 1, 1)),
      at(24, a, ended("1", 1, "interrupted"))
    ]
    assert.deepStrictEqual(tags(zombie.filter(({ fact }) => fact._tag !== "Healed")), [])
    assert.include(tags(zombie), "StaleFence")
  })

  it("says how many repetitions each cause explains", () => {
    const again = kept.find(({ again }) => again?.includes("Retry"))
    const report = History.check(story(again?.lines ?? []), [again?.remains ?? nothing])
    assert.deepStrictEqual(report.explained, { Retry: 1 })
    assert.include(History.render(report), "again after Retry 1")
  })

  it("judges each group by itself, and refuses to overlook one", () => {
    const other = { ...nothing, group: "other" }
    const report = History.check(story(handledOnce), [nothing, other])
    assert.deepStrictEqual(
      report.violations.map(({ _tag, group, id }) => [_tag, group, id]),
      [["Lost", "other", "1"]]
    )
    assert.throws(() => History.check(story(handledOnce), [other]), /group g/)
  })

  it("counts what it was told", () => {
    assert.deepStrictEqual(History.check(story(handledOnce), [nothing]).counts, {
      published: 1,
      handlings: 1,
      acknowledged: 1,
      deadLettered: 0,
      leasesLost: 0,
      stale: 0,
      faults: 0
    })
  })

  it("tells what happened to one message, and the faults around it", () => {
    const told = History.trace(
      story([["test", fault("Killed", b)], [p, published("2")], ...handledOnce, ["test", fault("Stopped", a)]]),
      "1"
    )
    assert.deepStrictEqual(
      told.split("\n").map((line) => line.split(" ").slice(2, 4).join(" ")),
      [
        "test Fault",
        "producer Publishing",
        "producer Published",
        "worker-a Started",
        "worker-a Ended",
        "worker-a Settled",
        "test Fault"
      ]
    )
  })

  it.effect("reads what was written to a file, up to the line that was cut", () =>
    Effect.gen(function* () {
      const dir = mkdtempSync(join(tmpdir(), "waybill-history-"))
      yield* Effect.addFinalizer(() => Effect.sync(() => rmSync(dir, { recursive: true })))
      const path = join(dir, "a.ndjson")
      const recorder = History.toFile(a, path)
      for (const [, fact] of handledOnce) recorder.record(fact)
      appendFileSync(path, '{"writer":"worker-a","at":17')
      const events = yield* History.read(path)
      assert.deepStrictEqual(
        events.map(({ fact, writer }) => [writer, fact]),
        handledOnce.map(([, fact]) => [a, fact])
      )
      appendFileSync(path, "\n")
      assert.strictEqual((yield* Effect.flip(History.read(path)))._tag, "NoHistory")
    })
  )

  it.effect("records how handlers go", () =>
    Effect.gen(function* () {
      const recorder = History.inMemory(a)
      const delivery = { group: g, id: "1", attempt: 2, fence: 7 } as Parameters<
        Parameters<ReturnType<typeof History.observe>>[0]
      >[1]
      const outcomes: ReadonlyArray<readonly [string, Effect.Effect<void, string>]> = [
        ["success", Effect.void],
        ["failure", Effect.fail("no")],
        ["failure", Effect.die("no")],
        ["interrupted", Effect.interrupt]
      ]
      for (const [, how] of outcomes) yield* Effect.exit(History.observe(recorder)(() => how)(undefined, delivery))
      const thrown = yield* Effect.exit(
        History.observe(recorder)((): Effect.Effect<void> => {
          throw new Error("before the effect")
        })(undefined, delivery)
      )
      assert.isTrue(Exit.isFailure(thrown))
      assert.deepStrictEqual(
        recorder.events.map(({ fact }) => (fact._tag === "Ended" ? fact.outcome : fact._tag)),
        [...outcomes.map(([outcome]) => outcome), "failure"].flatMap((outcome) => ["Started", outcome])
      )
    })
  )
})
