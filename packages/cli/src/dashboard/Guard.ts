/**
 * Access control of the dashboard: requests from other pages are refused, and changes need the token that was printed when
 * the dashboard was started.
 *
 * A browser sends requests on behalf of any page. So a request must name this server as its host (a foreign name that
 * resolves to this machine does not), must not come from another origin, and a change must carry the token in a header
 * that forms and images cannot send.
 *
 * @module
 */
import { createHash } from "node:crypto"
import { isIP } from "node:net"
import { Equal, Option, Redacted } from "effect"
import { type HttpServerRequest, HttpServerResponse } from "effect/http"

/** Loopback names of this machine, accepted with any port: a forwarded port has a different number at its other end. */
export const loopback: ReadonlyArray<string> = ["127.0.0.1", "localhost", "[::1]"]

export interface Rules {
  /** The names and addresses under which this server may be requested, at its port. */
  readonly names: ReadonlyArray<string>
  readonly port: number
  /** The URL under which a proxy serves this server. The proxy may request it by either name. */
  readonly publicUrl?: URL | undefined
  /** The server listens on every address of the machine: any of them is accepted, with any port. */
  readonly everywhere: boolean
  readonly token: Redacted.Redacted<string>
  readonly writes: boolean
  /** Whether reading needs the token as well: it does if other machines can reach the server. */
  readonly guarded: boolean
}

const refuse = (status: number, why: string): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.jsonUnsafe({ why }, { status })

/** Why the request is refused, if it is. */
export const refusal = (
  rules: Rules,
  request: HttpServerRequest.HttpServerRequest,
  asks: "page" | "read" | "write"
): Option.Option<HttpServerResponse.HttpServerResponse> => {
  const { host, origin } = request.headers
  if (host === undefined || !isOurs(rules, host)) {
    return Option.some(
      refuse(
        421,
        `${host === undefined ? "the request names no host" : `this server is not ${host}`}: use ${rules.names.join(" or ")}, or start the dashboard with --public-url`
      )
    )
  }
  if (
    origin !== undefined &&
    origin.toLowerCase() !== `http://${host.toLowerCase()}` &&
    origin !== rules.publicUrl?.origin
  ) {
    return Option.some(refuse(403, "requests from other pages are refused"))
  }
  if (asks === "page") return Option.none()
  // An image or a script of another page is requested without an origin; the browser still reports the site.
  const site = request.headers["sec-fetch-site"]
  if (site !== undefined && site !== "same-origin" && site !== "none") {
    return Option.some(refuse(403, "requests from other pages are refused"))
  }
  if (asks === "write" && !rules.writes) {
    return Option.some(refuse(403, "this dashboard is read-only: start it with --allow-writes to make changes"))
  }
  if ((asks === "write" || rules.guarded) && !authorized(rules, request)) {
    return Option.some(
      refuse(401, "the token is missing or wrong: open the address that was printed when the dashboard started")
    )
  }
  return Option.none()
}

/** Browsers omit port 80. */
const isOurs = ({ everywhere, names, port, publicUrl }: Rules, host: string): boolean => {
  if (!URL.canParse(`http://${host}`)) return false
  const asked = new URL(`http://${host}`)
  // A foreign name can be made to resolve to this machine; an address cannot.
  if (everywhere && isIP(asked.hostname.replace(/^\[|\]$/g, "")) > 0) return true
  if (loopback.includes(asked.hostname) || asked.hostname === publicUrl?.hostname) return true
  return names.includes(asked.hostname) && (everywhere || Number(asked.port || 80) === port)
}

/** Whether the request carries the token. */
export const authorized = ({ token }: Rules, request: HttpServerRequest.HttpServerRequest): boolean => {
  const header = request.headers["authorization"]
  // Comparing hashes leaks nothing through timing.
  return header !== undefined && Equal.equals(digest(header), digest(`Bearer ${Redacted.value(token)}`))
}

const digest = (text: string): string => createHash("sha256").update(text).digest("hex")

/** For every response: no foreign content runs in this page, and this page runs in no other. */
export const headers: Readonly<Record<string, string>> = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-resource-policy": "same-origin",
  "cache-control": "no-store"
}
