/**
 * One group: its figures over time, its consumers, and its pending, waiting and dead messages.
 *
 * @module
 */
import { useEffect, useRef, useState } from "preact/hooks"
import type { Overview, Pending, Seen, Waiting } from "../../src/dashboard/Api.ts"
import { Move, Retire } from "./Administer.tsx"
import { Chart } from "./Chart.tsx"
import * as Client from "./Client.ts"
import { DeadLetters } from "./DeadLetters.tsx"
import { pointsOf } from "./Figures.ts"
import { Delayed, Messages } from "./Messages.tsx"
import { Paged } from "./Pages.tsx"
import { Table } from "./Table.tsx"
import { age, Body, count, Moment, Name } from "./Text.tsx"
import { Trouble } from "./Trouble.tsx"

const tabs = ["dead", "pending", "waiting", "delayed", "messages", "consumers"] as const
type Tab = (typeof tabs)[number]

const titles: Readonly<Record<Tab, string>> = {
  dead: "Dead letters",
  pending: "Pending",
  waiting: "Waiting",
  delayed: "Delayed",
  messages: "Messages",
  consumers: "Consumers"
}

interface Props {
  readonly overview: Overview
  readonly topic: string
  readonly group: string
  readonly choose: (message: string, seen: Seen | undefined) => void
  /** Shows the topic. */
  readonly leave: () => void
}

export const Group = ({ choose, group, leave, overview, topic }: Props) => {
  const [tab, setTab] = useState<Tab>("dead")
  const [trouble, setTrouble] = useState<string>()
  const place = useRef<HTMLElement>(null)
  // On a phone the group is below the list: choosing one scrolls there.
  useEffect(() => place.current?.scrollIntoView({ block: "nearest" }), [])
  const parent = overview.topics.find((one) => one.topic === topic)
  const info = parent?.groups.find((one) => one.group === group)
  if (info === undefined) return <section class="group empty">This group no longer exists.</section>
  const writes = overview.writes === "yes"
  // Heartbeats change all the time without changing any list.
  const figures = JSON.stringify([parent?.depth, parent?.published, { ...info, consumers: undefined }])
  const snapshot = { at: overview.now, figures }
  const points = pointsOf(topic, group)
  const at = points.map((point) => point.at)
  const toggle = () =>
    Client.setPaused(info.paused ? "resume" : "pause", topic, group).then(
      () => setTrouble(undefined),
      (error: Error) => setTrouble(error.message)
    )
  const sizes: Readonly<Record<Tab, number | undefined>> = {
    dead: info.deadLetters,
    pending: info.pending,
    waiting: info.waiting,
    delayed: parent?.delayed,
    messages: undefined,
    consumers: info.consumers.length
  }
  return (
    <section class="group" ref={place} aria-label="The group">
      <div class="bar">
        <h2>
          <button class="plain" onClick={leave} title="Show the topic">
            <Name text={topic} />
          </button>{" "}
          <span class="faint">/</span> <Name text={group} />
        </h2>
        {info.paused && <span class="badge warm">paused</span>}
        <span class="grow" />
        {writes && <button onClick={toggle}>{info.paused ? "Resume" : "Pause"}</button>}
      </div>
      {writes && info.consumers.length === 0 && (
        <div class="bar tools">
          {info.reached !== undefined && <Move topic={topic} group={group} />}
          <Retire topic={topic} group={group} />
        </div>
      )}
      <Trouble text={trouble} />
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
          label="Messages per second"
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
            {sizes[one] !== undefined && <span class="count">{count(sizes[one])}</span>}
          </button>
        ))}
      </nav>
      {tab === "dead" && (
        <DeadLetters
          topic={topic}
          group={group}
          writes={writes}
          size={info.deadLetters}
          snapshot={snapshot}
          choose={choose}
        />
      )}
      {tab === "pending" && (
        <Paged<Pending>
          read={(after) => Client.pending(topic, group, after)}
          snapshot={snapshot}
          columns={[
            { title: "Message" },
            { title: "Consumer" },
            { title: "Attempt", kind: "number" },
            { title: "Held" },
            { title: "Body", kind: "body" }
          ]}
          row={(one) => [
            <Name text={one.id} />,
            <Name text={one.consumer} />,
            one.attempt,
            age(one.heldMillis),
            <Body of={one} />
          ]}
          positionOf={(one) => one.position}
          choose={(one, at) => choose(one.id, { list: "pending", at })}
          empty="No pending messages."
        />
      )}
      {tab === "waiting" && (
        <Paged<Waiting>
          read={(after) => Client.waiting(topic, group, after)}
          snapshot={snapshot}
          columns={[
            { title: "Message" },
            { title: "Attempts", kind: "number" },
            { title: "Due" },
            { title: "Cause" },
            { title: "Body", kind: "body" }
          ]}
          row={(one) => [
            <Name text={one.id} />,
            one.attempts,
            <Moment at={one.dueAt} />,
            <Name text={one.cause.split("\n", 1)[0] ?? ""} />,
            <Body of={one} />
          ]}
          positionOf={(one) => one.position}
          choose={(one, at) => choose(one.id, { list: "waiting", at })}
          empty="No messages are waiting for another attempt."
        />
      )}
      {tab === "delayed" && (
        <Delayed
          topic={topic}
          snapshot={{ at: overview.now, figures: `${parent?.delayed} ${parent?.nextDelayedAt}` }}
          choose={choose}
        />
      )}
      {tab === "messages" && <Messages topic={topic} snapshot={snapshot} choose={choose} />}
      {tab === "consumers" &&
        (info.consumers.length === 0 ? (
          <p class="empty">
            This group has no living consumers
            {info.unattendedMillis !== undefined && `, and has had none for ${age(info.unattendedMillis)}`}.
          </p>
        ) : (
          <Table
            columns={[{ title: "Consumer" }, { title: "Heartbeat" }, { title: "Pending", kind: "number" }]}
            rows={info.consumers.map((one) => ({
              key: one.consumer,
              cells: [
                <Name text={one.consumer} />,
                <>
                  <span class="dot good" title="alive" />
                  {one.leaseLeftMillis !== undefined && ` lease: ${age(one.leaseLeftMillis)} left`}
                </>,
                one.pending
              ]
            }))}
          />
        ))}
    </section>
  )
}
