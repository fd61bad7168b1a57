/**
 * What a new connection leads to, determined before anything is sent on it: a server that runs our scripts, or something
 * else. Decided by what the server does, not by its version, which is only for messages.
 *
 * @module
 */
import * as Net from "node:net"
import * as Tls from "node:tls"
import * as Effect from "effect/Effect"
import type { Redis } from "ioredis"
import { type Reason, TlsFailed, UnsupportedServer } from "../../../Transport.ts"
import { classify } from "./ServerError.ts"

/** The reply to HELLO. Empty if the server does not know HELLO. */
export interface Hello {
  readonly id: number | undefined
  readonly server: string | undefined
  readonly mode: string | undefined
  readonly role: string | undefined
}

export type Ask = <A>(command: string, f: () => Promise<A>) => Effect.Effect<A, Reason>

/** Stands in for the answer of a server that is there and gives none. */
export const untold =
  <B>(value: (reason: Reason) => B) =>
  <A>(self: Effect.Effect<A, Reason>): Effect.Effect<A | B, Reason> =>
    Effect.catch(self, (reason) => (unusable.has(reason._tag) ? Effect.fail(reason) : Effect.succeed(value(reason))))

const unusable: ReadonlySet<string> = new Set(["Disconnected", "AuthenticationFailed", "TlsFailed"])

/** The fields of a reply: a flat list of names and values, or an object, as the protocol has it. */
export const fieldsOf = (reply: unknown): ReadonlyMap<string, unknown> => {
  if (!Array.isArray(reply)) return new Map(typeof reply === "object" && reply !== null ? Object.entries(reply) : [])
  const fields = new Map<string, unknown>()
  for (let i = 0; i + 1 < reply.length; i += 2) fields.set(String(reply[i]), reply[i + 1])
  return fields
}

export const helloOf = (reply: unknown): Hello => {
  const fields = fieldsOf(reply)
  const text = (name: string) => (fields.has(name) ? String(fields.get(name)) : undefined)
  const id = Number(fields.get("id"))
  const version = text("version")
  const name = /^valkey$/i.test(text("server") ?? "") ? "Valkey" : "Redis"
  return {
    id: Number.isSafeInteger(id) ? id : undefined,
    server: version === undefined ? undefined : `${name} ${version}`,
    mode: text("mode"),
    role: text("role")
  }
}

/** Fails with what is wrong with the server, if that can be determined. */
export const inspect = Effect.fnUntraced(function* (
  client: Redis,
  hello: Hello,
  ask: Ask,
  clustered: boolean
): Effect.fn.Return<void, Reason> {
  if (hello.mode === "sentinel") {
    return yield* new UnsupportedServer({
      found: `a Sentinel${hello.server === undefined ? "" : ` (${hello.server})`}, which keeps no data`,
      needed:
        "redis-sentinel://host:port/name, or the options sentinels and name, which find the master that it watches"
    })
  }
  if (!clustered && hello.mode === "cluster" && !(yield* servesAllSlots(client, ask))) {
    return yield* new UnsupportedServer({
      found: `a node of a cluster${hello.server === undefined ? "" : ` (${hello.server})`}, which has only a part of the keys`,
      needed: "the address of the whole cluster: redis-cluster://, or the option cluster"
    })
  }
  const refused = yield* ask("eval", () => client.eval(probe, 0)).pipe(
    Effect.as(undefined),
    untold((reason) => reason)
  )
  // A missing permission, or a busy server, says nothing about what it can do.
  if (refused?._tag !== "Rejected") return
  const found = hello.server ?? (yield* versionOf(client, ask))
  if (/(?:unknown|unsupported) command|scripts?\b.*\bdisabled/i.test(refused.detail)) {
    return yield* new UnsupportedServer({ found: `${found}, which runs no scripts`, needed })
  }
  if (/compiling script|unexpected symbol|shebang|flag/i.test(refused.detail)) {
    return yield* new UnsupportedServer({ found: `${found}, which does not run scripts that begin with #!lua`, needed })
  }
})

/** The newest feature that every script needs. */
const probe = "#!lua flags=no-writes,allow-oom\nreturn 1"

const needed = "Redis 7.0 or newer, or Valkey"

const versionOf = (client: Redis, ask: Ask): Effect.Effect<string> =>
  ask("info", () => client.info("server")).pipe(
    Effect.map((text) => /^redis_version:(\S+)/m.exec(text)?.[1]),
    Effect.catch(() => Effect.undefined),
    Effect.map((version) => (version === undefined ? "a server of unknown version" : `Redis ${version}`))
  )

const slots = 16_384

