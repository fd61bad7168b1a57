/**
 * The ledger's consumer as a process: `FAILPOINT=commit:sent:3 node ledger-worker.ts <orders>` kills itself when it has sent its
 * third commit. The place is around the connection's commands, where the library cannot know of it.
 */
import { writeSync } from "node:fs"
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Effect, Layer, Logger } from "effect"
import { Redis } from "ioredis"
import { Consumer, Transport } from "waybill"
import { IoRedis } from "waybill/redis"
import { bookkeeper, layerOf, type LedgerOrders } from "./Ledger.ts"
import type { Orders } from "./Orders.ts"

const orders: Orders & LedgerOrders = JSON.parse(process.argv[2] ?? "{}")

// With its parent this process ends too, however that went.
process.stdin.on("close", () => process.exit(1)).resume()

const say = (line: string) => void writeSync(1, `${line}\n`)
const die = () => process.kill(process.pid, "SIGKILL")

type Command = Parameters<Redis["sendCommand"]>[0]

const stepOf = ({ args, ...command }: Command): string | undefined => {
  const name = command.name.toLowerCase()
  if (name === "xreadgroup") return "take"
  if (name !== "evalsha") return undefined
  return args.slice(0, 16).some((arg) => String(arg).includes(":done:")) ? "commit" : "take"
}

const [step, moment, nth] = (process.env["FAILPOINT"] ?? "").split(":")
let times = 0
const send = Redis.prototype.sendCommand
Redis.prototype.sendCommand = function (this: Redis, command, ...rest) {
  const here = stepOf(command) === step && ++times === Number(nth)
  if (here && moment === "before") die()
  const sent = send.call(this, command, ...rest)
  if (here && moment === "sent") die()
  if (here && moment === "replied") void command.promise.then(die, die)
  return sent
}

const program = Effect.gen(function* () {
  // The older build of the upgrade test has the port under its former name.
  const { Transport: port = Transport.AtMostOnce } = Transport as { readonly Transport?: typeof Transport.AtMostOnce }
  const { lifecycle } = yield* port
  yield* lifecycle.listen((event) => {
    if (event._tag === "ConsumerStarted") say("ready")
  })
  yield* Consumer.run(bookkeeper)
})

const toStderr = Logger.make(({ logLevel, message }) => void writeSync(2, `${logLevel} ${JSON.stringify(message)}\n`))

program.pipe(
  Effect.scoped,
  Effect.provide(
    layerOf(orders.pattern).pipe(Layer.provide(IoRedis.layer({ url: orders.url, connectionName: orders.name })))
  ),
  Effect.provide(Logger.layer([toStderr])),
  NodeRuntime.runMain
)
