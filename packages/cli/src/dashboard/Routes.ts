/**
 * The dashboard's server: the page, and what it asks for, over Inspector only. Looking changes nothing; every change
 * passes the guard first.
 *
 * @module
 */
import { Clock, Effect, Layer, Option, Schema } from "effect"
import { HttpRouter, HttpServerRequest, HttpServerResponse, HttpStaticServer } from "effect/http"
import { DeadLetters, Inspector, Topic, type Transport } from "waybill"
import { messageJson } from "../Screen.ts"
import { Server } from "../Server.ts"
import type { Life, Overview, Report } from "./Api.ts"
import * as Guard from "./Guard.ts"

const Limit = Schema.NumberFromString.check(Schema.isInt(), Schema.isBetween({ minimum: 1, maximum: 500 }))

const Query = Schema.Struct({
  after: Schema.optional(Schema.String),
  limit: Schema.optional(Limit),
  newest: Schema.optional(Schema.Literals(["0", "1"]))
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

/** How many messages of each kind are looked through for one. */
const searched = 2000

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
    limit: limit ?? 100,
    newest: newest === "1"
  }))

  const paged = <A extends { readonly body: string | Uint8Array }>(
    f: (
      inspector: Inspector.Inspector["Service"],
      page: Inspector.NewestPage
    ) => Effect.Effect<ReadonlyArray<A & Parameters<typeof messageJson>[0]>, Transport.TransportError>
  ) =>
    answered(
      Effect.gen(function* () {
        const inspector = yield* Inspector.Inspector
        const items = yield* f(inspector, yield* pageOf)
        return { items: items.map(messageJson) }
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
        const info = yield* inspector.describe(topic)
        const first = { after: Option.none(), limit: searched }
        const stored = yield* inspector.messages(topic, { ...first, newest: true })
        const is = <A extends { readonly id: string }>(one: A) => one.id === id
        const message = stored.find(is)
        const groups = yield* Effect.forEach(info.groups, ({ group }) =>
          Effect.gen(function* () {
            const pending = (yield* inspector.pending(topic, group, first)).find(is)
            const waiting = (yield* inspector.waiting(topic, group, first)).find(is)
            const dead = (yield* inspector.deadLetters(topic, group, first)).filter(is)
            return {
              group,
              pending: pending === undefined ? undefined : messageJson(pending),
              waiting: waiting === undefined ? undefined : messageJson(waiting),
              dead: dead.map(messageJson)
            }
          })
        )
        return { message: message === undefined ? undefined : messageJson(message), groups } as Life
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
