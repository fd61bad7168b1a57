/**
 * The dashboard's server: the page and its API, built on Inspector only. Reading changes nothing; every change passes the
 * guard first.
 *
 * @module
 */
import { Clock, Effect, Layer, Option, Schema } from "effect"
import { HttpRouter, HttpServerError, HttpServerRequest, HttpServerResponse, HttpStaticServer } from "effect/http"
import { DeadLetters, Inspector, type Message, Schedules, Topic, type Transport } from "waybill"
import { justBefore } from "../commands/Entry.ts"
import { aboutSchedules, shown } from "../commands/Schedules.ts"
import { describe, describeAll, describeGroup, groupOf as groupIn } from "../commands/Target.ts"
import type { NotFound, ServerProblem } from "../Problem.ts"
import { safe } from "../SafeText.ts"
import { messageJson } from "../Screen.ts"
import { Server } from "../Server.ts"
import {
  type Moved,
  nameIn,
  type Overview,
  type Purge,
  type Report,
  type Retirement,
  type ScheduleList,
  type Steering
} from "./Api.ts"
import * as Guard from "./Guard.ts"
import * as Life from "./Life.ts"

const Limit = Schema.NumberFromString.check(Schema.isInt(), Schema.isBetween({ minimum: 1, maximum: 100 }))

const Query = Schema.Struct({
  after: Schema.optional(Schema.String),
  limit: Schema.optional(Limit),
  before: Schema.optional(Schema.String),
  newest: Schema.optional(Schema.Literals(["0", "1"]))
})

const Place = Schema.Struct({
  group: Schema.optional(Schema.String),
  list: Schema.optional(Schema.Literals(["dead", "pending", "waiting", "messages"])),
  at: Schema.optional(Schema.String)
})

const SelectionBody = Schema.Struct({
  entries: Schema.optional(Schema.Array(Schema.String).check(Schema.isMaxLength(10_000))),
  reason: Schema.optional(Schema.String),
  dryRun: Schema.Boolean
})

const ChangeBody = Schema.Struct({ dryRun: Schema.Boolean })

const MoveBody = Schema.Struct({
  dryRun: Schema.Boolean,
  to: Schema.Union([
    Schema.Literals(["earliest", "latest"]),
    Schema.Struct({ at: Schema.Int }),
    Schema.Struct({ after: Schema.String })
  ])
})

const ReschedulingBody = Schema.Struct({ at: Schema.Number })

const json = (value: unknown, status = 200): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.jsonUnsafe(value, { status })

/** The request is invalid. */
class BadRequest extends Schema.TaggedError<BadRequest>("@waybill/cli/BadRequest")("BadRequest", {
  why: Schema.String
}) {
  override get message(): string {
    return this.why
  }
}

/** Errors reach the page in the store's own words; an invalid request says why. */
const answered = <R>(
  effect: Effect.Effect<
    unknown,
    | Transport.TransportError
    | ServerProblem
    | NotFound
    | BadRequest
    | Schema.SchemaError
    | HttpServerError.HttpServerError,
    R
  >
): Effect.Effect<HttpServerResponse.HttpServerResponse, never, R> => {
  const why =
    (status: number) =>
    ({ message }: { readonly message: string }) =>
      Effect.succeed(json({ why: message }, status))
  return effect.pipe(
    Effect.map((value) => json(value)),
    Effect.catchTags({
      TransportError: (error) => why(error.reason._tag === "TopicInUse" ? 409 : 502)(error),
      ServerProblem: why(502),
      NotFound: why(404),
      BadRequest: why(400),
      SchemaError: why(400),
      HttpServerError: () => Effect.succeed(json({ why: "the request was cut short" }, 400))
    })
  )
}

/** The store rejects a made-up position. */
const from = <A, R>(
  positions: ReadonlyArray<string | undefined>,
  read: Effect.Effect<A, Transport.TransportError, R>
): Effect.Effect<A, Transport.TransportError | BadRequest, R> => {
  const position = positions.find((one) => one !== undefined)
  return Effect.catchIf(
    read,
    ({ reason }) => position !== undefined && reason._tag === "Rejected",
    () => new BadRequest({ why: `position ${safe(position ?? "")} does not exist` })
  )
}

