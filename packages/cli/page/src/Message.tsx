/**
 * One message's life, from publishing to settlement: the stations it has passed in each group, and where it is now.
 *
 * @module
 */
import type { ComponentChildren } from "preact"
import { useEffect, useState } from "preact/hooks"
import type { Dead, Life, Seen } from "../../src/dashboard/Api.ts"
import * as Client from "./Client.ts"
import { Confirm } from "./Confirm.tsx"
import { age, count, counted, instant, lines, Name, safe, WholeBody } from "./Text.tsx"
import { Trouble } from "./Trouble.tsx"

export const Message = ({
  close,
  group,
  id,
  seen,
  topic,
  writes
}: {
  readonly topic: string
  readonly group: string | undefined
  readonly id: string
  readonly seen: Seen | undefined
  readonly writes: boolean
  readonly close: () => void
}) => {
  const [life, setLife] = useState<Life>()
  const [trouble, setTrouble] = useState<string>()
  const [changes, setChanges] = useState(0)
  useEffect(() => {
    let stopped = false
    let timer: number
    const refresh = () => {
      Client.life(topic, id, group, seen)
        .then(
          (found) => {
            if (stopped) return
            setLife(found)
            setTrouble(undefined)
          },
          (error: Error) => !stopped && setTrouble(error.message)
        )
        .finally(() => {
          if (!stopped) timer = window.setTimeout(refresh, 2000)
        })
    }
    refresh()
    const escape = (event: KeyboardEvent) => event.key === "Escape" && close()
    addEventListener("keydown", escape)
    return () => {
      stopped = true
      clearTimeout(timer)
      removeEventListener("keydown", escape)
    }
  }, [topic, id, changes])

  const any =
    life?.message ??
    life?.groups.flatMap(({ dead, pending, waiting }) => [pending, waiting, dead]).find((one) => one !== undefined)
  const fields = life?.groups.find(({ dead }) => dead?.fields !== undefined)?.dead?.fields
  return (
    <aside class="message" aria-label="The message">
      <div class="bar">
        <h2>Message</h2>
        <span class="grow" />
        <button onClick={close} aria-label="Close">
          Close
        </button>
      </div>
      <Trouble text={trouble} />
      <p class="id">
        <Name text={id} />
      </p>
      {life === undefined ? (
        <p class="empty">Loading …</p>
      ) : any === undefined ? (
        <p class="empty">
          This message is no longer stored: every group has settled it, or it was deleted. Or its id is its publisher's
          own and no longer known, and it is not among the thousand messages that were searched in each list.
        </p>
      ) : (
        <>
          {writes && life.isFound && (
            <Steer key={id} topic={topic} id={id} life={life} changed={() => setChanges((count) => count + 1)} />
          )}
          <ol class="life" aria-label="On its way to the groups">
            <Station mark="done" name="published">
              {instant(any.publishedAt)}
              {any.key !== undefined && (
                <span class="faint">
                  {" "}
                  key <Name text={any.key} />
                </span>
              )}
            </Station>
            {life.dueAt !== undefined && (
              <Station mark={life.isDelayed ? "now" : "done"} name="delayed">
                until {instant(life.dueAt)}
              </Station>
            )}
          </ol>
          {life.groups.length === 0 && !life.isDelayed && <p class="faint">No group has ever joined this topic.</p>}
          {life.groups.map((one) => (
            <Track key={one.group} of={one} />
          ))}
          {life.groups.some(isSettled) && (
            <p class="faint small">
              {life.message === undefined
                ? "No longer stored: settled or trimmed."
                : "Messages published before a group joined, and discarded ones, count as settled."}
            </p>
          )}
          <Pairs title="Headers" of={Object.entries(any.headers)} />
          {fields === undefined ? (
            <>
              <h3>Body</h3>
              <WholeBody of={any} />
            </>
          ) : (
            <Pairs title="Fields (no payload among them)" of={fields} />
          )}
        </>
      )}
    </aside>
  )
}

/** A consumer that holds the message is interrupted; otherwise it can be deleted, and made due at another time while it waits. */
const Steer = ({
  changed,
  id,
  life: { groups, isDelayed },
  topic
}: {
  readonly topic: string
  readonly id: string
  readonly life: Life
  readonly changed: () => void
}) => {
  const [asking, setAsking] = useState(false)
  const [time, setTime] = useState("")
  const [trouble, setTrouble] = useState<string>()
  const isHeld = groups.some(({ pending }) => pending !== undefined)
  const waits = isDelayed || groups.some(({ waiting }) => waiting !== undefined && waiting.dueInMillis > 0)
  const told = (work: Promise<unknown>) =>
    void work.then(
      () => {
        setTrouble(undefined)
        changed()
      },
      (error: Error) => setTrouble(error.message)
    )
  const at = new Date(time).getTime()
  return (
    <>
      <div class="bar" role="group" aria-label="Change the message">
        {waits && (
          <>
            <button onClick={() => told(Client.steerMessage("run", topic, id))}>Run now</button>
            <input
              type="datetime-local"
              step="1"
              aria-label="Time to be due"
              value={time}
              onInput={({ currentTarget: { value } }) => setTime(value)}
            />
            {!Number.isNaN(at) && <button onClick={() => told(Client.reschedule(topic, id, at))}>Reschedule</button>}
          </>
        )}
        <span class="grow" />
        <button onClick={() => setAsking(true)}>{isHeld ? "Interrupt" : "Delete"} …</button>
      </div>
      <Trouble text={trouble} />
      {asking && (
        <Confirm
          title={isHeld ? "Interrupt the handler of this message?" : "Permanently delete this message?"}
          go={isHeld ? "Interrupt" : "Delete"}
          act={() => {
            setAsking(false)
            told(Client.steerMessage(isHeld ? "cancel" : "remove", topic, id))
          }}
          close={() => setAsking(false)}
        >
          {isHeld
            ? "It gets no further attempt: unless its handler succeeds before, it becomes a dead letter, Cancelled. Where no consumer holds it, it is deleted."
            : "No handler begins with it any more, in any group. Its dead letters are deleted as well."}
        </Confirm>
      )}
    </>
  )
}

