/**
 * How much a user may ask for, counted on all servers together, and how much of it a connection may have under way. What
 * is too much is refused before anything is done for it, and never waits here.
 *
 * A name is whoever takes it, so a user who takes many names has the allowance of each. Whoever puts authentication in
 * front of the chat closes that door, too.
 *
 * @module
 */
import { Duration, Effect, Layer, Predicate } from "effect"
import { RateLimiter } from "effect/persistence"
import type { Rpc, RpcGroup } from "effect/rpc"
import { Allowance, type Chat, TooManyRequests, Unavailable } from "./Protocol.ts"

/** What a user may do at once, and how soon it may do as much again. */
const allowances = {
  commands: { limit: 30, window: "10 seconds" },
  /** A client marks while messages come in, in each of its tabs. */
  marks: { limit: 100, window: "10 seconds" },
  reads: { limit: 100, window: "10 seconds" },
  /** All tabs of a user come back at once when a server starts again. */
  connects: { limit: 30, window: "30 seconds" },
  typing: { limit: 30, window: "10 seconds" }
} as const

type Kind = keyof typeof allowances

const kinds = {
  createRoom: "commands",
  joinRoom: "commands",
  leaveRoom: "commands",
  sendMessage: "commands",
  disconnect: "commands",
  markRead: "marks",
  listRooms: "reads",
  getMembers: "reads",
  getRoomHistory: "reads",
  getSentMessages: "reads",
  connect: "connects",
  typing: "typing"
} satisfies Record<RpcGroup.Rpcs<typeof Chat>["_tag"], Kind>

const kindOf: ReadonlyMap<string, Kind> = new Map(Object.entries(kinds))

/** Calls that one connection may have under way. */
export const atOnce = 32
/** A stream counts as so many, because of what is on its way on it. */
const streamWeight = 8

export const layer: Layer.Layer<Allowance, never, RateLimiter.RateLimiter> = Layer.effect(
  Allowance,
  Effect.gen(function* () {
    const limiter = yield* RateLimiter.RateLimiter
    const underWay = new WeakMap<Rpc.ServerClient, number>()

    const count = (connection: Rpc.ServerClient, weight: number) =>
      Effect.sync(() => underWay.set(connection, (underWay.get(connection) ?? 0) + weight))

    const enter = (connection: Rpc.ServerClient, weight: number) =>
      Effect.suspend(() =>
        (underWay.get(connection) ?? 0) + weight > atOnce
          ? Effect.fail(new TooManyRequests({ retryAfterMillis: 1000 }))
          : count(connection, weight)
      )

    const consume = (kind: Kind, user: string) =>
      limiter
        .consume({ ...allowances[kind], algorithm: "token-bucket", key: `${kind}/${user}` })
        .pipe(
          Effect.catch(({ reason }): Effect.Effect<never, TooManyRequests | Unavailable> =>
            reason._tag === "RateLimitExceeded"
              ? Effect.fail(new TooManyRequests({ retryAfterMillis: Duration.toMillis(reason.retryAfter) }))
              : Effect.andThen(
                  Effect.logWarning("the allowance was not counted", reason),
                  Effect.fail(new Unavailable({}))
                )
          )
        )

    return Allowance.of((effect, { client, payload, rpc }) => {
      const kind = kindOf.get(rpc._tag) ?? "commands"
      const user = Predicate.hasProperty(payload, "user") ? String(payload.user) : ""
      const weight = kind === "connects" ? streamWeight : 1
      return Effect.acquireUseRelease(
        enter(client, weight),
        () => Effect.andThen(consume(kind, user), effect),
        () => count(client, -weight)
      )
    })
  })
)
