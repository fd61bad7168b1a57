/**
 * How a history is judged: the facts are grouped by message, and the life of each message is judged separately.
 *
 * @module
 */
import type { Event, Fact, Promises, Remains, Report } from "./Facts.ts"
import type { Repetition, Violation } from "./Finding.ts"

export const judge = (events: ReadonlyArray<Event>, remains: ReadonlyArray<Remains>, promises: Promises): Report => {
  const told = tell(events)
  const violations: Array<Violation> = []
  const repetitions: Array<Repetition> = []
  for (const rest of remains) {
    const lives = told.groups.get(rest.group) ?? new Map<string, Life>()
    const places = placesOf(rest)
    for (const id of new Set([...told.owed, ...lives.keys(), ...places.keys()])) {
      const life = lives.get(id) ?? new Life()
      const report = (_tag: Violation["_tag"], detail: string) =>
        void violations.push({ _tag, group: rest.group, id, detail })
      judgeEnd(told, id, life, places.get(id) ?? [], report)
      judgeEffects(life, promises, report)
      repetitions.push(
        ...judgeHandlings(told, id, life, report).map((repetition) => ({ group: rest.group, id, ...repetition }))
      )
    }
    if (promises.ordered === true) violations.push(...judgeOrder(told, rest.group, lives))
  }
  const judged = new Set(remains.map((rest) => rest.group))
  for (const [group, lives] of told.groups) {
    if (!judged.has(group)) throw new Error(`the history tells of group ${group}, and what is left of it was not given`)
    for (const life of lives.values()) told.counts.handlings += life.handlings.length
  }
  const explained: Partial<Record<Repetition["because"], number>> = {}
  for (const { because } of repetitions) explained[because] = (explained[because] ?? 0) + 1
  return { violations, repetitions, explained, counts: told.counts }
}

type Of<Tag extends Fact["_tag"]> = Extract<Fact, { readonly _tag: Tag }>

interface At<Tag extends Fact["_tag"]> {
  readonly at: number
  readonly writer: string
  readonly fact: Of<Tag>
}

/** One run of a handler. */
interface Handling extends At<"Started"> {
  ended: At<"Ended"> | undefined
  settled: At<"Settled"> | undefined
  leaseLost: boolean
}

/** Everything that happened to one message in one group, in order of time. */
class Life {
  readonly handlings: Array<Handling> = []
  readonly settlements: Array<At<"Settled">> = []
  readonly effects: Array<At<"Effect">> = []
  /** Deliveries that were lost before a handler saw them. */
  unseen = 0

  handling(writer: string, fence: number): Handling | undefined {
    return this.handlings.findLast((handling) => handling.writer === writer && handling.fact.fence === fence)
  }
}

interface Fault {
  readonly from: number
  until: number
  readonly fault: Of<"Fault">["fault"]
  readonly target: string
}

/** The facts, by subject. */
class Tale {
  readonly groups = new Map<string, Map<string, Life>>()
  /** When the first attempt to publish began, in order, and the key. */
  readonly offered = new Map<string, { readonly at: number; readonly key: string | undefined }>()
  /** Messages whose producer has the receipt. */
  readonly owed = new Set<string>()
  readonly faults: Array<Fault> = []
  readonly counts = {
    published: 0,
    handlings: 0,
    acknowledged: 0,
    deadLettered: 0,
    leasesLost: 0,
    stale: 0,
    faults: 0
  }

  life(group: string, id: string): Life {
    let lives = this.groups.get(group)
    if (lives === undefined) this.groups.set(group, (lives = new Map()))
    let life = lives.get(id)
    if (life === undefined) lives.set(id, (life = new Life()))
    return life
  }
}

const tell = (events: ReadonlyArray<Event>): Tale => {
  const tale = new Tale()
  // Sorting is stable: the facts of one writer keep their order.
  for (const { at, fact, writer } of events.toSorted((a, b) => a.at - b.at)) {
    switch (fact._tag) {
      case "Publishing":
        if (!tale.offered.has(fact.id)) tale.offered.set(fact.id, { at, key: fact.key })
        break
      case "Published":
        if (!tale.offered.has(fact.id)) tale.offered.set(fact.id, { at, key: undefined })
        if (!tale.owed.has(fact.id)) {
          tale.owed.add(fact.id)
          tale.counts.published++
        }
        break
      case "Started":
        tale
          .life(fact.group, fact.id)
          .handlings.push({ at, writer, fact, ended: undefined, settled: undefined, leaseLost: false })
        break
      case "Ended": {
        const handling = tale.life(fact.group, fact.id).handling(writer, fact.fence)
        if (handling !== undefined) handling.ended = { at, writer, fact }
        break
      }
      case "Settled": {
        const life = tale.life(fact.group, fact.id)
        const settled = { at, writer, fact }
        life.settlements.push(settled)
        const handling = life.handling(writer, fact.fence)
        if (handling !== undefined) handling.settled = settled
        if (fact.stale) tale.counts.stale++
        else if (fact.as === "Ack") tale.counts.acknowledged++
        else if (fact.as === "DeadLetter") tale.counts.deadLettered++
        break
      }
      case "LeaseLost": {
        const life = tale.life(fact.group, fact.id)
        const handling = life.handling(writer, fact.fence)
        if (handling === undefined) life.unseen++
        else handling.leaseLost = true
        tale.counts.leasesLost++
        break
      }
      case "Effect":
        tale.life(fact.group, fact.id).effects.push({ at, writer, fact })
        break
      case "Fault":
        tale.faults.push({ from: at, until: Number.POSITIVE_INFINITY, fault: fact.fault, target: fact.target })
        tale.counts.faults++
        break
      case "Healed":
        for (const fault of tale.faults) {
          if (fault.target === fact.target && fault.until > at) fault.until = at
        }
    }
  }
  return tale
}

