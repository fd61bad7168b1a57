import { spawn } from "node:child_process"
import { createServer } from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Stream } from "effect"
import { bundled } from "../../Program.ts"
import { client, main, start } from "./ServerProcess.ts"

/** A port at which nobody listens. */
const unused = Effect.callback<number>((resume) => {
  const server = createServer().listen(0, "127.0.0.1", () => {
    const address = server.address()
    assert(address !== null && typeof address === "object")
    server.close(() => resume(Effect.succeed(address.port)))
  })
})

/** The chat as a person starts it, with a keyboard and a screen to look at. */
const run = Effect.fnUntraced(function* (...args: ReadonlyArray<string>) {
  const ended = yield* Deferred.make<number | null>()
  const program = yield* Effect.promise(() => bundled(main))
  const child = yield* Effect.acquireRelease(
    Effect.sync(() => spawn(process.execPath, [program, ...args], { stdio: ["pipe", "pipe", "pipe"] })),
    (child) => Effect.sync(() => void child.kill("SIGKILL"))
  )
  let screen = ""
  const changed = new Set<() => void>()
  for (const output of [child.stdout, child.stderr]) {
    output.on("data", (chunk) => {
      screen += String(chunk)
      for (const look of changed) look()
    })
  }
  child.once("exit", (code) => Deferred.doneUnsafe(ended, Effect.succeed(code)))
  return {
    type: (line: string) => Effect.sync(() => child.stdin.write(`${line}\n`)),
    /** No more is typed. */
    close: Effect.sync(() => child.stdin.end()),
    ended: Deferred.await(ended),
    screen: () => screen,
    shows: (text: string) =>
      Effect.callback<void>((resume) => {
        const look = () => {
          if (!screen.includes(text)) return
          changed.delete(look)
          resume(Effect.void)
        }
        changed.add(look)
        look()
      }).pipe(Effect.timeoutOrElse({ duration: "40 seconds", orElse: () => Effect.die(`no "${text}" in ${screen}`) }))
  }
})

const terminal = (port: number, ...args: ReadonlyArray<string>) =>
  run("client", "--url", `http://127.0.0.1:${port}`, ...args)

