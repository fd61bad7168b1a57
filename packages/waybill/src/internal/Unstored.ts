/**
 * Options that patterns without stored messages do not support.
 *
 * @module
 */
import type { Outgoing } from "../Message.ts"
import { NotOffered } from "../Transport.ts"
import { isGlob } from "./Glob.ts"

/** Why these messages may not be sent, if they may not. */
export const refusal = (topic: string, messages: ReadonlyArray<Outgoing>): NotOffered | undefined => {
  if (isGlob(topic)) return oneTopic
  if (messages.some(({ due }) => due !== undefined)) return noDelay
  return messages.some(({ id }) => id !== undefined) ? noId : undefined
}

const oneTopic = new NotOffered({
  feature: "publishing to several topics",
  detail: "a name with *, ? or [ is a pattern to subscribe to. Publish to a single topic"
})

const noDelay = new NotOffered({
  feature: "delayed messages",
  detail: "messages are not stored until they are due. Publish it at that time, or use a pattern that stores messages"
})

const noId = new NotOffered({
  feature: "message ids chosen by the producer",
  detail:
    "ids are not remembered, so duplicates would go unnoticed. Leave the id out, or use a pattern that stores messages"
})
