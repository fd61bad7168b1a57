/**
 * A table whose rows can be opened.
 *
 * @module
 */
import type { ComponentChildren } from "preact"
import { count } from "./Text.tsx"

export interface Column {
  readonly title: string
  /** `body`: takes the space the other columns leave. */
  readonly kind?: "number" | "body"
}

export interface Row {
  readonly key: string
  readonly cells: ReadonlyArray<ComponentChildren>
  readonly open?: () => void
}

export const Table = ({
  columns,
  rows
}: {
  readonly columns: ReadonlyArray<Column>
  readonly rows: ReadonlyArray<Row>
}) => (
  <div class="scroll">
    <table>
      <thead>
        <tr>
          {columns.map(({ kind, title }) => (
            <th key={title} class={kind ?? ""}>
              {title}
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {rows.map(({ cells, key, open }) => (
          <tr
            key={key}
            class={open === undefined ? "" : "link"}
            tabIndex={open === undefined ? -1 : 0}
            onClick={open}
            onKeyDown={(event) => event.key === "Enter" && open?.()}
          >
            {cells.map((cell, i) => (
              <td key={i} class={columns[i]?.kind ?? ""}>
                {typeof cell === "number" ? count(cell) : cell}
              </td>
            ))}
          </tr>
        ))}
      </tbody>
    </table>
  </div>
)
