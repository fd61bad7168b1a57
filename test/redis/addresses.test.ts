/** Where a URL leads, which URLs lead nowhere, and what a server is that cannot be worked with. */
import { execFileSync, spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import * as Net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { inspect } from "node:util"
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Clock, Config, ConfigProvider, Duration, Effect, Fiber, Layer, Redacted, Schedule, Schema } from "effect"
import { Transport } from "waybill"
import { IoRedis } from "waybill/redis"
import * as Port from "../../packages/testing/src/Port.ts"
import * as Address from "../../packages/waybill/src/redis/internal/connection/Address.ts"
import { run } from "../cli/Terminal.ts"

/** Pauses end, and a deadline of five seconds never strikes: what needs none is there at once, on a machine that is busy too. */
const withoutDeadlines = Effect.updateService(Clock.Clock, (clock) =>
  Object.assign(Object.create(clock) as Clock.Clock, {
    sleep: (duration: Duration.Duration) => (Duration.toSeconds(duration) < 5 ? clock.sleep(duration) : Effect.never)
  })
)

/** Why there is no connection. */
const refusal = Effect.fnUntraced(function* (options: IoRedis.Options) {
  const error = yield* Effect.scoped(
    Effect.flatMap(IoRedis.make(options), ({ commands }) =>
      Effect.flatMap(
        commands.run("SELECT", [], async ({ options: { host, port, path, db } }) => ({ host, port, path, db })),
        (where) => Effect.die(new Error(`connected to ${JSON.stringify(where)}`))
      )
    )
  ).pipe(Effect.flip, withoutDeadlines)
  assert(error instanceof Transport.TransportError)
  return { error, reason: error.reason }
})

