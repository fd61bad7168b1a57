/**
 * Names, times and texts. Texts are what strangers wrote: they are only ever put on the page as text.
 *
 * @module
 */
import * as Session from "../../src/Session.ts"

const hue = (name: string): number => {
  let sum = 0
  for (const character of name) sum = (sum * 31 + character.charCodeAt(0)) % 9973
  return sum % 8
}

/** The first letter in the name's colour, with a dot for who is online. */
export const Face = ({ name, online }: { readonly name: string; readonly online?: boolean }) => (
  <span class={`face hue-${hue(name)}`} aria-hidden="true">
    {name.slice(0, 1).toUpperCase()}
    {online !== undefined && <span class={`dot ${online ? "on" : ""}`} />}
  </span>
)

export const Words = ({
  me,
  members,
  text
}: {
  readonly text: string
  readonly me: string
  readonly members: ReadonlyArray<string>
}) => (
  <p class="words">
    {Session.parts(text).map(({ mention, text }, i) =>
      mention !== undefined && members.includes(mention) ? (
        <mark key={i} class={mention === me ? "me" : ""}>
          {text}
        </mark>
      ) : (
        text
      )
    )}
  </p>
)

export const time = (at: number): string => new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })

export const day = (at: number): string =>
  new Date(at).toLocaleDateString([], { weekday: "long", day: "numeric", month: "long" })

/** "ada is typing …", "ada and alan are typing …", "ada and 3 others are typing …" */
export const typists = (names: ReadonlyArray<string>): string => {
  const [first, second] = names
  if (first === undefined) return ""
  if (second === undefined) return `${first} is typing …`
  return `${first} and ${names.length === 2 ? second : `${names.length - 1} others`} are typing …`
}
