/**
 * Changes of a whole group or topic. Each first says what it would do.
 *
 * @module
 */
import type { ComponentChildren } from "preact"
import { useState } from "preact/hooks"
import type { Move as Moving, Moved, Purge as Purged, Retirement } from "../../src/dashboard/Api.ts"
import * as Client from "./Client.ts"
import { Confirm } from "./Confirm.tsx"
import { age, count, counted, Name } from "./Text.tsx"
import { Trouble } from "./Trouble.tsx"

/** A button that asks what it would do, says so, and does it once that is confirmed. */
const Planned = <Plan,>({
  act,
  children,
  go,
  plan,
  title
}: {
  readonly title: string
  readonly go: string
  readonly plan: () => Promise<Plan>
  readonly act: () => Promise<unknown>
  readonly children: (plan: Plan) => ComponentChildren
}) => {
  const [asking, setAsking] = useState<{ readonly plan: Plan }>()
  const [trouble, setTrouble] = useState<string>()
  const told = (work: Promise<void>) => void work.catch((error: Error) => setTrouble(error.message))
  return (
    <>
      <button onClick={() => told(plan().then((plan) => setAsking({ plan })))}>{go} …</button>
      <Trouble text={trouble} />
      {asking !== undefined && (
        <Confirm
          title={title}
          go={go}
          act={() => {
            setAsking(undefined)
            told(act().then(() => setTrouble(undefined)))
          }}
          close={() => setAsking(undefined)}
        >
          {children(asking.plan)}
        </Confirm>
      )}
    </>
  )
}

const Living = ({ count }: { readonly count: number }) =>
  count === 0 ? null : (
    <>
      {" "}
      <strong>{counted(count, "consumer")}</strong> must stop first.
    </>
  )

export const Retire = ({ group, topic }: { readonly topic: string; readonly group: string }) => (
  <Planned<Retirement>
    title="Permanently retire this group?"
    go="Retire"
    plan={() => Client.retire(topic, group, true)}
    act={() => Client.retire(topic, group, false)}
  >
    {({ consumers, deadLetters, heldBack, unattendedMillis, unsettled }) => (
      <>
        <Name text={group} /> has <strong>{counted(unsettled, "unsettled message")}</strong> and{" "}
        {counted(deadLetters, "dead letter")}, which would be deleted
        {heldBack > 0 && `, and the topic keeps about ${count(heldBack)} of its messages for this group only`}.
        {unattendedMillis !== undefined && ` It has had no consumer for ${age(unattendedMillis)}.`}
        <Living count={consumers.length} />
      </>
    )}
  </Planned>
)

export const Purge = ({ topic }: { readonly topic: string }) => (
  <Planned<Purged>
    title="Permanently delete the messages of this topic?"
    go="Purge"
    plan={() => Client.purge(topic, true)}
    act={() => Client.purge(topic, false)}
  >
    {({ delayed, depth, held, waiting }) => (
      <>
        <strong>{counted(depth, "stored message")}</strong> of <Name text={topic} />, {count(delayed)} delayed and{" "}
        {count(waiting)} waiting for another attempt would be deleted. Consumers keep the {count(held)} that they hold;
        groups and dead letters stay.
      </>
    )}
  </Planned>
)

const ends = ["latest", "earliest", "time"] as const

/** The places that a group can be moved to: both ends, and a time in the browser's zone. */
export const Move = ({ group, topic }: { readonly topic: string; readonly group: string }) => {
  const [end, setEnd] = useState<(typeof ends)[number]>("latest")
  const [time, setTime] = useState("")
  const to = (): Moving["to"] => (end === "time" ? { at: new Date(time).getTime() } : end)
  return (
    <>
      <label>
        Move to{" "}
        <select
          value={end}
          onChange={({ currentTarget: { value } }) => setEnd(ends.find((one) => one === value) ?? "latest")}
        >
          <option value="latest">the end</option>
          <option value="earliest">the beginning</option>
          <option value="time">a time</option>
        </select>
      </label>
      {end === "time" && (
        <input
          type="datetime-local"
          step="1"
          aria-label="Time to move to"
          value={time}
          onInput={({ currentTarget: { value } }) => setTime(value)}
        />
      )}
      {(end !== "time" || time !== "") && (
        <Planned<Moved>
          title="Move this group?"
          go="Move"
          plan={() => Client.relocate(topic, group, { to: to(), dryRun: true })}
          act={() => Client.relocate(topic, group, { to: to(), dryRun: false })}
        >
          {({ after, consumers, lag }) => (
            <>
              <Name text={group} /> has <strong>{counted(lag, "message")}</strong> to go
              {after === undefined ? "." : `, and would have ${count(after)}.`} What it had taken and not settled comes
              first.
              <Living count={consumers} />
            </>
          )}
        </Planned>
      )}
    </>
  )
}
