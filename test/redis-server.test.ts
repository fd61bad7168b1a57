import { execFile } from "node:child_process"
import { existsSync } from "node:fs"
import * as Net from "node:net"
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Effect, Exit, Scope } from "effect"

/** Sends one inline command and gives the reply, or "refused", or "silent" when that long nothing came. */
const ask = (port: number, command: string, silence = 20_000) =>
  Effect.callback<string>((resume) => {
    const socket = Net.connect(port, "127.0.0.1", () => socket.write(`${command}\r\n`))
    socket.setTimeout(silence, () => socket.destroy(new Error("silent")))
    socket.once("data", (reply) => {
      resume(Effect.succeed(reply.toString().trim()))
      socket.destroy()
    })
    socket.once("error", (error) => resume(Effect.succeed(error.message === "silent" ? "silent" : "refused")))
  })

const isGone = (pid: number) => {
  try {
    process.kill(pid, 0)
    return false
  } catch {
    return true
  }
}

describe("RedisServer", () => {
  it.effect("answers while the scope is open; nothing of it is left afterwards", () =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const server = yield* Scope.provide(RedisServer.make(), scope)
      const pid = yield* server.pid
      assert.strictEqual(yield* ask(server.port, "PING"), "+PONG")
      assert.isTrue(existsSync(server.dir))
      yield* Scope.close(scope, Exit.void)
      assert.isTrue(pid !== undefined && isGone(pid))
      assert.isFalse(existsSync(server.dir))
      assert.strictEqual(yield* ask(server.port, "PING"), "refused")
    })
  )

  it.effect("comes back on its port with what it had written, under another pid", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.make({ appendonly: "always" })
      const before = yield* server.pid
      yield* ask(server.port, "SET k v")
      yield* server.kill
      assert.isUndefined(yield* server.pid)
      assert.strictEqual(yield* ask(server.port, "PING"), "refused")
      yield* server.start
      assert.notStrictEqual(yield* server.pid, before)
      assert.strictEqual(yield* ask(server.port, "GET k"), "$1\r\nv")
      yield* server.stop
      assert.strictEqual(yield* ask(server.port, "PING"), "refused")
    })
  )

  it.effect("is silent in a pause, and can be stopped in one", () =>
    Effect.gen(function* () {
      const server = yield* RedisServer.make()
      yield* server.pause
      assert.strictEqual(yield* ask(server.port, "PING", 300), "silent")
      yield* server.resume
      assert.strictEqual(yield* ask(server.port, "PING"), "+PONG")
      yield* server.pause
      yield* server.stop
      assert.strictEqual(yield* ask(server.port, "PING"), "refused")
    })
  )

  it.effect("says what the program said when it will not start", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(RedisServer.make({ args: ["--maxmemory-policy", "nonsense"] }))
      assert.strictEqual(error._tag, "RedisServerUnavailable")
    })
  )

  it.live("dies with a process that is killed while it owns the server", () =>
    Effect.gen(function* () {
      const owner = `
        import { RedisServer } from "@waybill/testing"
        import { Effect } from "effect"
        Effect.runFork(Effect.scoped(Effect.gen(function* () {
          const server = yield* RedisServer.make()
          console.log(yield* server.pid)
          yield* Effect.never
        })))`
      const pid = yield* Effect.callback<number>((resume) => {
        const child = execFile(process.execPath, ["--input-type=module", "-e", owner], { cwd: import.meta.dirname })
        child.stdout?.once("data", (line) => {
          child.kill("SIGKILL")
          resume(Effect.succeed(Number(line)))
        })
      })
      yield* Effect.suspend(() => (isGone(pid) ? Effect.void : Effect.fail("still there"))).pipe(
        Effect.delay("20 millis"),
        Effect.retry({ times: 2000 })
      )
    })
  )
})
