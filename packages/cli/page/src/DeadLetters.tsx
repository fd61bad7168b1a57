/**
 * The dead letters of a group: browsing, selecting, redriving and discarding. The page shows what would happen before it
 * happens.
 *
 * @module
 */
import { useEffect, useState } from "preact/hooks"
import type { Dead, Report, Seen, Selection } from "../../src/dashboard/Api.ts"
import * as Client from "./Client.ts"
import { Confirm } from "./Confirm.tsx"
import { type Snapshot, Pager, usePages } from "./Pages.tsx"
import { Table } from "./Table.tsx"
import { Body, count, Moment, Name, safe } from "./Text.tsx"
import { Trouble } from "./Trouble.tsx"

interface Plan {
  readonly verb: "redrive" | "discard"
  readonly selection: Omit<Selection, "dryRun">
  /** How many of the selected ones are not on this page. */
  readonly unseen: number
  readonly found: Report
}

export const DeadLetters = ({
  choose,
  group,
  snapshot,
  size,
  topic,
  writes
}: {
  readonly topic: string
  readonly group: string
  readonly writes: boolean
  readonly size: number
  readonly snapshot: Snapshot
  readonly choose: (message: string, seen: Seen) => void
}) => {
  const [asking, setAsking] = useState<Plan>()
  const pages = usePages((after) => Client.dead(topic, group, after), snapshot, asking !== undefined)
  const [marked, setMarked] = useState<ReadonlySet<string>>(new Set())
  // Undefined while all reasons are shown: a dead letter written by another program may have an empty reason.
  const [reason, setReason] = useState<string>()
  const [said, setSaid] = useState<string>()
  const items = pages.items ?? []
  const reasons = [...new Set([...items.map((letter) => letter.reason), ...(reason === undefined ? [] : [reason])])]
  const shown = reason === undefined ? items : items.filter((letter) => letter.reason === reason)
  const unseen = [...marked].filter((entry) => !shown.some((letter) => letter.entry === entry)).length

  // If one page shows the whole list, the reason no longer occurs.
  const all = pages.items !== undefined && pages.page === 1 && !pages.more
  useEffect(() => {
    if (all && shown.length === 0) setReason(undefined)
  }, [pages.items])

  const toggle = (entry: string) => {
    const next = new Set(marked)
    if (!next.delete(entry)) next.add(entry)
    setMarked(next)
  }
  const failed = (error: unknown) => setSaid(error instanceof Error ? error.message : String(error))
  /** First a dry run, then a confirmation, then the change. */
  const plan = async (verb: Plan["verb"]) => {
    const selection = marked.size > 0 ? { entries: [...marked] } : reason === undefined ? {} : { reason }
    try {
      const found = await Client.move(verb, topic, group, { ...selection, dryRun: true })
      if (found.selected > 0) return setAsking({ verb, selection, unseen, found })
      setSaid("None of them exists any more.")
      setMarked(new Set())
      pages.first()
    } catch (error) {
      failed(error)
    }
  }
  const act = async ({ found, selection, verb }: Plan) => {
    setAsking(undefined)
    try {
      const { done } = await Client.move(verb, topic, group, { ...selection, dryRun: false })
      const gone = found.selected - done
      setSaid(
        `${count(done)} ${verb === "redrive" ? "redriven" : "discarded"}${gone > 0 ? `, ${count(gone)} no longer existed` : ""}.`
      )
    } catch (error) {
      failed(error)
    }
    setMarked(new Set())
    if (selection.entries !== undefined) return pages.again()
    setReason(undefined)
    pages.first()
  }
  const what =
    marked.size > 0
      ? `${count(marked.size)} selected`
      : reason === undefined
        ? "all"
        : reason === ""
          ? "all without a reason"
          : `all with reason ${safe(reason)}`

  return (
    <>
      <div class="bar tools">
        <label>
          Reason{" "}
          <select
            value={reason === undefined ? "" : `=${reason}`}
            onChange={({ currentTarget: { value } }) => setReason(value === "" ? undefined : value.slice(1))}
          >
            <option value="">all</option>
            {reasons.toSorted().map((one) => (
              <option key={one} value={`=${one}`}>
                {one === "" ? "none" : safe(one)}
              </option>
            ))}
          </select>
        </label>
        {marked.size > 0 && (
          <span>
            {count(marked.size)} selected{unseen > 0 && `, ${count(unseen)} of them not on this page`}{" "}
            <button onClick={() => setMarked(new Set())}>Clear selection</button>
          </span>
        )}
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
          {safe(said)}
        </p>
      )}
      <Trouble text={pages.trouble} />
      {pages.items === undefined ? (
        <p class="empty">Loading …</p>
      ) : shown.length === 0 ? (
        <p class="empty">
          No dead letters{reason === undefined ? "" : " with this reason on this page; other pages may have some"}.
        </p>
      ) : (
        <Table
          columns={[
            ...(writes ? [{ title: "" }] : []),
            { title: "Message" },
            { title: "Reason" },
            { title: "Attempts", kind: "number" },
            { title: "Died" },
            { title: "Body", kind: "body" }
          ]}
          rows={shown.map((letter: Dead) => ({
            key: letter.entry,
            open: () => choose(letter.id, { list: "dead", at: pages.start }),
            cells: [
              ...(writes
                ? [
                    <input
                      type="checkbox"
                      aria-label={`Select ${safe(letter.id)}`}
                      checked={marked.has(letter.entry)}
                      onClick={(event) => event.stopPropagation()}
                      onChange={() => toggle(letter.entry)}
                    />
                  ]
                : []),
              <Name text={letter.id} />,
              <span class="badge bad">
                <Name text={letter.reason} />
              </span>,
              letter.attempts,
              <Moment at={letter.diedAt} />,
              <Body of={letter} />
            ]
          }))}
        />
      )}
      <Pager pages={pages} positionOf={(items) => items.at(-1)?.entry} />
      {asking !== undefined && (
        <Confirm
          title={asking.verb === "redrive" ? "Redrive dead letters?" : "Permanently delete dead letters?"}
          go={asking.verb === "redrive" ? "Redrive" : "Discard"}
          act={() => void act(asking)}
          close={() => setAsking(undefined)}
        >
          <Question plan={asking} group={group} />
        </Confirm>
      )}
    </>
  )
}

const Question = ({
  group,
  plan: {
    found: { examined, selected },
    selection: { entries, reason },
    unseen,
    verb
  }
}: {
  readonly plan: Plan
  readonly group: string
}) => (
  <>
    <strong>{count(selected)}</strong> dead letter{selected === 1 ? "" : "s"} of <Name text={group} />
    {reason === "" && " without a reason"}
    {reason !== undefined && reason !== "" && (
      <>
        {" "}
        with reason <Name text={reason} />
      </>
    )}{" "}
    would {verb === "redrive" ? "go back to the group, with attempts counted from zero again" : "be deleted"}.
    {entries !== undefined && selected < examined && ` The others of the ${count(examined)} selected no longer exist.`}
    {unseen > 0 && ` ${count(unseen)} of the selected ${unseen === 1 ? "is" : "are"} not on this page.`}
  </>
)
