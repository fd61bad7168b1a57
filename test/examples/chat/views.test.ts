/**
 * Two hundred people in twenty rooms, three server processes, and a seeded plan that kills processes and connections and
 * deafens everyone to the news. In the end each member's view of a room has to be the room. WAYBILL_SEED repeats a plan,
 * WAYBILL_CHAT lets it go on for so many seconds, 10 by default.
 */
import { isDeepStrictEqual } from "node:util"
import { assert, describe, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Context, Deferred, Effect, Layer, Logger, Random, Redacted, Result, Schedule, Scope, Stream } from "effect"
import { Log } from "waybill"
import { IoRedis, RedisPubSub, RedisStreams } from "waybill/redis"
import { News } from "../../../examples/chat/src/News.ts"
import { type Event, type Message } from "../../../examples/chat/src/Protocol.ts"
import * as RoomLog from "../../../examples/chat/src/RoomLog.ts"
import { Channels, Store } from "../../../examples/chat/src/Transports.ts"
import { client as redisClient, drawing } from "../../faults/Verdict.ts"
import { client, type ServerProcess, start } from "./ServerProcess.ts"

const seconds = Number(process.env.WAYBILL_CHAT ?? 10)

const users = Array.from({ length: 200 }, (_, i) => `user-${i}`)
const rooms = Array.from({ length: 20 }, (_, i) => `room-${i}`)
const roomsOf = (user: string): ReadonlyArray<string> => {
  const i = users.indexOf(user)
  return [`room-${i % 20}`, `room-${(i * 7 + 3) % 20}`]
}

/** What is wrong with a view: it has to be the stream, in order, each message once and as it was written. */
const problems = (view: ReadonlyArray<Message>, stream: ReadonlyArray<Message>): ReadonlyArray<string> => {
  const found: Array<string> = []
  const seen = new Set<string>()
  for (const { position } of view) {
    if (seen.has(position)) found.push(`${position} came again`)
    seen.add(position)
  }
  for (const { position } of stream) if (!seen.has(position)) found.push(`${position} is missing`)
  if (found.length > 0) return found
  for (const [i, message] of stream.entries()) {
    if (!isDeepStrictEqual(view[i], message)) found.push(`${JSON.stringify(view[i])} is not ${JSON.stringify(message)}`)
  }
  return found
}

/** A user in front of a screen: dials some server, shows what it is told, says things, and is cut off now and then. */
class Person {
  readonly user: string
  readonly views = new Map<string, Array<Message>>()
  chat: Effect.Success<ReturnType<typeof client>> | undefined
  dials = 0
  cuts = 0
  /** Ends the present connection; whether there was one. */
  cut: Effect.Effect<boolean> = Effect.succeed(false)
  /** Destroys the present TCP connection, without a word to either end; whether there was one. */
  tear: Effect.Effect<boolean> = Effect.succeed(false)
  constructor(user: string) {
    this.user = user
    for (const room of roomsOf(user)) this.views.set(room, [])
  }

  show(event: Event): void {
    // Nothing is put right here: what the server says twice is there twice.
    if (event._tag === "Posted") this.views.get(event.room)?.push(event.message)
  }

  /** Stays connected for as long as it runs, to whichever server `port` names. */
  live(port: () => number): Effect.Effect<never> {
    return Effect.gen({ self: this }, function* () {
      const scope = yield* Effect.scope
      const ended = yield* Deferred.make<void>()
      this.cut = Deferred.succeed(ended, undefined)
      const target = port()
      const chat = yield* client(
        () => target,
        (socket) => {
          this.tear = Effect.suspend(() => {
            if (socket.readyState !== socket.OPEN) return Effect.succeed(false)
            socket.terminate()
            return Effect.succeed(true)
          })
        }
      )
      this.chat = chat
      this.dials++
      const positions: Record<string, string> = {}
      for (const [room, view] of this.views) {
        const last = view.at(-1)
        if (last !== undefined) positions[room] = last.position
      }
      yield* chat.connect({ user: this.user, tab: "tab", positions }).pipe(
        Stream.runForEach((event) => Effect.sync(() => this.show(event))),
        // A server that stops says that it has interrupted what was asked of it.
        Effect.exit,
        Effect.andThen(this.cut),
        Effect.forkIn(scope)
      )
      yield* Deferred.await(ended)
    }).pipe(Effect.scoped, Effect.andThen(Effect.sleep("100 millis")), Effect.forever({ disableYield: true }))
  }