const secret = "s3cr3t"
const hostile: ReadonlyArray<readonly [url: string, why: RegExp]> = [
  ["redis://h:1?db=3", /\?.*database goes behind the port/],
  ["redis://h:1/?db=3", /\?/],
  ["redis://h:1/0?timeout=5", /\?/],
  ["redis://h:1#3", /#.*database goes behind the port/],
  ["rediss://h:1/0#3", /#/],
  [`redis://:${secret}#x@h:1`, /%23/],
  [`redis://:${secret}?x@h:1`, /%3F/],
  [`redis://:#${secret}@h:1`, /%23/],
  [`redis://:${secret}/x@h:1`, /%2F/],
  [`redis://u:${secret}%zz@h:1`, /%25/],
  [`redis://u%f:${secret}@h:1`, /%25/],
  [`redis://:${secret}%ff@h:1`, /%25/],
  [`redis://:${secret} @h:1`, /white space/],
  [`redis://:${secret}@h:1\n`, /white space/],
  [`redis://:${secret}ö@h:1`, /ASCII/],
  [`redis://:${secret}@`, /no host/],
  ["redis://", /no host/],
  ["redis:///3", /no host/],
  ["redis://:6379", /no host/],
  ["redis://h:", /port/],
  ["redis://h:0", /port/],
  ["redis://h:65536", /port/],
  ["redis://h:port", /port/],
  ["redis://h:1:2", /port/],
  ["redis://h%20o:1", /no host/],
  ["redis://[::1", /no host/],
  ["redis://h:1/x", /database/],
  ["redis://h:1/1/2", /database/],
  ["redis://h:1/-1", /database/],
  ["redis://h:1/1.5", /database/],
  ["redis://h:1/99999999999", /database/],
  [`http://:${secret}@h`, /begins with none/],
  ["redis://h:1,h:2", /several hosts.*redis-cluster/],
  [`redis-sentinel://:${secret}@h`, /name the master/],
  [`redis-sentinel://:${secret}@h/`, /name the master/],
  ["redis-sentinel://h/my%20master", /name the master/],
  ["redis-sentinel://h/main/x", /database/],
  ["redis-sentinel://h/main/1/2", /database/],
  [`redis-sentinel://h/main?sentinelPassword=${secret}&sentinelPassword=x`, /once each/],
  [`redis-sentinel://h/main?sentinelPassword=${secret}%zz`, /%25/],
  [`redis-sentinel://h/main?password=${secret}`, /only natMap=/],
  [`redis-sentinel://:${secret}?@h/main`, /%3F/],
  [`redis-sentinel://:${secret}#@h/main`, /%23/],
  ["redis-cluster://", /no host/],
  ["redis-cluster://h,", /no host/],
  ["redis-cluster://h:1,h:0", /port/],
  ["redis-cluster://h:1/1", /database 0/],
  [`redis-cluster://:${secret}/x@h:1`, /%2F/],
  ["redis-cluster://h?sentinelPassword=x", /only natMap=/],
  ["redis-cluster://h?natMap=a:1", /NAT map/],
  ["redis-cluster://h?natMap=a:1=b:x", /NAT map/],
  [`valkeys://:${secret}@h`, /begins with none/],
  [`redis:h:1`, /begins with none/],
  [`${secret}`, /begins with none/],
  ["", /begins with none/],
  ["unix://", /no path/],
  ["unix:///", /path/],
  [`unix://${secret}`, /no path/],
  ["unix:///run/redis.sock#1", /#/],
  [`unix:///run/redis.sock?password=${secret}`, /only db=/],
  ["unix:///run/redis.sock?db=", /only db=/],
  ["redis+unix:///run/redis.sock?db=1&timeout=3", /only db=/],
  ["redis+unix:///run/redis%zz.sock", /%25/]
]

describe("case C8: URLs that lead nowhere", () => {
  it.live.each(hostile)("%j is refused at once", ([url, why]) =>
    Effect.gen(function* () {
      for (const given of [url, Redacted.make(url)]) {
        const { error, reason } = yield* refusal({ url: given, startTimeout: "Infinity" })
        assert.strictEqual(reason._tag, "InvalidUrl")
        assert.match(error.message, why)
        assert.notInclude(inspect(error, { depth: 20 }) + JSON.stringify(error) + error.stack, secret)
      }
    })
  )

  it.live("the command refuses them, too", () =>
    Effect.gen(function* () {
      for (const [url] of hostile) {
        if (url === "") continue
        for (const { code, err, out } of [yield* run(["topics"], { url }), yield* run(["topics", "--url", url])]) {
          assert.strictEqual(code, 1, url)
          assert.match(err, /^waybill: (?:REDIS_URL|--url) is not a valid server address: invalid server URL/)
          assert.notInclude(out + err, secret)
        }
      }
    })
  )

  it.live("options that make no address are refused too", () =>
    Effect.gen(function* () {
      for (const options of [{ port: 0 }, { port: 1.5 }, { port: Number.NaN }, { db: -1 }, { db: Number.NaN }]) {
        assert.strictEqual((yield* refusal(options)).reason._tag, "InvalidUrl")
      }
      for (const [options, why] of [
        [{ cluster: [] }, /empty/],
        [{ cluster: ["h:1", "h:x"] }, /port/],
        [{ cluster: ["h"], db: 1 }, /database 0/],
        [{ cluster: ["h"], natMap: { a: "" } }, /NAT map/],
        [{ sentinels: ["h"] }, /name the master/],
        [{ sentinels: ["h"], name: "a b" }, /name the master/],
        [{ cluster: ["h"], sentinels: ["h"], name: "main" }, /only one/],
        [{ host: "h", cluster: ["h"] }, /only one/]
      ] as const) {
        const { error, reason } = yield* refusal(options)
        assert.strictEqual(reason._tag, "InvalidUrl")
        assert.match(error.message, why)
      }
    })
  )

  it.live("what is right goes on", () =>
    Effect.gen(function* () {
      for (const [url, shown] of [
        ["redis://h", "h:6379"],
        ["REDIS://h:1/", "h:1"],
        ["rediss://:p%40ss%2F%23%3F@h.example:1/15", "h.example:1"],
        ["redis://u@[::1]:7/2", "[::1]:7"],
        ["redis://u:p:q@h_1:7", "h_1:7"],
        ["redis://u:p@q@h:7", "h:7"],
        ["unix:///run/redis.sock?db=2", "/run/redis.sock"],
        ["redis+unix://:secret@/run/my%20redis.sock", "/run/my redis.sock"],
        ["redis-cluster://u:p@h:7000,[::1]:7001,i", "h:7000,[::1]:7001,i:6379"],
        ["rediss-sentinel://u:p@h,i:1/main/3?sentinelPassword=x", "main (Sentinel h:26379,i:1)"]
      ] as const) {
        assert.strictEqual((yield* IoRedis.addressOf(url)).address, shown)
      }
      const { hasPassword } = yield* IoRedis.addressOf("redis-sentinel://h/main?sentinelPassword=x")
      assert.isTrue(hasPassword)
    })
  )

  it("a URL and options say the same, and options take precedence", () => {
    const url = (text: string) => {
      const parsed = Address.parse(text)
      assert(typeof parsed !== "string", String(parsed))
      return parsed
    }
    const sentinel = url(
      "rediss-sentinel://u:p%40@h,i:1/main/3?sentinelUsername=s&sentinelPassword=q%26&natMap=10.0.0.1:1=j:2"
    )
    const natMap = new Map([["10.0.0.1:1", { host: "j", port: 2 }]])
    const sentinels = [
      { host: "h", port: 26_379 },
      { host: "i", port: 1 }
    ]
    const { password, sentinelPassword, ...plain } = sentinel
    assert.deepStrictEqual(plain, {
      address: { _tag: "Sentinel", sentinels, name: "main", natMap },
      tls: true,
      db: 3,
      username: "u",
      sentinelUsername: "s"
    })
    assert.deepStrictEqual(
      [password, sentinelPassword].map((it) => it && Redacted.value(it)),
      ["p@", "q&"]
    )
    for (const given of [
      { sentinels: ["h", "i:1"], name: "main", natMap: { "10.0.0.1:1": "j:2" } },
      { name: "main" }
    ]) {
      assert.deepStrictEqual(Address.addressOf(given, sentinel.address), sentinel.address)
    }
    const cluster = url("redis-cluster://h:1,i").address
    const nodes = [
      { host: "h", port: 1 },
      { host: "i", port: 6379 }
    ]
    assert.deepStrictEqual(cluster, { _tag: "Cluster", nodes, natMap: new Map() })
    assert.deepStrictEqual(Address.addressOf({ cluster: ["h:1", "i"] }, sentinel.address), {
      _tag: "Cluster",
      nodes,
      natMap
    })
    for (const [given, place] of [
      [{ port: 7 }, { host: "127.0.0.1", port: 7 }],
      [{ host: "k" }, { host: "k", port: 6379 }],
      [{ path: "/run/s" }, { path: "/run/s" }]
    ] as const) {
      assert.deepStrictEqual(Address.addressOf(given, cluster), { _tag: "Standalone", place })
    }
    assert.deepStrictEqual(Address.reachedAt(natMap, { host: "10.0.0.1", port: 1 }), { host: "j", port: 2 })
    assert.deepStrictEqual(Address.reachedAt(natMap, { host: "10.0.0.2", port: 1 }), { host: "10.0.0.2", port: 1 })
  })

  it.live("every address can come from the configuration", () =>
    Effect.gen(function* () {
      const environment = ConfigProvider.fromUnknown({
        SENTINELS: "h,i:1",
        PASSWORD: secret,
        NAT: "a:1=b:1",
        MASTER: "a b"
      })
      const layer = IoRedis.layerConfig({
        sentinels: Config.Array(Schema.String, "SENTINELS"),
        name: Config.String("MASTER"),
        sentinelPassword: Config.Redacted("PASSWORD"),
        natMap: Config.Record(Schema.String, Schema.String, "NAT")
      })
      const error = yield* Layer.build(layer).pipe(
        Effect.provideService(ConfigProvider.ConfigProvider, environment),
        Effect.scoped,
        Effect.flip
      )
      assert.match(error.message, /name the master/)
    })
  )
})

describe("case D7: sockets in the file system", () => {
  it.live("by URL with user, password and database, by option, and from the command", () =>
    Effect.gen(function* () {
      const dir = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "waybill-socket-"))),
        (dir) => Effect.sync(() => rmSync(dir, { recursive: true }))
      )
      const path = join(dir, "redis.sock")
      yield* RedisServer.make({ args: ["--unixsocket", path, "--requirepass", "p#s"] })
      for (const scheme of ["unix", "redis+unix"]) {
        const url = `${scheme}://default:p%23s@${path}?db=3`
        const { commands } = yield* IoRedis.make({ url })
        assert.match(String(yield* commands.run("CLIENT", [], (client) => client.client("INFO"))), / db=3 /)
        const told = yield* run(["doctor", "--watch", "0"], { url })
        assert.match(told.out, /PersistenceOff/)
      }
      const { commands } = yield* IoRedis.make({
        path,
        password: Redacted.make("p#s"),
        client: { disableClientInfo: false, clientInfoTag: "mine" }
      })
      assert.match(String(yield* commands.run("CLIENT", [], (client) => client.client("INFO"))), / db=0 /)
      const absent = yield* refusal({ path: join(dir, "absent.sock"), startTimeout: 0 })
      assert.include(absent.error.message, "absent.sock")
    }).pipe(Effect.scoped)
  )
})

