/**
 * One group: its figures as they move, who works for it, and what is pending, waits or died.
 *
 * @module
 */
import { useEffect, useRef, useState } from "preact/hooks"
import type { Dead, Overview, Pending, Report, Seen, Selection, Stored, Waiting } from "../../src/dashboard/Api.ts"
import { Chart } from "./Chart.tsx"
import * as Client from "./Client.ts"
import { Confirm } from "./Confirm.tsx"
import { pointsOf } from "./Figures.ts"
import { age, Body, instant } from "./Text.tsx"

const tabs = ["dead", "pending", "waiting", "messages", "consumers"] as const
type Tab = (typeof tabs)[number]

const titles: Readonly<Record<Tab, string>> = {
  dead: "Dead letters",
  pending: "Pending",
  waiting: "Waiting",
  messages: "Messages",
  consumers: "Consumers"
}

interface Props {
  readonly overview: Overview
  readonly topic: string
  readonly group: string
  readonly choose: (message: string, seen: Seen | undefined) => void
}

export const Group = ({ choose, group, overview, topic }: Props) => {
  const [tab, setTab] = useState<Tab>("dead")
  const [trouble, setTrouble] = useState<string>()
  const place = useRef<HTMLElement>(null)
  // On a phone the group stands below the list: choosing one goes there.
  useEffect(() => place.current?.scrollIntoView({ block: "nearest" }), [])
  const info = overview.topics.find((one) => one.topic === topic)?.groups.find((one) => one.group === group)
  if (info === undefined) return <section class="group empty">This group is gone.</section>
  const points = pointsOf(topic, group)
  const at = points.map((point) => point.at)
  const steer = () =>
    Client.steer(info.paused ? "resume" : "pause", topic, group).then(
      () => setTrouble(undefined),
      (error: Error) => setTrouble(error.message)
    )
  const sizes: Readonly<Record<Tab, number | undefined>> = {
    dead: info.deadLetters,
    pending: info.pending,
    waiting: info.waiting,
    messages: undefined,
    consumers: info.consumers.length
  }
  return (
    <section class="group" ref={place} aria-label={`Group ${group} of ${topic}`}>
      <div class="bar">
        <h2>
          {topic} <span class="faint">/</span> {group}
        </h2>
        {info.paused && <span class="badge warm">paused</span>}
        <span class="grow" />
        {overview.writes && <button onClick={steer}>{info.paused ? "Resume" : "Pause"}</button>}
      </div>
      {trouble !== undefined && (
        <p class="trouble" role="alert">
          {trouble}
        </p>
      )}
      <div class="charts">
        <Chart
          label="Open messages"
          at={at}
          series={[
            { label: "lag", colour: "blue", values: points.map((point) => point.lag) },
            { label: "pending", colour: "teal", values: points.map((point) => point.pending) },
            { label: "waiting", colour: "amber", values: points.map((point) => point.waiting) }
          ]}
        />
        <Chart
          label="Messages a second"
          at={at}
          series={[
            { label: "published", colour: "blue", values: points.map((point) => point.publishedRate) },
            { label: "settled", colour: "teal", values: points.map((point) => point.settledRate) }
          ]}
        />
      </div>
      <nav class="tabs" role="tablist">
        {tabs.map((one) => (
          <button key={one} role="tab" aria-selected={tab === one} onClick={() => setTab(one)}>
            {titles[one]}
            {sizes[one] !== undefined && <span class="count">{sizes[one]!.toLocaleString("en-US")}</span>}
          </button>
        ))}
      </nav>
      {tab === "dead" && (
        <DeadLetters topic={topic} group={group} writes={overview.writes} size={info.deadLetters} choose={choose} />
      )}
      {tab === "pending" && (
        <Paged<Pending>
          read={(after) => Client.pending(topic, group, after)}
          head={["Message", "Consumer", "Attempt", "Held", "Body"]}
          row={(one) => [one.id, one.consumer, one.attempt, age(one.heldMillis), <Body of={one} />]}
          positionOf={(one) => one.position}
          choose={(one, after) => choose(one.id, { list: "pending", after })}
          empty="Nothing is with a consumer."
        />
      )}
      {tab === "waiting" && (
        <Paged<Waiting>
          read={(after) => Client.waiting(topic, group, after)}
          head={["Message", "Attempts", "Due", "Cause", "Body"]}
          row={(one) => [one.id, one.attempts, instant(one.dueAt), one.cause, <Body of={one} />]}
          positionOf={(one) => one.position}
          choose={(one, after) => choose(one.id, { list: "waiting", after })}
          empty="Nothing waits for another attempt."
        />
      )}
      {tab === "messages" && (
        <Paged<Stored>
          read={(after) => (after === undefined ? Client.messages(topic) : Promise.resolve({ items: [] }))}
          head={["Message", "Published", "Key", "Body"]}
          row={(one) => [one.id, instant(one.publishedAt), one.key ?? "", <Body of={one} />]}
          positionOf={(one) => one.position}
          choose={(one) => choose(one.id, undefined)}
          newestFirst
          empty="Nothing is stored: what every group has settled is gone."
        />
      )}
      {tab === "consumers" &&
        (info.consumers.length === 0 ? (
          <p class="empty">No consumer of this group is alive.</p>
        ) : (
          <Table
            head={["Consumer", "Heartbeat", "Pending"]}
            rows={info.consumers.map((one) => ({
              key: one.consumer,
              cells: [
                one.consumer,
                <>
                  <span class="dot good" title="alive" />
                  {one.leaseLeftMillis !== undefined && ` ${age(one.leaseLeftMillis)} of its lease left`}
                </>,
                one.pending
              ]
            }))}
          />
        ))}
    </section>
  )
}