describe("pnpm example chat client", () => {
  it.live(
    "talks, and lets nobody steer the terminal",
    () =>
      Effect.gen(function* () {
        const server = yield* start({})
        const chat = yield* client(() => server.port)
        yield* chat.createRoom({ room: "engines", user: "alan", id: "1" })
        yield* chat.sendMessage({
          room: "engines",
          user: "alan",
          id: "2",
          text: "\u001b[2J\u202eowned\u0007\nline two"
        })
        const ada = yield* terminal(server.port, "--user", "ada", "--room", "engines")
        yield* ada.shows("* you are in engines")
        yield* ada.shows("alan: \\u001b[2J\\u202eowned\\u0007\n    line two")
        yield* ada.type("Hello from a terminal")
        yield* ada.shows("ada: Hello from a terminal")
        yield* ada.type("/members")
        yield* ada.shows("  alan, offline")
        const open = yield* chat.connect({ user: "alan", tab: "tab", positions: {} }).pipe(
          Stream.runForEach(() => Effect.void),
          Effect.forkScoped
        )
        yield* ada.shows("* alan is online")
        yield* chat.sendMessage({ room: "engines", user: "alan", id: "3", text: "Welcome" })
        yield* ada.shows("alan: Welcome")
        yield* Fiber.interrupt(open)
        yield* ada.shows("* alan is offline")
        yield* ada.type("/join nonesuch")
        yield* ada.shows("* there is no room nonesuch")
        yield* ada.type("/create <b>")
        yield* ada.shows("* a room has a name of")
        yield* ada.type("/create machines")
        yield* ada.shows("* you are in machines")
        yield* ada.type("/rooms")
        yield* ada.shows("  machines: you are a member, 0 unread")
        // What was typed before the end arrives.
        yield* ada.type("The last word")
        yield* ada.close
        assert.strictEqual(yield* ada.ended, 0)
        const history = yield* chat.getRoomHistory({ room: "machines", user: "ada" })
        assert.deepStrictEqual(
          history.map(({ text, user }) => [user, text]),
          [["ada", "The last word"]]
        )
        // oxlint-disable-next-line no-control-regex -- these are what is looked for
        assert.notMatch(ada.screen(), /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u202e]/)
      }),
    120_000
  )

  it.live(
    "ends although nobody confirms what was written last, and says so",
    () =>
      Effect.gen(function* () {
        const server = yield* start({})
        const chat = yield* client(() => server.port)
        yield* chat.createRoom({ room: "engines", user: "alan", id: "1" })
        const ada = yield* terminal(server.port, "--user", "ada", "--room", "engines")
        yield* ada.shows("* you are in engines")
        yield* server.kill("SIGKILL")
        yield* ada.shows("* lost")
        yield* ada.type("Is anybody there?")
        yield* ada.close
        assert.strictEqual(yield* ada.ended, 1)
        assert.include(ada.screen(), "* not confirmed in engines: Is anybody there?")
        assert.include(ada.screen(), "What you wrote last may not have arrived")
      }),
    120_000
  )

  it.live(
    "ends although there was never anybody, and names what was typed",
    () =>
      Effect.gen(function* () {
        const nobody = yield* unused
        const [piped, ending, silent] = yield* Effect.all([
          terminal(nobody, "--user", "ada"),
          terminal(nobody, "--user", "ada", "--room", "engines"),
          terminal(nobody, "--user", "ada")
        ])
        yield* piped.type("hello")
        yield* piped.close
        yield* ending.type("/end")
        yield* silent.close
        assert.strictEqual(yield* piped.ended, 1)
        assert.include(piped.screen(), "* not confirmed: hello")
        assert.include(piped.screen(), "What you wrote last may not have arrived")
        assert.strictEqual(yield* ending.ended, 1)
        assert.include(ending.screen(), "* not confirmed: /join engines")
        // Who wanted nothing misses nothing.
        assert.strictEqual(yield* silent.ended, 0)
      }),
    120_000
  )

  it.live(
    "stays when the room to go into does not exist, and says how it is made",
    () =>
      Effect.gen(function* () {
        const server = yield* start({})
        const ada = yield* terminal(server.port, "--user", "ada", "--room", "engines")
        yield* ada.shows("* there is no room engines: /create engines makes it\n")
        yield* ada.type("/create engines")
        yield* ada.shows("* you are in engines")
        yield* ada.type("/end")
        assert.strictEqual(yield* ada.ended, 0)
        assert.notInclude(ada.screen(), "RoomNotFound")
      }),
    120_000
  )

  it.live(
    "refuses flags that are none, in a sentence that comes last",
    () =>
      Effect.gen(function* () {
        const address = "a server has an address such as http://127.0.0.1:3000"
        const refused = [
          { args: ["client"], why: "Missing required flag: --user" },
          { args: ["client", "--user", "<b>"], why: "and begins with a letter or digit" },
          { args: ["client", "--user", "ada", "--url", "nonsense"], why: address },
          { args: ["client", "--user", "ada", "--url", "ftp://127.0.0.1"], why: address },
          { args: ["client", "--user", "ada", "--url", "file:///"], why: address },
          { args: ["--port", "99999"], why: "a port is a number from 0 to 65535" }
        ]
        yield* Effect.forEach(
          refused,
          Effect.fnUntraced(function* ({ args, why }) {
            const { ended, screen } = yield* run(...args)
            assert.strictEqual(yield* ended, 1)
            assert.isTrue(screen().trimEnd().endsWith(why), screen())
            assert.isBelow(screen().trim().split("\n").length, 6, screen())
          }),
          { concurrency: 2 }
        )
      }),
    120_000
  )
})
