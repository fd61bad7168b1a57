/**
 * The server that Sentinels call the master, found again whenever they call another one that.
 *
 * A master that was replaced goes on to accept writes until Sentinel reaches it, for ten seconds and more, and loses them all. So
 * the address comes from the Sentinels on every attempt to connect, the server there must call itself a master, and all
 * connections leave it as soon as a Sentinel announces another one, or names it when asked, once a second.
 *
 * @module
 */
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import type * as Scope from "effect/Scope"
import type { Redis } from "ioredis"
import { Disconnected, type Reason, UnsupportedServer } from "../../../Transport.ts"
import { type Address, type HostPort, type Place, reachedAt, shown } from "./Address.ts"
import {
  type Connection,
  make as makeConnection,
  type Server,
  type ServerConnection,
  type Shared
} from "./Connection.ts"
import { fieldsOf } from "./Handshake.ts"
import { single, type Servers } from "./Servers.ts"

type At = Extract<Address, { readonly _tag: "Sentinel" }>

export interface Options extends At {
  /** How to connect to the master, and to a Sentinel. */
  readonly toServer: (place: Place) => Effect.Effect<Server>
  readonly toSentinel: (place: Place) => Effect.Effect<Server>
}

/** How often each Sentinel is asked, and how long it may take to reply. */
const period = "1 second"

/** What a Sentinel says about the master. */
export interface Answer {
  readonly master: HostPort
  /** Every failover that most Sentinels have agreed to gets a higher one. */
  readonly epoch: number
}

/** The master of the newest configuration; where several Sentinels know different ones of that age, what most of them say. */
export const masterOf = (answers: ReadonlyArray<Answer>): HostPort | undefined => {
  const newest = Math.max(...answers.map(({ epoch }) => epoch))
  const named = answers.filter(({ epoch }) => epoch === newest).map(({ master }) => master)
  const votes = (master: HostPort) => named.filter((other) => shown(other) === shown(master)).length
  return named.find((master) => votes(master) * 2 > named.length)
}

/** All connections lead to the master. `commands` of the result is the shared one. */
export const sentinel = Effect.fnUntraced(function* (
  shared: Shared,
  options: Options
): Effect.fn.Return<Servers, never, Scope.Scope> {
  const { name, natMap, toServer } = options
  const scope = yield* Effect.scope
  const connections = new Set<ServerConnection>()
  const master = () => {
    const found = masterOf(witnesses.flatMap(({ answer }) => answer ?? []))
    return found === undefined ? undefined : reachedAt(natMap, found)
  }
  const move = () => {
    const at = master()
    if (at !== undefined) for (const connection of connections) connection.moveTo(shown(at))
  }
  const witnesses = yield* Effect.forEach(options.sentinels, (at) =>
    Effect.map(
      makeConnection(shared, {
        role: `sentinel:${shown(at)}`,
        dedicated: true,
        server: options.toSentinel(at),
        beside: () => undefined
      }),
      (connection) => new Witness(shown(at), name, connection)
    )
  )
  for (const witness of witnesses) yield* Effect.forkScoped(witness.watch(move))

  /** Asks all of them. Ends once more than half have replied, or all of them have had the time to. */
  const ask = Effect.suspend(() => {
    const enough = Latch.makeUnsafe(false)
    let replied = 0
    let ended = 0
    const one = (witness: Witness) =>
      Effect.match(witness.ask, { onFailure: () => ended++, onSuccess: () => (ended++, replied++) }).pipe(
        Effect.tap(() => (replied * 2 > witnesses.length || ended === witnesses.length ? enough.open : Effect.void)),
        // An interrupted command costs its connection, so the rest go on.
        Effect.forkIn(scope)
      )
    return Effect.andThen(Effect.forEach(witnesses, one), enough.await)
  })
  // Connections that are lost together ask once.
  const asked = yield* Effect.cachedWithTTL(ask, "50 millis")
  const server = Effect.gen(function* () {
    yield* asked
    const at = master()
    if (at === undefined) return yield* Effect.fail(unknown(options, witnesses))
    return { ...(yield* toServer(at)), master: true }
  })
  return yield* single(shared, server, (connection) =>
    Effect.acquireRelease(
      Effect.sync(() => connections.add(connection)),
      () => Effect.sync(() => connections.delete(connection))
    )
  )
})

