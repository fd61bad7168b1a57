/**
 * The program of a contender's process: waits for a size, runs a round of it, and replies with the sample.
 */
import { Cause, Effect, Exit } from "effect"
import type { Reply } from "./Contender.ts"
import type { Size } from "./Measure.ts"
import { measures } from "./Measures.ts"

const [measureName, contender = "", port] = process.argv.slice(2)

const measure = measures.find(({ name }) => name === measureName)
if (measure === undefined) throw new Error(`unknown measure ${measureName}`)

const reply = (message: Reply) => process.send?.(message)

process.on("message", (size: Size) => {
  Effect.runCallback(measure.round(contender, Number(port), size), {
    onExit: (exit) =>
      reply(Exit.isSuccess(exit) ? { sample: exit.value } : { error: Cause.prettyErrors(exit.cause).join("; ") })
  })
})

// A client that reconnects forever would keep the process alive after the bench is gone.
process.once("disconnect", () => process.exit())
