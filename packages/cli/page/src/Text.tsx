/**
 * Untrusted text, and times, as text. Names and bodies reach the page only as text, without anything that could disguise
 * them.
 *
 * @module
 */
import { safe, safeLines as lines } from "../../src/SafeText.ts"

export { lines, safe }

/** One line of untrusted text; it cannot change the direction of the text beside it. */
export const Name = ({ text }: { readonly text: string }) => (
  <bdi class="text" title={safe(text)}>
    {safe(text)}
  </bdi>
)

export const instant = (epochMillis: number): string => new Date(epochMillis).toLocaleString()

/** Without the date if that is today. */
export const Moment = ({ at }: { readonly at: number }) => {
  const date = new Date(at)
  const today = date.toDateString() === new Date().toDateString()
  return <time title={instant(at)}>{today ? date.toLocaleTimeString() : date.toLocaleString()}</time>
}

export const age = (millis: number): string => {
  if (millis < 1000) return `${Math.round(millis)} ms`
  if (millis < 60_000) return `${(millis / 1000).toFixed(1)} s`
  if (millis < 3_600_000) return `${Math.floor(millis / 60_000)} min`
  if (millis < 86_400_000) return `${Math.floor(millis / 3_600_000)} h`
  return `${Math.floor(millis / 86_400_000)} d`
}

export const count = (value: number): string => value.toLocaleString("en-US")

/** 1 attempt, 2 attempts. */
export const counted = (value: number, what: string): string => `${count(value)} ${what}${value === 1 ? "" : "s"}`

interface WithBody {
  readonly body: string
  readonly base64?: true
}

/** The beginning of a body. */
export const Body = ({ of: { base64, body } }: { readonly of: WithBody }) => (
  <code>
    {base64 === true && <span class="badge">base64</span>}
    <bdi>{safe(body.slice(0, 200))}</bdi>
  </code>
)

/** The whole body; JSON is formatted unless that would change its values. */
export const WholeBody = ({ of: { base64, body } }: { readonly of: WithBody }) => (
  <pre>
    {base64 === true && <span class="badge">not text: base64</span>}
    <bdi>{lines(base64 === true ? body : laidOut(body))}</bdi>
  </pre>
)

const laidOut = (body: string): string => {
  try {
    const value: unknown = JSON.parse(body)
    // A number with many digits would change.
    return JSON.stringify(value) === body ? JSON.stringify(value, null, 2) : body
  } catch {
    return body
  }
}
