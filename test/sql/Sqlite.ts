/**
 * Effect's SQL client over the SQLite that comes with Node: no package has a driver for this release of Effect yet.
 */
import { DatabaseSync, type SQLInputValue } from "node:sqlite"
import { Effect, Layer, Stream } from "effect"
import * as Reactivity from "effect/reactivity/Reactivity"
import * as SqlClient from "effect/sql/SqlClient"
import type { Connection } from "effect/sql/SqlConnection"
import { SqlError, UnknownError } from "effect/sql/SqlError"
import { makeCompilerSqlite } from "effect/sql/Statement"

const make = Effect.gen(function* () {
  const database = yield* Effect.acquireRelease(
    Effect.sync(() => new DatabaseSync(":memory:")),
    (database) => Effect.sync(() => database.close())
  )
  const rows = (sql: string, params: ReadonlyArray<unknown>) =>
    Effect.try({
      try: () => database.prepare(sql).all(...(params as ReadonlyArray<SQLInputValue>)),
      catch: (cause) => new SqlError({ reason: new UnknownError({ cause, message: String(cause) }) })
    })
  const values = (sql: string, params: ReadonlyArray<unknown>) =>
    Effect.map(rows(sql, params), (found) => found.map((row) => Object.values(row)))
  const connection: Connection = {
    execute: (sql, params) => rows(sql, params),
    executeRaw: rows,
    executeStream: (sql, params) => Stream.fromIterableEffect(rows(sql, params)),
    executeValues: values,
    executeValuesUnprepared: values,
    executeUnprepared: (sql, params) => rows(sql, params)
  }
  return yield* SqlClient.make({
    acquirer: Effect.succeed(connection),
    compiler: makeCompilerSqlite(),
    driver: "node:sqlite",
    spanAttributes: []
  })
})

export const layer = Layer.effect(SqlClient.SqlClient, make).pipe(Layer.provide(Reactivity.layer))