type Cell = preact.ComponentChildren

const Table = ({
  head,
  rows
}: {
  readonly head: ReadonlyArray<Cell>
  readonly rows: ReadonlyArray<{
    readonly key: string
    readonly cells: ReadonlyArray<Cell>
    readonly open?: () => void
  }>
}) => (
  <div class="scroll">
    <table>
      <thead>
        <tr>
          {head.map((cell, i) => (
            <th key={i}>{cell}</th>
          ))}
        </tr>
      </thead>
      <tbody>
        {rows.map(({ cells, key, open }) => (
          <tr
            key={key}
            class={open === undefined ? "" : "link"}
            tabIndex={open === undefined ? -1 : 0}
            onClick={open}
            onKeyDown={(event) => event.key === "Enter" && open?.()}
          >
            {cells.map((cell, i) => (
              <td key={i} class={typeof cell === "number" ? "number" : ""}>
                {typeof cell === "number" ? cell.toLocaleString("en-US") : cell}
              </td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  </div>
)

/** Pages forward and back, a hundred lines each: as quick with a million as with ten. */
const usePages = <A,>(read: (after: string | undefined) => Promise<{ readonly items: ReadonlyArray<A> }>) => {
  const [starts, setStarts] = useState<ReadonlyArray<string | undefined>>([undefined])
  const [items, setItems] = useState<ReadonlyArray<A>>()
  const [trouble, setTrouble] = useState<string>()
  const [turn, setTurn] = useState(0)
  useEffect(() => {
    let stopped = false
    read(starts.at(-1)).then(
      (page) => {
        if (stopped) return
        setItems(page.items)
        setTrouble(undefined)
      },
      (error: Error) => !stopped && setTrouble(error.message)
    )
    return () => {
      stopped = true
    }
  }, [starts, turn])
  return {
    items,
    trouble,
    again: () => setTurn((before) => before + 1),
    page: starts.length,
    after: starts.at(-1),
    next: (after: string) => setStarts([...starts, after]),
    previous: () => setStarts(starts.length > 1 ? starts.slice(0, -1) : starts)
  }
}

const Pager = ({
  again,
  full,
  next,
  page,
  previous
}: {
  readonly page: number
  readonly full: boolean
  readonly next: () => void
  readonly previous: () => void
  readonly again: () => void
}) => (
  <div class="pager">
    <button onClick={previous} disabled={page === 1}>
      Back
    </button>
    <span class="faint">page {page}</span>
    <button onClick={next} disabled={!full}>
      Next
    </button>
    <button onClick={again}>Look again</button>
  </div>
)

const pageSize = 100

const Paged = <A,>({
  choose,
  empty,
  head,
  newestFirst = false,
  positionOf,
  read,
  row
}: {
  readonly read: (after: string | undefined) => Promise<{ readonly items: ReadonlyArray<A> }>
  readonly head: ReadonlyArray<string>
  readonly row: (item: A) => ReadonlyArray<Cell>
  readonly positionOf: (item: A) => string
  readonly choose: (item: A, after: string | undefined) => void
  readonly newestFirst?: boolean
  readonly empty: string
}) => {
  const pages = usePages(read)
  const items = pages.items ?? []
  const shown = newestFirst ? items.toReversed() : items
  return (
    <>
      {pages.trouble !== undefined && (
        <p class="trouble" role="alert">
          {pages.trouble}
        </p>
      )}
      {pages.items !== undefined && items.length === 0 ? (
        <p class="empty">{empty}</p>
      ) : (
        <Table
          head={head}
          rows={shown.map((item) => ({
            key: positionOf(item),
            cells: row(item),
            open: () => choose(item, pages.after)
          }))}
        />
      )}
      <Pager
        page={pages.page}
        full={!newestFirst && items.length === pageSize}
        next={() => items.length > 0 && pages.next(positionOf(items.at(-1)!))}
        previous={pages.previous}
        again={pages.again}
      />
    </>
  )
}

const DeadLetters = ({
  choose,
  group,
  size,
  topic,
  writes
}: {
  readonly topic: string
  readonly group: string
  readonly writes: boolean
  readonly size: number
  readonly choose: Props["choose"]
}) => {
  const pages = usePages((after) => Client.dead(topic, group, after))
  const [marked, setMarked] = useState<ReadonlySet<string>>(new Set())
  const [reason, setReason] = useState("")
  const [asking, setAsking] = useState<{ verb: "redrive" | "discard"; selection: Selection; plan: Report }>()
  const [said, setSaid] = useState<string>()
  const items = pages.items ?? []
  const reasons = [...new Set(items.map((letter) => letter.reason))].toSorted()
  const shown = reason === "" ? items : items.filter((letter) => letter.reason === reason)

  const toggle = (entry: string) => {
    const next = new Set(marked)
    if (!next.delete(entry)) next.add(entry)
    setMarked(next)
  }
  /** First what would happen, then a question, then it happens. */
  const plan = async (verb: "redrive" | "discard") => {
    const entries = [...marked]
    const selection = entries.length > 0 ? { entries } : reason === "" ? {} : { reason }
    try {
      const found = await Client.move(verb, topic, group, { ...selection, dryRun: true })
      setAsking({ verb, selection: { ...selection, dryRun: false }, plan: found })
    } catch (error) {
      setSaid(error instanceof Error ? error.message : String(error))
    }
  }
  const act = async () => {
    if (asking === undefined) return
    const { selection, verb } = asking
    setAsking(undefined)
    try {
      const { done, selected } = await Client.move(verb, topic, group, selection)
      const gone = selected - done
      setSaid(
        `${done.toLocaleString("en-US")} ${verb === "redrive" ? "sent back" : "deleted"}${gone > 0 ? `, ${gone} were gone already` : ""}.`
      )
    } catch (error) {
      setSaid(error instanceof Error ? error.message : String(error))
    }
    setMarked(new Set())
    pages.again()
  }
  const what = marked.size > 0 ? `the ${marked.size} marked` : reason !== "" ? `all that died of ${reason}` : "all"

  return (
    <>
      <div class="bar tools">
        <label>
          Reason{" "}
          <select value={reason} onChange={(event) => setReason(event.currentTarget.value)}>
            <option value="">all</option>
            {reasons.map((one) => (
              <option key={one}>{one}</option>
            ))}
          </select>
        </label>
        <span class="grow" />
        {writes && size > 0 && (
          <>
            <button class="main" onClick={() => void plan("redrive")}>
              Redrive {what} …
            </button>
            <button onClick={() => void plan("discard")}>Discard {what} …</button>
          </>
        )}
      </div>
      {said !== undefined && (
        <p class="said" role="status">
          {said}
        </p>
      )}
      {pages.trouble !== undefined && (
        <p class="trouble" role="alert">
          {pages.trouble}
        </p>
      )}
      {pages.items !== undefined && shown.length === 0 ? (
        <p class="empty">No dead letters{reason === "" ? "" : " of this reason on this page"}.</p>
      ) : (
        <Table
          head={["", "Message", "Reason", "Attempts", "Died", "Body"]}
          rows={shown.map((letter: Dead) => ({
            key: letter.entry,
            open: () => choose(letter.id, { list: "dead", after: pages.after }),
            cells: [
              writes ? (
                <input
                  type="checkbox"
                  aria-label={`Mark ${letter.id}`}
                  checked={marked.has(letter.entry)}
                  onClick={(event) => event.stopPropagation()}
                  onChange={() => toggle(letter.entry)}
                />
              ) : null,
              letter.id,
              <span class="badge bad">{letter.reason}</span>,
              letter.attempts,
              instant(letter.diedAt),
              <Body of={letter} />
            ]
          }))}
        />
      )}
      <Pager
        page={pages.page}
        full={items.length === pageSize}
        next={() => items.length > 0 && pages.next(items.at(-1)!.entry)}
        previous={pages.previous}
        again={pages.again}
      />
      {asking !== undefined && (
        <Confirm
          title={asking.verb === "redrive" ? "Send back?" : "Delete for good?"}
          go={asking.verb === "redrive" ? "Redrive" : "Discard"}
          act={() => void act()}
          close={() => setAsking(undefined)}
        >
          <strong>{asking.plan.selected.toLocaleString("en-US")}</strong> dead letters of {group} would{" "}
          {asking.verb === "redrive" ? "go back to the group, with a fresh count of attempts" : "be deleted"}.
        </Confirm>
      )}
    </>
  )
}