const hasOpenssl = spawnSync("openssl", ["version"]).status === 0

describe.skipIf(!hasOpenssl)("case C9: lines that are not secure, every pattern", () => {
  const fixture = Effect.gen(function* () {
    const dir = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "waybill-tls-"))),
      (dir) => Effect.sync(() => rmSync(dir, { recursive: true }))
    )
    const openssl = (...args: ReadonlyArray<string>) => execFileSync("openssl", args, { stdio: "ignore" })
    const curve = ["-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=localhost"]
    const serve = Effect.fnUntraced(function* (name: string, days: string) {
      const [key, request, certificate, names] = ["key", "csr", "crt", "ext"].map((end) =>
        join(dir, `${name}.${end}`)
      ) as [string, string, string, string]
      openssl("req", "-new", ...curve, "-keyout", key, "-out", request)
      execFileSync("sh", ["-c", `echo subjectAltName=DNS:localhost > ${names}`])
      openssl("x509", "-req", "-in", request, "-signkey", key, "-days", days, "-extfile", names, "-out", certificate)
      const port = yield* Port.reserve
      const files = ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate]
      const server = yield* RedisServer.make({ args: ["--tls-port", `${port}`, "--tls-auth-clients", "no", ...files] })
      return { port, plain: server.port, ca: readFileSync(certificate) }
    })
    return { good: yield* serve("good", "2"), expired: yield* serve("expired", "-1") }
  })

  it.live("E23 certificates, and who speaks TLS with whom: at once, for good, and in these words", () =>
    Effect.gen(function* () {
      const { expired, good } = yield* fixture
      const cases = [
        ["self-signed", { url: `rediss://localhost:${good.port}` }, /certificate.*self-signed/],
        ["wrong name", { url: `rediss://127.0.0.1:${good.port}`, tls: { ca: good.ca } }, /certificate.*127\.0\.0\.1/],
        ["expired", { url: `rediss://localhost:${expired.port}`, tls: { ca: expired.ca } }, /certificate.*expired/],
        ["plain to TLS", { url: `redis://localhost:${good.port}` }, /speaks TLS.*rediss:/],
        ["TLS to plain", { url: `rediss://localhost:${good.plain}` }, /does not speak TLS.*redis:/]
      ] as const
      for (const [name, options, words] of cases) {
        const { error, reason } = yield* refusal({ ...options, startTimeout: "Infinity" })
        assert.strictEqual(reason._tag, "TlsFailed", name)
        assert.isTrue(reason.permanent, name)
        assert.match(error.message, words, name)
        if (!("tls" in options)) {
          const told = yield* run(["topics"], { url: options.url })
          assert.match(told.err, words, name)
          assert.notMatch(told.err, /Start a server/, name)
        }
      }
    }).pipe(Effect.scoped)
  )

  it.live("a server that never says a word is not taken for one that speaks otherwise", () =>
    Effect.gen(function* () {
      const port = yield* Port.reserve
      const silent = Net.createServer(() => {})
      yield* Effect.acquireRelease(
        Effect.callback<void>((resume) => void silent.listen(port, "127.0.0.1", () => resume(Effect.void))),
        () => Effect.sync(() => silent.close())
      )
      for (const scheme of ["redis", "rediss"]) {
        const { reason } = yield* refusal({ url: `${scheme}://127.0.0.1:${port}`, startTimeout: "3 seconds" })
        assert.strictEqual(reason._tag, "Disconnected", scheme)
      }
    }).pipe(Effect.scoped)
  )
})

