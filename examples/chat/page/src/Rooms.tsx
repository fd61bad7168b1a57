/**
 * The user's rooms with what is unread in them, and the way into others.
 *
 * @module
 */
import { Effect, Schema } from "effect"
import { useState } from "preact/hooks"
import { limits, Room } from "../../src/Protocol.ts"
import * as Session from "../../src/Session.ts"
import { Question } from "./Question.tsx"
import { Face } from "./Text.tsx"

const isRoom = Schema.is(Room)

interface Props {
  readonly session: Session.Session
  readonly state: Session.State
  readonly chosen: string | undefined
  readonly choose: (room: string | undefined) => void
  readonly forget: () => void
}

export const Rooms = ({ choose, chosen, forget, session, state }: Props) => {
  const [others, setOthers] = useState<ReadonlyArray<string>>()
  const [name, setName] = useState("")
  const [trouble, setTrouble] = useState<string>()
  const rooms = [...state.rooms.values()].toSorted((a, b) => (a.room < b.room ? -1 : 1))

  /** What would be done now, nobody here would see. */
  const gone = state.connection === "left"

  const unjoined = others?.filter((room) => !state.rooms.has(room)) ?? []

  const ask = <A,>(asked: Effect.Effect<A, { readonly message: string }>, then: (answer: A) => void) => {
    setTrouble(undefined)
    Effect.runPromise(asked).then(then, (error: Error) => setTrouble(error.message))
  }
  const enter = (room: string) =>
    ask(session.join(room), () => {
      setOthers(undefined)
      choose(room)
    })
  const create = () => {
    const wanted = name.trim().toLowerCase()
    if (!isRoom(wanted)) {
      return setTrouble(`“${wanted}” cannot be a room: 1 to ${limits.name} of a-z, 0-9, _ and -.`)
    }
    ask(session.create(wanted), () => {
      setName("")
      choose(wanted)
    })
  }

  return (
    <nav class="rooms" aria-label="Rooms">
      <header>
        <span class="self">
          <Face name={state.user} online={state.connection === "live"} />
          <strong class="name">{state.user}</strong>
        </span>
        <span>
          <button class="quiet" title="Use another name in this tab; you stay in your rooms" onClick={forget}>
            Switch
          </button>
          <Question
            label="Sign out"
            question="Sign out? You leave all your rooms."
            title="Go offline in all tabs and leave all rooms"
            disabled={gone}
            yes={() =>
              ask(session.quit, () => {
                choose(undefined)
                forget()
              })
            }
          />
        </span>
      </header>
      <ul>
        {rooms.map((room) => {
          const { mentions, unread } = Session.unread(room, state.user)
          return (
            <li key={room.room}>
              <button class={room.room === chosen ? "active" : ""} onClick={() => choose(room.room)}>
                <span class={`grow name ${unread > 0 ? "bold" : ""}`}>
                  <span class="faint">#</span> {room.room}
                </span>
                {mentions > 0 && (
                  <span class="count loud" aria-label={mentions === 1 ? "1 mention" : `${mentions} mentions`}>
                    @{mentions}
                  </span>
                )}
                {unread > 0 && (
                  <span class="count" aria-label={`${unread} unread`}>
                    {unread >= limits.unread ? `${limits.unread}+` : unread}
                  </span>
                )}
              </button>
            </li>
          )
        })}
      </ul>
      {rooms.length === 0 && state.connection === "live" && <p class="faint pad">You have not joined a room yet.</p>}
      {trouble !== undefined && (
        <p class="trouble" role="alert">
          {trouble}
        </p>
      )}
      <form
        class="bar"
        onSubmit={(event) => {
          event.preventDefault()
          create()
        }}
      >
        <input
          placeholder="New room"
          aria-label="Name of a new room"
          autocapitalize="none"
          disabled={gone}
          value={name}
          onInput={(event) => setName(event.currentTarget.value)}
        />
        <button disabled={gone}>Create</button>
      </form>
      <div class="bar">
        <button
          class="wide"
          disabled={gone}
          aria-expanded={others !== undefined}
          onClick={() => (others === undefined ? ask(session.rooms, setOthers) : setOthers(undefined))}
        >
          {others === undefined ? "Join a room …" : "Close the list"}
        </button>
      </div>
      {others !== undefined &&
        (unjoined.length === 0 ? (
          <p class="faint pad">
            {others.length === 0 ? "There are no rooms yet: create one." : "You are in all of them."}
          </p>
        ) : (
          <ul aria-label="All rooms">
            {unjoined.map((room) => (
              <li key={room}>
                <button disabled={gone} onClick={() => enter(room)}>
                  <span class="grow name">
                    <span class="faint">#</span> {room}
                  </span>
                  <span class="faint">join</span>
                </button>
              </li>
            ))}
          </ul>
        ))}
    </nav>
  )
}
