/**
 * The same ledger as it is often written by hand: a list, a set of the ids that were processed, and SISMEMBER, the work and SADD
 * one after the other. It even looks into its processing list when it starts. The check must find what it breaks.
 */
import { writeSync } from "node:fs"
import { Redis } from "ioredis"
import type { Transfer } from "./Ledger.ts"
import type { Orders } from "./Orders.ts"

const orders: Orders & { readonly dieAfter: number } = JSON.parse(process.argv[2] ?? "{}")

process.stdin.on("close", () => process.exit(1)).resume()

const redis = new Redis(orders.url)
let commands = 0
/** Counts what it does, and dies after so many. */
const done = async <A>(promise: Promise<A>): Promise<A> => {
  const answer = await promise
  if (++commands === orders.dieAfter) process.kill(process.pid, "SIGKILL")
  return answer
}

while (await redis.rpoplpush("processing:transfers", "queue:transfers"));
writeSync(1, "ready\n")

while (true) {
  const raw = await redis.brpoplpush("queue:transfers", "processing:transfers", 1)
  if (raw === null) continue
  const { id, ...transfer }: Transfer & { readonly id: string } = JSON.parse(raw)
  try {
    if ((await done(redis.sismember("processed:transfers", id))) === 1) continue
    await done(redis.hincrby("balances", String(transfer.from), -transfer.cents))
    await done(redis.hincrby("balances", String(transfer.to), transfer.cents))
    await done(redis.hincrby("applied", id, 1))
    await done(redis.sadd("processed:transfers", id))
  } finally {
    await done(redis.lrem("processing:transfers", 1, raw))
  }
}
