/**
 * Waiting until what was stored is also on a replica, or on disk. The question travels right behind the script, on the same
 * connection: a server answers for what that connection has written, and another one knows nothing of it.
 *
 * @module
 */
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { Redis } from "ioredis"
import type { Durability } from "../../../Message.ts"
import { NotFsynced, NotOffered, NotReplicated, type Reason } from "../../../Transport.ts"
import type { Commands, Connection } from "../connection/Connection.ts"

export interface ConfirmationOptions {
  readonly durability: Exclude<Durability, "stored">
  /** A connection of its own, because the server answers nothing else on it meanwhile. */
  readonly connect: Effect.Effect<Connection>
  readonly key: string
  readonly clock: Clock.Clock
}

/** Sends behind a script, and resolves to the reason why it is not confirmed, if it is not. */
export type Ask = (client: Redis) => Promise<Reason | undefined>

/** How long after its time the answer may arrive. */
const graceMillis = 500

export class Confirmation {
  readonly #options: ConfirmationOptions
  #commands: Commands | undefined

  constructor(options: ConfirmationOptions) {
    this.#options = options
  }

  /** Runs `store` with the connection, and the question that must follow the script. */
  of<A>(
    millis: number,
    store: (commands: Commands, ask: Ask, deadline: number) => Effect.Effect<A, Reason>
  ): Effect.Effect<A, Reason> {
    return Effect.gen({ self: this }, function* () {
      const { clock } = this.#options
      const now = () => Number(clock.monotonicTimeNanosUnsafe() / 1_000_000n)
      const until = now() + millis
      const commands = this.#commands ?? (yield* this.#connect())
      this.#commands = commands
      const ask: Ask = (client) => this.#ask(client, Math.max(1, until - now()))
      return yield* store(commands, ask, millis + graceMillis)
    })
  }

  /** Before anything is stored, it is known that the server can answer. */
  #connect(): Effect.Effect<Commands, Reason> {
    const { connect, durability, key } = this.#options
    const [command, ...args] = durability === "replicated" ? ["WAIT", 0, 1] : ["WAITAOF", 1, 0, 1]
    return Effect.flatMap(connect, (commands) =>
      commands
        .run(command.toLowerCase(), key, (client) => client.call(command, args))
        .pipe(
          Effect.mapError((reason) =>
            reason._tag === "Rejected"
              ? new NotOffered({ feature: `durability: "${durability}"`, detail: unable(reason.detail) })
              : reason
          ),
          Effect.as(commands)
        )
    )
  }

  async #ask(client: Redis, millis: number): Promise<Reason | undefined> {
    const waitedMillis = Math.floor(millis)
    try {
      if (this.#options.durability === "replicated") {
        const replicas = await client.wait(1, waitedMillis)
        return replicas >= 1 ? undefined : new NotReplicated({ waitedMillis })
      }
      const reply = await client.call("WAITAOF", 1, 0, waitedMillis)
      return Array.isArray(reply) && Number(reply[0]) >= 1 ? undefined : new NotFsynced({ waitedMillis })
    } catch (error) {
      // Its server has become a replica, or writes no log any more. Without a reply, the script has none either.
      if (!(error instanceof Error) || error.name !== "ReplyError") throw error
      return this.#options.durability === "replicated"
        ? new NotReplicated({ waitedMillis })
        : new NotFsynced({ waitedMillis })
    }
  }
}

const unable = (detail: string): string =>
  detail.includes("appendonly")
    ? "the server keeps no append-only file. Switch it on with appendonly yes"
    : "the server does not know the command. Use Redis 7.2 or newer, or Valkey; or appendfsync always, without it"
