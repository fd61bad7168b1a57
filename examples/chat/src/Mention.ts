/**
 * Who is named in a text, and what becomes of it: a message that is there when, and only when, the text is.
 *
 * @module
 */
import { Schema } from "effect"
import { Topic } from "waybill"
import { mention, Room, Text, User } from "./Protocol.ts"
import { Store } from "./Transports.ts"

export const Mention = Schema.Struct({ to: User, by: User, room: Room, text: Text })
export type Mention = typeof Mention.Type

export const Mentions = Topic.make("chat/mentions", { payload: Mention, on: Store })

/** More names in one text are not told by mail. */
const most = 20

/** The names behind an `@`, each once. Whether they are somebody's is another question. */
export const namesIn = (text: string): ReadonlyArray<string> => {
  const names = new Set<string>()
  for (const [, name = ""] of text.matchAll(mention)) {
    if (names.size === most) break
    names.add(name.toLowerCase())
  }
  return [...names]
}
