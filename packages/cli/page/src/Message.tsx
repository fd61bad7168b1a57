/**
 * One message's life: when it was published, and where it is in each group that still has it.
 *
 * @module
 */
import { useEffect, useState } from "preact/hooks"
import type { Dead, Life, Seen } from "../../src/dashboard/Api.ts"
import * as Client from "./Client.ts"
import { age, instant, WholeBody } from "./Text.tsx"

export const Message = ({
  close,
  group,
  id,
  seen,
  topic
}: {
  readonly topic: string
  readonly group: string | undefined
  readonly id: string
  readonly seen: Seen | undefined
  readonly close: () => void
}) => {
  const [life, setLife] = useState<Life>()
  const [trouble, setTrouble] = useState<string>()
  useEffect(() => {
    let stopped = false
    let timer: number
    const look = () => {
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
          if (!stopped) timer = window.setTimeout(look, 2000)
        })
    }
    look()
    const escape = (event: KeyboardEvent) => event.key === "Escape" && close()
    addEventListener("keydown", escape)
    return () => {
      stopped = true
      clearTimeout(timer)
      removeEventListener("keydown", escape)
    }
  }, [topic, id])

  const any =
    life?.message ??
    life?.groups.flatMap(({ dead, pending, waiting }) => [pending, waiting, dead]).find((one) => one !== undefined)
  return (
    <aside class="message" aria-label={`Message ${id}`}>
      <div class="bar">
        <h2>Message</h2>
        <span class="grow" />
        <button onClick={close} aria-label="Close">
          Close
        </button>
      </div>
      {trouble !== undefined && (
        <p class="trouble" role="alert">
          {trouble}
        </p>
      )}
      <p class="id">{id}</p>
      {life === undefined ? (
        <p class="empty">Looking …</p>
      ) : any === undefined ? (
        <p class="empty">
          It is with no group any more: every group has settled it and it was trimmed, or it is not among the thousand
          that were looked through in each list.
        </p>
      ) : (
        <>
          <ol class="life">
            <li class="done">
              <strong>published</strong> {instant(any.publishedAt)}
              {any.key !== undefined && <span class="faint"> key {any.key}</span>}
            </li>
            {life.groups.map(({ dead, group, pending, waiting }) => (
              <li key={group} class={dead !== undefined ? "bad" : (pending ?? waiting) ? "now" : "done"}>
                <strong>{group}</strong>{" "}
                {pending !== undefined
                  ? `is handled by ${pending.consumer}, attempt ${pending.attempt}, for ${age(pending.heldMillis)}`
                  : waiting !== undefined
                    ? `waits after ${waiting.attempts} attempt${waiting.attempts === 1 ? "" : "s"} until ${instant(waiting.dueAt)}`
                    : dead !== undefined
                      ? ""
                      : "has settled it, or has not begun with it"}
                {waiting !== undefined && waiting.cause !== "" && <pre class="cause">{waiting.cause}</pre>}
                {dead !== undefined && <Death letter={dead} />}
              </li>
            ))}
          </ol>
          {Object.keys(any.headers).length > 0 && (
            <dl>
              {Object.entries(any.headers).map(([name, value]) => (
                <>
                  <dt>{name}</dt>
                  <dd>{value}</dd>
                </>
              ))}
            </dl>
          )}
          <h3>Body</h3>
          <WholeBody of={any} />
        </>
      )}
    </aside>
  )
}

const Death = ({ letter }: { readonly letter: Dead }) => (
  <>
    died of <span class="badge bad">{letter.reason}</span> {instant(letter.diedAt)}, after {letter.attempts} attempt
    {letter.attempts === 1 ? "" : "s"}
    <pre class="cause">{letter.cause}</pre>
  </>
)
