/**
 * Case D3: the topic alone says what its payloads are, so what is published needs no annotation.
 */
import { type Effect, Schema } from "effect"
import { expectTypeOf } from "vitest"
import { type Commit, Producer, Topic } from "waybill"

const Speed = Topic.make("speeds", { payload: Schema.Literals(["slow", "quick"]) })
const Count = Topic.make("counts", { payload: Schema.Literals([1, 2, 3]) })
const Flag = Topic.make("flags", { payload: Schema.Literal(true), key: (flag) => String(flag) })
const Task = Topic.make("tasks", {
  payload: Schema.Union([
    Schema.Struct({ _tag: Schema.Literal("Stop") }),
    Schema.Struct({
      _tag: Schema.Literal("Move"),
      to: Schema.String,
      by: Schema.optional(Schema.Literals(["foot", "car"]))
    })
  ])
})
const Pair = Topic.make("pairs", { payload: Schema.Tuple([Schema.Literals(["a", "b"]), Schema.Number]) })

Producer.publishAll(Speed, ["slow", "quick"])
Producer.publishAll(Speed, ["slow"], (speed) => ({ id: speed === "slow" ? "s" : "q" }))
Producer.publishAll(Count, [1, 2])
Producer.publishAll(Flag, [true])
Producer.publishAll(Task, [{ _tag: "Stop" }, { _tag: "Move", to: "x" }, { _tag: "Move", to: "x", by: "foot" }])
Producer.publishAll(Pair, [
  ["a", 1],
  ["b", 2]
])
Producer.publish(Speed, "slow")
Producer.publish(Task, { _tag: "Stop" })
Producer.publish(Pair, ["a", 1])
Producer.message(Count, 3)
Producer.message(Task, { _tag: "Move", to: "x", by: "car" })

// @ts-expect-error no such literal
Producer.publishAll(Speed, ["slow", "late"])
// @ts-expect-error no such literal
Producer.publish(Speed, "late")
// @ts-expect-error "Stop" has no fields
Producer.publish(Task, { _tag: "Stop", to: "x" })
// @ts-expect-error no such literal
Producer.message(Count, 4)

expectTypeOf(Producer.message(Speed, "slow")).toExtend<
  Effect.Effect<Commit.Publication, Topic.InvalidPayload | Topic.PayloadTooLarge>
>()