/** Answers as an older server does, one reply a command. */
const double = Effect.fnUntraced(function* (replies: (command: string, args: ReadonlyArray<string>) => string) {
  const port = yield* Port.reserve
  const sockets = new Set<Net.Socket>()
  const server = Net.createServer((socket) => {
    sockets.add(socket)
    socket.on("error", () => {})
    let text = ""
    socket.on("data", (bytes) => {
      text += bytes.toString("latin1")
      while (true) {
        const head = /^\*(\d+)\r\n/.exec(text)
        if (head === null) return
        const words: Array<string> = []
        let at = head[0].length
        for (let i = 0; i < Number(head[1]); i++) {
          const size = /^\$(\d+)\r\n/.exec(text.slice(at))
          if (size === null || text.length < at + size[0].length + Number(size[1]) + 2) return
          at += size[0].length
          words.push(text.slice(at, at + Number(size[1])))
          at += Number(size[1]) + 2
        }
        text = text.slice(at)
        socket.write(replies((words[0] ?? "").toUpperCase(), words.slice(1)), "latin1")
      }
    })
  })
  yield* Effect.acquireRelease(
    Effect.callback<void>((resume) => void server.listen(port, "127.0.0.1", () => resume(Effect.void))),
    () =>
      Effect.sync(() => {
        server.close()
        for (const socket of sockets) socket.destroy()
      })
  )
  return port
})