  /** Sends until it has been told that it is stored. */
  say(room: string, id: string): Effect.Effect<void> {
    return Effect.gen({ self: this }, function* () {
      if (this.chat === undefined) return yield* Effect.fail("not connected" as const)
      const sent = this.chat.sendMessage({ room, user: this.user, id, text: textOf(this.user, id) })
      return yield* Effect.timeout(sent, "12 seconds")
    }).pipe(
      Effect.catchCause(() => Effect.andThen(Effect.sleep("300 millis"), Effect.fail("not stored yet" as const))),
      Effect.retry({ times: 200 }),
      Effect.orDie
    )
  }
}

/** What the test itself reads: the truth, and what a view is that trusts the news. */
const reading = (url: string) =>
  Layer.mergeAll(
    RedisStreams.layer({ prefix: "chat", as: Store }),
    Layer.provide(News.layer, RedisPubSub.layer({ prefix: "chat", as: Channels }))
  ).pipe(Layer.provide(IoRedis.layer({ url: Redacted.make(url) })))

const messagesOf = (room: string) =>
  Log.stream(RoomLog.topic(room)).pipe(
    Stream.runCollect,
    Effect.map((entries) =>
      entries.map(({ payload, position, publishedAt }): Message => ({
        ...Result.getOrThrow(payload),
        position,
        at: publishedAt
      }))
    )
  )

const textOf = (user: string, id: string) => `${user} says ${id}`

/** A signal as the process answers to it. */
const codeOf = { SIGKILL: -1, SIGTERM: 130 } as const

