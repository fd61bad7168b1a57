import * as Net from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Effect, Fiber, Result } from "effect"
import { Redis } from "ioredis"
import { classify, codeOf, valuesOf } from "../../packages/waybill/src/redis/internal/connection/ServerError.ts"

const reply = (message: string) => Object.assign(new Error(message), { name: "ReplyError" })
const system = (syscall: string, code: string) => Object.assign(new Error(`${syscall} ${code}`), { syscall, code })
const named = (name: string, message: string) => Object.assign(new Error(message), { name })

/** What a reason says, short enough for a table. */
const short = (error: unknown) => {
  const reason = classify(error, "XADD", "orders")
  switch (reason._tag) {
    case "Disconnected":
      return reason.ambiguous ? "Disconnected, may have run" : "Disconnected, did not run"
    case "Refused":
      return `Refused ${reason.code}`
    case "WrongKeyType":
      return `WrongKeyType ${reason.key}`
    case "NotPermitted":
      return [
        `NotPermitted ${reason.command}`,
        ...(reason.key === undefined ? [] : [`on the key ${reason.key}`]),
        ...(reason.channel === undefined ? [] : [`on the channel ${reason.channel}`])
      ].join(" ")
    default:
      return reason._tag
  }
}

describe("case C11: ServerError.classify", () => {
  it.each([
    // The server refuses for now. Words of Redis 7.0.15, also as a script sees them.
    ["LOADING Redis is loading the dataset in memory", "Refused LOADING"],
    ["READONLY You can't write against a read only replica.", "Refused READONLY"],
    ["READONLY You can't write against a read only replica. script: 8ab, on @user_script:2.", "Refused READONLY"],
    ["NOREPLICAS Not enough good replicas to write.", "Refused NOREPLICAS"],
    ["OOM command not allowed when used memory > 'maxmemory'.", "Refused OOM"],
    ["OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'", "Refused OOM"],
    ["BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.", "Refused BUSY"],
    ["MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.", "Refused MASTERDOWN"],
    ["CLUSTERDOWN The cluster is down", "Refused CLUSTERDOWN"],
    ["TRYAGAIN Multiple keys request during rehashing of slot", "Refused TRYAGAIN"],
    ["MOVED 3999 127.0.0.1:6381", "Refused MOVED"],
    ["ASK 3999 127.0.0.1:6381", "Refused ASK"],
    [
      "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
      "Refused MISCONF"
    ],
    ["UNBLOCKED the stream key no longer exists", "Refused UNBLOCKED"],
    ["NOSCRIPT No matching script. Please use EVAL.", "Refused NOSCRIPT"],
    ["ERR max number of clients reached", "Refused MAXCLIENTS"],
    ["ERR max number of clients + cluster connections reached", "Refused MAXCLIENTS"],
    [
      "EXECABORT Transaction discarded because of: OOM command not allowed when used memory > 'maxmemory'.",
      "Refused OOM"
    ],
    [
      "ERR Error running script (call to f_8ab): @user_script:1: -OOM command not allowed when used memory > 'maxmemory'.",
      "Refused OOM"
    ],
    // It will not change its mind.
    ["WRONGTYPE Operation against a key holding the wrong kind of value", "WrongKeyType orders"],
    [
      "WRONGTYPE Operation against a key holding the wrong kind of value script: 8ab, on @user_script:1.",
      "WrongKeyType orders"
    ],
    [
      "ERR Error running script (call to f_8ab): @user_script:1: WRONGTYPE Operation against a key holding the wrong kind of value",
      "WrongKeyType orders"
    ],
    ["NOPERM this user has no permissions to run the 'xadd' command", "NotPermitted XADD"],
    [
      "NOPERM this user has no permissions to access one of the keys used as arguments",
      "NotPermitted XADD on the key orders"
    ],
    ["NOPERM No permissions to access a key", "NotPermitted XADD on the key orders"],
    ["NOPERM No permissions to access a channel", "NotPermitted XADD on the channel orders"],
    [
      "ERR The user executing the script can't run this command or subcommand script: 8ab, on @user_script:1.",
      "NotPermitted XADD"
    ],
    [
      "ERR The user executing the script can't access at least one of the keys mentioned in the command arguments script: 8ab",
      "NotPermitted XADD on the key orders"
    ],
    // Of Redis 7.4 and later, and Valkey.
    [
      "ERR ACL failure in script: User limited has no permissions to run the 'hset' command script: 8ab, on @user_script:1.",
      "NotPermitted hset"
    ],
    [
      "ERR ACL failure in script: No permissions to access a key script: 8ab, on @user_script:1.",
      "NotPermitted XADD on the key orders"
    ],
    [
      "ERR ACL failure in script: No permissions to access a channel script: 8ab, on @user_script:1.",
      "NotPermitted XADD on the channel orders"
    ],
    ["WRONGPASS invalid username-password pair or user is disabled.", "AuthenticationFailed"],
    ["NOAUTH Authentication required.", "AuthenticationFailed"],
    ["NOAUTH HELLO must be called with the client already authenticated, otherwise", "AuthenticationFailed"],
    ["ERR invalid password", "AuthenticationFailed"],
    ["DENIED Redis is running in protected mode because protected mode is enabled", "AuthenticationFailed"],
    // Ours, or not known.
    ["CROSSSLOT Keys in request don't hash to the same slot", "Rejected"],
    ["NOGROUP No such key 'orders' or consumer group 'g' in XREADGROUP with GROUP option", "Rejected"],
    ["EXECABORT Transaction discarded because of previous errors.", "Rejected"],
    ["ERR unknown command 'XNACK', with args beginning with: ", "Rejected"],
    ["ERR syntax error", "Rejected"],
    ["ERR Protocol error: invalid bulk length", "Rejected"],
    [
      "ERR Error running script (call to f_8ab): @user_script:1: user_script:1: attempt to index a nil value",
      "Rejected"
    ],
    ["", "Rejected"]
  ])("the server says %j: %s", (message, expected) => {
    assert.strictEqual(short(reply(message)), expected)
  })

  it.each([
    [new Error("Connection is closed."), "Disconnected, may have run"],
    [named("AbortError", "Command aborted due to connection close"), "Disconnected, may have run"],
    [new Error("Command timed out"), "Disconnected, may have run"],
    [named("MaxRetriesPerRequestError", "Reached the max retries per request limit"), "Disconnected, may have run"],
    [
      new Error("Too many Cluster redirections. Last error: Error: Connection is closed."),
      "Disconnected, may have run"
    ],
    [new Error("Socket timeout. Expecting data, but didn't receive any in 100ms."), "Disconnected, may have run"],
    [named("ParserError", 'Protocol error, got "H" as reply type byte'), "Disconnected, may have run"],
    [new Error('Unknown RESP type 72 "H". Please report this.'), "Disconnected, may have run"],
    [system("read", "ECONNRESET"), "Disconnected, may have run"],
    [system("write", "EPIPE"), "Disconnected, may have run"],
    [system("connect", "ECONNREFUSED"), "Disconnected, did not run"],
    [system("connect", "ETIMEDOUT"), "Disconnected, did not run"],
    [system("getaddrinfo", "ENOTFOUND"), "Disconnected, did not run"],
    [new Error("Stream isn't writeable and enableOfflineQueue options is false"), "Disconnected, did not run"],
    [named("ClusterAllFailedError", "Failed to refresh slots cache."), "Disconnected, did not run"],
    [new Error("None of startup nodes is available"), "Disconnected, did not run"],
    [new Error("All sentinels are unreachable and retry is disabled."), "Disconnected, did not run"],
    [new TypeError("client.nonsense is not a function"), "Rejected"],
    ["a string", "Rejected"]
  ])("ioredis says %s: %s", (error, expected) => {
    assert.strictEqual(short(error), expected)
  })

  it("keeps what was thrown as the cause, and the words of the server", () => {
    const cause = new Error("Connection is closed.")
    const disconnected = classify(cause, "GET")
    assert.isTrue(disconnected._tag === "Disconnected" && disconnected.cause === cause)
    const rejected = classify(reply("NOGROUP No such key"), "XREADGROUP")
    assert.isTrue(rejected._tag === "Rejected" && codeOf(rejected.detail) === "NOGROUP")
  })

  it("looks for the reason of a discarded transaction where ioredis keeps it", () => {
    const aborted = (...previousErrors: ReadonlyArray<Error>) =>
      Object.assign(reply("EXECABORT Transaction discarded because of previous errors."), { previousErrors })
    assert.strictEqual(short(aborted(reply("OOM command not allowed"))), "Refused OOM")
    assert.strictEqual(short(aborted(reply("NOPERM this user has no permissions"))), "NotPermitted XADD")
    assert.strictEqual(short(aborted()), "Rejected")
  })

  it("takes the values out of a pipeline, or throws the first error in it", () => {
    assert.deepStrictEqual(
      valuesOf([
        [null, 1],
        [null, "b"]
      ]),
      [1, "b"]
    )
    const error = reply("OOM command not allowed")
    assert.throws(
      () =>
        valuesOf([
          [null, 1],
          [error, undefined]
        ]),
      error
    )
    assert.throws(() => valuesOf(null), /not executed/)
  })
})