const Pairs = ({ of, title }: { readonly title: string; readonly of: ReadonlyArray<readonly [string, string]> }) =>
  of.length === 0 ? null : (
    <>
      <h3>{title}</h3>
      <dl>
        {of.map(([name, value]) => (
          <>
            <dt>
              <Name text={name} />
            </dt>
            <dd>
              <Name text={value} />
            </dd>
          </>
        ))}
      </dl>
    </>
  )

const isSettled = ({ dead, given, pending, waiting }: Life["groups"][number]): boolean =>
  given === true && (dead ?? pending ?? waiting) === undefined

/** `ahead`: the message has not reached it. */
const Station = ({
  children,
  mark,
  name
}: {
  readonly mark: "done" | "now" | "bad" | "ahead"
  readonly name: string
  readonly children?: ComponentChildren
}) => (
  <li class={mark}>
    <strong>{name}</strong> {children}
  </li>
)

const Track = ({ of }: { readonly of: Life["groups"][number] }) => (
  <>
    <h3>
      <Name text={of.group} />
    </h3>
    <ol class="life" aria-label={`In ${safe(of.group)}`}>
      <Stations {...of} />
    </ol>
  </>
)

const Stations = ({ dead, given, lag, pending, waiting }: Life["groups"][number]) => {
  if (pending !== undefined) {
    return (
      <>
        <Station mark="now" name="delivered">
          to <Name text={pending.consumer} />, attempt {count(pending.attempt)}, at most {age(pending.heldMillis)} ago
        </Station>
        <Station mark="ahead" name="settled" />
      </>
    )
  }
  if (waiting !== undefined) {
    return (
      <>
        <Station mark="done" name="delivered">
          {counted(waiting.attempts, "attempt")}
          <Attempts of={waiting.attemptLog} />
          <Cause text={waiting.cause} />
        </Station>
        <Station mark="now" name="waiting">
          {waiting.dueInMillis > 0 ? `until ${instant(waiting.dueAt)}` : "for a consumer (due now)"}
        </Station>
        <Station mark="ahead" name="settled" />
      </>
    )
  }
  if (dead !== undefined) {
    return (
      <>
        <Station mark="done" name="delivered">
          {counted(dead.attempts, "attempt")}
          <Attempts of={dead.attemptLog} />
        </Station>
        <Station mark="bad" name="dead-lettered">
          with reason{" "}
          <span class="badge bad">
            <Name text={dead.reason} />
          </span>{" "}
          {instant(dead.diedAt)}
          {dead.failure !== undefined && <Failed of={dead.failure} />}
          <Cause text={dead.cause} />
        </Station>
      </>
    )
  }
  switch (given) {
    case undefined:
      return (
        <Station mark="ahead" name="unknown">
          This group does not hold it, and it is not among the stored messages that were searched.
        </Station>
      )
    case false:
      return (
        <>
          <Station mark="ahead" name="not delivered yet">
            the lag is {count(lag)}
          </Station>
          <Station mark="ahead" name="settled" />
        </>
      )
    case true:
      return (
        <>
          <Station mark="done" name="delivered" />
          <Station mark="done" name="settled" />
        </>
      )
  }
}

const Attempts = ({ of }: { readonly of: Dead["attemptLog"] }) => (
  <dl aria-label="Attempts">
    {of.map(({ attempt, consumer, endedAt, message, tag }) => (
      <>
        <dt>{count(attempt)}</dt>
        <dd>
          <Name text={message === "" ? tag : `${tag}: ${message}`} />
          <br />
          <span class="faint">
            {instant(endedAt)}, <Name text={consumer} />
          </span>
        </dd>
      </>
    ))}
  </dl>
)

const Failed = ({ of: { fields, message, tag } }: { readonly of: NonNullable<Dead["failure"]> }) => (
  <dl aria-label="The failure">
    <dt>
      <Name text={tag} />
    </dt>
    <dd>
      <Name text={message} />
    </dd>
    {Object.entries(fields).map(([name, value]) => (
      <>
        <dt>
          <Name text={name} />
        </dt>
        <dd>
          <Name text={JSON.stringify(value)} />
        </dd>
      </>
    ))}
  </dl>
)

const Cause = ({ text }: { readonly text: string }) =>
  text === "" ? null : (
    <pre class="cause">
      <bdi>{lines(text)}</bdi>
    </pre>
  )