describe("the chat under a seeded plan", () => {
  it.live(
    "every member's view of a room equals the stream, in order, once; a view that trusts the news does not",
    () =>
      Effect.gen(function* () {
        const draw = yield* drawing("chat")
        const redis = yield* RedisServer.make()
        const store = yield* Layer.build(reading(redis.url))
        const admin = yield* redisClient(redis.url)

        // Three places for servers: whoever is killed comes back on the same port.
        const places: Array<{ server: ServerProcess; readonly scope: Scope.Scope }> = []
        for (let i = 0; i < 3; i++) {
          const scope = yield* Effect.scope
          places.push({ scope, server: yield* Scope.provide(start({ redis: redis.url }), scope) })
        }
        const anyPort = (dice: number) => places[dice % places.length]!.server.port

        const setUp = yield* client(() => anyPort(0))
        for (const [i, room] of rooms.entries()) yield* setUp.createRoom({ room, user: users[i]!, id: "room" })
        const people = users.map((user) => new Person(user))
        yield* Effect.forEach(
          people,
          ({ user }) => Effect.forEach(roomsOf(user), (room) => setUp.joinRoom({ room, user }), { discard: true }),
          { concurrency: 16, discard: true }
        )
        // So that everyone has a position to come back to before the first one is cut off.
        for (const [i, room] of rooms.entries()) {
          yield* setUp.sendMessage({ room, user: users[i]!, id: "first", text: "welcome" })
        }

        const naive = new Map<string, Array<Message>>(rooms.map((room) => [room, []]))
        const watching = yield* Effect.context<never>()
        yield* Context.get(store, News).hear((fact) => {
          if (fact._tag !== "Posted") return
          const newest = Effect.provideContext(RoomLog.before(fact.room, undefined, 1), store)
          Effect.runForkWith(watching)(
            Effect.map(
              Effect.orElseSucceed(newest, () => []),
              ([message]) => {
                if (message !== undefined) naive.get(fact.room)!.push(message)
              }
            )
          )
        })

        let roll = 0
        const crowd = yield* Effect.forkScoped(
          Effect.forEach(people, (person) => person.live(() => anyPort(roll++)), {
            concurrency: "unbounded",
            discard: true
          })
        )
        const everyone = (what: string, condition: (person: Person) => boolean) =>
          Effect.suspend(() => Effect.succeed(people.filter((person) => !condition(person)))).pipe(
            Effect.repeat({ until: (others) => others.length === 0, schedule: Schedule.spaced("100 millis") }),
            Effect.timeoutOrElse({
              duration: "120 seconds",
              orElse: () =>
                Effect.die(
                  new Error(
                    `${what}: not ${people
                      .filter((p) => !condition(p))
                      .map((p) => p.user)
                      .slice(0, 5)
                      .join()}`
                  )
                )
            })
          )
        yield* everyone("all have seen the first message", ({ views }) =>
          [...views.values()].every((view) => view.length > 0)
        )

        const until = performance.now() + seconds * 1000
        const peace = () => performance.now() > until
        const told: Array<string> = []

        const talk = Effect.forEach(
          people,
          Effect.fnUntraced(function* (person, i) {
            for (let n = 0; !peace(); n++) {
              yield* Effect.sleep(500 + ((i * 7919 + n * 104729) % 5000))
              if (peace()) break
              const room = roomsOf(person.user)[n % 2]!
              yield* person.say(room, `m-${n}`)
              told.push(`${room} ${person.user} m-${n} ${textOf(person.user, `m-${n}`)}`)
            }
          }),
          { concurrency: "unbounded", discard: true }
        )

        // Drawn before anything happens, so that the plan does not depend on the machine; how far it gets does.
        const planned = <A>(length: number, draw: Effect.Effect<A>) =>
          Effect.forEach(Array.from({ length }), () => draw, { discard: false })
        const someone = Random.nextIntBetween(0, people.length - 1)
        const cut = planned(10, someone)
        const onConnections = yield* draw(
          planned(
            4 * seconds,
            Effect.all({
              pause: Random.nextIntBetween(200, 1000),
              what: Random.choice(["cut", "tear", "deafen"] as const),
              whom: cut
            })
          )
        )
        const onServers = yield* draw(
          planned(
            2 * seconds,
            Effect.all({
              pause: Random.nextIntBetween(300, 2500),
              signal: Random.choice(["SIGKILL", "SIGKILL", "SIGTERM"] as const),
              place: Random.nextIntBetween(0, places.length - 1)
            })
          )
        )
        // What was done, and not what was planned: who was not connected was not cut off.
        const done = { SIGKILL: 0, SIGTERM: 0, cut: 0, torn: 0, deafened: 0 }
        const deafen = Effect.gen(function* () {
          done.deafened += Number(yield* Effect.promise(() => admin.call("CLIENT", "KILL", "TYPE", "pubsub")))
        })
        const cutting = Effect.gen(function* () {
          yield* deafen
          for (const { pause, what, whom } of onConnections) {
            yield* Effect.sleep(pause)
            if (peace() && done.cut > 0 && done.torn > 0) return
            if (what === "deafen") yield* deafen
            else
              for (const i of whom) {
                const person = people[i]!
                if (!(yield* person[what])) continue
                person.cuts++
                done[what === "cut" ? "cut" : "torn"]++
              }
          }
        })
        const killing = Effect.gen(function* () {
          for (const { pause, place: index, signal } of onServers) {
            yield* Effect.sleep(pause)
            if (peace() && done.SIGKILL > 0) return
            const place = places[index]!
            const { port } = place.server
            yield* place.server.kill(signal)
            assert.strictEqual(yield* place.server.ended, codeOf[signal], `the server was not ended by ${signal}`)
            done[signal]++
            place.server = yield* Scope.provide(start({ redis: redis.url, port }), place.scope)
          }
        })
        yield* Effect.all([talk, cutting, killing], { concurrency: 3 })

        const truth = new Map<string, ReadonlyArray<Message>>()
        for (const room of rooms) truth.set(room, yield* Effect.provideContext(messagesOf(room), store))
        yield* everyone("all have seen everything", ({ views }) =>
          [...views].every(([room, view]) => view.length >= truth.get(room)!.length)
        )
        yield* everyone("all that were cut off are back", ({ cuts, dials }) => dials > cuts)
        const wrong: Array<string> = []
        for (const { user, views } of people) {
          for (const [room, view] of views) {
            const found = problems(view, truth.get(room)!)
            if (found.length > 0) wrong.push(`${user} in ${room}: ${found.slice(0, 3).join(", ")}`)
          }
        }
        const stored = [...truth].flatMap(([room, messages]) =>
          messages.map(({ id, text, user }) => `${room} ${user} ${id} ${text}`)
        )
        const dials = people.reduce((sum, person) => sum + person.dials, 0)
        console.log(
          `chat: ${stored.length} messages in ${rooms.length} rooms, ${people.length} people with ${2 * people.length} views; ` +
            `${dials - people.length} connections lost, ` +
            Object.entries(done)
              .map(([what, times]) => `${times} ${what}`)
              .join(", ")
        )
        assert.deepStrictEqual(wrong, [])
        // Whatever was answered is there, once; and nothing else but the welcomes.
        const welcomes = rooms.map((room, i) => `${room} ${users[i]!} first welcome`)
        assert.deepStrictEqual(stored.toSorted(), [...told, ...welcomes].toSorted())

        for (const [what, times] of Object.entries(done)) {
          if (what !== "SIGTERM") assert.isAbove(times, 0, `nothing was ${what}`)
        }

        const trusting = rooms.filter((room) => problems(naive.get(room)!, truth.get(room)!.slice(1)).length > 0)
        assert.isNotEmpty(trusting, "a view that trusts the news would do as well")
        crowd.interruptUnsafe()
      }).pipe(Effect.provide(Logger.layer([]))),
    (240 + 3 * seconds) * 1000
  )
})
