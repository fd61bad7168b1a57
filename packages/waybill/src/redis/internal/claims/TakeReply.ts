/**
 * The reply of the take script, as bytes: a whole batch is a few strings, and the records are cut out of one of them. What
 * every part means stands beside the script.
 *
 * @module
 */
import { isAscii } from "node:buffer"
import { fresh, read } from "../wire/Tally.ts"
import { ClaimedDelivery } from "./ClaimedDelivery.ts"

type TakeReply = Readonly<Record<"members" | "lengths" | "attempts" | "records" | "tallies", Buffer>>

/** The deliveries in a reply that is `OK`. */
export const deliveriesOf = (
  { attempts, lengths, members, records, tallies }: TakeReply,
  topic: string,
  group: string,
  now: number
): ReadonlyArray<ClaimedDelivery> => {
  if (members.length === 0) return []
  const names = members.toString("utf8").split(" ")
  const sizes = lengths.toString("latin1").split(" ")
  const before = attempts.length === 0 ? [] : attempts.toString("latin1").split(" ")
  const noted = tallies.length === 0 ? [] : tallies.toString("utf8").split(" ")
  const text = isAscii(records) ? records.toString("latin1") : undefined
  const taken: Array<ClaimedDelivery> = []
  let from = 0
  for (let i = 0; i < names.length; i++) {
    const to = from + Number(sizes[i])
    const attempt = i < before.length ? Number(before[i]) : 1
    const name = names[i] as string // within bounds
    const tally = i < noted.length ? (read(noted[i]) ?? fresh) : fresh
    taken.push(new ClaimedDelivery(topic, group, name, attempt, tally, records, text, from, to, now))
    from = to
  }
  return taken
}
