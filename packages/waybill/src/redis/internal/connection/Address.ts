/**
 * Where the servers are, from a URL or from options. Strict: anything another program would read differently, or silently
 * ignore, is refused, and no error shows any part of a URL, because any part may be a password.
 *
 * @module
 */
import * as Redacted from "effect/Redacted"

/** The other end of a socket. */
export type Place = HostPort | { readonly path: string }

export interface HostPort {
  readonly host: string
  readonly port: number
}

/** How the server of a key is found. */
export type Address =
  | { readonly _tag: "Standalone"; readonly place: Place }
  /** `nodes` are asked first; the cluster names the others. */
  | { readonly _tag: "Cluster"; readonly nodes: ReadonlyArray<HostPort>; readonly natMap: NatMap }
  | {
      readonly _tag: "Sentinel"
      readonly sentinels: ReadonlyArray<HostPort>
      /** The name under which the Sentinels watch the master. */
      readonly name: string
      readonly natMap: NatMap
    }

/** Where this process reaches an address that the servers give each other, by `host:port`. */
export type NatMap = ReadonlyMap<string, HostPort>

/** The address at which this process reaches what the servers call `place`. */
export const reachedAt = (natMap: NatMap, place: HostPort): HostPort => natMap.get(shown(place)) ?? place

/** The part of an address that may be shown. */
export const shown = (place: Place): string =>
  "path" in place ? place.path : `${place.host.includes(":") ? `[${place.host}]` : place.host}:${place.port}`

/** The same for all that a program knows of its servers. */
export const addressShown = (address: Address): string => {
  switch (address._tag) {
    case "Standalone":
      return shown(address.place)
    case "Cluster":
      return address.nodes.map(shown).join(",")
    case "Sentinel":
      return `${address.name} (Sentinel ${address.sentinels.map(shown).join(",")})`
  }
}

/** What a program says about the place of its servers, beside a URL or instead of one. */
export interface Given {
  readonly host?: string | undefined
  readonly port?: number | undefined
  readonly path?: string | undefined
  readonly cluster?: ReadonlyArray<string> | undefined
  readonly sentinels?: ReadonlyArray<string> | undefined
  readonly name?: string | undefined
  readonly natMap?: Readonly<Record<string, string>> | undefined
}

/** What a URL says. */
export interface ServerUrl {
  readonly address: Address
  readonly tls: boolean
  readonly db: number | undefined
  readonly username: string | undefined
  readonly password: Redacted.Redacted<string> | undefined
  readonly sentinelUsername: string | undefined
  readonly sentinelPassword: Redacted.Redacted<string> | undefined
}

/** The address, or what is wrong with it. Options take precedence over the URL. */
export const addressOf = (given: Given, url: Address | undefined): Address | string => {
  const { cluster, host, name, path, port, sentinels } = given
  const single = host !== undefined || port !== undefined || path !== undefined
  if ([single, cluster !== undefined, sentinels !== undefined].filter(Boolean).length > 1)
    return "give one server (host and port, or path), cluster, or sentinels, and only one of them"
  const own = given.natMap === undefined ? undefined : natMapOf(Object.entries(given.natMap))
  if (typeof own === "string") return own
  const natMap = own ?? (url === undefined || url._tag === "Standalone" ? new Map<string, HostPort>() : url.natMap)
  if (cluster !== undefined || (!single && sentinels === undefined && url?._tag === "Cluster")) {
    const nodes = placesOf(cluster, url?._tag === "Cluster" ? url.nodes : [], 6379)
    return typeof nodes === "string" ? nodes : { _tag: "Cluster", nodes, natMap }
  }
  if (sentinels !== undefined || (!single && url?._tag === "Sentinel")) {
    const from = url?._tag === "Sentinel" ? url : undefined
    const places = placesOf(sentinels, from?.sentinels ?? [], 26_379)
    if (typeof places === "string") return places
    const master = name ?? from?.name ?? ""
    if (!isMasterName(master)) return noMasterName
    return { _tag: "Sentinel", sentinels: places, name: master, natMap }
  }
  if (path !== undefined) return { _tag: "Standalone", place: { path } }
  const place = url?._tag === "Standalone" ? url.place : undefined
  if (!single && place !== undefined) return { _tag: "Standalone", place }
  const at = place !== undefined && "host" in place ? place : { host: "127.0.0.1", port: 6379 }
  if (port !== undefined && !isPort(String(port))) return `port ${port} is not a number from 1 to 65535`
  return { _tag: "Standalone", place: { host: host ?? at.host, port: port ?? at.port } }
}

