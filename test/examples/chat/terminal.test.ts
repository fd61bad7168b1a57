import { spawn } from "node:child_process"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Stream } from "effect"
import { client, start } from "./ServerProcess.ts"

const root = join(import.meta.dirname, "../../..")

/** The client as a person starts it, with a keyboard and a screen to look at. */
const terminal = Effect.fnUntraced(function* (port: number, ...args: ReadonlyArray<string>) {
  const ended = yield* Deferred.make<number | null>()
  const child = yield* Effect.acquireRelease(
    Effect.sync(() =>
      spawn(process.execPath, ["scripts/example.ts", "chat", "client", "--url", `http://127.0.0.1:${port}`, ...args], {
        cwd: root,
        stdio: ["pipe", "pipe", "pipe"]
      })
    ),
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
        assert.include(ada.screen(), "* nobody has confirmed to engines: Is anybody there?")
        assert.include(ada.screen(), "What you wrote last may not have arrived")
      }),
    120_000
  )

  it.live(
    "refuses a name that is none",
    () =>
      Effect.gen(function* () {
        const ada = yield* terminal(1, "--user", "<b>")
        assert.notStrictEqual(yield* ada.ended, 0)
        assert.include(ada.screen(), "the name of a user has 1 to 32")
      }),
    120_000
  )
})
