/**
 * `waybill publish`: messages from standard input, one JSON value a line.
 *
 * @module
 */
import { Duration, Effect, Option, Result, Schema, Stdio, Stream } from "effect"
import { Command, Flag } from "effect/cli"
import { Inspector, Producer, type Topic } from "waybill"
import { RedisPatterns } from "waybill/redis"
import { Misuse, ServerProblem } from "../Problem.ts"
import { bodyText, count, number, print } from "../Screen.ts"
import { Server, toProblem } from "../Server.ts"
import { lines, memberText, type Numbered, textOf } from "./Lines.ts"
import { topic } from "./Target.ts"

/** A line with `--envelope`: the payload, and what travels with it. */
const Envelope = Schema.Struct({
  payload: Schema.Unknown,
  id: Schema.optional(Schema.NonEmptyString),
  key: Schema.optional(Schema.String),
  headers: Schema.optional(Schema.Record(Schema.String, Schema.String)),
  /** Milliseconds, up to a thousand years. */
  delay: Schema.optional(Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 1000 * 365 * 86_400_000 })))
})

/** An unknown member is probably misspelled, and ignoring it would send the message at once, or twice. */
const decodeEnvelope = Schema.decodeUnknownEffect(Envelope, { onExcessProperty: "error" })

/** Lines that come within this time travel together: one who types, or follows a file, does not wait for a full batch. */
const batchSize = 500
const batchTime = "50 millis"

/** White space of JSON: any other around a value is refused, and not taken away. */
const around = /^[ \t\r]+|[ \t\r]+$/g

/** A line may have spaces around its payload, and an envelope headers: how many times as long it may be. */
const longest = 8

interface Line {
  /** The payload as it is stored. */
  readonly text: string
  readonly key: string | undefined
  readonly options: Producer.PublishOptions
}

export const publish = Command.make(
  "publish",
  {
    topic,
    envelope: Flag.Boolean("envelope").pipe(
      Flag.withDescription('Lines are {"payload": ..., "id"?, "key"?, "headers"?, "delay"?}; delay in ms'),
      Flag.withDefault(false)
    ),
    header: Flag.KeyValuePair("header").pipe(
      Flag.withDescription("name=value, for every message; may be given several times"),
      Flag.withDefault<Record<string, string>>({})
    ),
    pattern: Flag.Literals("pattern", RedisPatterns.names).pipe(
      Flag.withDescription("What a topic that is not there yet is opened as, streams by default"),
      Flag.optional
    ),
    maxBytes: Flag.Int("max-bytes").pipe(
      Flag.withDescription("Greatest size of a message, 1 MiB by default"),
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
      return yield* new Misuse({ detail: `topic ${name} is of the pattern ${pattern}, not ${asked.value}` })
    }
    const outgoing = linesOf(name, maxBytes)
    const counts = { read: 0, stored: 0, duplicate: 0 }

    const parse = Effect.fnUntraced(function* (numbered: Numbered): Effect.fn.Return<Line | undefined, Misuse> {
      const [, number] = numbered
      const wrong = (detail: string) =>
        new Misuse({ detail: `line ${number}: ${detail}${number === 1 ? "" : ". The lines before it were published"}` })
      // As the producer looks at it, who would refuse the whole batch without saying which line it was.
      const fitting = (line: Line) =>
        Effect.mapBoth(Producer.message(outgoing, line, line.options), {
          onSuccess: () => line,
          onFailure: (error) =>
            wrong(
              error._tag === "PayloadTooLarge"
                ? `${error.bytes} bytes, most of them in its ${error.part}, and the limit is ${maxBytes}: --max-bytes raises it`
                : error.message
            )
        })
      const line = yield* Effect.try({
        try: () => textOf(numbered).replace(around, ""),
        catch: () => wrong("it is not UTF-8, which JSON is written in")
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
      // The text itself is stored: numbers of JSON have no limit, and those of JavaScript do.
      const text = payload === undefined ? undefined : memberText(line, "payload")
      if (text === undefined) return yield* wrong("an envelope without a payload")
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
      Stream.mapError((error) => new Misuse({ detail: `cannot read standard input: ${error.message}` })),
      lines(maxBytes * longest + 1_048_576),
      // As values: a line that makes no sense must not overtake the lines before it.
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
          for (const receipt of receipts) counts[receipt._tag === "Stored" ? "stored" : "duplicate"]++
          if (wrong !== undefined) yield* Effect.fromResult(wrong)
        })
      ),
      Effect.catchTag("TransportError", (error) => {
        const { detail } = toProblem(error)
        counts.read += error.stored ?? 0
        return new ServerProblem({
          detail: `${detail}. ${count(counts.read, "line")} ${counts.read === 1 ? "was" : "were"} published before`
        })
      }),
      Effect.catchTag(["InvalidPayload", "PayloadTooLarge"], (error) => new Misuse({ detail: error.message })),
      Effect.provide(RedisPatterns.layer(pattern, { prefix }))
    )
    yield* print(
      json,
      counts,
      () =>
        `${number(counts.stored)} stored${counts.duplicate > 0 ? `, ${number(counts.duplicate)} ${counts.duplicate === 1 ? "was" : "were"} there already` : ""}.`
    )
  })
).pipe(
  Command.withDescription("Publish messages from standard input, one JSON value a line"),
  Command.withExamples([
    { command: `echo '{"id":"o-1","cents":1200}' | waybill publish orders`, description: "One message" },
    {
      command: `jq -c '{payload: ., id: .orderId}' orders.json | waybill publish orders --envelope`,
      description: "With ids, so that running it twice stores once"
    }
  ])
)

/** A topic whose payloads are texts that stay as they are. */
const linesOf = (name: string, maxBytes: number): Topic.Topic<Line> => ({
  name,
  version: 1,
  maxBytes,
  key: ({ key }) => key,
  encode: ({ text }) => Effect.succeed(text),
  decode: (body) => Effect.succeed({ text: bodyText(body), key: undefined, options: {} })
})
