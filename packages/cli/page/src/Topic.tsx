/**
 * One topic regardless of its groups, if any: stored and delayed messages.
 *
 * @module
 */
import { useEffect, useRef } from "preact/hooks"
import type { Overview, Seen } from "../../src/dashboard/Api.ts"
import { Purge } from "./Administer.tsx"
import { Delayed, Messages } from "./Messages.tsx"
import { Schedules } from "./Schedules.tsx"
import { count, instant, Name } from "./Text.tsx"

export const Topic = ({
  choose,
  overview,
  topic
}: {
  readonly overview: Overview
  readonly topic: string
  readonly choose: (message: string, seen: Seen | undefined) => void
}) => {
  const place = useRef<HTMLElement>(null)
  useEffect(() => place.current?.scrollIntoView({ block: "nearest" }), [])
  const info = overview.topics.find((one) => one.topic === topic)
  if (info === undefined) return <section class="group empty">This topic no longer exists.</section>
  const { delayed, depth, groups, nextDelayedAt, pattern, published } = info
  return (
    <section class="group" ref={place} aria-label="The topic">
      <div class="bar">
        <h2>
          <Name text={topic} /> <span class="faint small">{pattern}</span>
        </h2>
        {groups.length === 0 && <span class="badge">no group</span>}
        <span class="grow" />
        {overview.writes === "yes" && <Purge topic={topic} />}
      </div>
      <dl class="figures">
        <dt>Stored</dt>
        <dd>{count(depth)}</dd>
        <dt>Delayed</dt>
        <dd>
          {count(delayed)}
          {nextDelayedAt !== undefined && <span class="faint"> the next one until {instant(nextDelayedAt)}</span>}
        </dd>
        {published !== undefined && (
          <>
            <dt>Published so far</dt>
            <dd>{count(published)}</dd>
          </>
        )}
      </dl>
      <Schedules topic={topic} figures={`${depth} ${published} ${delayed}`} writes={overview.writes === "yes"} />
      {delayed > 0 && (
        <>
          <h3>Delayed messages</h3>
          <Delayed
            topic={topic}
            snapshot={{ at: overview.now, figures: `${delayed} ${nextDelayedAt}` }}
            choose={choose}
          />
        </>
      )}
      <h3>Messages</h3>
      <Messages topic={topic} snapshot={{ at: overview.now, figures: `${depth} ${published}` }} choose={choose} />
    </section>
  )
}
