/**
 * One deed of one build of the library, in a process of its own: `node operator.ts <orders>` publishes jobs, or sends the
 * dead letters back, and ends.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Effect, Option } from "effect"
import { Inspector, Producer } from "waybill"
import { group, Job } from "./Jobs.ts"
import * as Pattern from "./Pattern.ts"

export type OperatorOrders = { readonly url: string; readonly pattern: Pattern.Name } & (
  | { readonly jobs: ReadonlyArray<readonly [id: string, job: Job]>; readonly delayMillis?: number }
  | { readonly redrive: true }
)

const orders: OperatorOrders = JSON.parse(process.argv[2] ?? "{}")

const deed = Effect.gen(function* () {
  if ("jobs" in orders) {
    const { delayMillis, jobs } = orders
    yield* Producer.publishAll(
      Job,
      jobs.map(([, job]) => job),
      (_, i) => ({ id: jobs[i]![0], ...(delayMillis === undefined ? {} : { delay: delayMillis }) })
    )
    return
  }
  const inspector = yield* Inspector.Inspector
  const letters = yield* inspector.deadLetters(Job.name, group, { after: Option.none(), limit: 100 })
  const [first, ...others] = letters.map(({ entry }) => entry)
  if (first !== undefined) yield* inspector.redrive(Job.name, group, [first, ...others])
})

deed.pipe(Effect.provide(Pattern.on(orders.pattern, orders.url)), NodeRuntime.runMain)
