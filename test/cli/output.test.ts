/**
 * What leaves the command: all of it, as text that steers no terminal, and with the exit code of what happened.
 */
import { assert, layer } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Effect } from "effect"
import { client } from "../redis/Fixture.ts"
import { type Options, process, run, type Run, running } from "./Terminal.ts"

/** Every character that can steer a terminal, or turn text around. */
const steering = [
  ...Array.from({ length: 0x20 }, (_, i) => i),
  ...Array.from({ length: 0x21 }, (_, i) => 0x7f + i),
  0x61c,
  0x200e,
  0x200f,
  ...Array.from({ length: 7 }, (_, i) => 0x2028 + i),
  ...Array.from({ length: 4 }, (_, i) => 0x2066 + i)
]
  .map((code) => String.fromCharCode(code))
  .join("")

const steers = (text: string) => [...text].find((character) => character !== "\n" && steering.includes(character))

/** Reads a little at a time, and goes on long after a process that does not wait would have ended. */
const slowly = (args: ReadonlyArray<string>, options: Options): Effect.Effect<Run> =>
  running(args, options, (child, resume) => {
    let out = ""
    let err = ""
    child.stdout?.setEncoding("utf8").on("data", (chunk) => {
      const wait = out === "" ? 500 : 2
      out += chunk
      child.stdout?.pause()
      setTimeout(() => child.stdout?.resume(), wait)
    })
    child.stderr?.on("data", (chunk) => (err += chunk))
    child.on("close", (code) => resume(Effect.succeed({ code, out, err })))
    child.stdin?.end()
  })

