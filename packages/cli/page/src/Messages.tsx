/**
 * The stored messages of a topic, the newest first, back to the oldest that is kept.
 *
 * @module
 */
import type { Seen, Stored } from "../../src/dashboard/Api.ts"
import * as Client from "./Client.ts"
import { type Look, Paged } from "./Pages.tsx"
import { Body, Moment, Name } from "./Text.tsx"

export const Messages = ({
  choose,
  look,
  topic
}: {
  readonly topic: string
  readonly look: Look
  readonly choose: (message: string, seen: Seen) => void
}) => (
  <Paged<Stored>
    read={(before) => Client.messages(topic, before)}
    look={look}
    columns={[{ title: "Message" }, { title: "Published" }, { title: "Key" }, { title: "Body", kind: "body" }]}
    row={({ key, ...one }) => [
      <Name text={one.id} />,
      <Moment at={one.publishedAt} />,
      key === undefined ? "" : <Name text={key} />,
      <Body of={one} />
    ]}
    positionOf={(one) => one.position}
    choose={(one, at) => choose(one.id, { list: "messages", at })}
    backwards
    empty="Nothing is stored: what every group has settled is gone."
  />
)
