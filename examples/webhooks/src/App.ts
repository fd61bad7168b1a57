/**
 * The program in one place: a server that takes webhooks, and three groups that read them. It runs on any transport that
 * keeps "at least once".
 */
import { createServer } from "node:http"
import { NodeHttpClient, NodeHttpServer } from "@effect/platform-node"
import { Layer } from "effect"
import { HttpRouter } from "effect/http"
import * as Audit from "./Audit.ts"
import * as Downstream from "./Downstream.ts"
import * as Index from "./Index.ts"
import { routes } from "./WebhookServer.ts"

export interface Options {
  readonly host: string
  /** 0 takes a free one. */
  readonly port: number
  /** Where the downstream service listens. */
  readonly downstream: string
  /** The file that group `audit` writes. */
  readonly auditLog: string
}

const groups = Layer.mergeAll(Index.layer, Downstream.layer, Audit.layer)

/** Provides the address of the server, and the index. The groups are joined before the server listens. */
export const layer = ({ auditLog, downstream, host, port }: Options) =>
  HttpRouter.serve(routes, { disableLogger: true, disableListenLog: true }).pipe(
    Layer.provideMerge(NodeHttpServer.layer(createServer, { host, port })),
    Layer.provide(groups),
    Layer.provide(Downstream.Downstream.layer(downstream)),
    Layer.provide(Audit.Audit.layer(auditLog, `writer ${process.pid}`)),
    Layer.provide(NodeHttpClient.layerUndici),
    Layer.provideMerge(Index.Index.layer)
  )
