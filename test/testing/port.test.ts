import { execFileSync } from "node:child_process"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Random } from "effect"
// Not exported: who writes tests asks for a server, not for a port.
import * as Port from "../../packages/testing/src/Port.ts"

/** The same draws for everybody who asks. */
const sameLuck = Random.withSeed("the same luck")

describe.skipIf(process.platform !== "linux")("a reserved port", () => {
  it.effect("is nobody else's until the scope closes, although nobody listens on it", () =>
    Effect.gen(function* () {
      const mine = yield* sameLuck(Port.reserve)
      assert.notStrictEqual(yield* sameLuck(Port.reserve), mine)
      const program = `
        import { Effect, Random } from "effect"
        import * as Port from "../../packages/testing/src/Port.ts"
        const port = Effect.scoped(Random.withSeed("the same luck")(Port.reserve))
        console.log(await Effect.runPromise(port))`
      const theirs = execFileSync(process.execPath, ["--input-type=module", "-e", program], {
        cwd: import.meta.dirname,
        encoding: "utf8"
      })
      assert.notStrictEqual(Number(theirs), mine)
    }).pipe(Effect.scoped)
  )
})
