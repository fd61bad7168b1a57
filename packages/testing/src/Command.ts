/**
 * One command on a connection of its own: how fixtures of several servers arrange them. On the real clock.
 *
 * @module
 */
import * as Net from "node:net"
import { Data, Effect } from "effect"

/** A server and its password, if it has one. */
export interface Target {
  readonly port: number
  readonly password?: string | undefined
}

/** Strings have one character per byte. */
export type Reply = string | number | null | ReadonlyArray<Reply>

/** The server replied with an error, or did not reply. */
export class CommandFailed extends Data.TaggedError("CommandFailed")<{ readonly message: string }> {}

/** How long a reply may take: a paused server gives none. */
const deadlineMillis = 5000

/** Sends a command and returns its reply. The words are strings with one character per byte, too. */
export const send = (target: Target, ...words: ReadonlyArray<string | number>): Effect.Effect<Reply, CommandFailed> =>
  Effect.callback((resume) => {
    const commands = target.password === undefined ? [words] : [["AUTH", target.password], words]
    const failed = (why: string) => resume(new CommandFailed({ message: `${words[0]} on port ${target.port}: ${why}` }))
    let text = ""
    const socket = Net.connect(target.port, "127.0.0.1", () => socket.write(commands.map(encoded).join(""), "latin1"))
    socket.setEncoding("latin1")
    socket.setTimeout(deadlineMillis, () => socket.destroy(new Error("no reply")))
    socket.on("data", (chunk) => {
      text += chunk
      let at = 0
      for (let left = commands.length; left > 0; left--) {
        const part = parse(text, at)
        if (part === undefined) return
        at = part.end
        if (part.error === undefined && left > 1) continue
        if (part.error !== undefined) failed(part.error)
        else resume(Effect.succeed(part.reply))
        socket.destroy()
        return
      }
    })
    socket.once("error", (error) => failed(error.message))
    socket.once("close", () => failed("the connection was closed"))
    return Effect.sync(() => socket.destroy())
  })

/** Repeats a look on the real clock until it says yes; false after 30 seconds. */
export const eventually = <E>(look: Effect.Effect<boolean, E>): Effect.Effect<boolean> =>
  Effect.suspend(() => {
    const deadline = performance.now() + 30_000
    const again: Effect.Effect<boolean> = Effect.flatMap(
      Effect.orElseSucceed(look, () => false),
      (is) => (is || performance.now() > deadline ? Effect.succeed(is) : Effect.andThen(pause, again))
    )
    return again
  })

const pause = Effect.callback<void>((resume) => {
  const timer = setTimeout(() => resume(Effect.void), 10)
  return Effect.sync(() => clearTimeout(timer))
})

const encoded = (words: ReadonlyArray<string | number>): string =>
  `*${words.length}\r\n${words.map((word) => `$${String(word).length}\r\n${word}\r\n`).join("")}`

interface Parsed {
  readonly reply: Reply
  readonly error?: string
  readonly end: number
}

/** The reply that begins at `from`, or undefined if it is not complete. */
const parse = (text: string, from: number): Parsed | undefined => {
  const newline = text.indexOf("\r\n", from)
  if (newline === -1) return undefined
  const line = text.slice(from + 1, newline)
  let end = newline + 2
  switch (text[from]) {
    case "-":
      return { reply: null, error: line, end }
    case ":":
      return { reply: Number(line), end }
    case "$": {
      if (line === "-1") return { reply: null, end }
      const last = end + Number(line)
      return text.length < last + 2 ? undefined : { reply: text.slice(end, last), end: last + 2 }
    }
    case "*": {
      const replies: Array<Reply> = []
      for (let left = Number(line); left > 0; left--) {
        const part = parse(text, end)
        if (part === undefined) return undefined
        replies.push(part.reply)
        end = part.end
      }
      return { reply: replies, end }
    }
    default:
      return { reply: line, end }
  }
}