const body = <A, I>(schema: Schema.Codec<A, I>) =>
  Effect.gen(function* () {
    const text = yield* (yield* HttpServerRequest.HttpServerRequest).text
    const value = yield* Effect.try({
      try: (): unknown => JSON.parse(text),
      catch: () => new BadRequest({ why: "the body of the request is not valid JSON" })
    })
    return yield* Schema.decodeUnknownEffect(schema)(value)
  })

const pageSize = 100

/** How much of a body a line of a list shows. */
const beginning = 500

const rowOf = <A extends Message.Message>(message: A) => {
  const row = messageJson(message)
  return { ...row, body: row.body.slice(0, beginning) }
}

/** How many of the named dead letters exist. */
const present = Effect.fnUntraced(function* (topic: string, group: string, entries: ReadonlyArray<string>) {
  const inspector = yield* Inspector.Inspector
  const found = yield* Effect.forEach(
    entries,
    (entry) =>
      Option.match(justBefore(entry), {
        onNone: () => Effect.succeed(false),
        onSome: (after) =>
          Effect.map(
            inspector.deadLetters(topic, group, { after: Option.some(after), limit: 1 }),
            ([letter]) => letter?.entry === entry
          )
      }),
    // Each one comes with its body.
    { concurrency: 4 }
  )
  return found.filter(Boolean).length
})

type Params = Readonly<Record<string, string | undefined>>
type Handle<E, R> = (params: Params) => Effect.Effect<HttpServerResponse.HttpServerResponse, E, R>

type Reading<A, Page> = (
  inspector: Inspector.Inspector["Service"],
  page: Page
) => Effect.Effect<ReadonlyArray<A>, Transport.TransportError>

const paged = <A extends Message.Message>(
  read: Reading<A, Inspector.Page>,
  positionOf: (item: A) => string,
  readBackwards?: Reading<A, Inspector.BackwardPage>
) =>
  answered(
    Effect.gen(function* () {
      const inspector = yield* Inspector.Inspector
      const { after, before, limit = pageSize, newest } = yield* HttpServerRequest.schemaSearchParams(Query)
      const backwards = after === undefined && (newest === "1" || before !== undefined) ? readBackwards : undefined
      const next = (position: string | undefined, limit: number) => {
        const from = Option.fromNullishOr(position)
        return backwards === undefined
          ? read(inspector, { after: from, limit })
          : backwards(inspector, { before: from, limit })
      }
      /** A page of large messages is short without being the last. */
      const isMore = (items: ReadonlyArray<A>) => {
        const last = items.at(backwards === undefined ? -1 : 0)
        if (last === undefined || items.length === limit) return Effect.succeed(last !== undefined)
        return Effect.map(next(positionOf(last), 1), (behind) => behind.length > 0)
      }
      const items = yield* from([after, before], next(after ?? before, limit))
      return { items: items.map(rowOf), more: yield* isMore(items) }
    })
  )

const topicOf = (params: Params) => nameIn(params["topic"])
const groupOf = (params: Params) => nameIn(params["group"])

/** Runs, removes, cancels or reschedules one message. */
const steeredMessage =
  <A>(steer: (inspector: Inspector.Inspector["Service"], topic: string, id: string) => Steered<A>) =>
  (params: Params) =>
    answered(
      Effect.gen(function* () {
        const { topic } = yield* describe(topicOf(params))
        const result = yield* steer(yield* Inspector.Inspector, topic, nameIn(params["id"]))
        return { result: result ?? true }
      })
    )

type Steered<A> = Effect.Effect<
  A,
  Transport.TransportError | BadRequest | Schema.SchemaError | HttpServerError.HttpServerError,
  HttpServerRequest.HttpServerRequest
>

const ofMessage = "/api/topics/:topic/messages/:id" as const

const life = (topic: string, id: string) =>
  answered(
    Effect.flatMap(HttpServerRequest.schemaSearchParams(Place), (seen) =>
      from([seen.at], Life.inspect(topic, id, seen))
    )
  )

