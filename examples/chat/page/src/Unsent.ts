/**
 * What this tab has written and nobody has confirmed, kept in the tab: after a reload it is sent again, under the same ids.
 *
 * @module
 */
import { Option, Schema } from "effect"
import * as Session from "../../src/Session.ts"

const key = (user: string) => `chat-unsent-${user}`

const decode = Schema.decodeUnknownOption(Schema.fromJsonString(Schema.Array(Session.Unsent)))

export const load = (user: string): ReadonlyArray<Session.Unsent> =>
  Option.getOrElse(decode(sessionStorage.getItem(key(user))), () => [])

export const keep = (user: string, outgoing: ReadonlyArray<Session.Outgoing>): void => {
  const unsent = outgoing.filter(({ stored }) => !stored).map(({ id, room, text }) => ({ id, room, text }))
  try {
    sessionStorage.setItem(key(user), JSON.stringify(unsent))
  } catch {
    // More than the tab can keep is still sent by this session.
  }
}
