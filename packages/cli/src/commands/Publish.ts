/**
 * `waybill publish`: publishes standard input, one JSON value per line.
 *
 * @module
 */
import { Duration, Effect, Option, Result, Schema, Stdio, Stream } from "effect"
import { Command, Flag } from "effect/cli"
import { Inspector, Producer, type Topic, Transport } from "waybill"
import { RedisPatterns } from "waybill/redis"
import { UsageError, ServerProblem } from "../Problem.ts"
import { bodyText, count, number, print } from "../Screen.ts"
import { Server, toProblem } from "../Server.ts"
import { lines, memberText, type Numbered, textOf } from "./Lines.ts"
import { topic } from "./Target.ts"

/** A line with `--envelope`: the payload and its metadata. */
const Envelope = Schema.Struct({
  payload: Schema.Unknown,
  id: Schema.optional(Schema.NonEmptyString),
  key: Schema.optional(Schema.String),
  headers: Schema.optional(Schema.Record(Schema.String, Schema.String)),
  /** Milliseconds, up to a thousand years. */
  delay: Schema.optional(Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1000 * 365 * 86_400_000 })))
})

/** An unknown member is probably a typo, and ignoring it could publish the message too early, or twice. */
const decodeEnvelope = Schema.decodeUnknownEffect(Envelope, { onExcessProperty: "error" })

/** Lines that arrive within this time are published together, so that interactive input does not wait for a full batch. */
const batchSize = 500
const batchTime = "50 millis"

/** JSON white space. Any other white space around a value is refused rather than removed. */
const around = /^[ \t\r]+|[ \t\r]+$/g

/** How many times longer than its payload a line may be, for white space and the headers of an envelope. */
const longest = 8

interface Line {
  /** The payload as it is stored. */
  readonly text: string
  readonly key: string | undefined
  readonly options: Producer.Options
}

