/**
 * A confirmation before a change.
 *
 * @module
 */
import type { ComponentChildren } from "preact"
import { useEffect, useRef } from "preact/hooks"

export const Confirm = ({
  act,
  children,
  close,
  go,
  title
}: {
  readonly title: string
  readonly go: string
  readonly act: () => void
  readonly close: () => void
  readonly children: ComponentChildren
}) => {
  const dialog = useRef<HTMLDialogElement>(null)
  useEffect(() => dialog.current?.showModal(), [])
  return (
    <dialog ref={dialog} onClose={close}>
      <h3>{title}</h3>
      <p>{children}</p>
      <div class="bar">
        <span class="grow" />
        <button onClick={close}>Cancel</button>
        <button class="main" onClick={act}>
          {go}
        </button>
      </div>
    </dialog>
  )
}
