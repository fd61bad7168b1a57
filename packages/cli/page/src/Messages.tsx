/**
 * The stored messages of a topic, from the newest back to the oldest.
 *
 * @module
 */
import type { Seen, Stored } from "../../src/dashboard/Api.ts"
import * as Client from "./Client.ts"
import { type Snapshot, Paged } from "./Pages.tsx"
import { Body, Moment, Name } from "./Text.tsx"

export const Messages = ({
  choose,
  snapshot,
  topic
}: {
  readonly topic: string
  readonly snapshot: Snapshot
  readonly choose: (message: string, seen: Seen) => void
}) => (
  <Paged<Stored>
    read={(before) => Client.messages(topic, before)}
    snapshot={snapshot}
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
    empty="No stored messages: those that every group has settled are removed."
  />
)
