import { execFileSync, spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync } from "node:fs"
import * as Http from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { inspect } from "node:util"
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Config, ConfigProvider, Context, Deferred, Effect, Exit, Fiber, Layer, Random, Redacted, Scope } from "effect"
import { Transport } from "waybill"
import { IoRedis } from "waybill/redis"

const hasOpenssl = spawnSync("openssl", ["version"]).status === 0

const live = Layer.unwrap(Effect.map(RedisServer.RedisServer, (server) => IoRedis.layerUrl(server.url))).pipe(
  Layer.provideMerge(RedisServer.layer())
)

/** The server's list of its clients by name, without the one that asks. */
const clientNames = Effect.gen(function* () {
  const { commands } = yield* IoRedis.IoRedis
  const list = String(yield* commands.run("CLIENT", [], (client) => client.client("LIST")))
  return [...list.matchAll(/ name=(\S*)/g)].map(([, name = ""]) => name)
})

const clientId = Effect.gen(function* () {
  const [only, ...others] = yield* (yield* IoRedis.IoRedis).masters
  assert.lengthOf(others, 0)
  return yield* only!.clientId
})

describe("IoRedis", () => {
  it.live("one connection for commands, one more for each role, each with its name", () =>
    Effect.gen(function* () {
      const redis = yield* IoRedis.IoRedis
      assert.strictEqual(yield* redis.commands.run("SET", "k", (client) => client.set("k", "v")), "OK")
      assert.strictEqual(yield* redis.commands.run("GET", "k", (client) => client.get("k")), "v")
      const incarnations = yield* Effect.scoped(
        Effect.gen(function* () {
          const reader = yield* redis.dedicated("reader:größe {x}", [])
          yield* reader.ready
          assert.strictEqual(yield* reader.clientId, yield* reader.run("CLIENT", [], (client) => client.client("ID")))
          assert.notStrictEqual(yield* reader.clientId, yield* clientId)
          return yield* clientNames
        })
      )
      assert.strictEqual(incarnations.length, 2)
      assert.match(incarnations[0] ?? "", /^waybill:commands:[0-9a-z]+$/)
      assert.match(incarnations[1] ?? "", /^waybill:reader:gr__e_\{x\}:[0-9a-z]+$/)
      // The scope of the reader is closed, and so is its connection.
      assert.strictEqual((yield* clientNames).length, 1)
    }).pipe(Effect.provide(live))
  )

  it.live("a connection that blocks holds up nobody, and can be woken from another", () =>
    Effect.gen(function* () {
      const redis = yield* IoRedis.IoRedis
      const reader = yield* redis.dedicated("reader", [])
      const blocked = yield* Effect.forkChild(
        reader.run("BLPOP", "nothing", (client) => client.blpop("nothing", 0), { deadline: "Infinity" }),
        { startImmediately: true }
      )
      const id = yield* reader.clientId.pipe(Effect.repeat({ until: (id) => id !== undefined }))
      // Answered only once the reader blocks.
      yield* redis.commands
        .run("CLIENT", [], (client) => client.client("UNBLOCK", id ?? 0, "TIMEOUT"))
        .pipe(Effect.repeat({ until: (unblocked) => unblocked === 1 }))
      assert.isNull(yield* Fiber.join(blocked))
    }).pipe(Effect.scoped, Effect.provide(live))
  )

  it.live("runs scripts by hash with strings, numbers and bytes, and loads them when the server forgot", () =>
    Effect.gen(function* () {
      const { commands } = yield* IoRedis.IoRedis
      const echo = { name: "echo", lua: "return { KEYS[1], ARGV[1], #ARGV[2], ARGV[2], 7 }" }
      const bytes = new Uint8Array([255, 0, 13, 10])
      const expected = ["key", "42", 4]
      const answer = yield* commands.eval(echo, ["key"], [42, bytes])
      assert.deepStrictEqual((answer as Array<unknown>).slice(0, 3), expected)
      assert.strictEqual(yield* commands.run("SCRIPT", [], (client) => client.script("FLUSH")), "OK")
      const raw = (yield* commands.eval(echo, ["key"], ["ü", bytes.subarray(0, 2)], {
        buffers: true
      })) as Array<unknown>
      assert.deepStrictEqual(raw, [Buffer.from("key"), Buffer.from("ü"), 2, Buffer.from([255, 0]), 7])
      // Only the server's own report counts; otherwise the second call would run this script twice.
      const twice = { name: "twice", lua: `redis.call("INCR", KEYS[1]) return redis.error_reply("MYERR NOSCRIPT")` }
      yield* Effect.flip(commands.eval(twice, ["runs"], []))
      yield* Effect.flip(commands.eval(twice, ["runs"], []))
      assert.strictEqual(yield* commands.run("GET", "runs", (client) => client.get("runs")), "2")
    }).pipe(Effect.provide(live))
  )

  it.live("fails with the reason, and knows the key", () =>
    Effect.gen(function* () {
      const { commands } = yield* IoRedis.IoRedis
      yield* commands.run("SET", "orders", (client) => client.set("orders", "text"))
      const direct = yield* Effect.flip(commands.run("XLEN", "orders", (client) => client.xlen("orders")))
      assert.deepInclude(direct, { _tag: "WrongKeyType", key: "orders" })
      const append = { name: "append", lua: `return redis.call("XADD", KEYS[2], "*", "a", "b")` }
      const scripted = yield* Effect.flip(commands.eval(append, ["meta", "orders"], []))
      assert.deepInclude(scripted, { _tag: "WrongKeyType", key: "meta or orders" })
      const unknown = yield* Effect.flip(commands.run("NONSENSE", [], (client) => client.call("NONSENSE")))
      assert.deepInclude(unknown, { _tag: "Rejected", command: "NONSENSE" })
      const broken = { name: "broken", lua: "return nil .. 1" }
      assert.deepInclude(yield* Effect.flip(commands.eval(broken, [], [])), { _tag: "Rejected", command: "broken" })
      const defect = yield* Effect.exit(
        commands.run("GET", [], () => {
          throw new Error("a bug")
        })
      )
      assert.isTrue(Exit.isFailure(defect) && Exit.hasDies(defect))
    }).pipe(Effect.provide(live))
  )

  it.live("a pipeline, and a call of two steps that the connection parts", () =>
    Effect.gen(function* () {
      const { commands } = yield* IoRedis.IoRedis
      const results = yield* commands.run("MULTI", "a", (client) => client.multi().incr("a").incr("a").exec())
      assert.deepStrictEqual(results, [
        [null, 1],
        [null, 2]
      ])
      const parted = yield* Effect.flip(
        commands.run("INCR", "a", async (client) => {
          await client.incr("a")
          client.stream.end()
          await client.incr("a")
        })
      )
      // The second step was not sent, but the first ran: nobody may take this for "nothing happened".
      assert.deepInclude(parted, { _tag: "Disconnected", ambiguous: true })
      assert.strictEqual(yield* commands.run("GET", "a", (client) => client.get("a")), "3")
    }).pipe(Effect.provide(live))
  )

  it.live("interrupting takes back what was not sent, and leaves what others wait behind", () =>
    Effect.gen(function* () {
      const redis = yield* IoRedis.IoRedis
      const server = yield* RedisServer.RedisServer
      const before = yield* clientId
      yield* server.pause
      const inFlight = yield* Effect.forkChild(
        redis.commands.run("INCR", "sent", (client) => client.incr("sent")),
        {
          startImmediately: true
        }
      )
      yield* Fiber.interrupt(inFlight)
      yield* server.resume
      assert.strictEqual(yield* redis.commands.run("GET", "sent", (client) => client.get("sent")), "1")
      assert.strictEqual(yield* clientId, before)

      const disconnected = Deferred.makeUnsafe<void>()
      yield* redis.listen((event) => {
        if (event._tag === "Disconnected") Deferred.doneUnsafe(disconnected, Exit.void)
      })
      yield* server.kill
      yield* Deferred.await(disconnected)
      assert.isUndefined(yield* clientId)
      const waiting = yield* Effect.forkChild(
        redis.commands.run("INCR", "unsent", (client) => client.incr("unsent")),
        {
          startImmediately: true
        }
      )
      yield* Fiber.interrupt(waiting)
      yield* server.start
      yield* redis.commands.ready
      assert.isNull(yield* redis.commands.run("GET", "unsent", (client) => client.get("unsent")))
    }).pipe(Effect.scoped, Effect.provide(live))
  )

  it.live("an interrupted read destroys its own connection, so that the server gives it nothing more", () =>
    Effect.gen(function* () {
      const redis = yield* IoRedis.IoRedis
      const reader = yield* redis.dedicated("reader", [])
      yield* reader.ready
      const before = yield* reader.clientId
      const read = yield* Effect.forkChild(
        reader.run("BLPOP", "list", (client) => client.blpop("list", 0), { deadline: "Infinity" }),
        { startImmediately: true }
      )
      yield* redis.commands
        .run("INFO", [], (client) => client.info("clients"))
        .pipe(Effect.repeat({ until: (info) => info.includes("blocked_clients:1") }))
      yield* Fiber.interrupt(read)
      yield* redis.commands
        .run("INFO", [], (client) => client.info("clients"))
        .pipe(Effect.repeat({ until: (info) => info.includes("blocked_clients:0") }))
      yield* redis.commands.run("RPUSH", "list", (client) => client.rpush("list", "message"))
      assert.deepStrictEqual(yield* reader.run("BLPOP", "list", (client) => client.blpop("list", 1)), [
        "list",
        "message"
      ])
      assert.notStrictEqual(yield* reader.clientId, before)
    }).pipe(Effect.scoped, Effect.provide(live))
  )

  it.live("calls a setup with each client before it serves", () =>
    Effect.gen(function* () {
      const redis = yield* IoRedis.IoRedis
      const subscriber = yield* redis.dedicated("subscriber", [])
      const received: Array<string> = []
      const arrived = Deferred.makeUnsafe<void>()
      let clients = 0
      yield* subscriber.each((client) => {
        clients++
        client.on("message", (_channel, message) => {
          received.push(message)
          if (received.length === 2) Deferred.doneUnsafe(arrived, Exit.void)
        })
        client.subscribe("channel").catch(() => {})
      })
      yield* subscriber.run("PING", [], (client) => client.ping())
      yield* redis.commands.run("PUBLISH", [], (client) => client.publish("channel", "one"))
      const id = yield* subscriber.clientId
      yield* redis.commands.run("CLIENT", [], (client) => client.client("KILL", "ID", id ?? 0))
      yield* subscriber.run("PING", [], (client) => client.ping()).pipe(Effect.retry({ times: 3 }))
      yield* redis.commands.run("PUBLISH", [], (client) => client.publish("channel", "two"))
      yield* Deferred.await(arrived)
      assert.deepStrictEqual(received, ["one", "two"])
      assert.strictEqual(clients, 2)
    }).pipe(Effect.scoped, Effect.provide(live))
  )
})

