/**
 * The dashboard's server: the page, and what it asks for, over Inspector only. Looking changes nothing; every change
 * passes the guard first.
 *
 * @module
 */
import { Array as Arr, Clock, Effect, Layer, Option, Schema } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse, HttpStaticServer } from "effect/http"
import { DeadLetters, Inspector, type Message, Topic, type Transport } from "waybill"
import { messageJson } from "../Screen.ts"
import { Server } from "../Server.ts"
import type { Life, Overview, Report, Seen } from "./Api.ts"
import * as Guard from "./Guard.ts"

const Limit = Schema.NumberFromString.check(Schema.isInt(), Schema.isBetween({ minimum: 1, maximum: 100 }))

const Query = Schema.Struct({
  after: Schema.optional(Schema.String),
  limit: Schema.optional(Limit),
  newest: Schema.optional(Schema.Literals(["0", "1"]))
})

const SeenQuery = Schema.Struct({
  group: Schema.optional(Schema.String),
  list: Schema.optional(Schema.Literals(["dead", "pending", "waiting"])),
  after: Schema.optional(Schema.String)
})

const SelectionBody = Schema.Struct({
  entries: Schema.optional(Schema.Array(Schema.String).check(Schema.isMaxLength(10_000))),
  reason: Schema.optional(Schema.String),
  dryRun: Schema.Boolean
})

const json = (value: unknown, status = 200): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.jsonUnsafe(value, { status, headers: Guard.headers })

/** What the store says is what the page shows; a request that makes no sense says why. */
const answered = <R>(
  effect: Effect.Effect<
    unknown,
    Transport.TransportError | Schema.SchemaError | { readonly _tag: "HttpServerError" },
    R
  >
): Effect.Effect<HttpServerResponse.HttpServerResponse, never, R> =>
  effect.pipe(
    Effect.map((value) => json(value)),
    Effect.catchTags({
      TransportError: (error) => Effect.succeed(json({ why: error.message }, 502)),
      SchemaError: (error) => Effect.succeed(json({ why: error.message }, 400)),
      HttpServerError: () => Effect.succeed(json({ why: "the request broke off" }, 400))
    })
  )

/** How many messages of each list are looked through for one, from where it was seen, and from the beginning. */
const searched = 1000
const pageSize = 100

/** A line of a list shows no more of a body. */
const beginning = 500

const rowOf = <A extends Message.Message>(message: A) => {
  const row = messageJson(message)
  return { ...row, body: row.body.slice(0, beginning) }
}

type Read<A> = (page: Inspector.NewestPage) => Effect.Effect<ReadonlyArray<A>, Transport.TransportError>

/** The first one that fits, page by page. */
const sought = Effect.fnUntraced(function* <A>(
  read: Read<A>,
  first: Inspector.NewestPage,
  next: (page: Arr.NonEmptyReadonlyArray<A>) => Inspector.NewestPage,
  fits: (one: A) => boolean
) {
  let page = first
  for (let seen = 0; seen < searched; seen += pageSize) {
    const found = yield* read(page)
    const one = found.find(fits)
    if (one !== undefined || !Arr.isReadonlyArrayNonEmpty(found) || found.length < pageSize) return one
    page = next(found)
  }
  return undefined
})

type Params = Readonly<Record<string, string | undefined>>
type Handle<E, R> = (params: Params) => Effect.Effect<HttpServerResponse.HttpServerResponse, E, R>