/** One Sentinel. */
class Witness {
  readonly address: string
  readonly #name: string
  readonly #connection: Connection
  readonly #heard = Latch.makeUnsafe(false)
  /** Its last answer, also while it cannot be reached: it tells an older configuration from a newer one. */
  answer: Answer | undefined
  /** Why the last question failed. */
  reason: Reason | undefined

  constructor(address: string, name: string, connection: Connection) {
    this.address = address
    this.#name = name
    this.#connection = connection
  }

  readonly ask: Effect.Effect<void, Reason> = Effect.suspend(() =>
    this.#connection.run("SENTINEL", [], (client) => question(client, this.#name), { deadline: period })
  ).pipe(
    Effect.flatMap((found) =>
      found === undefined
        ? Effect.fail(
            new UnsupportedServer({
              found: `Sentinel ${this.address}, which watches no master named "${this.#name}"`,
              needed: "the name in its configuration"
            })
          )
        : Effect.succeed(found)
    ),
    Effect.mapError((reason) =>
      reason._tag === "Rejected" && /unknown command/i.test(reason.detail)
        ? new UnsupportedServer({
            found: `${this.address}, which is not a Sentinel`,
            needed: "the addresses of Sentinels"
          })
        : reason
    ),
    Effect.match({
      onFailure: (reason) => {
        this.reason = reason
        return reason
      },
      onSuccess: (answer) => {
        this.answer = answer
        this.reason = undefined
        return undefined
      }
    }),
    Effect.flatMap((reason) => (reason === undefined ? Effect.void : Effect.fail(reason)))
  )

  /** Calls `learned` after every answer, until the scope closes. */
  watch(learned: () => void): Effect.Effect<never, never, Scope.Scope> {
    return Effect.gen({ self: this }, function* () {
      yield* this.#connection.each((client) => {
        client.on("message", () => this.#heard.openUnsafe())
        client.subscribe("+switch-master").catch(() => {})
      })
      while (true) {
        this.#heard.closeUnsafe()
        yield* Effect.ignore(Effect.tap(this.ask, () => Effect.sync(learned)))
        yield* Effect.raceFirst(this.#heard.await, Effect.sleep(period))
      }
    })
  }
}

/** The address that follows a failover from its first second on, and the age of the configuration it is from. */
const question = async (client: Redis, name: string): Promise<Answer | undefined> => {
  const results = await client
    .pipeline()
    .call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
    .call("SENTINEL", "MASTER", name)
    .exec()
  const [address, about] = results ?? []
  if (address?.[0]) throw address[0]
  const [host, port] = Array.isArray(address?.[1]) ? address[1].map(String) : []
  if (host === undefined || port === undefined) return undefined
  // What only speaks like a Sentinel may not know this command: then most of them decide.
  const epoch = about?.[0] ? 0 : Number(fieldsOf(about?.[1]).get("config-epoch"))
  return { master: { host, port: Number(port) }, epoch: Number.isSafeInteger(epoch) ? epoch : 0 }
}

const unknown = ({ name }: At, witnesses: ReadonlyArray<Witness>): Reason => {
  const reasons = witnesses.flatMap(({ reason }) => reason ?? [])
  const [first] = reasons
  if (first !== undefined && reasons.length === witnesses.length && reasons.every(({ permanent }) => permanent))
    return first
  const why = witnesses.map(({ address, reason }) => `${address}: ${reason?.message ?? "it names another one"}`)
  return new Disconnected({
    ambiguous: false,
    cause: new Error(`no Sentinel tells where the master ${name} is; ${why.join("; ")}`)
  })
}
