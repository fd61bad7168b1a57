/**
 * Every group of every topic, one line each.
 *
 * @module
 */
import { useState } from "preact/hooks"
import type { Inspector } from "waybill"
import type { Overview, Seen } from "../../src/dashboard/Api.ts"
import { pointsOf, rate } from "./Figures.ts"
import { count, counted, Name } from "./Text.tsx"
import { Trouble } from "./Trouble.tsx"

/** The choice is in the URL, so that a reload or a bookmark shows the same. */
export interface Chosen {
  readonly topic: string
  readonly group: string | undefined
  readonly message: string | undefined
  readonly seen: Seen | undefined
}

interface Row {
  readonly topic: Inspector.TopicInfo
  readonly group: Inspector.GroupInfo | undefined
}

/** Rows shown at a time; the search narrows down the rest. */
const shown = 200

export const Topics = ({
  choose,
  chosen,
  overview
}: {
  readonly overview: Overview
  readonly chosen: Chosen | undefined
  readonly choose: (chosen: Chosen) => void
}) => {
  const [search, setSearch] = useState("")
  const rows = overview.topics.flatMap((topic): ReadonlyArray<Row> =>
    topic.groups.length === 0 ? [{ topic, group: undefined }] : topic.groups.map((group) => ({ topic, group }))
  )
  const sought = search.toLowerCase()
  const found = rows.filter(({ group, topic }) => `${topic.topic} ${group?.group ?? ""}`.toLowerCase().includes(sought))
  return (
    <section class="topics" aria-label="Topics and groups">
      <div class="bar">
        <h2>Topics</h2>
        <input
          type="search"
          placeholder="Search"
          aria-label="Search topics and groups"
          value={search}
          onInput={(event) => setSearch(event.currentTarget.value)}
        />
      </div>
      {overview.unreadable.map(({ topic, why }) => (
        <Trouble key={topic} text={`${topic} cannot be read: ${why}`} />
      ))}
      {rows.length === 0 && overview.unreadable.length === 0 ? (
        <p class="empty">No topic was ever opened under the prefix {overview.prefix}.</p>
      ) : (
        <div class="scroll">
          <table>
            <thead>
              <tr>
                <th class="wide">Topic</th>
                <th>Group</th>
                <th class="number wide">Stored</th>
                <th class="number">Lag</th>
                <th class="number wide">Pending</th>
                <th class="number wide">Waiting</th>
                <th class="number">Dead</th>
                <th class="number wide">In /s</th>
                <th class="number wide">Out /s</th>
                <th class="wide">State</th>
              </tr>
            </thead>
            <tbody>
              {found.slice(0, shown).map(({ group, topic }) => {
                const last = group && pointsOf(topic.topic, group.group).at(-1)
                const open = () =>
                  choose({ topic: topic.topic, group: group?.group, message: undefined, seen: undefined })
                const active = chosen !== undefined && chosen.topic === topic.topic && chosen.group === group?.group
                const figure = (value: number | undefined) => (value === undefined ? "–" : count(value))
                const name = (
                  <>
                    <Name text={topic.topic} /> <span class="faint small">{topic.pattern}</span>
                  </>
                )
                return (
                  <tr
                    key={`${topic.topic} ${group?.group}`}
                    class={`link ${active ? "active" : ""}`}
                    tabIndex={0}
                    onClick={open}
                    onKeyDown={(event) => event.key === "Enter" && open()}
                  >
                    <td class="who wide">{name}</td>
                    <td class="who">
                      <span class="narrow">{name}</span>
                      {group === undefined ? <span class="faint">no group</span> : <Name text={group.group} />}
                    </td>
                    <td class="number wide">{count(topic.depth)}</td>
                    <td class="number">{figure(group?.lag)}</td>
                    <td class="number wide">{figure(group?.pending)}</td>
                    <td class="number wide">{figure(group?.waiting)}</td>
                    <td class={`number ${(group?.deadLetters ?? 0) > 0 ? "bad" : ""}`}>{figure(group?.deadLetters)}</td>
                    <td class="number wide">{rate(last?.publishedRate)}</td>
                    <td class="number wide">{rate(last?.settledRate)}</td>
                    <td class="wide">
                      {group === undefined ? null : group.paused ? (
                        <span class="badge warm">paused</span>
                      ) : group.consumers.length === 0 ? (
                        <span class={`badge ${group.lag + group.pending + group.waiting > 0 ? "bad" : ""}`}>
                          no consumer
                        </span>
                      ) : (
                        <span class="faint">{counted(group.consumers.length, "consumer")}</span>
                      )}
                    </td>
                  </tr>
                )
              })}
            </tbody>
          </table>
          {found.length > shown && <p class="empty">{count(found.length - shown)} more: use the search.</p>}
        </div>
      )}
    </section>
  )
}