type Place = "undelivered" | "pending" | "waiting" | "deadLetters"

const placesOf = (rest: Remains): Map<string, Array<Place>> => {
  const places = new Map<string, Array<Place>>()
  for (const place of ["undelivered", "pending", "waiting", "deadLetters"] as const) {
    for (const id of rest[place]) {
      const known = places.get(id)
      if (known === undefined) places.set(id, [place])
      else known.push(place)
    }
  }
  return places
}

/**
 * Whether an ack that was delayed on its way says the same as a later one: done. A store may accept both, because the
 * work was done, and after a lost reply the later consumer cannot know whether its own ack was the one that arrived.
 */
const isEchoed = (tale: Tale, life: Life, ack: At<"Settled">, all: ReadonlyArray<At<"Settled">>): boolean => {
  const handling = life.handling(ack.writer, ack.fact.fence)
  const fault = handling === undefined ? undefined : hindrance(tale, ack.writer, handling.at, ack.at)?.fault
  return (
    ack.fact.as === "Ack" &&
    (fault === "Stopped" || fault === "Unreachable") &&
    all.some(({ fact }) => fact.as === "Ack" && fact.fence > ack.fact.fence)
  )
}

type Say = (tag: Violation["_tag"], detail: string) => void

const judgeEnd = (tale: Tale, id: string, life: Life, places: ReadonlyArray<Place>, say: Say): void => {
  const forgotten = tale.faults.findLast(({ fault }) => fault === "StateLost")?.from ?? 0
  const settlements = life.settlements.filter(
    ({ at, fact }) => at > forgotten && !fact.stale && (fact.as === "Ack" || fact.as === "DeadLetter")
  )
  const ends = settlements
    .filter((settlement) => !isEchoed(tale, life, settlement, settlements))
    .map(({ fact, writer }) => ({ as: fact.as, text: `${fact.as} by ${writer}, fence ${fact.fence}` }))
  const deadLetters = places.filter((place) => place === "deadLetters").length
  const recorded = ends.filter((end) => end.as === "DeadLetter").length
  const left = places.filter((place) => place !== "deadLetters")
  const states = [
    ...ends.map((end) => end.text),
    // Dead letters that no process recorded: moved there without a handler, or by a process that was killed before it
    // could record it.
    ...Array.from({ length: deadLetters - recorded }, () => "a dead letter"),
    ...left
  ]
  if (states.length > 1) say("TwoEnds", states.join("; "))
  if (left.length > 0) say("Leftover", left.join("; "))

  const offered = tale.offered.get(id)
  const forgiven = offered !== undefined && offered.at < forgotten
  const done = life.handlings.some(
    ({ ended, settled }) =>
      ended?.fact.outcome === "success" || (ended !== undefined && settled?.fact.as === "Ack" && !settled.fact.stale)
  )
  if (tale.owed.has(id) && !forgiven && places.length === 0 && (!done || recorded > 0)) {
    const last = life.handlings.at(-1)
    say(
      "Lost",
      [
        last === undefined
          ? "never handled"
          : `attempt ${last.fact.attempt} began in ${last.writer} and ${last.ended === undefined ? "did not end" : `ended in ${last.ended.fact.outcome}`}`,
        ...ends.map((end) => end.text)
      ].join("; ")
    )
  }
  if (offered === undefined) say("Invented", states.join("; ") || "handled")
}

const judgeEffects = (life: Life, promises: Promises, say: Say): void => {
  const accepted = life.effects.filter(({ fact }) => fact.accepted).sort((a, b) => a.fact.order - b.fact.order)
  let highest: At<"Effect"> | undefined
  for (const effect of accepted) {
    if (highest !== undefined && effect.fact.fence < highest.fact.fence) {
      say("StaleEffect", `${describe(effect)} after ${describe(highest)}`)
    } else highest = effect
  }
  if (promises.effectsOnce === true && accepted.length > 1) {
    say("EffectTwice", accepted.map(describe).join("; "))
  }
}

const describe = ({ fact, writer }: { readonly fact: { readonly fence: number }; readonly writer: string }): string =>
  `fence ${fact.fence} in ${writer}`

type Reason = Pick<Repetition, "fence" | "because" | "writer">

