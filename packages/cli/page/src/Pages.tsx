/**
 * A list, a hundred lines at a time: as quick with a million as with ten. The number of the page is the number of the lines
 * that are shown, and these follow the figures.
 *
 * @module
 */
import type { ComponentChildren } from "preact"
import { useEffect, useRef, useState } from "preact/hooks"
import type { Page } from "../../src/dashboard/Api.ts"
import { type Column, Table } from "./Table.tsx"
import { Trouble } from "./Trouble.tsx"

/** A sign that a list may have changed. */
export interface Look {
  /** When the figures were taken. */
  readonly at: number
  readonly figures: string
}

/** A page is named by the position behind which it begins; the first one by none. */
export type Start = string | undefined

interface Shown<A> {
  /** The starts of the pages up to this one. */
  readonly starts: ReadonlyArray<Start>
  readonly items: ReadonlyArray<A>
  readonly more: boolean
}

/** `held`: the lines stay as they are, because somebody is asked about them. */
export const usePages = <A,>(read: (start: Start) => Promise<Page<A>>, { at, figures }: Look, held = false) => {
  const [shown, setShown] = useState<Shown<A>>()
  const [turning, setTurning] = useState(false)
  const [trouble, setTrouble] = useState<string>()
  const newest = useRef(0)
  const seen = useRef<string>(undefined)

  /** The answer to an earlier question is not shown after a later one was asked. */
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
        // A reload that was not asked for is tried again with the next look at the figures.
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
  /** Of one of the lines: where the next page begins. */
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
        Look again
      </button>
    </div>
  )
}

interface PagedProps<A> {
  readonly read: (start: Start) => Promise<Page<A>>
  readonly look: Look
  readonly columns: ReadonlyArray<Column>
  readonly row: (item: A) => ReadonlyArray<ComponentChildren>
  readonly positionOf: (item: A) => string
  readonly choose: (item: A, start: Start) => void
  /** Each page holds what lies in front of the one before. */
  readonly backwards?: boolean
  readonly empty: string
}

export const Paged = <A,>({
  backwards = false,
  choose,
  columns,
  empty,
  look,
  positionOf,
  read,
  row
}: PagedProps<A>) => {
  const pages = usePages(read, look)
  const { items } = pages
  return (
    <>
      <Trouble text={pages.trouble} />
      {items === undefined ? (
        <p class="empty">Looking …</p>
      ) : items.length === 0 ? (
        <p class="empty">{pages.page === 1 ? empty : "There is nothing more."}</p>
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
