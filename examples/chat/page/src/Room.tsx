/**
 * One room: what was said, back to its beginning; who is in it; and what this user says.
 *
 * @module
 */
import { Effect, Schema } from "effect"
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks"
import { limits, type Message, Text } from "../../src/Protocol.ts"
import type * as Session from "../../src/Session.ts"
import { Question } from "./Question.tsx"
import { day, Face, time, typists, Words } from "./Text.tsx"

const isText = Schema.is(Text)

interface Props {
  readonly session: Session.Session
  readonly state: Session.State
  readonly room: Session.RoomState
  readonly close: () => void
  /** By room; it outlives the look at this one. */
  readonly drafts: Map<string, string>
}

export const Room = ({ close, drafts, room, session, state }: Props) => {
  const [members, setMembers] = useState(false)
  const [trouble, setTrouble] = useState<string>()
  const known = state.connection === "live"
  const online = room.members.filter((name) => state.online.has(name)).length
  return (
    <>
      <main class="room" aria-label={`Room ${room.room}`}>
        <header>
          <button class="quiet back" aria-label="Back to the rooms" onClick={close}>
            ‹
          </button>
          <h2 class="grow">
            <span class="faint">#</span> {room.room}
          </h2>
          <button class="quiet" aria-expanded={members} onClick={() => setMembers(!members)}>
            <span class={`dot ${online > 0 ? "on" : ""}`} /> {known ? `${online} of ` : ""}
            {room.members.length}
          </button>
          <Question
            label="Leave"
            question={`Leave #${room.room}?`}
            yes={() => {
              setTrouble(undefined)
              void Effect.runPromise(session.leave(room.room)).then(close, (error: Error) => setTrouble(error.message))
            }}
          />
        </header>
        {trouble !== undefined && (
          <p class="trouble" role="alert">
            {trouble}
          </p>
        )}
        <Messages session={session} state={state} room={room} />
        <p class="typing" role="status">
          {typists(room.typing)}
        </p>
        <Composer session={session} room={room.room} drafts={drafts} />
      </main>
      <aside class={`members ${members ? "shown" : ""}`} aria-label="Members">
        <h3>Members</h3>
        <ul>
          {room.members
            .toSorted((a, b) => Number(state.online.has(b)) - Number(state.online.has(a)))
            .map((name) => (
              <li key={name} class={state.online.has(name) ? "" : "away"}>
                <Face name={name} online={state.online.has(name)} />
                <span class="name">{name}</span>
                {known && <span class="unseen">{state.online.has(name) ? "online" : "offline"}</span>}
              </li>
            ))}
        </ul>
      </aside>
    </>
  )
}

/** Said by one user within five minutes: one face for all of it. */
const together = (before: Message | undefined, message: Message): boolean =>
  before !== undefined && before.user === message.user && message.at - before.at < 300_000

