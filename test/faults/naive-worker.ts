/**
 * Consumers as they are often written by hand: `node naive-worker.ts <orders>`. The checker must find what they break.
 *
 * - `ackFirst`: takes a message off the list of pending ones, and then handles it.
 * - `copyToRetry`: handles it first; when that fails, it adds a copy at the end of the stream and acknowledges the
 *   original, in two round trips.
 */
import { writeSync } from "node:fs"
import { History } from "@waybill/testing"
import { Redis } from "ioredis"
import { group, type NaiveOrders, stream } from "./Naive.ts"
import { block, type Orders } from "./Orders.ts"

const orders: Orders & NaiveOrders = JSON.parse(process.argv[2] ?? "{}")
const { lease, mode, name, url } = orders

process.stdin.on("close", () => process.exit(1)).resume()

const recorder = History.toFile(name, orders.history)
const say = (line: string) => void writeSync(1, `${line}\n`)
const reader = new Redis(url)
const commands = new Redis(url)

interface Entry {
  readonly entry: string
  readonly id: string
  readonly attempt: number
  readonly fails: number
}

const entriesOf = (raw: ReadonlyArray<readonly [string, ReadonlyArray<string>]>): Array<Entry> =>
  raw.map(([entry, fields]) => {
    const of = (name: string) => fields[fields.indexOf(name) + 1] ?? ""
    return { entry, id: of("id"), attempt: Number(of("attempt")), fails: Number(of("fails")) }
  })

let begun = 0
let retries = 0

const settled = (id: string, fence: number, as: "Ack" | "Retry") =>
  recorder.record({ _tag: "Settled", group, id, fence, as, stale: false })

const handle = async ({ attempt, entry, fails, id }: Entry) => {
  // It has no fence; this one makes sure that it does not fail for that.
  const fence = await commands.incr("naive:fence")
  if (mode === "ackFirst") {
    await commands.xack(stream, group, entry)
    settled(id, fence, "Ack")
  }
  recorder.record({ _tag: "Started", group, id, attempt, fence })
  if (++begun === orders.dieIn) {
    recorder.record({ _tag: "Fault", fault: "Killed", target: name })
    process.kill(process.pid, "SIGKILL")
  }
  if (begun === orders.blockIn) {
    recorder.record({ _tag: "Fault", fault: "Stopped", target: name })
    say("blocked")
    block(orders)
    recorder.record({ _tag: "Healed", target: name })
  }
  await new Promise((resolve) => setTimeout(resolve, 2))
  const failed = attempt <= fails
  recorder.record({ _tag: "Ended", group, id, fence, outcome: failed ? "failure" : "success" })
  if (mode === "ackFirst") return
  if (failed) {
    await commands.xadd(stream, "*", "id", id, "attempt", attempt + 1, "fails", fails)
    say("retried")
    if (++retries === orders.dieInRetry) {
      recorder.record({ _tag: "Fault", fault: "Killed", target: name })
      process.kill(process.pid, "SIGKILL")
    }
  }
  await commands.xack(stream, group, entry)
  settled(id, fence, failed ? "Retry" : "Ack")
}

const concurrency = 16

/** Entries of consumers that have been silent for longer than the lease, then new ones. */
const take = async (): Promise<Array<Entry>> => {
  const [, claimed] = (await commands.xautoclaim(stream, group, name, lease, "0", "COUNT", concurrency)) as [
    string,
    Array<[string, Array<string>]>
  ]
  if (claimed.length > 0) return entriesOf(claimed).map((entry) => ({ ...entry, attempt: entry.attempt + 1 }))
  const read = (await reader.xreadgroup(
    "GROUP",
    group,
    name,
    "COUNT",
    concurrency,
    "BLOCK",
    100,
    "STREAMS",
    stream,
    ">"
  )) as Array<[string, Array<[string, Array<string>]>]> | null
  return read === null ? [] : entriesOf(read[0]?.[1] ?? [])
}

// Who is asked to stop finishes what it has in hand: only a kill may lose it.
let leaving = false
process.once("SIGTERM", () => (leaving = true))

say("ready")
while (!leaving) await Promise.all((await take()).map(handle))
process.exit(0)