/** Whether every key lives on this one node, as on managed servers that call a single one a cluster. */
const servesAllSlots = (client: Redis, ask: Ask): Effect.Effect<boolean, Reason> =>
  ask("cluster|slots", () => client.cluster("SLOTS")).pipe(
    Effect.map((reply) => {
      const nodes = new Set(reply.map(([, , master]) => `${master?.[0]}:${master?.[1]}`))
      return nodes.size === 1 && reply.reduce((sum, [from, to]) => sum + to - from + 1, 0) === slots
    }),
    untold(() => false)
  )

/** The messages of OpenSSL and Node for a certificate that is not accepted. */
const certificate =
  /^(?:CERT_|ERR_TLS_CERT|DEPTH_ZERO_SELF_SIGNED|SELF_SIGNED_CERT|UNABLE_TO_(?:VERIFY|GET|DECRYPT|DECODE)|INVALID_(?:CA|PURPOSE)|PATH_LENGTH|HOSTNAME_MISMATCH)/

/** Other TLS failures: versions and ciphers, a missing client certificate, and peers that do not speak TLS at all. */
export const tlsFailure = (error: unknown, address: string): TlsFailed | undefined => {
  if (!(error instanceof Error)) return undefined
  const code = "code" in error ? String(error.code) : ""
  if (certificate.test(code)) {
    return new TlsFailed({
      detail: `the certificate of ${address} is not accepted: ${error.message}. Give its authority in tls.ca, or the name it is for as host`
    })
  }
  if (/WRONG_VERSION_NUMBER|PACKET_LENGTH_TOO_LONG|HTTP_REQUEST|RECORD_LAYER/.test(code)) return speaksPlain(address)
  if (/^ERR_SSL_|^ERR_TLS_|^EPROTO$/.test(code))
    return new TlsFailed({ detail: `${address} refuses: ${error.message}` })
  return undefined
}

const speaksPlain = (address: string) =>
  new TlsFailed({ detail: `what listens at ${address} does not speak TLS. Use redis:// in place of rediss://` })

/** How long finding out may take. */
const patienceMillis = 1000

interface Place {
  readonly host?: string | undefined
  readonly port?: number | undefined
  readonly path?: string | undefined
}

const targetOf = (place: Place) =>
  place.path === undefined ? { host: place.host, port: place.port ?? 6379 } : { path: place.path }

/**
 * Why the server hangs up before it is asked anything: it has too many clients, or is in protected mode. A client that
 * speaks first loses these words to the reset caused by its own bytes; here nothing is said, only heard. Over TLS the
 * server hangs up without a word.
 */
export const unasked = (place: Place): Effect.Effect<Reason | undefined> =>
  Effect.callback<Reason | undefined>((resume) => {
    let heard = ""
    const done = () => {
      socket.destroy()
      const detail = /^-(.*)\r\n/.exec(heard)?.[1] ?? ""
      const reason = classify(Object.assign(new Error(detail), { name: "ReplyError" }), "connect")
      // Unknown words may come from a proxy on its way down.
      resume(Effect.succeed(reason._tag === "Rejected" ? undefined : reason))
    }
    const socket = Net.connect(targetOf(place))
    socket.on("data", (bytes) => {
      heard += bytes.toString("latin1")
    })
    socket.setTimeout(patienceMillis, done)
    socket.on("error", done)
    socket.once("close", done)
    return Effect.sync(() => socket.destroy())
  })

/** After a failed connection, checks on another one whether the other side does or does not speak TLS. */
export const mismatch = (place: Place, secure: boolean, address: string): Effect.Effect<TlsFailed | undefined> =>
  Effect.callback<TlsFailed | undefined>((resume) => {
    const target = targetOf(place)
    const done = (failed: TlsFailed | undefined) => {
      socket.removeAllListeners()
      socket.on("error", () => {})
      socket.destroy()
      resume(Effect.succeed(failed))
    }
    // It is only checked whether it speaks TLS at all, and nothing is said to it.
    const socket: Net.Socket = secure
      ? Net.connect(target, () => socket.write("PING\r\n"))
      : Tls.connect({ ...target, rejectUnauthorized: false }, () =>
          done(new TlsFailed({ detail: `what listens at ${address} speaks TLS. Use rediss:// in place of redis://` }))
        )
    if (secure)
      socket.once("data", (bytes) => done(/^[+-]/.test(bytes.toString("latin1")) ? speaksPlain(address) : undefined))
    socket.setTimeout(patienceMillis, () => done(undefined))
    socket.once("error", () => done(undefined))
    socket.once("close", () => done(undefined))
    return Effect.sync(() => socket.destroy())
  })