layer(RedisServer.layer(), { excludeTestServices: true, timeout: "60 seconds" })("waybill, what it prints", (it) => {
  it.effect(
    "case C1: a reader that is slow has all of it, and then the exit code",
    () =>
      Effect.gen(function* () {
        const server = yield* RedisServer.make()
        const redis = yield* client(server.url)
        const count = 1800
        yield* Effect.promise(async () => {
          const all = redis.pipeline()
          for (let i = 0; i < count; i++) {
            const topic = `${"long".repeat(30)}-${i}`
            all.sadd("waybill:topics", topic)
            all.xgroup("CREATE", `{waybill:${topic}}:stream`, "g", "0", "MKSTREAM")
            all.xadd(`{waybill:${topic}}:stream`, "*", "payload", "1")
          }
          await all.exec()
        })
        const doctor = yield* slowly(["doctor", "--json", "--watch", "0"], server)
        assert.strictEqual(doctor.code, 4)
        assert.isAbove(doctor.out.length, 390_000)
        assert.isAtLeast(JSON.parse(doctor.out).length, count)
        assert.match(doctor.err, /problems need attention\n$/)
        for (const args of [["topics"], ["stats"]]) {
          const { code, out } = yield* slowly([...args, "--json"], server)
          assert.deepStrictEqual([code, JSON.parse(out).length], [0, count], args.join())
        }
      }).pipe(Effect.scoped),
    180_000
  )

  it.effect("case C5: nothing that steers a terminal comes out, as text or as JSON", () =>
    Effect.gen(function* () {
      const { url } = yield* RedisServer.make()
      const redis = yield* client(url)
      const evil = `a${steering}z`
      // Names have no white space, which refuses some of them before anything is printed.
      const name = `n${[...steering].filter((one) => !/\s/.test(one)).join("")}`
      const broken = `${evil}-broken`
      const group = `g${name}`
      yield* Effect.promise(async () => {
        await redis.sadd("waybill:topics", name, broken)
        await redis.set(`{waybill:${broken}}:meta`, "of a wrong type")
        await redis.sadd(`{waybill:${name}}:groups`, group)
        await redis.xgroup("CREATE", `{waybill:${name}}:stream`, group, "0", "MKSTREAM")
        const fields = ["payload", evil, "id", evil, "key", evil, "headers", JSON.stringify({ [evil]: evil })]
        for (let i = 0; i < 2; i++) await redis.xadd(`{waybill:${name}}:stream`, "*", ...fields)
        await redis.xreadgroup("GROUP", group, evil, "COUNT", 1, "STREAMS", `{waybill:${name}}:stream`, ">")
        const letter = ["reason", evil, "cause", evil, "attempts", "1", "fence", "1", "id", evil, "at", "1"]
        await redis.xadd(
          `{waybill:${name}}:group:${group}:dead`,
          "1-1",
          ...letter,
          "origin",
          "1-1",
          "died",
          "1",
          ...fields
        )
        await redis.xadd(`{waybill:${name}}:group:${group}:dead`, "2-1", evil, evil)
      })
      const commands = [
        ["topics"],
        ["stats"],
        ["stats", name],
        ["tail", name],
        ["tail", name, "--group", group],
        ["pending", name, group],
        ["retries", name, group],
        ["consumers", name, group],
        ["dead", "list", name, group],
        ["dead", "show", name, group, "1-1"],
        ["dead", "show", name, group, "2-1"],
        ["dead", "show", name, group, `3-1${evil}`],
        ["dead", "redrive", name, group, "--dry-run"],
        ["dead", "redrive", name, group],
        ["dead", "discard", name, group, "--id", evil],
        ["pause", name, group],
        ["resume", name, group],
        ["pending", name, `${group}-other`],
        ["stats", `${name}-other`],
        ["stats", broken],
        ["publish", broken],
        ["doctor", "--watch", "0"],
        ["topics", "--prefix", evil],
        ["topics", "--url", evil],
        ["topics", "--password-file", evil],
        ["topics", `--${evil}`],
        [evil],
        ["stats", evil, evil],
        ["dead", "list", evil, group]
      ]
      const printed: Array<string> = []
      for (const args of commands) {
        for (const more of [[], ["--json"]]) {
          const { err, out } = yield* run([...args, ...more], { url, stdin: `${JSON.stringify(evil)}\n` })
          assert.notStrictEqual(out + err, "", JSON.stringify(args))
          assert.isUndefined(steers(out + err), `${JSON.stringify(args)}: ${JSON.stringify(out + err)}`)
          printed.push(out)
        }
      }
      // For a program it is what it was.
      const [letter] = JSON.parse((yield* run(["dead", "list", name, group, "--json"], { url })).out)
      assert.deepStrictEqual(
        [letter.id, letter.reason, letter.body, letter.headers],
        [evil, evil, evil, { [evil]: evil }]
      )
      // A process is no different.
      const wrong = yield* process(["stats", "nope\u009b31m\u202e"], { url })
      assert.deepStrictEqual([wrong.code, wrong.out, steers(wrong.err)], [3, "", undefined])
      assert.include(wrong.err, "nope\\u009b31m\\u202e")
    }).pipe(Effect.scoped)
  )

  it.effect("case C15: arguments that make no sense are one line and a hint, and no screen of help", () =>
    Effect.gen(function* () {
      const { url } = yield* RedisServer.RedisServer
      const cases: ReadonlyArray<readonly [args: ReadonlyArray<string>, said: RegExp, hint: string]> = [
        [["topics", "--nonsense"], /--nonsense/, "waybill topics --help"],
        [["--nonsense"], /--nonsense/, "waybill --help"],
        [["nonsense"], /nonsense/, "waybill --help"],
        [["dead", "nonsense"], /nonsense/, "waybill dead --help"],
        [["dead", "list"], /topic/, "waybill dead list --help"],
        [["dead", "list", "a b", "g"], /without white space/, "waybill dead list --help"],
        [["tail", "t", "-n", "x"], /x/, "waybill tail --help"],
        [["stats", "t", "--interval", "0"], /0\.2/, "waybill stats --help"],
        [["topics", "more"], /more/, "waybill topics --help"]
      ]
      for (const [args, said, hint] of cases) {
        const { code, err, out } = yield* run(args, { url })
        assert.deepStrictEqual([code, out], [1, ""], args.join(" "))
        assert.match(err, said)
        assert.include(err, hint)
        assert.strictEqual(err.trim().split("\n").length, 2, err)
      }
      const asked = yield* run(["topics", "--help"], { url })
      assert.deepStrictEqual([asked.code, asked.err], [0, ""])
      assert.include(asked.out, "USAGE")
    })
  )
})
