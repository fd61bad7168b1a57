/**
 * A server's health, read from `INFO`, and from `CONFIG GET save` and `COMMAND INFO` where they are permitted.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import type * as Health from "../../../Health.ts"
import type { Reason } from "../../../Transport.ts"
import type { Commands } from "../connection/Connection.ts"
import { helloOf } from "../connection/Handshake.ts"
import type { Servers } from "../connection/Servers.ts"

/** The health of every server that takes writes. */
export const healthOf = ({ masters }: Pick<Servers, "masters">, replicas: number): Health.Store["Service"] => ({
  problems: masters.pipe(
    Effect.flatMap((servers) =>
      Effect.forEach(
        servers,
        (one) =>
          Effect.map(ask(one, replicas), (problems) =>
            servers.length === 1
              ? problems
              : problems.map((problem) => ({ ...problem, detail: `${one.address}: ${problem.detail}` }))
          ),
        { concurrency: "unbounded" }
      )
    ),
    Effect.map((problems) => problems.flat()),
    Effect.catch((reason) => Effect.succeed([problemOf(reason)]))
  ),
  server: masters.pipe(
    Effect.flatMap((servers) => Effect.forEach(servers, server, { concurrency: "unbounded" })),
    Effect.map((names) => [...new Set(names.filter((name) => name !== undefined))].sort().join(", ") || undefined),
    Effect.catch(() => Effect.undefined)
  )
})

const ask = (commands: Commands, replicas: number): Effect.Effect<ReadonlyArray<Health.Problem>> =>
  Effect.gen(function* () {
    const text = yield* commands.run("INFO", [], (client) => client.info())
    const save = yield* commands
      .run("CONFIG GET save", [], (client) => client.config("GET", "save"))
      .pipe(
        Effect.map((answer) => (Array.isArray(answer) ? String(answer[1] ?? "") : undefined)),
        // Not permitted: then INFO has to be enough.
        Effect.catch(() => Effect.succeed(undefined))
      )
    return [...(yield* lacking(commands)), ...problemsOf(new Map(fieldsOf(text)), save, replicas)]
  }).pipe(Effect.catch((reason) => Effect.succeed([problemOf(reason)])))

/** Name and version, even if `INFO` is not permitted. */
const server = (commands: Commands): Effect.Effect<string | undefined> =>
  commands
    .run("HELLO", [], (client) => client.call("HELLO"))
    .pipe(
      Effect.map((reply) => helloOf(reply).server),
      Effect.catch(() => Effect.undefined)
    )

/** Commands that the patterns' scripts call, and that other servers, or servers that renamed them, may lack. */
const needed = ["EVALSHA", "XREADGROUP", "XPENDING", "XCLAIM", "XINFO", "LMPOP", "SMISMEMBER", "PEXPIRETIME"]

const lacking = (commands: Commands): Effect.Effect<ReadonlyArray<Health.Problem>> =>
  commands
    // An entry for each name, null if the server does not know it.
    .run("COMMAND INFO", [], (client) => client.call("COMMAND", "INFO", ...needed) as Promise<ReadonlyArray<unknown>>)
    .pipe(
      Effect.map((rows) => needed.filter((_, i) => rows[i] === null)),
      Effect.map((names): ReadonlyArray<Health.Problem> =>
        names.length === 0
          ? []
          : [
              {
                code: "Unsupported",
                impact: "degraded",
                detail: `the server lacks the commands ${names.join(", ")}: use Redis 7.0 or newer, or Valkey, and rename none of them`
              }
            ]
      ),
      // Not permitted: missing commands show when they are used.
      Effect.catch(() => Effect.succeed([]))
    )

const problemOf = (reason: Reason): Health.Problem => {
  if (reason._tag === "Refused" && reason.code === "LOADING") return loading
  if (reason._tag === "Refused" && reason.code === "READONLY") return readOnly(reason.detail)
  if (reason._tag === "UnsupportedServer") return { code: "Unsupported", impact: "down", detail: reason.message }
  if (reason._tag !== "NotPermitted") return { code: "Unreachable", impact: "down", detail: reason.message }
  // A server that rejects the command is there.
  return {
    code: "NotInspectable",
    impact: "degraded",
    detail: `${reason.message}. Whether the server keeps messages is not known: permit INFO, which is +info in its ACL`
  }
}

const readOnly = (detail: string): Health.Problem => ({ code: "ReadOnly", impact: "down", detail })

const loading: Health.Problem = {
  code: "Loading",
  impact: "down",
  detail: "the server is still loading its data from disk"
}

/** The fields of a reply to INFO: one a line, under headings. */
const fieldsOf = (text: string): Array<readonly [string, string]> =>
  [...text.matchAll(/^([^:#\r\n]+):([^\r\n]*)/gm)].map(([, name = "", value = ""]) => [name, value] as const)

/** A replica reports its progress to its master every second. */
const longestSilence = 10

/** The problems shown by INFO. `save` is the setting of that name, `undefined` if it may not be read. */
const problemsOf = (
  info: ReadonlyMap<string, string>,
  save: string | undefined,
  replicas: number
): ReadonlyArray<Health.Problem> => {
  const problems: Array<Health.Problem> = []
  const is = (name: string, value: string) => info.get(name) === value
  const degraded = (code: Health.Problem["code"], detail: string) => problems.push({ code, impact: "degraded", detail })

  if (is("loading", "1")) problems.push(loading)
  if (is("role", "slave")) {
    problems.push(
      readOnly(`the server is a replica of ${info.get("master_host")}:${info.get("master_port")} and takes no writes`)
    )
  }

  const policy = info.get("maxmemory_policy")
  if (policy !== undefined && policy !== "noeviction" && Number(info.get("maxmemory")) > 0) {
    degraded("EvictionPolicy", `maxmemory-policy is ${policy}: messages may be deleted. Set it to noeviction`)
  }

  if (is("aof_enabled", "0")) {
    if (save === "") {
      degraded("PersistenceOff", "nothing is written to disk: a restart loses every message. Set appendonly to yes")
    } else {
      degraded("SnapshotsOnly", "a crash loses what came after the last snapshot. Set appendonly to yes")
    }
  }
  const failing = ["aof_last_write_status", "aof_last_bgrewrite_status", "rdb_last_bgsave_status"].filter((name) =>
    is(name, "err")
  )
  if (failing.length > 0) degraded("PersistenceFailing", `the last write to disk failed: ${failing.join(", ")}`)

  const connected = Number(info.get("connected_slaves") ?? 0)
  if (connected < replicas) degraded("ReplicasMissing", `${connected} replicas are connected, ${replicas} are wanted`)
  for (let i = 0; i < connected; i++) {
    const replica = new Map(
      (info.get(`slave${i}`) ?? "").split(",").map((field) => field.split("=", 2) as [string, string])
    )
    const address = `${replica.get("ip")}:${replica.get("port")}`
    if (replica.get("state") !== "online") {
      degraded("ReplicasBehind", `the replica ${address} is ${replica.get("state")}`)
    } else if (Number(replica.get("lag")) > longestSilence) {
      degraded("ReplicasBehind", `the replica ${address} was last heard of ${replica.get("lag")} s ago`)
    }
  }
  return problems
}
