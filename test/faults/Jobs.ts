/**
 * The messages of the fault tests: each says what happens in its handler. Handlers record the history.
 */
import { History } from "@waybill/testing"
import { Data, Effect, Schedule, Schema } from "effect"
import { Consumer, type Delivery, Topic } from "waybill"

export const Job = Topic.make("jobs", {
  payload: Schema.Struct({
    /**
     * - `work`: takes `millis`.
     * - `fail`: takes `millis` and fails, `times` times (always by default).
     * - `hang`: never ends by itself the first time it is handled.
     * - `defect`: takes `millis` and dies of a defect, `times` times (always by default).
     * - `block`: stands in the way of everything else in its process until the test says so, `times` times (always by default).
     * - `die`: takes its process down, `times` times (always by default), with SIGKILL.
     * - `write`: takes `millis`, then writes to a store outside, under its fence.
     * - `writeAndDie`: the same, and then takes its process down, `times` times.
     */
    act: Schema.Literals(["work", "fail", "hang", "defect", "block", "die", "write", "writeAndDie"]),
    millis: Schema.optional(Schema.Number),
    times: Schema.optional(Schema.Number)
  })
})

export type Job = Parameters<typeof Job.encode>[0]

export class Failed extends Data.TaggedError("Failed")<{ readonly id: string }> {}

/** The name that the workers of older builds join too (upgrade.test.ts). */
export const group = "crew"

/** What the handlers of one process need from it. */
export interface Site {
  readonly recorder: History.Recorder
  /** Tells the test. */
  readonly say: (line: string) => void
  /** Returns when the test says so; until then nothing else happens in this process. */
  readonly block: () => void
  /** Ends this process with SIGKILL; the next instruction is not reached. */
  readonly die: () => void
  /** Writes to the store outside unless that has seen a greater fence: then it is the how many-th write, otherwise 0. */
  readonly write: (id: string, fence: number) => Effect.Effect<number>
}

export interface Terms {
  readonly concurrency?: number
  readonly prefetch?: number
  readonly lease?: string
  readonly shutdown?: string
  readonly maxDeliveries?: number
  readonly leaseLost?: Consumer.LeaseLost
}

/** Two retries, then a dead letter. */
export const policy = Schedule.spaced("100 millis").pipe(Schedule.upTo({ times: 2 }))

/** The consumer under test. */
export const consumer = (site: Site, terms: Terms = {}) =>
  Consumer.make(Job, {
    group,
    concurrency: terms.concurrency ?? 8,
    prefetch: terms.prefetch ?? 64,
    // Durations arrive as text when they come from another process.
    // Longer than a busy machine holds up a process: the verdict forgives a stale fence only to those whom the test has stopped.
    lease: (terms.lease ?? "2 seconds") as "2 seconds",
    shutdown: (terms.shutdown ?? "5 seconds") as "5 seconds",
    maxDeliveries: terms.maxDeliveries ?? 5,
    leaseLost: terms.leaseLost ?? "interrupt"
  }).pipe(
    Consumer.process(History.observe(site.recorder)(perform(site))),
    Consumer.onFailure({ Failed: Consumer.retry(policy) })
  )

const perform =
  ({ block, die, recorder, say, write }: Site) =>
  (job: Job, { attempt, fence, group, id }: Delivery.Delivery): Effect.Effect<void, Failed> => {
    const within = attempt <= (job.times ?? Number.POSITIVE_INFINITY)
    const take = job.millis === undefined ? Effect.void : Effect.sleep(job.millis)
    const kill = Effect.sync(() => {
      recorder.record({ _tag: "Fault", fault: "Killed", target: recorder.writer })
      die()
    })
    const put = Effect.map(write(id, fence), (order) => {
      const accepted = order > 0
      recorder.record({ _tag: "Effect", group, id, fence, accepted, order })
      say(`wrote ${id} ${accepted ? "accepted" : "refused"}`)
    })
    switch (job.act) {
      case "work":
        return take
      case "fail":
        say(`began ${id}`)
        return Effect.andThen(take, within ? Effect.fail(new Failed({ id })) : Effect.void)
      case "hang":
        say(`began ${id}`)
        return attempt === 1 ? Effect.never : Effect.void
      case "defect":
        say(`began ${id}`)
        return Effect.andThen(take, within ? Effect.die(new Failed({ id })) : Effect.void)
      case "block":
        return Effect.sync(() => {
          say(`began ${id}`)
          if (!within) return
          recorder.record({ _tag: "Fault", fault: "Stopped", target: recorder.writer })
          block()
          recorder.record({ _tag: "Healed", target: recorder.writer })
        })
      case "die":
        say(`began ${id}`)
        return within ? kill : take
      case "write":
        say(`began ${id}`)
        return Effect.andThen(take, put)
      case "writeAndDie":
        return Effect.andThen(Effect.andThen(take, put), within ? kill : Effect.void)
    }
  }
