/**
 * The stored messages of a topic, from the newest back to the oldest, and those that are not due yet, the next one first.
 *
 * @module
 */
import type { Delayed as One, Seen, Stored } from "../../src/dashboard/Api.ts"
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

export const Delayed = ({
  choose,
  snapshot,
  topic
}: {
  readonly topic: string
  readonly snapshot: Snapshot
  readonly choose: (message: string, seen: Seen | undefined) => void
}) => (
  <Paged<One>
    read={(after) => Client.delayed(topic, after)}
    snapshot={snapshot}
    columns={[{ title: "Message" }, { title: "Due" }, { title: "Body", kind: "body" }]}
    row={(one) => [<Name text={one.id} />, <Moment at={one.dueAt} />, <Body of={one} />]}
    positionOf={(one) => one.position}
    choose={(one) => choose(one.id, undefined)}
    empty="No delayed messages."
  />
)