const moved = (verb: "redrive" | "discard") => {
  const move = verb === "redrive" ? DeadLetters.redrive : DeadLetters.discard
  return (params: Params) =>
    answered(
      Effect.gen(function* () {
        const { dryRun, entries, reason } = yield* body(SelectionBody)
        const inspector = yield* Inspector.Inspector
        const topic = topicOf(params)
        const group = groupOf(params)
        yield* describeGroup(topic, group)
        if (entries === undefined) {
          const raw = Topic.byName(topic)
          const where = (letter: Inspector.DeadLetter) => reason === undefined || letter.reason === reason
          return yield* move(raw, group, { where, dryRun })
        }
        const named = [...new Set(entries)]
        const report: Report = dryRun
          ? { examined: named.length, selected: yield* present(topic, group, named), done: 0 }
          : { examined: named.length, selected: named.length, done: yield* inspector[verb](topic, group, named) }
        return report
      })
    )
}

const paused = (verb: "pause" | "resume") => (params: Params) =>
  answered(
    Effect.gen(function* () {
      // Pausing a group that does not exist would create it.
      yield* describeGroup(topicOf(params), groupOf(params))
      yield* (yield* Inspector.Inspector)[verb](topicOf(params), groupOf(params))
      return { paused: verb === "pause" }
    })
  )

const retired = (params: Params) =>
  answered(
    Effect.gen(function* () {
      const { dryRun } = yield* body(ChangeBody)
      const info = yield* describe(topicOf(params))
      const plan: Retirement = Inspector.retirement(info, yield* groupIn(info, groupOf(params)))
      if (!dryRun) yield* (yield* Inspector.Inspector).retire(info.topic, groupOf(params))
      return plan
    })
  )

const purged = (params: Params) =>
  answered(
    Effect.gen(function* () {
      const { dryRun } = yield* body(ChangeBody)
      const { delayed, depth, groups, topic } = yield* describe(topicOf(params))
      if (!dryRun) yield* (yield* Inspector.Inspector).purge(topic)
      const sum = (name: "waiting" | "pending") => groups.reduce((sum, group) => sum + group[name], 0)
      const plan: Purge = { depth, delayed, waiting: sum("waiting"), held: sum("pending") }
      return plan
    })
  )

const relocated = (params: Params) =>
  answered(
    Effect.gen(function* () {
      const { dryRun, to } = yield* body(MoveBody)
      const topic = topicOf(params)
      const group = groupOf(params)
      const info = yield* describe(topic)
      const { consumers, lag } = yield* groupIn(info, group)
      const plan = { lag, consumers: consumers.length }
      const known: Moved = { ...plan, after: to === "earliest" ? info.depth : to === "latest" ? 0 : undefined }
      if (dryRun) return known
      yield* (yield* Inspector.Inspector).move(topic, group, to)
      const moved: Moved = { ...plan, after: (yield* describeGroup(topic, group)).lag }
      return moved
    })
  )

/** The first ones: the next to be due. */
const schedules = (topic: string) =>
  answered(
    Effect.map(
      aboutSchedules(topic, (topic) => shown(topic, pageSize + 1)),
      ({ items, missing }): ScheduleList => ({
        items: items.slice(0, pageSize),
        more: items.length > pageSize,
        missing
      })
    )
  )

const { pause, remove, resume, run } = Schedules
const steering = { run, pause, resume, remove }

const steered = (verb: Steering) => (params: Params) =>
  answered(
    aboutSchedules(topicOf(params), (topic): Effect.Effect<unknown, Transport.TransportError, Transport.AtMostOnce> =>
      steering[verb](topic, nameIn(params["schedule"]))
    ).pipe(Effect.map((result) => ({ result: result ?? false })))
  )

