/**
 * A ledger: transfers between accounts, applied by commits. Its model is a few additions; nothing of the library is in it.
 */
import { Effect, Schema } from "effect"
import { Commit, Consumer, Records, Topic } from "waybill"
import { RedisExactlyOnce, RedisStreams } from "waybill/redis"

export type Pattern = "exactly-once" | "streams"

const Transfer = Schema.Struct({ from: Schema.Int, to: Schema.Int, cents: Schema.Int })

export const Transfers = Topic.make("ledger/transfers", { payload: Transfer, guarantee: "transactional" })
export type Transfer = typeof Transfer.Type

export const group = "ledger"
export const accounts = 50

const balances = Commit.hash("balances")
/** How often each id was applied. */
const applied = Commit.hash("applied")

/** Ids are remembered for a millisecond, so that publishing one again stores it again: the consumer has to know. */
export const layerOf = (pattern: Pattern) =>
  pattern === "streams"
    ? RedisStreams.layer({ deduplicationWindow: 1, publishTimeout: "30 seconds" })
    : RedisExactlyOnce.layer({ deduplicationWindow: 1, publishTimeout: "30 seconds" })

export const bookkeeper = Consumer.make(Transfers, {
  group,
  concurrency: 64,
  prefetch: 500,
  lease: "1 second",
  // Every life of a worker ends with many of them in its hands.
  maxDeliveries: 1000
}).pipe(
  Consumer.transactional(({ cents, from, to }, { id }) =>
    Effect.succeed(
      Commit.make({
        writes: [
          balances.increment(String(from), -cents),
          balances.increment(String(to), cents),
          applied.increment(id, 1)
        ]
      })
    )
  )
)

/** What the ledger must say in the end. */
export const modelOf = (transfers: ReadonlyMap<string, Transfer>): ReadonlyMap<string, number> => {
  const model = new Map<string, number>()
  const add = (account: number, cents: number) => model.set(String(account), (model.get(String(account)) ?? 0) + cents)
  for (const { cents, from, to } of transfers.values()) {
    add(from, -cents)
    add(to, cents)
  }
  return model
}

/** What is wrong with a ledger: the check that the naive one must fail. */
export const complaints = (
  transfers: ReadonlyMap<string, Transfer>,
  found: { readonly balances: ReadonlyMap<string, string>; readonly applied: ReadonlyMap<string, string> }
): Array<string> => {
  const model = modelOf(transfers)
  const wrong: Array<string> = []
  for (const [account, cents] of model) {
    const has = Number(found.balances.get(account) ?? 0)
    if (has !== cents) wrong.push(`account ${account} has ${has}, and should have ${cents}`)
  }
  for (const id of transfers.keys()) {
    const times = found.applied.get(id) ?? "0"
    if (times !== "1") wrong.push(`${id} was applied ${times} times`)
  }
  if (found.applied.size > transfers.size)
    wrong.push(`${found.applied.size - transfers.size} ids that nobody published`)
  return wrong
}

export const read = Effect.gen(function* () {
  return {
    balances: yield* Records.read(Transfers, balances.all),
    applied: yield* Records.read(Transfers, applied.all)
  }
})

/** What a worker is told. */
export interface LedgerOrders {
  readonly pattern: Pattern
  readonly url: string
}

/** Where a worker kills itself, in the environment variable `FAILPOINT`: step, moment, and which time it gets there. */
export const failpointOf = (step: "take" | "commit", moment: "before" | "sent" | "replied", nth: number) =>
  `${step}:${moment}:${nth}`