/** `page`: the directory of the built page. */
export const layer = (rules: Guard.Rules, page: string) => {
  const guarded =
    <E, R>(asks: "read" | "write", handle: Handle<E, R>) =>
    (request: HttpServerRequest.HttpServerRequest) =>
      Option.match(Guard.refusal(rules, request, asks), {
        onSome: (refused) => Effect.succeed(HttpServerResponse.setHeaders(refused, Guard.headers)),
        onNone: () => Effect.flatMap(HttpRouter.params, handle)
      })

  const read = <E, R>(path: HttpRouter.PathInput, handle: Handle<E, R>) =>
    HttpRouter.add("GET", path, guarded("read", handle))
  const write = <E, R>(path: HttpRouter.PathInput, handle: Handle<E, R>) =>
    HttpRouter.add("POST", path, guarded("write", handle))

  const pageOf = Effect.map(HttpServerRequest.schemaSearchParams(Query), ({ after, limit, newest }) => ({
    after: Option.fromNullishOr(after),
    limit: limit ?? pageSize,
    newest: newest === "1"
  }))

  const paged = <A extends Message.Message>(
    f: (
      inspector: Inspector.Inspector["Service"],
      page: Inspector.NewestPage
    ) => Effect.Effect<ReadonlyArray<A>, Transport.TransportError>
  ) =>
    answered(
      Effect.gen(function* () {
        const inspector = yield* Inspector.Inspector
        const items = yield* f(inspector, yield* pageOf)
        return { items: items.map(rowOf) }
      })
    )

  const topicOf = (params: Params) => params["topic"] ?? ""
  const groupOf = (params: Params) => params["group"] ?? ""

  const overview = answered(
    Effect.gen(function* () {
      const inspector = yield* Inspector.Inspector
      const { address, prefix } = yield* Server
      const names = yield* inspector.topics
      const topics = yield* Effect.forEach(names, inspector.describe, { concurrency: 32 })
      const value: Overview = { address, prefix, writes: rules.writes, now: yield* Clock.currentTimeMillis, topics }
      return value
    })
  )

  const life = (topic: string, id: string) =>
    answered(
      Effect.gen(function* () {
        const inspector = yield* Inspector.Inspector
        const seen = yield* HttpServerRequest.schemaSearchParams(SeenQuery)
        const info = yield* inspector.describe(topic)
        const is = <A extends { readonly id: string }>(one: A) => one.id === id
        const from = (after: string | undefined) => ({ after: Option.fromNullishOr(after), limit: pageSize })
        const forward = <A extends Message.Message>(
          count: number,
          read: Read<A>,
          positionOf: (one: A) => string,
          start: string | undefined
        ) =>
          Effect.gen(function* () {
            if (count === 0) return undefined
            const next = (page: Arr.NonEmptyReadonlyArray<A>) => from(positionOf(Arr.lastNonEmpty(page)))
            const there = start === undefined ? undefined : yield* sought(read, from(start), next, is)
            const one = there ?? (yield* sought(read, from(undefined), next, is))
            return one === undefined ? undefined : messageJson(one)
          })
        const stored = yield* sought(
          (page) => inspector.messages(topic, page),
          { ...from(undefined), newest: true },
          ([first]) => ({ ...from(undefined), before: first.position }),
          is
        )
        const groups = yield* Effect.forEach(info.groups, ({ deadLetters, group, pending, waiting }) => {
          const start = (list: Seen["list"]) => (group === seen.group && list === seen.list ? seen.after : undefined)
          return Effect.all({
            group: Effect.succeed(group),
            pending: forward(
              pending,
              (page) => inspector.pending(topic, group, page),
              (one) => one.position,
              start("pending")
            ),
            waiting: forward(
              waiting,
              (page) => inspector.waiting(topic, group, page),
              (one) => one.position,
              start("waiting")
            ),
            dead: forward(
              deadLetters,
              (page) => inspector.deadLetters(topic, group, page),
              ({ entry }) => entry,
              start("dead")
            )
          })
        })
        return { message: stored === undefined ? undefined : messageJson(stored), groups } satisfies Life
      })
    )

  const moved = (verb: "redrive" | "discard") => {
    const move = verb === "redrive" ? DeadLetters.redrive : DeadLetters.discard
    return (params: Params) =>
      answered(
        Effect.gen(function* () {
          const { dryRun, entries, reason } = yield* HttpServerRequest.schemaBodyJson(SelectionBody)
          const inspector = yield* Inspector.Inspector
          const topic = topicOf(params)
          const group = groupOf(params)
          if (entries !== undefined) {
            const done = dryRun ? 0 : yield* inspector[verb](topic, group, entries)
            const report: Report = { examined: entries.length, selected: entries.length, done }
            return report
          }
          const raw = Topic.make(topic, { payload: Schema.Unknown })
          return yield* move(raw, group, {
            where: (letter) => reason === undefined || letter.reason === reason,
            dryRun
          })
        })
      )
  }

  const steered = (verb: "pause" | "resume") => (params: Params) =>
    answered(
      Effect.gen(function* () {
        yield* (yield* Inspector.Inspector)[verb](topicOf(params), groupOf(params))
        return { paused: verb === "pause" }
      })
    )

  const ofGroup = "/api/topics/:topic/groups/:group" as const
  return Layer.mergeAll(
    read("/api/overview", () => overview),
    read("/api/topics/:topic/messages", (params) =>
      paged((inspector, page) => inspector.messages(topicOf(params), page))
    ),
    read("/api/topics/:topic/life/:id", (params) => life(topicOf(params), params["id"] ?? "")),
    read(`${ofGroup}/pending`, (params) =>
      paged((inspector, page) => inspector.pending(topicOf(params), groupOf(params), page))
    ),
    read(`${ofGroup}/waiting`, (params) =>
      paged((inspector, page) => inspector.waiting(topicOf(params), groupOf(params), page))
    ),
    read(`${ofGroup}/dead`, (params) =>
      paged((inspector, page) => inspector.deadLetters(topicOf(params), groupOf(params), page))
    ),
    write(`${ofGroup}/redrive`, moved("redrive")),
    write(`${ofGroup}/discard`, moved("discard")),
    write(`${ofGroup}/pause`, steered("pause")),
    write(`${ofGroup}/resume`, steered("resume")),
    Layer.unwrap(
      Effect.map(HttpStaticServer.make({ root: page }), (files) =>
        HttpRouter.add("GET", "/*", (request) =>
          Option.match(Guard.refusal(rules, request, "page"), {
            onSome: Effect.succeed,
            onNone: () => Effect.map(files, HttpServerResponse.setHeaders(Guard.headers))
          })
        )
      )
    )
  )
}
