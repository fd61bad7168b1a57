/**
 * The server address in a URL. Strict: anything another program would read differently, or silently ignore, is refused, and
 * no error shows any part of it, because any part may be a password.
 *
 * @module
 */
import * as Redacted from "effect/Redacted"

export interface Address {
  readonly tls: boolean
  readonly host: string | undefined
  readonly port: number | undefined
  /** The socket in the file system, instead of host and port. */
  readonly path: string | undefined
  readonly db: number | undefined
  readonly username: string | undefined
  readonly password: Redacted.Redacted<string> | undefined
}

/** The address, or what is wrong with the URL. */
export const parse = (url: string): Address | string => {
  // Printable ASCII without spaces: a newline from a file, or a character that only looks like a letter, leads nowhere.
  if (!/^[!-~]*$/.test(url)) return "it has white space, control characters or letters outside ASCII: write them as %XX"
  const scheme = /^([a-z+]+):\/\//i.exec(url)?.[1]?.toLowerCase() ?? ""
  const rest = url.slice(scheme.length + 3)
  switch (scheme) {
    case "redis":
    case "rediss":
      return parseTcp(scheme === "rediss", rest)
    case "unix":
    case "redis+unix":
      return parseSocket(rest)
  }
  return "it begins with none of redis://, rediss://, unix:// and redis+unix://"
}

const parseTcp = (tls: boolean, rest: string): Address | string => {
  if (rest.includes("#")) return "it has a #, which is written %23 in a password; a database goes behind the port: /3"
  if (rest.includes("?"))
    return "it has a ?, which is written %3F in a password; options are not taken from a URL, and a database goes behind the port: /3"
  const at = rest.lastIndexOf("@")
  const slash = rest.indexOf("/", at + 1)
  if (rest.slice(0, Math.max(at, 0)).includes("/"))
    return "it has a / in the user name or password, which is written %2F there"
  const place = slash < 0 ? rest.slice(at + 1) : rest.slice(at + 1, slash)
  const [, bracketed, plain, port] = /^(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::(.*))?$/i.exec(place) ?? []
  const host = bracketed ?? plain
  if (host === undefined) return "it names no host, or one with characters that no host has"
  if (port !== undefined && !isPort(port)) return "its port is not a number from 1 to 65535"
  const db = slash < 0 ? "" : rest.slice(slash + 1)
  if (!isDatabase(db)) return "its path is not the number of a database"
  const who = credentials(at < 0 ? undefined : rest.slice(0, at))
  if (typeof who === "string") return who
  return { tls, host, port: port === undefined ? undefined : Number(port), path: undefined, db: databaseOf(db), ...who }
}

const parseSocket = (rest: string): Address | string => {
  if (rest.includes("#")) return "it has a #, which is written %23"
  const [front = "", query, ...more] = rest.split("?")
  if (more.length > 0) return "it has more than one ?, which is written %3F in a password or a path"
  const slash = front.indexOf("/")
  const at = front.lastIndexOf("@", slash < 0 ? undefined : slash)
  if (slash !== at + 1) return "it names no path: unix:///run/redis.sock"
  const path = decoded(front.slice(slash))
  if (path === undefined || path.length < 2 || path.includes("\0")) return "its path cannot be read: write a % as %25"
  const db = query === undefined ? "" : /^db=(\d+)$/.exec(query)?.[1]
  if (db === undefined || !isDatabase(db)) return "behind the ? only db= and a number may stand"
  const who = credentials(at < 0 ? undefined : front.slice(0, at))
  if (typeof who === "string") return who
  return { tls: false, host: undefined, port: undefined, path, db: databaseOf(db), ...who }
}

const isPort = (text: string): boolean => /^\d{1,5}$/.test(text) && Number(text) >= 1 && Number(text) <= 65_535

/** Nine digits are more databases than any server has. */
const isDatabase = (text: string): boolean => /^\d{0,9}$/.test(text)
const databaseOf = (text: string): number | undefined => (text === "" ? undefined : Number(text))

const credentials = (text: string | undefined): Pick<Address, "username" | "password"> | string => {
  if (text === undefined) return { username: undefined, password: undefined }
  const colon = text.indexOf(":")
  const username = decoded(colon < 0 ? text : text.slice(0, colon))
  const password = colon < 0 ? "" : decoded(text.slice(colon + 1))
  if (username === undefined || password === undefined)
    return "its user name or password has a % that begins no character: write it as %25"
  return {
    username: username === "" ? undefined : username,
    password: password === "" ? undefined : Redacted.make(password)
  }
}

const decoded = (text: string): string | undefined => {
  try {
    return decodeURIComponent(text)
  } catch {
    return undefined
  }
}

/** The part of an address that may be shown. */
export const shown = ({ host, path, port }: Partial<Pick<Address, "host" | "path" | "port">>): string =>
  path ?? `${host?.includes(":") === true ? `[${host}]` : (host ?? "127.0.0.1")}:${port ?? 6379}`
