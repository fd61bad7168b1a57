/**
 * Every group of every topic, one line each.
 *
 * @module
 */
import { useState } from "preact/hooks"
import type { Inspector } from "waybill"
import type { Overview } from "../../src/dashboard/Api.ts"
import type { Chosen } from "./Dashboard.tsx"
import { pointsOf, rate } from "./Figures.ts"

const count = (value: number): string => value.toLocaleString("en-US")

interface Row {
  readonly topic: Inspector.TopicInfo
  readonly group: Inspector.GroupInfo | undefined
}

/** Lines on the page at a time; more is for the search to narrow. */
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
  const found = rows.filter(({ group, topic }) => `${topic.topic} ${group?.group ?? ""}`.includes(search))
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
      {rows.length === 0 ? (
        <p class="empty">No topic was ever opened under the prefix {overview.prefix}.</p>
      ) : (
        <div class="scroll">
          <table>
            <thead>
              <tr>
                <th>Topic</th>
                <th>Group</th>
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
                  group !== undefined &&
                  choose({ topic: topic.topic, group: group.group, message: undefined, seen: undefined })
                const active = chosen !== undefined && chosen.topic === topic.topic && chosen.group === group?.group
                return (
                  <tr
                    key={`${topic.topic} ${group?.group}`}
                    class={`${group === undefined ? "" : "link"} ${active ? "active" : ""}`}
                    tabIndex={group === undefined ? -1 : 0}
                    onClick={open}
                    onKeyDown={(event) => event.key === "Enter" && open()}
                  >
                    <td>
                      {topic.topic} <span class="faint small">{topic.pattern}</span>
                    </td>
                    <td>{group?.group ?? <span class="faint">no group</span>}</td>
                    <td class="number">{count(group?.lag ?? topic.depth)}</td>
                    <td class="number wide">{count(group?.pending ?? 0)}</td>
                    <td class="number wide">{count(group?.waiting ?? 0)}</td>
                    <td class={`number ${(group?.deadLetters ?? 0) > 0 ? "bad" : ""}`}>
                      {count(group?.deadLetters ?? 0)}
                    </td>
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
                        <span class="faint">
                          {group.consumers.length} consumer{group.consumers.length === 1 ? "" : "s"}
                        </span>
                      )}
                    </td>
                  </tr>
                )
              })}
            </tbody>
          </table>
          {found.length > shown && <p class="empty">{count(found.length - shown)} more: search for them.</p>}
        </div>
      )}
    </section>
  )
}