const Messages = ({ room, session, state }: Pick<Props, "room" | "session" | "state">) => {
  const place = useRef<HTMLDivElement>(null)
  const seen = useRef({ height: 0, first: "", bottom: true, outgoing: 0 })
  const [atBottom, setAtBottom] = useState(true)
  const [asking, setAsking] = useState(false)
  const { messages } = room
  const outgoing = state.outgoing.filter((one) => one.room === room.room)

  const older = () => {
    if (asking || !room.older || messages.length === 0) return
    setAsking(true)
    // What failed is asked for again by the next scrolling.
    void Effect.runPromise(Effect.ignore(session.older(room.room))).then(() => setAsking(false))
  }
  const read = () => {
    if (seen.current.bottom && !document.hidden) Effect.runFork(session.read(room.room))
  }

  // New ones are followed where the end was in sight, and one's own are always; older ones in front move nothing.
  useLayoutEffect(() => {
    const element = place.current
    if (element === null) return
    const first = messages[0]?.position ?? ""
    if (outgoing.length > seen.current.outgoing) seen.current.bottom = true
    if (seen.current.bottom) element.scrollTop = element.scrollHeight
    else if (first !== seen.current.first) element.scrollTop += element.scrollHeight - seen.current.height
    seen.current = { ...seen.current, height: element.scrollHeight, first, outgoing: outgoing.length }
  }, [messages, outgoing.length])

  useEffect(() => {
    const element = place.current
    if (element !== null && element.scrollHeight <= element.clientHeight) older()
    read()
  }, [messages])

  useEffect(() => {
    document.addEventListener("visibilitychange", read)
    // The keyboard of a phone takes half of the height.
    const resized = new ResizeObserver(() => {
      if (seen.current.bottom && place.current !== null) place.current.scrollTop = place.current.scrollHeight
    })
    if (place.current !== null) resized.observe(place.current)
    return () => {
      document.removeEventListener("visibilitychange", read)
      resized.disconnect()
    }
  }, [])

  return (
    <div class="past">
      <div
        class="scroll"
        ref={place}
        role="log"
        aria-label="Messages"
        tabIndex={0}
        onScroll={({ currentTarget: { clientHeight, scrollHeight, scrollTop } }) => {
          const bottom = scrollHeight - scrollTop - clientHeight < 40
          seen.current.bottom = bottom
          setAtBottom(bottom)
          if (bottom) read()
          if (scrollTop < 200) older()
        }}
      >
        {messages.length > 0 &&
          (room.older ? (
            <button class="quiet edge" onClick={older}>
              {asking ? "Loading …" : "Earlier messages"}
            </button>
          ) : (
            <p class="edge faint">This is the beginning of #{room.room}.</p>
          ))}
        {messages.length === 0 && outgoing.length === 0 && <p class="edge faint">No messages yet.</p>}
        {messages.map((message, i) => {
          const before = messages[i - 1]
          const newDay = before === undefined || day(before.at) !== day(message.at)
          const follows = !newDay && together(before, message)
          return (
            <div key={message.position} class="turn">
              {newDay && <p class="day">{day(message.at)}</p>}
              <article
                class={`${follows ? "follows" : ""} ${room.naming.has(message.position) ? "naming" : ""}`}
                data-position={message.position}
              >
                {follows ? <span class="face none" /> : <Face name={message.user} />}
                <div class="said">
                  {!follows && (
                    <p class="by">
                      <strong>{message.user}</strong> <time>{time(message.at)}</time>
                    </p>
                  )}
                  <Words text={message.text} me={state.user} members={room.members} />
                </div>
              </article>
            </div>
          )
        })}
        {outgoing.map(({ id, refused, stored, text }) => (
          <article key={id} class="outgoing">
            <span class="face none" />
            <div class="said">
              <Words text={text} me={state.user} members={room.members} />
              <p class="by">
                {refused === undefined ? (
                  <span class="faint">{stored ? "sent" : "sending …"}</span>
                ) : (
                  <>
                    <span class="bad">not sent: {refused}</span>{" "}
                    <button class="quiet" onClick={() => Effect.runFork(session.discard(id))}>
                      Discard
                    </button>
                  </>
                )}
              </p>
            </div>
          </article>
        ))}
      </div>
      {!atBottom && (
        <button
          class="newest"
          onClick={() => place.current?.scrollTo({ top: place.current.scrollHeight, behavior: "smooth" })}
        >
          ↓ Newest
        </button>
      )}
    </div>
  )
}

const Composer = ({
  drafts,
  room,
  session
}: Pick<Props, "drafts" | "session"> & {
  readonly room: string
}) => {
  const [text, setText] = useState(drafts.get(room) ?? "")
  const write = (text: string) => {
    drafts.set(room, text)
    setText(text)
  }
  const send = () => {
    if (!isText(text)) return
    Effect.runFork(session.send(room, text))
    write("")
  }
  return (
    <form
      class="composer"
      onSubmit={(event) => {
        event.preventDefault()
        send()
      }}
    >
      <textarea
        rows={Math.min(6, text.split("\n").length)}
        maxLength={limits.text}
        placeholder="Say something"
        aria-label="Your message"
        value={text}
        onInput={(event) => {
          write(event.currentTarget.value)
          if (event.currentTarget.value !== "") Effect.runFork(session.typing(room))
        }}
        onKeyDown={(event) => {
          if (event.key !== "Enter" || event.shiftKey || event.isComposing) return
          event.preventDefault()
          send()
        }}
      />
      <button class="main" disabled={!isText(text)}>
        Send
      </button>
    </form>
  )
}