describe("IoRedis.layer", () => {
  const connectReason = (options: IoRedis.Options) =>
    Effect.flip(Effect.scoped(IoRedis.make(options))).pipe(
      Effect.tap((error) => Effect.sync(() => assert.strictEqual(error.operation, "connect"))),
      Effect.map((error) => ({ error, reason: error.reason }))
    )

  it.live("reads its options from the configuration", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.make({ args: ["--requirepass", "secret"] })
      const layer = IoRedis.layerConfig({
        host: Config.String("REDIS_HOST").pipe(Config.withDefault("127.0.0.1")),
        port: Config.Port("REDIS_PORT"),
        password: Config.Redacted("REDIS_PASSWORD"),
        db: Config.succeed(3)
      })
      const environment = ConfigProvider.fromUnknown({ REDIS_PORT: `${server.port}`, REDIS_PASSWORD: "secret" })
      const context = yield* Layer.build(layer).pipe(Effect.provideService(ConfigProvider.ConfigProvider, environment))
      const { commands } = Context.get(context, IoRedis.IoRedis)
      const info = yield* commands.run("CLIENT", [], (client) => client.client("INFO"))
      assert.include(info, " db=3 ")
      assert.include(info, " resp=3")
    }).pipe(Effect.scoped)
  )

  it.live("reads user, password and database from a URL, and shows them to nobody", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.make()
      const secret = "p@ss/wörd"
      const admin = yield* IoRedis.make({ url: server.url })
      yield* admin.commands.run("ACL", [], (client) => client.acl("SETUSER", "ada", "on", `>${secret}`, "~*", "+@all"))
      const url = `redis://ada:${encodeURIComponent(secret)}@127.0.0.1:${server.port}/2`
      const ada = yield* IoRedis.make({ url: Redacted.make(url) })
      assert.include(yield* ada.commands.run("CLIENT", [], (client) => client.client("INFO")), " db=2 ")
      assert.strictEqual(yield* ada.commands.run("ACL", [], (client) => client.acl("WHOAMI")), "ada")
      assert.notInclude(inspect(ada, { depth: 20 }), secret)

      const wrong = yield* connectReason({ url, password: Redacted.make("secret-but-wrong") })
      assert.strictEqual(wrong.reason._tag, "AuthenticationFailed")
      assert.notInclude(inspect(wrong, { depth: 20 }) + JSON.stringify(wrong), "secret-but-wrong")
      const nonsense = yield* connectReason({ url: "http://ada:secret@127.0.0.1" })
      assert.strictEqual(nonsense.reason._tag, "InvalidUrl")
      assert.notInclude(inspect(nonsense, { depth: 20 }), "secret")
    }).pipe(Effect.scoped)
  )

  it.live("fails at once when the server refuses the connection", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.make({ args: ["--requirepass", "secret"] })
      const { port } = server
      const right = Redacted.make("secret")
      const admin = yield* IoRedis.make({ port, password: right })
      yield* admin.commands.run("ACL", [], (client) => client.acl("SETUSER", "zero", "on", ">pw", "+@all", "-select"))
      const tags = yield* Effect.forEach(
        [
          { port },
          { port, password: Redacted.make("wrong") },
          { port, username: "nobody", password: right },
          { port, password: right, db: 99 },
          { port, username: "zero", password: Redacted.make("pw"), db: 1 }
        ],
        (options) => Effect.map(connectReason({ ...options, startTimeout: "Infinity" }), ({ reason }) => reason._tag)
      )
      const noAuth = "AuthenticationFailed"
      assert.deepStrictEqual(tags, [noAuth, noAuth, noAuth, "Rejected", "NotPermitted"])
    }).pipe(Effect.scoped)
  )

  it.live("asks for no more permissions than the commands it is given", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.make()
      const admin = yield* IoRedis.make({ url: server.url })
      yield* admin.commands.run("ACL", [], (client) => client.acl("SETUSER", "poor", "on", ">pw", "~k", "+get"))
      const poor = yield* IoRedis.make({ port: server.port, username: "poor", password: Redacted.make("pw") })
      assert.isNull(yield* poor.commands.run("GET", "k", (client) => client.get("k")))
      const denied = yield* Effect.flip(poor.commands.run("SET", "k", (client) => client.set("k", "v")))
      assert.deepInclude(denied, { _tag: "NotPermitted", command: "SET" })
    }).pipe(Effect.scoped)
  )

  it.live("says where it found no server, and what to do", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.make()
      yield* server.stop
      const { error, reason } = yield* connectReason({ port: server.port, startTimeout: "2 seconds" })
      assert.deepInclude(reason, { _tag: "Disconnected", ambiguous: false, permanent: false })
      assert.match(
        error.message,
        new RegExp(`127.0.0.1:${server.port} within 2s \\(startTimeout\\): connect ECONNREFUSED.*Start a server`)
      )
      const nowhere = yield* connectReason({ host: "no-such-host.invalid", startTimeout: "200 millis" })
      assert.include(nowhere.error.message, "no-such-host.invalid:6379")
    }).pipe(Effect.scoped)
  )

  it.live("may start before its server", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.make()
      yield* server.stop
      const starting = yield* Effect.forkChild(IoRedis.make({ port: server.port, startTimeout: "Infinity" }), {
        startImmediately: true
      })
      yield* server.start
      const redis = yield* Fiber.join(starting)
      assert.strictEqual(yield* redis.commands.run("PING", [], (client) => client.ping()), "PONG")
    }).pipe(Effect.scoped)
  )

  it.live("waits for a server that is loading its data, and says so to those who cannot wait", () =>
    Effect.gen(function* () {
      const keys = 120
      // 25 ms a key, and a look at the clients between two of them: the handles of Redis' own tests.
      const slowly = [
        "--key-load-delay",
        "25000",
        "--loading-process-events-interval-bytes",
        "1024",
        "--rdbcompression",
        "no"
      ]
      const server = yield* RedisServer.make({ args: slowly })
      const redis = yield* IoRedis.make({ url: server.url })
      yield* Effect.forEach(Array.from({ length: keys }), (_, i) =>
        redis.commands.run("SET", `key:${i}`, (client) => client.set(`key:${i}`, "x".repeat(500)))
      )
      yield* redis.commands.run("SAVE", [], (client) => client.save())
      yield* server.kill
      const restart = yield* Effect.forkChild(server.start, { startImmediately: true })
      const impatient = yield* redis.commands
        .run("DBSIZE", [], (client) => client.dbsize(), { deadline: 0 })
        .pipe(Effect.flip, Effect.repeat({ until: (reason) => reason._tag === "Refused" }))
      assert.deepInclude(impatient, { _tag: "Refused", code: "LOADING" })
      assert.strictEqual(
        yield* redis.commands.run("DBSIZE", [], (client) => client.dbsize(), { deadline: "30 seconds" }),
        keys
      )
      yield* Fiber.join(restart)
    }).pipe(Effect.scoped)
  )

  it.live.skipIf(!hasOpenssl)("speaks TLS with a server it can verify, and nothing with another", () =>
    Effect.gen(function* () {
      const dir = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "waybill-tls-"))),
        (dir) => Effect.sync(() => rmSync(dir, { recursive: true }))
      )
      const [key, certificate] = [join(dir, "key.pem"), join(dir, "certificate.pem")]
      const subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
      const made = ["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2"]
      execFileSync("openssl", [...made, ...subject, "-keyout", key, "-out", certificate], { stdio: "ignore" })
      const files = ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate]
      // A port that somebody has taken is none that a server starts with.
      const port = yield* Random.nextIntBetween(30_000, 32_000).pipe(
        Effect.tap((port) =>
          RedisServer.make({ args: ["--tls-port", `${port}`, "--tls-auth-clients", "no", ...files] })
        ),
        Effect.retry({ times: 3 })
      )
      const ca = readFileSync(certificate)
      const redis = yield* IoRedis.make({ url: `rediss://localhost:${port}`, tls: { ca } })
      assert.strictEqual(yield* redis.commands.run("PING", [], (client) => client.ping()), "PONG")
      const unknown = yield* connectReason({ url: `rediss://localhost:${port}`, startTimeout: "3 seconds" })
      assert.include(unknown.error.message, "self-signed certificate")
      const misnamed = yield* connectReason({ host: "127.0.0.1", port, tls: { ca }, startTimeout: "3 seconds" })
      assert.include(misnamed.error.message, "127.0.0.1 is not in the cert's list")
    }).pipe(Effect.scoped)
  )

  it.live("notices a server of another kind", () =>
    Effect.gen(function* () {
      const server = yield* Effect.acquireRelease(
        Effect.callback<Http.Server>((resume) => {
          const server = Http.createServer().listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
        }),
        (server) => Effect.sync(() => server.close())
      )
      const { port } = Object(server.address())
      const { reason } = yield* connectReason({ port })
      assert.deepInclude(reason, {
        _tag: "Rejected",
        detail: `what listens at 127.0.0.1:${port} does not speak the Redis protocol`
      })
    }).pipe(Effect.scoped)
  )

  it.live("its errors are the errors of the port, by reason", () =>
    Effect.gen(function* () {
      const caught = yield* Effect.scoped(IoRedis.make({ port: 1, startTimeout: 0 })).pipe(
        Effect.as("connected"),
        Effect.catchReason("TransportError", "Disconnected", (reason) => Effect.succeed(`${reason.ambiguous}`))
      )
      assert.strictEqual(caught, "false")
      const scope = yield* Scope.make()
      assert.instanceOf(
        yield* Effect.flip(Scope.provide(IoRedis.make({ port: 1, startTimeout: 0 }), scope)),
        Transport.TransportError
      )
    })
  )
})