const noMasterName = "it does not name the master: use the name in the configuration of the Sentinels"
const isMasterName = (name: string): boolean => /^[\w.-]+$/.test(name)

const placesOf = (
  texts: ReadonlyArray<string> | undefined,
  otherwise: ReadonlyArray<HostPort>,
  port: number
): ReadonlyArray<HostPort> | string => {
  if (texts === undefined) return otherwise
  if (texts.length === 0) return "the list of addresses is empty"
  const places = texts.map((text) => hostPort(text, port))
  return places.find((place) => typeof place === "string") ?? places.filter((place) => typeof place !== "string")
}

const natMapOf = (pairs: ReadonlyArray<ReadonlyArray<string>>): NatMap | string => {
  const map = new Map<string, HostPort>()
  for (const pair of pairs) {
    const [from, to, more] = pair.map((text) => hostPort(text, 6379))
    if (typeof from !== "object" || typeof to !== "object" || more !== undefined)
      return "its NAT map has an entry that is not host:port on both sides"
    map.set(shown(from), to)
  }
  return map
}

/** The address of one node, or what is wrong with it. */
const hostPort = (text: string, defaultPort: number): HostPort | string => {
  const [, bracketed, plain, port] = /^(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::(.*))?$/i.exec(text) ?? []
  const host = bracketed ?? plain
  if (host === undefined) return "it names no host, or one with characters that no host has"
  if (port !== undefined && !isPort(port)) return "its port is not a number from 1 to 65535"
  return { host, port: port === undefined ? defaultPort : Number(port) }
}

/** What the URL says, or what is wrong with it. */
export const parse = (url: string): ServerUrl | string => {
  // Printable ASCII without spaces: a newline from a file, or a character that only looks like a letter, leads nowhere.
  if (!/^[!-~]*$/.test(url)) return "it has white space, control characters or letters outside ASCII: write them as %XX"
  const scheme = /^([a-z+-]+):\/\//i.exec(url)?.[1]?.toLowerCase() ?? ""
  const rest = url.slice(scheme.length + 3)
  switch (scheme) {
    case "redis":
    case "rediss":
      return parseTcp(scheme === "rediss", rest)
    case "redis-cluster":
    case "rediss-cluster":
      return parseMany(scheme === "rediss-cluster", rest, ["natMap"], clusterAt)
    case "redis-sentinel":
    case "rediss-sentinel":
      return parseMany(
        scheme === "rediss-sentinel",
        rest,
        ["natMap", "sentinelUsername", "sentinelPassword"],
        sentinelAt
      )
    case "unix":
    case "redis+unix":
      return parseSocket(rest)
  }
  return "it begins with none of redis://, redis-cluster://, redis-sentinel:// (rediss for TLS), unix:// and redis+unix://"
}

const parseTcp = (tls: boolean, rest: string): ServerUrl | string => {
  if (rest.includes("#")) return "it has a #, which is written %23 in a password; a database goes behind the port: /3"
  if (rest.includes("?"))
    return "it has a ?, which is written %3F in a password; options are not taken from a URL, and a database goes behind the port: /3"
  const parts = authority(rest)
  if (typeof parts === "string") return parts
  if (parts.places.includes(",")) return "it names several hosts: use redis-cluster:// or redis-sentinel://"
  const place = hostPort(parts.places, 6379)
  if (typeof place === "string") return place
  if (!isDatabase(parts.path)) return "its path is not the number of a database"
  const address = { _tag: "Standalone", place } as const
  return { ...noSentinel, address, tls, db: databaseOf(parts.path), ...parts.who }
}

