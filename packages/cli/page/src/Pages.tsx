/**
 * A list, a hundred lines at a time: as fast with a million as with ten. The page number always matches the lines that are
 * shown, and the lines follow the figures.
 *
 * @module
 */
import type { ComponentChildren } from "preact"
import { useEffect, useRef, useState } from "preact/hooks"
import type { Page } from "../../src/dashboard/Api.ts"
import { type Column, Table } from "./Table.tsx"
import { Trouble } from "./Trouble.tsx"

/** Tells when a list may have changed. */
export interface Snapshot {
  /** When the figures were taken. */
  readonly at: number
  readonly figures: string
}

/** The position after which a page begins; undefined for the first page. */
export type Start = string | undefined

interface Shown<A> {
  /** The starts of the pages up to this one. */
  readonly starts: ReadonlyArray<Start>
  readonly items: ReadonlyArray<A>
  readonly more: boolean
}

/** `held`: the lines stay as they are while a confirmation about them is open. */
export const usePages = <A,>(read: (start: Start) => Promise<Page<A>>, { at, figures }: Snapshot, held = false) => {
  const [shown, setShown] = useState<Shown<A>>()
  const [turning, setTurning] = useState(false)
  const [trouble, setTrouble] = useState<string>()
  const newest = useRef(0)
  const seen = useRef<string>(undefined)

  /** The response to an earlier request is not shown after a later request. */
  const go = (starts: Shown<A>["starts"], turned: boolean) => {
    const mine = ++newest.current
    seen.current = figures
    setTurning(turned)
    void read(starts.at(-1)).then(
      ({ items, more }) => {
        if (mine !== newest.current) return
        setShown({ starts, items, more })
        setTrouble(undefined)
        setTurning(false)
      },
      (error: Error) => {
        if (mine !== newest.current) return
        // An automatic reload is repeated with the next figures.
        if (!turned) seen.current = undefined
        setTrouble(error.message)
        setTurning(false)
      }
    )
  }
  useEffect(() => {
    if (!held && !turning && seen.current !== figures) go(shown?.starts ?? [undefined], false)
  }, [at, held, turning])
  useEffect(() => () => void (newest.current = Infinity), [])

  const starts = shown?.starts ?? [undefined]
  return {
    items: shown?.items,
    trouble,
    turning: turning || shown === undefined,
    page: starts.length,
    more: shown?.more === true,
    start: starts.at(-1),
    again: () => go(starts, true),
    first: () => go([undefined], true),
    next: (start: string) => go([...starts, start], true),
    previous: () => go(starts.slice(0, -1), true)
  }
}

export const Pager = <A,>({
  pages,
  positionOf
}: {
  readonly pages: ReturnType<typeof usePages<A>>
  /** The position of a line: where the next page begins. */
  readonly positionOf: (items: ReadonlyArray<A>) => string | undefined
}) => {
  const next = pages.items && positionOf(pages.items)
  return (
    <div class="pager">
      <button onClick={pages.previous} disabled={pages.turning || pages.page === 1}>
        Back
      </button>
      <span class="faint">page {pages.page}</span>
      <button
        onClick={() => next !== undefined && pages.next(next)}
        disabled={pages.turning || !pages.more || next === undefined}
      >
        Next
      </button>
      <button onClick={pages.again} disabled={pages.turning}>
        Refresh
      </button>
    </div>
  )
}

interface PagedProps<A> {
  readonly read: (start: Start) => Promise<Page<A>>
  readonly snapshot: Snapshot
  readonly columns: ReadonlyArray<Column>
  readonly row: (item: A) => ReadonlyArray<ComponentChildren>
  readonly positionOf: (item: A) => string
  readonly choose: (item: A, start: Start) => void
  /** Each page holds what precedes the one before. */
  readonly backwards?: boolean
  readonly empty: string
}

export const Paged = <A,>({
  backwards = false,
  choose,
  columns,
  empty,
  snapshot,
  positionOf,
  read,
  row
}: PagedProps<A>) => {
  const pages = usePages(read, snapshot)
  const { items } = pages
  return (
    <>
      <Trouble text={pages.trouble} />
      {items === undefined ? (
        <p class="empty">Loading …</p>
      ) : items.length === 0 ? (
        <p class="empty">{pages.page === 1 ? empty : "No more messages."}</p>
      ) : (
        <Table
          columns={columns}
          rows={(backwards ? items.toReversed() : items).map((item) => ({
            key: positionOf(item),
            cells: row(item),
            open: () => choose(item, pages.start)
          }))}
        />
      )}
      <Pager
        pages={pages}
        positionOf={(items) => {
          const last = items.at(backwards ? 0 : -1)
          return last && positionOf(last)
        }}
      />
    </>
  )
}
