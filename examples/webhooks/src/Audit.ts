/**
 * Group `audit`: one line of JSON in a file for every event, written before the message is acked. At least once: a
 * delivery that was repeated after a crash may have two lines, with the same id and growing attempts. Lines survive this
 * process; against a power cut they would need an fsync each.
 */
import { Clock, Context, Effect, FileSystem, Layer, type PlatformError, Schema } from "effect"
import { Consumer, RetryPolicy } from "waybill"
import { summary, Webhooks } from "./Webhook.ts"

export const Entry = Schema.Struct({
  delivery: Schema.String,
  attempt: Schema.Int,
  event: Schema.String,
  action: Schema.optional(Schema.String),
  repository: Schema.optional(Schema.String),
  sender: Schema.optional(Schema.String),
  /** Milliseconds since the epoch. */
  receivedAt: Schema.Number,
  writtenAt: Schema.Number,
  /** The process that wrote the line. */
  writer: Schema.String
})
export type Entry = typeof Entry.Type

const encode = Schema.encodeEffect(Schema.fromJsonString(Entry))
const decode = Schema.decodeUnknownEffect(Schema.fromJsonString(Entry))

/** The log could not be written; a full disk, usually. */
export class AuditLogFailed extends Schema.TaggedError<AuditLogFailed>()("AuditLogFailed", {
  cause: Schema.Defect()
}) {}

export class Audit extends Context.Service<
  Audit,
  {
    readonly append: (entry: Omit<Entry, "writer" | "writtenAt">) => Effect.Effect<void, AuditLogFailed>
  }
>()("webhooks/Audit") {
  /**
   * The file at `path`, made when it is not there. Several processes may write to it: each line is one `write` at the
   * end of the file.
   */
  static readonly layer = (
    path: string,
    writer: string
  ): Layer.Layer<Audit, PlatformError.PlatformError, FileSystem.FileSystem> =>
    Layer.effect(
      Audit,
      Effect.gen(function* () {
        const files = yield* FileSystem.FileSystem
        const file = yield* files.open(path, { flag: "a" })
        const utf8 = new TextEncoder()
        return {
          append: Effect.fn("Audit.append")(function* (entry) {
            const writtenAt = yield* Clock.currentTimeMillis
            const line = yield* encode({ ...entry, writtenAt, writer }).pipe(Effect.orDie)
            yield* file.writeAll(utf8.encode(`${line}\n`)).pipe(
              Effect.mapError((cause) => new AuditLogFailed({ cause })),
              // Half a line would spoil the next one.
              Effect.uninterruptible
            )
          })
        }
      })
    )

  /** All lines of the file at `path`. */
  static readonly read = Effect.fn("Audit.read")(function* (path: string) {
    const files = yield* FileSystem.FileSystem
    const lines = (yield* files.readFileString(path)).split("\n").filter((line) => line !== "")
    return yield* Effect.forEach(lines, (line) => decode(line))
  })
}

export const group = "audit"

/** Appending takes milliseconds, so a writer that is silent for 2 seconds is gone, and one that stops needs no longer. */
const options = { group, concurrency: 4, lease: "2 seconds", shutdown: "2 seconds" } as const

export const consumer = Consumer.make(Webhooks, options).pipe(
  Consumer.process((webhook, delivery) => {
    const { action, repository, sender } = summary(webhook) ?? {}
    return Audit.use((audit) =>
      audit.append({
        delivery: delivery.id,
        attempt: delivery.attempt,
        event: webhook.event,
        action,
        repository: repository?.full_name,
        sender: sender?.login,
        receivedAt: delivery.publishedAt
      })
    )
  }),
  Consumer.onFailure({
    AuditLogFailed: Consumer.retry(RetryPolicy.standard)
  })
)

export const layer = Consumer.layer(consumer)
