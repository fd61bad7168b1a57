/**
 * Who may ask what of the dashboard: nothing is answered to a page of somebody else, and nothing is changed without the
 * token that was printed where the dashboard was started.
 *
 * A browser sends requests on behalf of any page. So a request must name us as its host (a stranger's name that resolves
 * to this machine does not), must not come from another origin, and what changes something carries the token in a header
 * that no form and no image can send.
 *
 * @module
 */
import { createHash } from "node:crypto"
import { isIP } from "node:net"
import { Equal, Option, Redacted } from "effect"
import { type HttpServerRequest, HttpServerResponse } from "effect/http"

/** Names of this machine to itself. A port that is forwarded has another number on its other end. */
export const loopback: ReadonlyArray<string> = ["127.0.0.1", "localhost", "[::1]"]

export interface Rules {
  /** The names and addresses by which this server may be asked for, at its port. */
  readonly names: ReadonlyArray<string>
  readonly port: number
  /** Where a proxy shows this server to others. It may ask for it by either name. */
  readonly publicUrl?: URL | undefined
  /** It listens on every address of the machine: any of them will do, whatever the port is mapped to. */
  readonly everywhere: boolean
  readonly token: Redacted.Redacted<string>
  readonly writes: boolean
  /** Whether looking needs the token as well: it does where others can reach the server. */
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
        `this server is not ${host ?? "without a name"}: ask for ${rules.names.join(" or ")}, or start it with --public-url`
      )
    )
  }
  if (
    origin !== undefined &&
    origin.toLowerCase() !== `http://${host.toLowerCase()}` &&
    origin !== rules.publicUrl?.origin
  ) {
    return Option.some(refuse(403, "requests of other pages are not answered"))
  }
  if (asks === "page") return Option.none()
  // An image or a script of another page asks without an origin; the browser says where it stands all the same.
  const site = request.headers["sec-fetch-site"]
  if (site !== undefined && site !== "same-origin" && site !== "none") {
    return Option.some(refuse(403, "requests of other pages are not answered"))
  }
  if (asks === "write" && !rules.writes) {
    return Option.some(refuse(403, "this dashboard only looks: start it with --allow-writes to change things"))
  }
  if ((asks === "write" || rules.guarded) && !authorized(rules, request)) {
    return Option.some(refuse(401, "the token is missing or wrong: open the address that was printed at the start"))
  }
  return Option.none()
}

/** Browsers leave out the port 80. */
const isOurs = ({ everywhere, names, port, publicUrl }: Rules, host: string): boolean => {
  if (!URL.canParse(`http://${host}`)) return false
  const asked = new URL(`http://${host}`)
  // A stranger's name can be made to resolve to us; an address is nobody's name.
  if (everywhere && isIP(asked.hostname.replace(/^\[|\]$/g, "")) > 0) return true
  if (loopback.includes(asked.hostname) || asked.hostname === publicUrl?.hostname) return true
  return names.includes(asked.hostname) && (everywhere || Number(asked.port || 80) === port)
}

/** Whether the request carries the token. */
export const authorized = ({ token }: Rules, request: HttpServerRequest.HttpServerRequest): boolean => {
  const header = request.headers["authorization"]
  // Comparing what was hashed tells nothing by the time it takes.
  return header !== undefined && Equal.equals(digest(header), digest(`Bearer ${Redacted.value(token)}`))
}

const digest = (text: string): string => createHash("sha256").update(text).digest("hex")

/** For every answer: nothing of others runs on our page, nothing of ours in theirs. */
export const headers: Readonly<Record<string, string>> = {
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-resource-policy": "same-origin",
  "cache-control": "no-store"
}
