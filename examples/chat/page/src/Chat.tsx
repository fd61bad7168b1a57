/**
 * The whole chat: rooms on the left, the chosen one beside them; on a phone one of the two.
 *
 * @module
 */
import { Effect, Schema, Stream, SubscriptionRef } from "effect"
import { useEffect, useRef, useState } from "preact/hooks"
import { path, Room as RoomName } from "../../src/Protocol.ts"
import * as Session from "../../src/Session.ts"
import { Room } from "./Room.tsx"
import { Rooms } from "./Rooms.tsx"
import * as Unsent from "./Unsent.ts"

const socket = new URL(path, location.href)
socket.protocol = socket.protocol.replace("http", "ws")

const banners = {
  connecting: "Connecting …",
  lost: "Connection lost. Reconnecting … What you write now is sent once the connection is back.",
  left: "You have signed out. "
} as const

const isRoom = Schema.is(RoomName)
const nobody: ReadonlySet<string> = new Set()

/** The chosen room stands in the address, so that a reload and the way back show the same. */
const chosenIn = () => new URLSearchParams(location.search).get("room") ?? undefined

export const Chat = ({ forget, user }: { readonly user: string; readonly forget: () => void }) => {
  const [session, setSession] = useState<Session.Session>()
  const [state, setState] = useState<Session.State>()
  const [chosen, setChosen] = useState(chosenIn)
  const [trouble, setTrouble] = useState<string>()
  const [offline, setOffline] = useState(false)
  const [times, setTimes] = useState(1)
  /** What is written and not sent, by room. */
  const drafts = useRef(new Map<string, string>())
  const choose = (room: string | undefined) => {
    history.pushState(null, "", room === undefined ? location.pathname : `?room=${encodeURIComponent(room)}`)
    setChosen(room)
    setTrouble(undefined)
  }

  useEffect(() => {
    const back = () => setChosen(chosenIn())
    // Sooner than the connection can notice it.
    const gone = () => setOffline(true)
    const here = () => setOffline(false)
    addEventListener("popstate", back)
    addEventListener("offline", gone)
    addEventListener("online", here)
    return () => {
      removeEventListener("popstate", back)
      removeEventListener("offline", gone)
      removeEventListener("online", here)
    }
  }, [])

  useEffect(() => {
    const program = Effect.gen(function* () {
      const session = yield* Session.make({
        user,
        unsent: Unsent.load(user),
        // A server that is still heard is not behind the network that has gone.
        seen: () => Effect.sync(() => setOffline(false))
      })
      setSession(session)
      yield* Stream.runForEach(SubscriptionRef.changes(session.state), (state) =>
        Effect.sync(() => {
          Unsent.keep(user, state.outgoing)
          setState(state)
        })
      )
    })
    return Effect.runCallback(Effect.provide(Effect.scoped(program), Session.protocol(socket.href)))
  }, [user, times])

  const unread = [...(state?.rooms.values() ?? [])].reduce((sum, room) => sum + Session.unread(room, user).unread, 0)
  useEffect(() => {
    document.title = unread === 0 ? "Chat" : `(${unread}) Chat`
  }, [unread])

  if (session === undefined || state === undefined) return null
  const connection = offline && state.connection === "live" ? "lost" : state.connection
  // Who is online is not known before the connection is there again.
  const known = connection === "live" ? state : { ...state, connection, online: nobody }
  const room = chosen === undefined ? undefined : state.rooms.get(chosen)
  const offered = room === undefined && connection === "live" && isRoom(chosen) ? chosen : undefined
  return (
    <div class={`chat ${room === undefined && offered === undefined ? "" : "inside"}`}>
      {connection !== "live" && (
        <p class="banner" role="status">
          {banners[connection]}
          {connection === "left" && <button onClick={() => setTimes(times + 1)}>Rejoin</button>}
        </p>
      )}
      <Rooms session={session} state={known} chosen={chosen} choose={choose} forget={forget} />
      {room !== undefined ? (
        <Room
          key={room.room}
          session={session}
          state={known}
          room={room}
          drafts={drafts.current}
          close={() => choose(undefined)}
        />
      ) : offered !== undefined ? (
        <main class="nothing offer" aria-label={`Room ${offered}, from outside`}>
          <p>You are not in #{offered}.</p>
          <button
            class="main"
            onClick={() => {
              setTrouble(undefined)
              void Effect.runPromise(session.join(offered)).catch((error: Error) => setTrouble(error.message))
            }}
          >
            Join #{offered}
          </button>
          <button class="quiet" onClick={() => choose(undefined)}>
            Back to the rooms
          </button>
          {trouble !== undefined && (
            <p class="trouble" role="alert">
              {trouble}
            </p>
          )}
        </main>
      ) : (
        <main class="nothing">
          <p>Choose a room, or create one.</p>
        </main>
      )}
    </div>
  )
}
