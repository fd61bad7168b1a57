/**
 * `chat client`: the chat in a terminal. What others write is text: no control character of theirs reaches the terminal.
 *
 * @module
 */
import * as Readline from "node:readline"
import { type Cause, Deferred, Effect, Option, Queue, Schema, Stream, SubscriptionRef } from "effect"
import { CliError, Command, Flag } from "effect/cli"
import { type Event, limits, type Message, path, Room, Text, User } from "./Protocol.ts"
import * as Session from "./Session.ts"

// Control characters and what turns the direction of text around: both can make a terminal show something else.
const unsafe = /[\p{Cc}\p{Zl}\p{Zp}\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f\ufff9-\ufffb]/gu

/** The text with every control character written as its escape, but for the ends of its lines. */
export const safe = (text: string): string =>
  text
    .split("\n")
    .map((line) =>
      line.replaceAll(unsafe, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`)
    )
    .join("\n    ")

const isText = Schema.is(Text)
const isRoom = Schema.is(Room)

const time = (at: number): string => new Date(at).toTimeString().slice(0, 5)

const said = ({ at, text, user }: Message): string => `${time(at)} ${user}: ${safe(text)}`

/** Messages of a room that are shown when one goes in. */
const shown = 20

const help = `What you write goes to the room that you are in. Beside that:
/rooms          your rooms, and all others
/create ROOM    makes a room and goes in
/join ROOM      goes in
/leave          leaves the room that you are in
/members        who is in it
/earlier        what was said before
/sent           your own last messages
/end            ends this client; you stay in your rooms`

/**
 * The lines of standard input up to `/end`, behind one that was typed on the command line, and a way to print that leaves
 * alone what is being typed.
 */
const terminal = Effect.fnUntraced(function* (first: string | undefined) {
  const lines = yield* Queue.unbounded<string, Cause.Done>()
  const ended = yield* Deferred.make<void>()
  /** What has been typed and is not done. */
  const undone: Array<string> = []
  const typed = (line: string) => {
    if (over || line.trim() === "") return
    undone.push(line)
    Queue.offerUnsafe(lines, line)
  }
  let over = false
  const end = () => {
    over = true
    // Closed within an event of its own, the input would be waited for.
    setImmediate(() => {
      Queue.endUnsafe(lines)
      Deferred.doneUnsafe(ended, Effect.void)
    })
  }
  if (first !== undefined) typed(first)
  const interactive = process.stdin.isTTY && process.stdout.isTTY
  const io = yield* Effect.acquireRelease(
    Effect.sync(() =>
      Readline.createInterface({ input: process.stdin, output: process.stdout, terminal: interactive, prompt: "> " })
    ),
    (io) => Effect.sync(() => io.close())
  )
  io.on("line", (line) => {
    if (line.trim() === "/end") return end()
    typed(line)
    if (interactive) io.prompt()
  })
  io.on("close", end)
  const print = (text: string) =>
    Effect.sync(() => {
      if (interactive) {
        Readline.cursorTo(process.stdout, 0)
        Readline.clearLine(process.stdout, 0)
      }
      process.stdout.write(`${text}\n`)
      if (interactive) io.prompt(true)
    })
  const each = (act: (line: string) => Effect.Effect<unknown>) =>
    Stream.runForEach(Stream.fromQueue(lines), (line) =>
      Effect.andThen(
        act(line),
        Effect.sync(() => undone.shift())
      )
    )
  return { each, undone, ended: Deferred.await(ended), print }
})

const run = Effect.fnUntraced(function* (user: string, room: string | undefined) {
  const { each, ended, print, undone } = yield* terminal(room === undefined ? undefined : `/join ${room}`)
  let current: string | undefined
  const events = yield* Queue.unbounded<Event>()
  const session = yield* Session.make({ user, seen: (event) => Queue.offer(events, event) })
  const show = (event: Event): Effect.Effect<void> => {
    switch (event._tag) {
      case "Posted":
        return event.room === current
          ? Effect.andThen(print(said(event.message)), session.read(event.room))
          : Effect.void
      case "Mentioned":
        return event.room === current ? Effect.void : print(`* ${event.message.user} names you in ${event.room}`)
      case "Joined":
        return event.room === current ? print(`* ${event.user} joins`) : Effect.void
      case "Left":
        return event.room === current ? print(`* ${event.user} leaves`) : Effect.void
      case "Online":
        return print(`* ${event.user} is online`)
      case "Offline":
        return print(`* ${event.user} is offline${event.reason === "left" ? "" : ": nothing was heard for 300 s"}`)
      case "Exited":
        if (event.room !== current) return Effect.void
        current = undefined
        return print(`* you have left ${event.room}`)
      default:
        return Effect.void
    }
  }
  yield* Queue.take(events).pipe(Effect.flatMap(show), Effect.forever, Effect.forkScoped)

  const state = SubscriptionRef.get(session.state)
  const until = <A>(found: (state: Session.State) => A | undefined) =>
    SubscriptionRef.changes(session.state).pipe(
      Stream.map(found),
      Stream.filter((a) => a !== undefined),
      Stream.runHead,
      Effect.map(Option.getOrThrow)
    )

  yield* SubscriptionRef.changes(session.state).pipe(
    Stream.map(({ connection }) => connection),
    Stream.changes,
    Stream.runForEach((connection) =>
      print(connection === "live" ? `* you are online as ${user}: /help` : `* ${connection}`)
    ),
    Effect.forkScoped
  )

  yield* SubscriptionRef.changes(session.state).pipe(
    Stream.runForEach(({ outgoing }) =>
      Effect.forEach(
        outgoing.filter(({ refused }) => refused !== undefined),
        ({ id, refused, room, text }) =>
          Effect.andThen(print(`* not sent to ${room}, ${refused}: ${safe(text)}`), session.discard(id)),
        { discard: true }
      )
    ),
    Effect.forkScoped
  )

  const goInto = Effect.fnUntraced(function* (room: string) {
    const { messages } = yield* until(({ rooms }) => rooms.get(room))
    current = room
    yield* print(`* you are in ${room}`)
    for (const message of messages.slice(-shown)) yield* print(said(message))
    yield* session.read(room)
  })
  const named = (room: string, then: Effect.Effect<void, { readonly message: string }>) =>
    isRoom(room) ? then : print(`* a room has a name of 1 to 32 of a-z, 0-9, _ and -`)
  const inside = <E>(then: (room: string) => Effect.Effect<unknown, E>): Effect.Effect<unknown, E> =>
    current === undefined ? print("* you are in no room: /join one") : then(current)

  const commands: Readonly<Record<string, (name: string) => Effect.Effect<unknown, { readonly message: string }>>> = {
    "/help": () => print(help),
    "/rooms": () =>
      Effect.gen(function* () {
        const { rooms } = yield* state
        for (const room of yield* session.rooms) {
          const mine = rooms.get(room)
          const unread = mine === undefined ? 0 : Session.unread(mine, user).unread
          yield* print(`  ${room}${mine === undefined ? "" : `: you are a member, ${unread} unread`}`)
        }
      }),
    "/create": (name) => named(name, Effect.andThen(session.create(name), goInto(name))),
    "/join": (name) =>
      named(
        name,
        Effect.andThen(session.join(name), goInto(name)).pipe(
          Effect.catchTag("RoomNotFound", ({ message }) => print(`* ${message}: /create ${name} makes it`))
        )
      ),
    "/leave": () => inside(session.leave),
    "/members": () =>
      inside((room) =>
        Effect.gen(function* () {
          const { online, rooms } = yield* state
          for (const name of rooms.get(room)?.members ?? []) {
            yield* print(`  ${name}${online.has(name) ? "" : ", offline"}`)
          }
        })
      ),
    "/earlier": () =>
      inside((room) =>
        Effect.gen(function* () {
          const before = (yield* state).rooms.get(room)?.messages.length ?? 0
          yield* session.older(room)
          const { messages = [] } = (yield* state).rooms.get(room) ?? {}
          for (const message of messages.slice(0, messages.length - before)) yield* print(said(message))
          yield* print("* this was before")
        })
      ),
    "/sent": () =>
      Effect.gen(function* () {
        for (const { at, room, text } of yield* session.sent) yield* print(`${time(at)} ${room}: ${safe(text)}`)
      })
  }

  const obeyed = each((line) => {
    const [, verb = "", name = ""] = /^(\/\w+)\s*(\S*)/.exec(line.trim()) ?? []
    if (verb !== "") {
      const command = commands[verb] ?? (() => print(`* there is no ${safe(verb)}: /help`))
      return Effect.catch(command(name), ({ message }) => print(`* ${message}`))
    }
    if (!isText(line)) return print(`* a text has something to see in it, and at most ${limits.text} characters`)
    return inside((room) => session.send(room, line))
  })
  const confirmed = (all: Session.State) => undone.length === 0 && all.outgoing.every(({ stored }) => stored)
  const done = until(({ connection }) => (connection === "live" ? true : undefined)).pipe(
    Effect.andThen(obeyed),
    // What was written last is on its way.
    Effect.andThen(until((all) => (confirmed(all) ? true : undefined)))
  )
  // Whatever is waited for: a server that never was there, an answer, a room.
  const enough = Effect.gen(function* () {
    yield* ended
    if (!confirmed(yield* state)) yield* Effect.sleep(lastWait)
  })
  yield* Effect.raceFirst(done, enough)
  const last = yield* state
  if (confirmed(last)) return
  for (const { room, stored, text } of last.outgoing) {
    if (!stored) yield* print(`* not confirmed in ${room}: ${safe(text)}`)
  }
  for (const line of undone) yield* print(`* not confirmed: ${safe(line)}`)
  return yield* new CliError.UserError({
    cause: undefined,
    userMessage: "What you wrote last may not have arrived: the chat does not answer."
  })
})

/** For how long the end of this client waits until what was written is stored. */
const lastWait = "9 seconds"

const Server = Schema.String.check(
  Schema.makeFilter((url) => URL.canParse(url) && ["http:", "https:"].includes(new URL(url).protocol), {
    message: "a server has an address such as http://127.0.0.1:3000"
  })
)

export const client = Command.make(
  "client",
  {
    url: Flag.String("url").pipe(
      Flag.withDescription("A server of the chat, http://127.0.0.1:3000 by default"),
      Flag.withSchema(Server),
      Flag.withDefault("http://127.0.0.1:3000")
    ),
    user: Flag.String("user").pipe(Flag.withDescription("Your name, which is needed"), Flag.withSchema(User)),
    room: Flag.String("room").pipe(Flag.withDescription("The room to go into"), Flag.withSchema(Room), Flag.optional)
  },
  Effect.fnUntraced(function* ({ room, url, user }) {
    const socket = new URL(path, url)
    socket.protocol = socket.protocol.replace("http", "ws")
    yield* Effect.provide(Effect.scoped(run(user, Option.getOrUndefined(room))), Session.protocol(socket.href))
  })
).pipe(
  Command.withDescription("The chat in this terminal, at any of its servers. /help says what can be done there."),
  Command.withExamples([
    { command: "chat client --user ada --room engines", description: "Talk, and watch others talk" }
  ])
)
