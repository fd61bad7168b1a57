/**
 * What went wrong, in the words of whoever knows.
 *
 * @module
 */
import { lines } from "./Text.tsx"

export const Trouble = ({ text }: { readonly text: string | undefined }) =>
  text === undefined ? null : (
    <p class="trouble" role="alert">
      {lines(text)}
    </p>
  )