const bulk = (text: string) => `$${text.length}\r\n${text}\r\n`
const helloOf = (version: string, mode = "standalone") =>
  `%7\r\n${bulk("server")}${bulk("redis")}${bulk("version")}${bulk(version)}${bulk("proto")}:3\r\n${bulk("id")}:7\r\n` +
  `${bulk("mode")}${bulk(mode)}${bulk("role")}${bulk("master")}${bulk("modules")}*0\r\n`
const cannot = "-ERR Error compiling script (new function): user_script:1: unexpected symbol near '#'\r\n"

describe("case C12: servers that are too old", () => {
  it.live.each([
    [
      "6.2.14",
      (command: string) => (command === "HELLO" ? helloOf("6.2.14") : command === "EVAL" ? cannot : "+OK\r\n")
    ],
    [
      "5.0.14",
      (command: string) =>
        command === "HELLO"
          ? "-ERR unknown command `HELLO`, with args beginning with: \r\n"
          : command === "EVAL"
            ? cannot
            : command === "INFO"
              ? bulk("# Server\r\nredis_version:5.0.14\r\n")
              : "+OK\r\n"
    ]
  ] as const)("%s is refused on connecting, with its version and what is needed", ([version, replies]) =>
    Effect.gen(function* () {
      const port = yield* double(replies)
      const { error, reason } = yield* refusal({ port, startTimeout: "Infinity" })
      assert.deepInclude(reason, {
        _tag: "UnsupportedServer",
        permanent: true,
        needed: "Redis 7.0 or newer, or Valkey"
      })
      assert.include(error.message, `Redis ${version}`)
      const told = yield* run(["doctor"], { url: `redis://127.0.0.1:${port}` })
      assert.notStrictEqual(told.code, 0)
      assert.match(told.err, new RegExp(`Redis ${version.replaceAll(".", "\\.")}.*Redis 7\\.0 or newer`))
    }).pipe(Effect.scoped)
  )

  it.live.each([
    "ERR unknown command 'EVAL', with args beginning with: '#!lua'",
    "ERR Lua script support is disabled",
    "unsupported command 'eval'"
  ])("a server or a proxy that runs no scripts is refused, whatever its version: %s", (words) =>
    Effect.gen(function* () {
      const port = yield* double((command) =>
        command === "HELLO" ? helloOf("8.0.0") : command === "EVAL" ? `-${words}\r\n` : "+OK\r\n"
      )
      const { error, reason } = yield* refusal({ port, startTimeout: "Infinity" })
      assert.deepInclude(reason, { _tag: "UnsupportedServer", permanent: true })
      assert.include(error.message, "Redis 8.0.0, which runs no scripts")
    }).pipe(Effect.scoped)
  )

  it.live("it is the server that counts, not its version", () =>
    Effect.gen(function* () {
      const port = yield* double((command) => (command === "HELLO" ? helloOf("6.2.14") : ":1\r\n"))
      const { commands } = yield* IoRedis.make({ port })
      assert.strictEqual(yield* commands.run("INCR", "k", (client) => client.incr("k")), 1)
    }).pipe(Effect.scoped)
  )
})