/** Each handling after the first needs a reason between it and the one before it. */
const judgeHandlings = (tale: Tale, id: string, life: Life, say: Say): Array<Reason> => {
  const reasons: Array<Reason> = []
  let former: Handling | undefined
  for (const handling of life.handlings) {
    const { attempt, fence } = handling.fact
    if (former !== undefined && fence <= former.fact.fence && !forgotBetween(tale, former.at, handling.at)) {
      // A process that was stopped continues with what it held, and its fence is refused whatever it does. It stood
      // still while another one was given the message: a fault that was over by then explains nothing.
      const zombie = fence < former.fact.fence ? hindrance(tale, handling.writer, former.at, handling.at) : undefined
      if (zombie === undefined || zombie.fault === "Killed")
        say("StaleFence", `${describe(handling)} after ${describe(former)}`)
      else reasons.push({ fence, because: zombie.fault, writer: handling.writer })
      continue
    }
    const because = former === undefined ? undefined : explain(tale, former, handling)
    if (former !== undefined) {
      if (because !== undefined) reasons.push({ fence, because, writer: former.writer })
      else say("Unexplained", `${describe(handling)}; before it ${describe(former)}, ${fate(former, handling)}`)
    }
    // Deliveries that a process was killed before handling count as attempts, and no handler records them. They were
    // lost to a fault between the previous handling and this one.
    const since = former?.at ?? tale.offered.get(id)?.at ?? 0
    // A writer that lost its lease was held up: anything delivered to it in the meantime was lost too, unseen.
    const stalled = former?.leaseLost === true ? Math.max(0, fence - former.fact.fence - 1) : 0
    const unseen = life.unseen + stalled + tale.faults.filter((fault) => overlaps(fault, since, handling.at)).length
    const least =
      former === undefined || forgotBetween(tale, former.at, handling.at)
        ? 1
        : former.fact.attempt + (former.settled?.fact.as === "Release" && !former.settled.fact.stale ? 0 : 1)
    if (attempt < least || attempt > least + unseen) {
      say("WrongAttempt", `attempt ${attempt}, expected ${least}${unseen > 0 ? ` to ${least + unseen}` : ""}`)
    }
    former = handling
  }
  return reasons
}

/** Why a message came again. Only what happened before it did counts. */
const explain = (tale: Tale, former: Handling, handling: Handling): Reason["because"] | undefined => {
  const { settled } = former
  if (settled !== undefined && !settled.fact.stale) {
    if (settled.fact.as === "Retry" || settled.fact.as === "Release") return settled.fact.as
    if (settled.at < handling.at) {
      if (forgotBetween(tale, settled.at, handling.at)) return "StateLost"
      // An ack that was delayed may arrive after another consumer was given the message, and before that one began.
      const late = settled.fact.as === "Ack" ? hindrance(tale, former.writer, former.at, settled.at) : undefined
      return late?.fault === "Stopped" || late?.fault === "Unreachable" ? late.fault : undefined
    }
  }
  if (former.leaseLost || settled?.fact.stale === true) return "LeaseLost"
  const until = Math.min(handling.at, settled?.at ?? Number.POSITIVE_INFINITY)
  const { fault } = hindrance(tale, former.writer, former.at, until) ?? {}
  // Whatever it settled before it was killed, it did not hold at that time.
  return fault === "Killed" && settled !== undefined ? undefined : fault
}

const forgotBetween = (tale: Tale, from: number, until: number): boolean =>
  tale.faults.some((fault) => fault.fault === "StateLost" && from <= fault.from && fault.from <= until)

/** A kill is recorded before it happens: a busy machine may let its victim go on for so many microseconds. */
const killing = 1_000_000

/** Whether a fault was active at some time between two instants. */
const overlaps = ({ fault, ...at }: Fault, from: number, until: number): boolean =>
  at.from <= until && (fault === "Killed" ? at.from + killing : fault === "StateLost" ? at.from : at.until) >= from

/** A fault that affected the writer at some time between two instants. */
const hindrance = (tale: Tale, writer: string, from: number, until: number): Fault | undefined =>
  tale.faults.find((fault) => (fault.target === writer || fault.target === "*") && overlaps(fault, from, until))

const fate = ({ ended, settled }: Handling, next: Handling): string =>
  settled === undefined
    ? ended === undefined
      ? "which did not end"
      : `which ended in ${ended.fact.outcome} and was not settled`
    : `settled as ${settled.fact.as} ${settled.at < next.at ? "before" : "only afterwards"}`

const judgeOrder = (tale: Tale, group: string, lives: ReadonlyMap<string, Life>): Array<Violation> => {
  const violations: Array<Violation> = []
  const last = new Map<string, { readonly id: string; readonly until: number }>()
  for (const [id, { key }] of tale.offered) {
    const life = lives.get(id)
    const first = life?.handlings[0]
    if (key === undefined || life === undefined || first === undefined) continue
    const before = last.get(key)
    if (before !== undefined && first.at < before.until) {
      violations.push({ _tag: "OutOfOrder", group, id, detail: `began before ${before.id} of key ${key} had ended` })
    }
    const end = life.handlings.at(-1)?.ended?.at ?? Number.POSITIVE_INFINITY
    last.set(key, { id, until: end })
  }
  return violations
}