/** Several hosts, and options of these names. */
const parseMany = (
  tls: boolean,
  rest: string,
  names: ReadonlyArray<string>,
  at: (path: string, places: string, natMap: NatMap) => Pick<ServerUrl, "address" | "db"> | string
): ServerUrl | string => {
  if (rest.includes("#")) return "it has a #, which is written %23 in a password"
  const [front = "", query, ...more] = rest.split("?")
  const options = more.length > 0 ? undefined : queryOf(query, names)
  if (options === undefined)
    return `behind the ? only ${names.join("=, ")}= may stand, once each; a ? in a password is written %3F, and a % %25`
  const parts = authority(front)
  if (typeof parts === "string") return parts
  const pairs = (options.get("natMap") ?? "").split(",").filter((pair) => pair !== "")
  const natMap = natMapOf(pairs.map((pair) => pair.split("=", 3)))
  if (typeof natMap === "string") return natMap
  const found = at(parts.path, parts.places, natMap)
  if (typeof found === "string") return found
  const sentinelPassword = options.get("sentinelPassword")
  return {
    ...found,
    tls,
    ...parts.who,
    sentinelUsername: options.get("sentinelUsername"),
    sentinelPassword: sentinelPassword === undefined ? undefined : Redacted.make(sentinelPassword)
  }
}

const noSentinel = { sentinelUsername: undefined, sentinelPassword: undefined }

const clusterAt = (path: string, places: string, natMap: NatMap) => {
  if (path !== "" && path !== "0") return "a cluster has database 0 only"
  const nodes = placesOf(places.split(","), [], 6379)
  return typeof nodes === "string" ? nodes : { address: { _tag: "Cluster", nodes, natMap } as const, db: undefined }
}

const sentinelAt = (path: string, places: string, natMap: NatMap) => {
  const sentinels = placesOf(places.split(","), [], 26_379)
  if (typeof sentinels === "string") return sentinels
  const [name = "", db = "", ...more] = path.split("/")
  if (!isMasterName(name)) return "it does not name the master behind the hosts: redis-sentinel://host/name"
  if (more.length > 0 || !isDatabase(db)) return "behind the master's name only the number of a database may stand"
  return { address: { _tag: "Sentinel", sentinels, name, natMap } as const, db: databaseOf(db) }
}

/** The options behind the `?`, decoded; undefined if one is unknown, repeated or cannot be read. */
const queryOf = (query: string | undefined, names: ReadonlyArray<string>): ReadonlyMap<string, string> | undefined => {
  const options = new Map<string, string>()
  if (query === undefined) return options
  for (const part of query.split("&")) {
    const [, name = "", text = ""] = /^(\w+)=(.+)$/.exec(part) ?? []
    const value = decoded(text)
    if (!names.includes(name) || options.has(name) || value === undefined) return undefined
    options.set(name, value)
  }
  return options
}

/** `user:password@places/path`, with the user and the password decoded. */
const authority = (rest: string) => {
  const at = rest.lastIndexOf("@")
  const slash = rest.indexOf("/", at + 1)
  if (rest.slice(0, Math.max(at, 0)).includes("/"))
    return "it has a / in the user name or password, which is written %2F there"
  const who = credentials(at < 0 ? undefined : rest.slice(0, at))
  if (typeof who === "string") return who
  return {
    who,
    places: slash < 0 ? rest.slice(at + 1) : rest.slice(at + 1, slash),
    path: slash < 0 ? "" : rest.slice(slash + 1)
  }
}

const parseSocket = (rest: string): ServerUrl | string => {
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
  return { ...noSentinel, address: { _tag: "Standalone", place: { path } }, tls: false, db: databaseOf(db), ...who }
}

const isPort = (text: string): boolean => /^\d{1,5}$/.test(text) && Number(text) >= 1 && Number(text) <= 65_535

/** Nine digits are more databases than any server has. */
const isDatabase = (text: string): boolean => /^\d{0,9}$/.test(text)
const databaseOf = (text: string): number | undefined => (text === "" ? undefined : Number(text))

const credentials = (text: string | undefined): Pick<ServerUrl, "username" | "password"> | string => {
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
