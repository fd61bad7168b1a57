/**
 * The thumbnail queue of immich, a photo library: an asset has one job at a time, however often it is asked for; at most two run
 * at once; faces that a user is viewing go first; and an administrator pauses it. README.md compares it with the original on
 * BullMQ.
 */
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Queue, Schedule, Schema } from "effect"
import { Consumer, Inspector, Producer, Topic } from "waybill"
import { MemoryLists } from "waybill/memory"

class Unreadable extends Schema.TaggedError<Unreadable>()("Unreadable", { asset: Schema.String }) {}
class DiskBusy extends Schema.TaggedError<DiskBusy>()("DiskBusy", {}) {}

const AssetThumbnail = Schema.TaggedStruct("AssetThumbnail", { asset: Schema.String })
const PersonThumbnail = Schema.TaggedStruct("PersonThumbnail", { person: Schema.String })

/** A second job of an asset is not stored before the first has ended. */
const Thumbnails = Topic.make("thumbnails", {
  payload: Topic.union({ AssetThumbnail, PersonThumbnail }),
  unique: "until-settled"
})
const group = "thumbnails"

const asset = (asset: string) =>
  Producer.publish(Thumbnails, { _tag: "AssetThumbnail", asset }, { id: `asset-${asset}` })

const person = (person: string) =>
  Producer.publish(Thumbnails, { _tag: "PersonThumbnail", person }, { id: `person-${person}`, priority: "high" })

const program = Effect.gen(function* () {
  const inspector = yield* Inspector.Inspector
  const done = yield* Queue.unbounded<string>()
  let running = 0
  let most = 0

  const shrink = Effect.fnUntraced(function* (name: string) {
    most = Math.max(most, ++running)
    yield* Effect.sleep("20 millis")
    running--
    yield* Queue.offer(done, name)
  })

  const Worker = Consumer.make(Thumbnails, { group, concurrency: 2, prefetch: 0 }).pipe(
    Consumer.dispatch({
      AssetThumbnail: ({ asset }, { attempt }) =>
        asset === "broken"
          ? Effect.fail(new Unreadable({ asset }))
          : asset === "a-4" && attempt === 1
            ? Effect.fail(new DiskBusy())
            : shrink(asset),
      PersonThumbnail: ({ person }) => shrink(person)
    }),
    Consumer.onFailure({
      DiskBusy: Consumer.retry(Schedule.spaced("100 millis").pipe(Schedule.upTo({ times: 2 }))),
      Unreadable: Consumer.deadLetter()
    }),
    Consumer.onDeadLetter(({ id, reason }) => Queue.offer(done, `${id}, which is ${reason}`)),
    Consumer.layer
  )

  yield* Effect.gen(function* () {
    // While the queue is paused, jobs are taken in.
    yield* inspector.pause(Thumbnails.name, group)
    for (const name of ["a-1", "a-2", "a-3", "a-4", "broken"]) yield* asset(name)
    const { _tag, state } = yield* asset("a-1")
    yield* Console.log(`a-1 again: ${_tag}, the first is ${state}`)
    yield* person("ada")
    yield* inspector.resume(Thumbnails.name, group)

    for (let job = 0; job < 6; job++) yield* Console.log(`done: ${yield* Queue.take(done)}`)
    yield* Console.log(`a-1 once more: ${(yield* asset("a-1"))._tag}`)
    yield* Console.log(`done: ${yield* Queue.take(done)}`)

    const { groups } = yield* inspector.describe(Thumbnails.name)
    yield* Console.log(`at most ${most} at a time, ${groups[0]?.deadLetters} to look into`)
  }).pipe(Effect.provide(Worker))
}).pipe(Effect.provide(MemoryLists.layer({ order: "priority" })))

NodeRuntime.runMain(program)