export const publish = Command.make(
  "publish",
  {
    topic,
    envelope: Flag.Boolean("envelope").pipe(
      Flag.withDescription('Lines are {"payload": ..., "id"?, "key"?, "headers"?, "delay"?}, delay in ms'),
      Flag.withDefault(false)
    ),
    header: Flag.KeyValuePair("header").pipe(
      Flag.withDescription("name=value, added to every message; may be repeated"),
      Flag.withDefault<Record<string, string>>({})
    ),
    pattern: Flag.Literals("pattern", RedisPatterns.names).pipe(
      Flag.withDescription("Pattern of a topic that does not exist yet, streams by default"),
      Flag.optional
    ),
    maxBytes: Flag.Int("max-bytes").pipe(
      Flag.withDescription("Maximum size of a message, 1 MiB by default"),
      Flag.withDefault(1_048_576),
      Flag.filter(
        (bytes) => bytes >= 1,
        () => "at least 1"
      )
    )
  },
  Effect.fnUntraced(function* ({ envelope, header, maxBytes, pattern: asked, topic: name }) {
    const { json, prefix } = yield* Server
    const inspector = yield* Inspector.Inspector
    const known = (yield* Effect.mapError(inspector.topics, toProblem)).includes(name)
    const opened = yield* Effect.mapError(inspector.describe(name), toProblem)
    const pattern = known ? opened.pattern : Option.getOrElse(asked, () => opened.pattern)
    if (Option.isSome(asked) && asked.value !== pattern) {
      return yield* new UsageError({ detail: `topic ${name} has the pattern ${pattern}, not ${asked.value}` })
    }
    const outgoing = linesOf(name, maxBytes)
    const counts = { read: 0, Stored: 0, Duplicate: 0, Replaced: 0, Sent: 0 }

    const parse = Effect.fnUntraced(function* (numbered: Numbered): Effect.fn.Return<Line | undefined, UsageError> {
      const [, number] = numbered
      const wrong = (detail: string) =>
        new UsageError({
          detail: `line ${number}: ${detail}${number === 1 ? "" : ". The lines before it were published"}`
        })
      // Checked as the producer would: it would refuse the whole batch without naming the line.
      const fitting = (line: Line) =>
        Effect.mapBoth(Producer.message(outgoing, line, line.options), {
          onSuccess: () => line,
          onFailure: (error) =>
            wrong(
              error._tag === "PayloadTooLarge"
                ? `${error.bytes} bytes, most of them in its ${error.part}; the limit is ${maxBytes}, and --max-bytes raises it`
                : error.message
            )
        })
      const line = yield* Effect.try({
        try: () => textOf(numbered).replace(around, ""),
        catch: () => wrong("not valid UTF-8")
      })
      if (line === "") return undefined
      const value = yield* Effect.try({
        try: (): unknown => JSON.parse(line),
        catch: (error) => wrong(`not valid JSON (${(error as SyntaxError).message})`) // nothing else is thrown
      })
      if (!envelope) return yield* fitting({ text: line, key: undefined, options: { headers: header } })
      const { delay, headers, id, key, payload } = yield* Effect.mapError(decodeEnvelope(value), (error) =>
        wrong(error.message)
      )
      // The source text is stored as it is: JSON numbers are unbounded, JavaScript's are not.
      const text = payload === undefined ? undefined : memberText(line, "payload")
      if (text === undefined) return yield* wrong("the envelope has no payload")
      return yield* fitting({
        text,
        key,
        options: {
          id,
          headers: { ...header, ...headers },
          ...(delay === undefined ? {} : { delay: Duration.millis(delay) })
        }
      })
    })

    yield* (yield* Stdio.Stdio).stdin.pipe(
      Stream.mapError((error) => new UsageError({ detail: `cannot read standard input: ${error.message}` })),
      lines(maxBytes * longest + 1_048_576),
      // As values: an invalid line must not overtake the lines before it.
      Stream.mapEffect((line) => Effect.result(parse(line))),
      Stream.groupedWithin(batchSize, batchTime),
      Stream.runForEach(
        Effect.fnUntraced(function* (lines) {
          const wrong = lines.find(Result.isFailure)
          const batch = lines
            .slice(0, wrong === undefined ? lines.length : lines.indexOf(wrong))
            .flatMap(Result.match({ onFailure: () => [], onSuccess: (line) => line ?? [] }))
          const receipts = yield* Producer.publishAll(outgoing, batch, ({ options }) => options)
          counts.read += batch.length
          for (const receipt of receipts) counts[receipt._tag]++
          if (wrong !== undefined) yield* Effect.fromResult(wrong)
        })
      ),
      Effect.catchTag("TransportError", (error) => {
        const { detail } = toProblem(error)
        counts.read += error.stored ?? 0
        return new ServerProblem({
          detail: `${detail}. ${count(counts.read, "line")} ${counts.read === 1 ? "was" : "were"} published before that`
        })
      }),
      Effect.catchTag(["InvalidPayload", "PayloadTooLarge"], (error) => new UsageError({ detail: error.message })),
      Effect.provide(RedisPatterns.layer(pattern, { prefix }))
    )
    const { Duplicate: duplicate, read, Sent: sent, Stored: stored } = counts
    const unstored = sent > 0
    yield* print(json, unstored ? { read, sent } : { read, stored, duplicate }, () =>
      unstored
        ? `${number(sent)} sent.`
        : `${number(stored)} stored${duplicate > 0 ? `, ${number(duplicate)} ${duplicate === 1 ? "was a duplicate" : "were duplicates"}` : ""}.`
    )
  })
).pipe(
  Command.withDescription("Publish messages from standard input, one JSON value per line"),
  Command.withExamples([
    { command: `echo '{"id":"o-1","cents":1200}' | waybill publish orders`, description: "One message" },
    {
      command: `jq -c '{payload: ., id: .orderId}' orders.json | waybill publish orders --envelope`,
      description: "With ids, so that a repeated run stores nothing twice"
    }
  ])
)

/** A topic whose payloads are stored as the given text. */
const linesOf = (name: string, maxBytes: number): Topic.Topic<Line, Transport.AtMostOnce> => ({
  name,
  // Whatever pattern it is of.
  on: Transport.AtMostOnce,
  version: 1,
  writes: 1,
  unique: "window",
  maxBytes,
  key: ({ key }) => key,
  encode: ({ text }) => Effect.succeed(text),
  decode: (body) => Effect.succeed({ text: bodyText(body), key: undefined, options: {} })
})
