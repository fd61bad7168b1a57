/**
 * An error in the words of its source.
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
