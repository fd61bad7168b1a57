/**
 * The whole chat: rooms on the left, the chosen one beside them; on a phone one of the two.
 *
 * @module
 */
import { Effect, Stream, SubscriptionRef } from "effect"
import { useEffect, useState } from "preact/hooks"
import { path } from "../../src/Protocol.ts"
import * as Session from "../../src/Session.ts"
import { Room } from "./Room.tsx"
import { Rooms } from "./Rooms.tsx"

const socket = new URL(path, location.href)
socket.protocol = socket.protocol.replace("http", "ws")

const banners = {
  connecting: "Connecting …",
  lost: "The connection is lost. Reconnecting … What you write now is sent then.",
  left: "You have signed out. "
} as const

/** The chosen room stands in the address, so that a reload and the way back show the same. */
const chosenIn = () => new URLSearchParams(location.search).get("room") ?? undefined

export const Chat = ({ forget, user }: { readonly user: string; readonly forget: () => void }) => {
  const [session, setSession] = useState<Session.Session>()
  const [state, setState] = useState<Session.State>()
  const [chosen, setChosen] = useState(chosenIn)
  const choose = (room: string | undefined) => {
    history.pushState(null, "", room === undefined ? location.pathname : `?room=${encodeURIComponent(room)}`)
    setChosen(room)
  }

  useEffect(() => {
    const back = () => setChosen(chosenIn())
    addEventListener("popstate", back)
    return () => removeEventListener("popstate", back)
  }, [])

  useEffect(() => {
    const program = Effect.gen(function* () {
      const session = yield* Session.make({ user })
      setSession(session)
      yield* Stream.runForEach(SubscriptionRef.changes(session.state), (state) => Effect.sync(() => setState(state)))
    })
    return Effect.runCallback(Effect.provide(Effect.scoped(program), Session.protocol(socket.href)))
  }, [user])

  const unread = [...(state?.rooms.values() ?? [])].reduce((sum, room) => sum + Session.unread(room, user).unread, 0)
  useEffect(() => {
    document.title = unread === 0 ? "Chat" : `(${unread}) Chat`
  }, [unread])

  if (session === undefined || state === undefined) return null
  const room = chosen === undefined ? undefined : state.rooms.get(chosen)
  return (
    <div class={`chat ${room === undefined ? "" : "inside"}`}>
      {state.connection !== "live" && (
        <p class="banner" role="status">
          {banners[state.connection]}
          {state.connection === "left" && <button onClick={forget}>Go in again</button>}
        </p>
      )}
      <Rooms session={session} state={state} chosen={chosen} choose={choose} forget={forget} />
      {room === undefined ? (
        <main class="nothing">
          <p>Choose a room, or make one.</p>
        </main>
      ) : (
        <Room key={room.room} session={session} state={state} room={room} close={() => choose(undefined)} />
      )}
    </div>
  )
}
