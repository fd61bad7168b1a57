/**
 * Consumers of a list as they are often written by hand: `node naive-list-worker.ts <orders>`. The checker must find what
 * they lose.
 *
 * - `pop`: takes a message off the list, and then handles it.
 * - `lremFinally`: moves it to a processing list, handles it, and removes it from there in `finally`, whatever came of it.
 */
import { writeSync } from "node:fs"
import { History } from "@waybill/testing"
import { Redis } from "ioredis"
import { group, list, type NaiveListOrders } from "./Naive.ts"
import type { Orders } from "./Orders.ts"

const orders: Orders & NaiveListOrders = JSON.parse(process.argv[2] ?? "{}")
const { mode, name, url } = orders

process.stdin.on("close", () => process.exit(1)).resume()

const recorder = History.toFile(name, orders.history)
const say = (line: string) => void writeSync(1, `${line}\n`)
const commands = new Redis(url)
const processing = `${list}:processing:${name}`
let begun = 0

const handle = async (raw: string) => {
  const { fails, id }: { readonly id: string; readonly fails: boolean } = JSON.parse(raw)
  // It has no fence; this one makes sure that it does not fail for that.
  const fence = await commands.incr("naive:fence")
  recorder.record({ _tag: "Started", group, id, attempt: 1, fence })
  if (++begun === orders.dieIn) {
    recorder.record({ _tag: "Fault", fault: "Killed", target: name })
    process.kill(process.pid, "SIGKILL")
  }
  await new Promise((resolve) => setTimeout(resolve, 2))
  recorder.record({ _tag: "Ended", group, id, fence, outcome: fails ? "failure" : "success" })
  if (fails) throw new Error("the handler failed")
  recorder.record({ _tag: "Settled", group, id, fence, as: "Ack", stale: false })
}

say("ready")
while (true) {
  const raw = mode === "pop" ? await commands.rpop(list) : await commands.rpoplpush(list, processing)
  if (raw === null) {
    say("idle")
    await new Promise((resolve) => setTimeout(resolve, 20))
    continue
  }
  try {
    await handle(raw)
  } catch {
    // Logged, in a program.
  } finally {
    if (mode === "lremFinally") await commands.lrem(processing, 1, raw)
  }
}
