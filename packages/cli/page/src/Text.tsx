/**
 * Times and bodies as text. Bodies are what strangers wrote: they are only ever put on the page as text.
 *
 * @module
 */

export const instant = (epochMillis: number): string => new Date(epochMillis).toLocaleString()

export const age = (millis: number): string => {
  if (millis < 1000) return `${Math.round(millis)} ms`
  if (millis < 60_000) return `${(millis / 1000).toFixed(1)} s`
  if (millis < 3_600_000) return `${Math.floor(millis / 60_000)} min`
  if (millis < 86_400_000) return `${Math.floor(millis / 3_600_000)} h`
  return `${Math.floor(millis / 86_400_000)} d`
}

interface WithBody {
  readonly body: string
  readonly base64?: true
}

/** The beginning of a body. */
export const Body = ({ of: { base64, body } }: { readonly of: WithBody }) => (
  <code class="body">
    {base64 === true && <span class="badge">base64</span>} {body.length > 120 ? `${body.slice(0, 120)}…` : body}
  </code>
)

/** The whole body, JSON laid out. */
export const WholeBody = ({ of: { base64, body } }: { readonly of: WithBody }) => {
  let text = body
  if (base64 !== true) {
    try {
      text = JSON.stringify(JSON.parse(body), null, 2)
    } catch {
      // It is shown as it came.
    }
  }
  return (
    <pre>
      {base64 === true && <span class="badge">no text: base64</span>}
      {text}
    </pre>
  )
}
