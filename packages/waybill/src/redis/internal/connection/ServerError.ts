/**
 * The meaning of an error from the server or its connection, decided in one place: every error becomes exactly one reason,
 * and no reason claims that nothing ran unless that is known.
 *
 * @module
 */
import {
  AuthenticationFailed,
  Disconnected,
  NotPermitted,
  type Reason,
  Refused,
  Rejected,
  WrongKeyType
} from "../../../Transport.ts"

/**
 * The reason behind `error`, which a command ended with. `key` is the key (or the keys) that the command was about.
 */
export const classify = (error: unknown, command: string, key?: string): Reason => {
  if (!(error instanceof Error)) return new Rejected({ command, detail: String(error) })
  if (error.name !== "ReplyError") return classifyConnection(error, command)
  const detail = withoutScriptFrame(error.message).replace(/\.$/, "")
  const code = codeOf(detail)
  if (code === "EXECABORT") return classifyAbort(error, detail, command, key)
  if (refusals.has(code)) return new Refused({ code, detail })
  if (tooManyClients.test(detail)) return new Refused({ code: "MAXCLIENTS", detail })
  if (code === "WRONGTYPE") return new WrongKeyType({ key: key ?? "(not known)", detail })
  if (code === "NOPERM" || deniedInScript.test(detail)) return denial(detail, command, key)
  if (authentications.has(code) || authentication.test(detail)) return new AuthenticationFailed({ detail })
  return new Rejected({ command, detail })
}

/**
 * The values of a pipeline, or the first error in it. ioredis resolves a pipeline even if every command in it failed.
 */
export const valuesOf = (
  results: ReadonlyArray<readonly [error: Error | null, value: unknown]> | null
): Array<unknown> => {
  // Only a transaction whose watched keys changed returns null, and nothing here watches.
  if (results === null) throw new Error("the transaction was not executed")
  return results.map(([error, value]) => {
    if (error !== null) throw error
    return value
  })
}

/** The server's code at the beginning of an error, such as `NOGROUP`; `ERR` if there is none. */
export const codeOf = (detail: string): string => /^[A-Z][A-Z0-9]*(?= |$)/.exec(detail)?.[0] ?? "ERR"

/** The server changed nothing, and may do it later. */
const refusals: ReadonlySet<string> = new Set([
  "ASK",
  "BUSY",
  "CLUSTERDOWN",
  "LOADING",
  "MASTERDOWN",
  "MISCONF",
  "MOVED",
  "NOREPLICAS",
  "NOSCRIPT",
  "OOM",
  "READONLY",
  "TRYAGAIN",
  "UNBLOCKED"
])
const tooManyClients = /^ERR max number of clients/

const authentications: ReadonlySet<string> = new Set(["DENIED", "NOAUTH", "WRONGPASS"])
const authentication = /^ERR (?:invalid password|AUTH <password> called|Client sent AUTH)/

/** A script without a permission gets a plain `ERR`: up to Redis 7.0 in the former words, later in the latter. */
const deniedInScript = /^ERR (?:The user executing the script can't|ACL failure in script)/

/** Whether the server refused because of a permission, in a script or outside. */
export const isDenied = (error: unknown): error is Error =>
  error instanceof Error &&
  /^NOPERM |ERR The user executing the script can't|ERR ACL failure in script/.test(error.message)

/** What was denied: a command, or its key or channel. Few servers name the latter; we know it. */
const denial = (detail: string, command: string, key: string | undefined): NotPermitted => {
  const denied = /run the '([^']+)' command/.exec(detail)?.[1]
  if (denied !== undefined) {
    return new NotPermitted({ command: denied === command.toLowerCase() ? command : denied, detail })
  }
  const named = /access the (?:key|channel) '(.*)'$/s.exec(detail)?.[1] ?? key
  if (/\bchannels?\b/.test(detail)) return new NotPermitted({ command, channel: named, detail })
  if (/\bkeys?\b/.test(detail)) return new NotPermitted({ command, key: named, detail })
  return new NotPermitted({ command, detail })
}

/** Before 7.0 an error within a script arrives wrapped: `ERR Error running script (call to f_...): @user_script:1: ...`. */
const withoutScriptFrame = (detail: string): string =>
  detail.startsWith("ERR Error running script")
    ? (/@user_script: ?\d+: -?([A-Z]+ .*)$/s.exec(detail)?.[1] ?? detail)
    : detail

/** Nothing in a discarded transaction ran. The server, or an earlier reply, says why it was discarded. */
const classifyAbort = (error: Error, detail: string, command: string, key: string | undefined): Reason => {
  if ("previousErrors" in error && Array.isArray(error.previousErrors) && error.previousErrors.length > 0) {
    return classify(error.previousErrors[0], command, key)
  }
  const code = codeOf(/because of: (.*)$/s.exec(detail)?.[1] ?? "")
  return refusals.has(code) ? new Refused({ code, detail }) : new Rejected({ command, detail })
}

/** Whether what came over the socket was not the Redis protocol. */
export const isForeign = (error: unknown): boolean => error instanceof Error && foreign.test(error.message)
const foreign = /^(?:Unknown RESP type|Protocol error)/

const classifyConnection = (error: Error, command: string): Reason => {
  if (neverSent.test(error.message) || beforeSending.has("syscall" in error ? String(error.syscall) : "")) {
    return new Disconnected({ ambiguous: false, cause: error })
  }
  if (
    broken.has(error.name) ||
    brokenConnection.test(error.message) ||
    isForeign(error) ||
    "syscall" in error ||
    "code" in error
  ) {
    // ioredis hangs the command with all its arguments on some of these, and causes end up in logs.
    return new Disconnected({ ambiguous: true, cause: "command" in error ? new Error(error.message) : error })
  }
  return new Rejected({ command, detail: String(error) })
}

/** ioredis says these before it writes anything. */
const neverSent =
  /^(?:Stream isn't writeable|None of startup nodes|Failed to refresh slots cache|All sentinels are unreachable|Cluster is ended)/
const beforeSending: ReadonlySet<string> = new Set(["connect", "getaddrinfo"])
const broken: ReadonlySet<string> = new Set([
  "AbortError",
  "InterruptError",
  "MaxRetriesPerRequestError",
  "ParserError"
])
const brokenConnection =
  /^(?:Connection is closed|Command aborted|Command timed out|Socket timeout|Too many Cluster redirections)/