describe("case C13: a part of something larger", () => {
  it.live("a node of a cluster and a Sentinel say at once what they are", () =>
    Effect.gen(function* () {
      const node = yield* RedisServer.make({ args: ["--cluster-enabled", "yes"] })
      const other = yield* refusal({ url: node.url, startTimeout: "Infinity" })
      assert.strictEqual(other.reason._tag, "UnsupportedServer")
      assert.match(other.error.message, /a node of a cluster \((?:Redis|Valkey) \d.*redis-cluster:/)
      const told = yield* run(["topics"], { url: node.url })
      assert.match(told.err, /a node of a cluster/)

      const port = yield* double((command, args) =>
        command === "HELLO"
          ? helloOf("7.0.15", "sentinel")
          : command === "PING"
            ? "+PONG\r\n"
            : `-ERR unknown command '${command}', with args beginning with: ${args[0] ?? ""}\r\n`
      )
      const sentinel = yield* refusal({ port, startTimeout: "Infinity" })
      assert.strictEqual(sentinel.reason._tag, "UnsupportedServer")
      assert.match(sentinel.error.message, /a Sentinel \(Redis 7\.0\.15\).*redis-sentinel:.*master/)
    }).pipe(Effect.scoped)
  )

  it.live("a cluster of one node serves all keys, and is served", () =>
    Effect.gen(function* () {
      const node = yield* RedisServer.make({ args: ["--cluster-enabled", "yes"] })
      const { error } = yield* refusal({ url: node.url })
      assert.match(error.message, /cluster/)
      const slots = Net.connect(node.port, "127.0.0.1", () => slots.write("CLUSTER ADDSLOTSRANGE 0 16383\r\n"))
      yield* Effect.addFinalizer(() => Effect.sync(() => slots.destroy()))
      const { commands } = yield* IoRedis.make({ url: node.url }).pipe(
        Effect.retry({ times: 100, schedule: Schedule.spaced("50 millis") })
      )
      const set = commands.run("SET", "k", (client) => client.set("k", "v"))
      assert.strictEqual(
        yield* Effect.retry(set, {
          times: 500,
          schedule: Schedule.spaced("20 millis"),
          while: (reason) => !reason.permanent
        }),
        "OK"
      )
    }).pipe(Effect.scoped)
  )
})

describe("a server that hangs up before it is asked anything", () => {
  it.live.each([
    ["-DENIED Redis is running in protected mode", "AuthenticationFailed"],
    ["-ERR max number of clients reached", "Refused"],
    ["-ERR upstream is going down", "Disconnected"],
    ["", "Disconnected"]
  ])("%j is %s", ([words, tag]) =>
    Effect.gen(function* () {
      const port = yield* Port.reserve
      const server = Net.createServer((socket) => {
        socket.on("error", () => {})
        // With what the client says left unread, closing resets the line, as it does behind a real server.
        socket.pause()
        socket.end(words === "" ? "" : `${words}\r\n`, () => socket.destroy())
      })
      yield* Effect.acquireRelease(
        Effect.callback<void>((resume) => void server.listen(port, "127.0.0.1", () => resume(Effect.void))),
        () => Effect.sync(() => server.close())
      )
      const { reason } = yield* refusal({ url: `redis://127.0.0.1:${port}`, startTimeout: "2 seconds" })
      assert.strictEqual(reason._tag, tag)
    }).pipe(Effect.scoped)
  )
})

describe("case C18: what was true a moment ago, every pattern", () => {
  it.live("E22 a password that is wrong since it was changed, and then nobody there", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.make({ args: ["--requirepass", "old"] })
      const { commands } = yield* IoRedis.make({ url: server.url, password: Redacted.make("old") })
      yield* commands.run("CONFIG", [], (client) => client.config("SET", "requirepass", "new"))
      yield* Effect.ignore(
        commands.run("CLIENT", [], (client) => client.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "no"))
      )
      const ask = commands.run("PING", [], (client) => client.ping(), { deadline: "1 second" }).pipe(Effect.flip)
      yield* ask.pipe(Effect.repeat({ until: (reason) => reason._tag === "AuthenticationFailed" }))
      yield* server.kill
      yield* Effect.sleep(300)
      const reason = yield* ask
      assert.strictEqual(reason._tag, "Disconnected")
      assert.include(reason.message, "ECONNREFUSED")
      // And the way back: what helps at once is found at once.
      const again = yield* Effect.forkChild(
        commands.run("PING", [], (client) => client.ping(), { deadline: "20 seconds" })
      )
      yield* server.start
      assert.strictEqual(yield* Fiber.join(again), "PONG")
    }).pipe(Effect.scoped)
  )
})

