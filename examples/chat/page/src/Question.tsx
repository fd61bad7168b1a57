/**
 * A button that asks before it does what cannot be taken back.
 *
 * @module
 */
import { useRef } from "preact/hooks"

export const Question = ({
  disabled = false,
  label,
  question,
  title,
  yes
}: {
  readonly label: string
  readonly question: string
  readonly yes: () => void
  readonly title?: string
  readonly disabled?: boolean
}) => {
  const dialog = useRef<HTMLDialogElement>(null)
  return (
    <>
      <button class="quiet" title={title} disabled={disabled} onClick={() => dialog.current?.showModal()}>
        {label}
      </button>
      <dialog ref={dialog} aria-label={question}>
        <p>{question}</p>
        <div class="answers">
          <button onClick={() => dialog.current?.close()}>Cancel</button>
          <button
            class="main"
            onClick={() => {
              dialog.current?.close()
              yes()
            }}
          >
            {label}
          </button>
        </div>
      </dialog>
    </>
  )
}