/** `page`: the directory of the built page. */
export const layer = (rules: Guard.Rules, page: string) => {
  const guarded =
    <E, R>(asks: "read" | "write", handle: Handle<E, R>) =>
    (request: HttpServerRequest.HttpServerRequest) =>
      Option.match(Guard.refusal(rules, request, asks), {
        onSome: Effect.succeed,
        onNone: () => Effect.flatMap(HttpRouter.params, handle)
      })

  const read = <E, R>(path: HttpRouter.PathInput, handle: Handle<E, R>) =>
    HttpRouter.add("GET", path, guarded("read", handle))
  const write = <E, R>(path: HttpRouter.PathInput, handle: Handle<E, R>) =>
    HttpRouter.add("POST", path, guarded("write", handle))

  const overview = answered(
    Effect.gen(function* () {
      const inspector = yield* Inspector.Inspector
      const { address, prefix, failover: lastFailover } = yield* Server
      const { infos: topics, unreadable } = yield* Effect.flatMap(inspector.topics, describeAll)
      const request = yield* HttpServerRequest.HttpServerRequest
      const writes = !rules.writes ? "no" : Guard.authorized(rules, request) ? "yes" : "locked"
      const now = yield* Clock.currentTimeMillis
      const failover = yield* lastFailover
      const value: Overview = { address, prefix, writes, now, ...(failover && { failover }), topics, unreadable }
      return value
    })
  )

  const ofGroup = "/api/topics/:topic/groups/:group" as const
  return Layer.mergeAll(
    HttpRouter.middleware(
      (answer) =>
        answer.pipe(
          Effect.catchIf(
            (error) => HttpServerError.isHttpServerError(error) && error.reason._tag === "RouteNotFound",
            () => Effect.succeed(json({ why: "not found" }, 404))
          ),
          Effect.map(HttpServerResponse.setHeaders(Guard.headers))
        ),
      { global: true }
    ),
    read("/api/overview", () => overview),
    read("/api/topics/:topic/messages", (params) =>
      paged(
        (inspector, page) => inspector.messages(topicOf(params), page),
        ({ position }) => position,
        (inspector, page) => inspector.messages(topicOf(params), page)
      )
    ),
    read("/api/topics/:topic/delayed", (params) =>
      paged(
        (inspector, page) => inspector.delayed(topicOf(params), page),
        ({ position }) => position
      )
    ),
    write(
      `${ofMessage}/run`,
      steeredMessage((inspector, topic, id) => inspector.runNow(topic, id))
    ),
    write(
      `${ofMessage}/remove`,
      steeredMessage((inspector, topic, id) => inspector.removeMessage(topic, id))
    ),
    write(
      `${ofMessage}/cancel`,
      steeredMessage((inspector, topic, id) => inspector.cancel(topic, id))
    ),
    write(
      `${ofMessage}/reschedule`,
      steeredMessage((inspector, topic, id) =>
        Effect.flatMap(body(ReschedulingBody), ({ at }) => inspector.reschedule(topic, id, at))
      )
    ),
    read("/api/topics/:topic/schedules", (params) => schedules(topicOf(params))),
    ...(["run", "pause", "resume", "remove"] as const).map((verb) =>
      write(`/api/topics/:topic/schedules/:schedule/${verb}`, steered(verb))
    ),
    read("/api/topics/:topic/life/:id", (params) => life(topicOf(params), nameIn(params["id"]))),
    read(`${ofGroup}/pending`, (params) =>
      paged(
        (inspector, page) => inspector.pending(topicOf(params), groupOf(params), page),
        ({ position }) => position
      )
    ),
    read(`${ofGroup}/waiting`, (params) =>
      paged(
        (inspector, page) => inspector.waiting(topicOf(params), groupOf(params), page),
        ({ position }) => position
      )
    ),
    read(`${ofGroup}/dead`, (params) =>
      paged(
        (inspector, page) => inspector.deadLetters(topicOf(params), groupOf(params), page),
        ({ entry }) => entry
      )
    ),
    write("/api/topics/:topic/purge", purged),
    write(`${ofGroup}/retire`, retired),
    write(`${ofGroup}/move`, relocated),
    write(`${ofGroup}/redrive`, moved("redrive")),
    write(`${ofGroup}/discard`, moved("discard")),
    write(`${ofGroup}/pause`, paused("pause")),
    write(`${ofGroup}/resume`, paused("resume")),
    Layer.unwrap(
      Effect.map(HttpStaticServer.make({ root: page }), (files) =>
        HttpRouter.add("GET", "/*", (request) =>
          Option.match(Guard.refusal(rules, request, "page"), {
            onSome: Effect.succeed,
            onNone: () => files
          })
        )
      )
    )
  )
}
