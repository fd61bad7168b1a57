/**
 * Part of the job queue of activepieces, an automation tool: each flow of a user is polled on a schedule of its own, and jobs that
 * the previous release has stored are migrated when they are read. README.md compares it with the original on BullMQ.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Context, Effect, Layer, Queue, Schedule, Schema, Stream } from "effect"
import { Consumer, Inspector, Producer, Schedules, Topic } from "waybill"
import { MemoryStreams } from "waybill/memory"

class FlowDeleted extends Schema.TaggedError<FlowDeleted>()("FlowDeleted", { flowVersionId: Schema.String }) {}
class DatabaseDown extends Schema.TaggedError<DatabaseDown>()("DatabaseDown", {}) {}
class EngineTimeout extends Schema.TaggedError<EngineTimeout>()("EngineTimeout", {}) {}

const PollV1 = Schema.Struct({ flowVersionId: Schema.String })
const PollV2 = Schema.Struct({ flowId: Schema.String, projectId: Schema.String })

/** Where migrations look up what old jobs do not say. */
class Flows extends Context.Service<
  Flows,
  { readonly find: (flowVersionId: string) => Effect.Effect<typeof PollV2.Type, FlowDeleted | DatabaseDown> }
>()("Flows") {}

const Poll = Topic.make("worker.jobs", {
  version: 2,
  payload: PollV2,
  from: { 1: Topic.from(PollV1, ({ flowVersionId }) => Effect.flatMap(Flows, ({ find }) => find(flowVersionId))) }
})

/** The topic as the previous release declares it. */
const PollBefore = Topic.make("worker.jobs", { payload: PollV1 })

const program = Effect.gen(function* () {
  const polled = yield* Queue.unbounded<string>()

  const Worker = Consumer.make(Poll, { group: "workers", concurrency: 4 }).pipe(
    Consumer.process(({ flowId, projectId }, { attempt, headers }) => {
      if (flowId === "flow-2" && attempt === 1) return Effect.fail(new EngineTimeout())
      const why = headers["schedule"] === undefined ? "an old job" : "on schedule"
      return Queue.offer(polled, `polled ${flowId} of ${projectId}: ${why}, attempt ${attempt}`)
    }),
    Consumer.onFailure({
      EngineTimeout: Consumer.retry(Schedule.spaced("200 millis").pipe(Schedule.upTo({ times: 2 }))),
      // Failures of the migration: a job of a deleted flow is done, and one that meets a database outage is retried.
      FlowDeleted: Consumer.acknowledge,
      DatabaseDown: Consumer.retry(Schedule.spaced("200 millis").pipe(Schedule.upTo({ times: 50 })))
    }),
    Consumer.layer
  )

  yield* Producer.publishAll(PollBefore, [{ flowVersionId: "flow-1@7" }, { flowVersionId: "deleted@1" }])

  yield* Effect.gen(function* () {
    yield* Console.log(yield* Queue.take(polled))

    // A user switches a flow on, and off again after two runs.
    const payload = { flowId: "flow-2", projectId: "project-2" }
    yield* Schedules.upsert(Schedules.every("poll:flow-2", "1 second", { topic: Poll, payload }))
    for (let run = 0; run < 2; run++) yield* Console.log(yield* Queue.take(polled))
    yield* Schedules.remove(Poll, "poll:flow-2")

    const schedules = yield* Stream.runCount(Schedules.list(Poll))
    const inspector = yield* Inspector.Inspector
    const { groups } = yield* inspector.describe(Poll.name)
    yield* Console.log(`${schedules} schedules are left, and ${groups[0]?.deadLetters} dead letters`)
  }).pipe(Effect.provide(Worker))
}).pipe(Effect.provide(MemoryStreams.layer()))

/** The database, which cannot be reached at first. */
const FlowsLive = Layer.sync(Flows, () => {
  let tries = 0
  return {
    find: (flowVersionId) => {
      if (++tries <= 2) return Effect.fail(new DatabaseDown())
      if (flowVersionId.startsWith("deleted")) return Effect.fail(new FlowDeleted({ flowVersionId }))
      return Effect.succeed({ flowId: flowVersionId.split("@")[0] ?? "", projectId: "project-1" })
    }
  }
})

NodeRuntime.runMain(Effect.provide(program, FlowsLive))
