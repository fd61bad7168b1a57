/**
 * The schedules of a topic, the next one first. Nothing is shown of a topic without any.
 *
 * @module
 */
import { useEffect, useState } from "preact/hooks"
import type { ScheduleList, Steering } from "../../src/dashboard/Api.ts"
import { outcomeText, type Schedule, stateText } from "../../src/Schedule.ts"
import * as Client from "./Client.ts"
import { Confirm } from "./Confirm.tsx"
import { Table } from "./Table.tsx"
import { age, Moment, Name } from "./Text.tsx"
import { Trouble } from "./Trouble.tsx"

const columns = [
  { title: "Schedule" },
  { title: "State" },
  { title: "When" },
  { title: "Next" },
  { title: "Last" },
  { title: "Outcome" },
  { title: "Published", kind: "number" },
  { title: "Declared by" }
] as const

const whenOf = ({ definition }: Schedule): string => {
  if (definition === undefined) return "unknown"
  const { cron, every = 0, zone = "UTC" } = definition
  return cron === undefined ? `every ${age(every)}` : `${cron} ${zone}`
}

/** `figures`: those of the topic. When they change, a tick may have been published. */
export const Schedules = ({
  figures,
  topic,
  writes
}: {
  readonly topic: string
  readonly figures: string
  readonly writes: boolean
}) => {
  const [page, setPage] = useState<ScheduleList>()
  const [trouble, setTrouble] = useState<string>()
  const [removing, setRemoving] = useState<string>()
  const failed = (error: Error) => setTrouble(error.message)
  const load = () => Client.schedules(topic).then(setPage, failed)
  useEffect(() => void load(), [topic, figures])
  const steer = (verb: Steering, id: string) =>
    Client.steer(verb, topic, id).then(() => {
      setTrouble(undefined)
      return load()
    }, failed)
  if (page === undefined || (page.items.length + page.missing.length === 0 && trouble === undefined)) return null
  return (
    <>
      <h3>Schedules</h3>
      <Trouble text={trouble} />
      <Table
        columns={writes ? [...columns, { title: "" }] : columns}
        rows={page.items.map((one) => {
          const { definition, id, last, next, published, state } = one
          const paused = state === "paused"
          const cells = [
            <Name text={id} />,
            stateText(one) === "active" ? "active" : <span class="badge warm">{stateText(one)}</span>,
            <Name text={whenOf(one)} />,
            next === undefined ? "" : <Moment at={next} />,
            last === undefined ? "" : <Moment at={last} />,
            <Name text={outcomeText(one)} />,
            published,
            <Name text={definition?.declared ?? ""} />
          ]
          const buttons = (
            <>
              <button onClick={() => steer("run", id)}>Run now</button>
              <button onClick={() => steer(paused ? "resume" : "pause", id)}>{paused ? "Resume" : "Pause"}</button>
              <button onClick={() => setRemoving(id)}>Remove</button>
            </>
          )
          return { key: id, cells: writes ? [...cells, buttons] : cells }
        })}
      />
      {page.missing.length > 0 && (
        <p class="faint">
          Declared by a running program, and not stored: <Name text={page.missing.join(", ")} />
        </p>
      )}
      {page.more && <p class="faint">These are the next {page.items.length}: the command lists all of them.</p>}
      {removing !== undefined && (
        <Confirm
          title="Remove a schedule"
          go="Remove"
          act={() => {
            setRemoving(undefined)
            void steer("remove", removing)
          }}
          close={() => setRemoving(undefined)}
        >
          Remove <Name text={removing} />? If a program declares it, it comes back when that starts. Messages that it
          has published remain.
        </Confirm>
      )}
    </>
  )
}