describe("case A11: a server that has become a replica", () => {
  it.live("is asked ever less often, up to every 2 seconds, and told once", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.make()
      const redis = yield* IoRedis.make({ url: server.url })
      const events: Array<string> = []
      yield* redis.listen((event) => events.push(`${event._tag} ${event.role}`))
      const admin = yield* IoRedis.make({ url: server.url })
      const set = redis.commands.run("SET", "k", (client) => client.set("k", "v"), { deadline: "500 millis" })
      assert.strictEqual(yield* set, "OK")
      yield* admin.commands.run("REPLICAOF", [], (client) => client.replicaof("127.0.0.1", "1"))
      const connected = () =>
        Effect.map(
          admin.commands.run("INFO", [], (client) => client.info("stats")),
          (text) => Number(/total_connections_received:(\d+)/.exec(text)?.[1])
        )
      const before = yield* connected()
      const until = performance.now() + 6000
      while (performance.now() < until) {
        assert.deepInclude(yield* Effect.flip(set), { _tag: "Refused", code: "READONLY" })
      }
      assert.isBelow((yield* connected()) - before, 14)
      assert.deepStrictEqual(events, ["Disconnected commands"])
      yield* admin.commands.run("REPLICAOF", [], (client) => client.replicaof("NO", "ONE"))
      yield* Effect.retry(set, { times: 20 })
      assert.deepStrictEqual(events, ["Disconnected commands", "Reconnected commands"])
    }).pipe(Effect.scoped)
  )
})
