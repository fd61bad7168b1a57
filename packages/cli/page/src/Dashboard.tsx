/**
 * The whole page: topics and groups on the left, the chosen one on the right. It refreshes every two seconds, and reports
 * when it cannot.
 *
 * @module
 */
import { useEffect, useState } from "preact/hooks"
import type { Overview } from "../../src/dashboard/Api.ts"
import * as Client from "./Client.ts"
import { note } from "./Figures.ts"
import { Group } from "./Group.tsx"
import { Message } from "./Message.tsx"
import { Topic } from "./Topic.tsx"
import { type Chosen, Topics } from "./Topics.tsx"
import { Trouble } from "./Trouble.tsx"

const every = 2000

const lists = ["dead", "pending", "waiting", "messages"] as const

const chosenIn = (): Chosen | undefined => {
  const params = new URLSearchParams(location.search)
  const topic = params.get("topic")
  if (topic === null) return undefined
  const list = lists.find((one) => one === params.get("list"))
  return {
    topic,
    group: params.get("group") ?? undefined,
    message: params.get("message") ?? undefined,
    seen: list && { list, at: params.get("at") ?? undefined }
  }
}

const addressOf = (chosen: Chosen | undefined): string => {
  const params = new URLSearchParams()
  if (chosen !== undefined) {
    params.set("topic", chosen.topic)
    if (chosen.group !== undefined) params.set("group", chosen.group)
    if (chosen.message !== undefined) params.set("message", chosen.message)
    if (chosen.seen !== undefined) params.set("list", chosen.seen.list)
    if (chosen.seen?.at !== undefined) params.set("at", chosen.seen.at)
  }
  const text = params.toString()
  return text === "" ? location.pathname : `?${text}`
}

const may: Readonly<Record<Overview["writes"], string>> = {
  no: "read-only",
  locked: "read-only without the token",
  yes: "changes allowed"
}

export const Dashboard = () => {
  const [overview, setOverview] = useState<Overview>()
  const [trouble, setTrouble] = useState<string>()
  const [chosen, setChosen] = useState(chosenIn)
  const choose = (next: Chosen | undefined) => {
    history.pushState(null, "", addressOf(next))
    setChosen(next)
  }

  useEffect(() => {
    const back = () => setChosen(chosenIn())
    addEventListener("popstate", back)
    return () => removeEventListener("popstate", back)
  }, [])

  useEffect(() => {
    let stopped = false
    let timer: number
    const refresh = async () => {
      try {
        const seen = await Client.overview()
        note(seen)
        if (!stopped) {
          setOverview(seen)
          setTrouble(undefined)
        }
      } catch (error) {
        if (!stopped)
          setTrouble(error instanceof Client.Refused ? error.message : "the dashboard's server is unreachable")
      }
      if (!stopped) timer = window.setTimeout(refresh, document.hidden ? every * 5 : every)
    }
    void refresh()
    return () => {
      stopped = true
      clearTimeout(timer)
    }
  }, [])

  return (
    <>
      <header>
        <a
          class="name"
          href={location.pathname}
          onClick={(event) => {
            event.preventDefault()
            choose(undefined)
          }}
        >
          <img src="./icon.svg" alt="" width="24" height="24" /> Waybill
        </a>
        {overview && (
          <span class="faint">
            {overview.prefix} on {overview.address}
          </span>
        )}
        <span class="grow" />
        {overview && <span class={`badge ${overview.writes === "no" ? "" : "warm"}`}>{may[overview.writes]}</span>}
        <span class={`dot ${trouble === undefined ? "good" : "bad"}`} title={trouble ?? "up to date"} />
      </header>
      <Trouble text={trouble} />
      {overview?.writes === "locked" && (
        <p class="notice" role="note">
          To make changes, open the address with the token, which was printed when the dashboard was started.
        </p>
      )}
      {overview?.failover && (
        <p class="notice" role="note">
          {overview.failover.server} took over at {new Date(overview.failover.at).toLocaleString()}. Messages accepted{" "}
          {overview.failover.since === undefined
            ? "before that"
            : `after ${new Date(overview.failover.since).toLocaleString()}`}{" "}
          may be lost.
        </p>
      )}
      {overview === undefined ? (
        trouble === undefined && <p class="empty">Loading …</p>
      ) : (
        <main class={chosen === undefined ? "" : "split"}>
          <Topics overview={overview} chosen={chosen} choose={choose} />
          {chosen !== undefined &&
            (chosen.group === undefined ? (
              <Topic
                key={chosen.topic}
                overview={overview}
                topic={chosen.topic}
                choose={(message, seen) => choose({ ...chosen, message, seen })}
              />
            ) : (
              <Group
                key={`${chosen.topic} ${chosen.group}`}
                overview={overview}
                topic={chosen.topic}
                group={chosen.group}
                choose={(message, seen) => choose({ ...chosen, message, seen })}
                leave={() => choose({ topic: chosen.topic, group: undefined, message: undefined, seen: undefined })}
              />
            ))}
          {chosen?.message !== undefined && (
            <Message
              key={JSON.stringify(chosen)}
              topic={chosen.topic}
              group={chosen.group}
              id={chosen.message}
              seen={chosen.seen}
              writes={overview.writes === "yes"}
              close={() => choose({ ...chosen, message: undefined, seen: undefined })}
            />
          )}
        </main>
      )}
    </>
  )
}