/** Asks a real server, with a client as plain as possible. */
const client = (port: number, options?: { readonly username: string; readonly password: string }) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const redis = new Redis({ port, retryStrategy: null, enableReadyCheck: false, ...options })
      redis.on("error", () => {})
      return redis
    }),
    (redis) => Effect.sync(() => redis.disconnect())
  )

const failure = (command: string, f: () => Promise<unknown>) =>
  Effect.tryPromise({ try: f, catch: (error) => short(error).replace("XADD", command) }).pipe(
    Effect.result,
    Effect.map((result) => (Result.isFailure(result) ? result.failure : `no failure: ${String(result.success)}`))
  )

const firstError = (redis: Redis) =>
  Effect.callback<string>((resume) => void redis.once("error", (error) => resume(Effect.succeed(short(error)))))

const inScript = (redis: Redis, ...command: ReadonlyArray<string>) =>
  redis.eval(`return redis.call(unpack(ARGV))`, 1, command[1] ?? "", ...command)

describe("ServerError.classify, asking a real server", () => {
  it.live("wrong type, missing permission and missing memory, direct and inside a script", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.make()
      const admin = yield* client(server.port)
      yield* Effect.promise(() => admin.set("orders", "a string"))
      assert.strictEqual(yield* failure("XADD", () => admin.xadd("orders", "*", "a", "b")), "WrongKeyType orders")
      assert.strictEqual(
        yield* failure("XADD", () => inScript(admin, "XADD", "orders", "*", "a", "b")),
        "WrongKeyType orders"
      )

      yield* Effect.promise(() => admin.acl("SETUSER", "limited", "on", ">pw", "~mine:*", "+@all", "-xadd"))
      const limited = yield* client(server.port, { username: "limited", password: "pw" })
      const mine = ["mine:orders", "*", "a", "b"] as const
      assert.strictEqual(yield* failure("XADD", () => limited.xadd(...mine)), "NotPermitted XADD")
      assert.strictEqual(yield* failure("XADD", () => inScript(limited, "XADD", ...mine)), "NotPermitted XADD")
      assert.strictEqual(yield* failure("GET", () => limited.get("others")), "NotPermitted GET on the key orders")
      assert.strictEqual(
        yield* failure("GET", () => limited.eval("return redis.call('GET', 'others')", 0)),
        "NotPermitted GET on the key orders"
      )

      yield* Effect.promise(() => admin.config("SET", "maxmemory", "1"))
      assert.strictEqual(yield* failure("SET", () => admin.set("k", "v")), "Refused OOM")
      assert.strictEqual(yield* failure("SET", () => inScript(admin, "SET", "k", "v")), "Refused OOM")
      assert.strictEqual(yield* failure("EVAL", () => admin.eval("#!lua\nreturn 1", 0)), "Refused OOM")
      assert.strictEqual(yield* failure("EXEC", () => admin.multi().set("k", "v").exec()), "Refused OOM")
    }).pipe(Effect.scoped)
  )

  it.live("unknown script, unknown group, deleted stream, full server, busy server", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.make({ args: ["--busy-reply-threshold", "100"] })
      const redis = yield* client(server.port)
      const other = yield* client(server.port)
      assert.strictEqual(yield* failure("EVALSHA", () => redis.evalsha("0".repeat(40), 0)), "Refused NOSCRIPT")
      const read = () => redis.xreadgroup("GROUP", "g", "c", "COUNT", 1, "BLOCK", 5000, "STREAMS", "orders", ">")
      assert.strictEqual(yield* failure("XREADGROUP", read), "Rejected")
      yield* Effect.promise(() => redis.xgroup("CREATE", "orders", "g", "$", "MKSTREAM"))
      const blocked = yield* Effect.forkChild(failure("XREADGROUP", read))
      yield* Effect.promise(() => other.info("clients")).pipe(
        Effect.repeat({ until: (info) => info.includes("blocked_clients:1") })
      )
      yield* Effect.promise(() => other.del("orders"))
      assert.strictEqual(yield* Fiber.join(blocked), "Refused UNBLOCKED")

      const script = yield* Effect.forkChild(failure("EVAL", () => redis.eval("while true do end", 0)))
      const busy = yield* failure("GET", () => other.get("k")).pipe(
        Effect.repeat({ until: (outcome) => outcome.startsWith("Refused") })
      )
      assert.strictEqual(busy, "Refused BUSY")
      yield* Effect.promise(() => other.script("KILL"))
      assert.strictEqual(yield* Fiber.join(script), "Rejected")

      yield* Effect.promise(() => other.config("SET", "maxclients", "2"))
      // A client that speaks first may be reset before it can read this, so listen only.
      const words = yield* Effect.callback<string>((resume) => {
        const socket = Net.connect(server.port, "127.0.0.1")
        socket.once("data", (bytes) => resume(Effect.succeed(bytes.toString().slice(1).trim())))
      })
      assert.strictEqual(short(reply(words)), "Refused MAXCLIENTS")
    }).pipe(Effect.scoped)
  )

  it.live("a replica that takes no writes, and one that waits for its master", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.make()
      const redis = yield* client(server.port)
      // Nobody listens on port 1: a master that is never found.
      yield* Effect.promise(() => redis.replicaof("127.0.0.1", "1"))
      assert.strictEqual(yield* failure("SET", () => redis.set("k", "v")), "Refused READONLY")
      assert.strictEqual(yield* failure("SET", () => inScript(redis, "SET", "k", "v")), "Refused READONLY")
      yield* Effect.promise(() => redis.config("SET", "replica-serve-stale-data", "no"))
      assert.strictEqual(yield* failure("GET", () => redis.get("k")), "Refused MASTERDOWN")
      yield* Effect.promise(() => redis.replicaof("NO", "ONE"))
      yield* Effect.promise(() => redis.config("SET", "min-replicas-to-write", "1"))
      assert.strictEqual(yield* failure("SET", () => redis.set("k", "v")), "Refused NOREPLICAS")
    }).pipe(Effect.scoped)
  )

  it.live("a password that is wrong, and one that is missing", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.make({ args: ["--requirepass", "secret"] })
      assert.strictEqual(yield* firstError(yield* client(server.port)), "AuthenticationFailed")
      const wrong = yield* client(server.port, { username: "default", password: "wrong" })
      assert.strictEqual(yield* firstError(wrong), "AuthenticationFailed")
      const right = yield* client(server.port, { username: "default", password: "secret" })
      assert.strictEqual(yield* failure("AUTH", () => right.auth("wrong")), "AuthenticationFailed")
    }).pipe(Effect.scoped)
  )
})
