/**
 * The seam between claims, which say who has which message, and a pattern, which knows where messages come from.
 *
 * The claims of each group: who lives (`consumers`), what each of them has been given and has not settled
 * (`processing:<consumer>`), what came back and in which attempt (`returned`, `suspects`, `waiting`, `marks`), the dead
 * letters and whether the group is paused. It deals in ids: one id a message, without white space and without `#`. What an id
 * stands for is up to the pattern, which provides a `Source`:
 *
 * - its keys, which stand first in KEYS of every script, by name;
 * - Lua that defines the functions below. It is put in front of the scripts of `claims/` and may use what is in
 *   Lua.ts as `clock`, and its keys;
 * - for one topic and group (`BoundSource`): where to listen for news. A notification is only a hint: what is
 *   lost of them costs at most one poll interval.
 *
 * | Lua function | |
 * |---|---|
 * | `open(group, start, known, setting)` | a group joins, whether it is `known` or new, and then from `earliest` or `latest`. Answers the reply of a refusal, or nil. All checks are done; it may write |
 * | `probe()` | reads of what `fresh` and `read` go to: nothing was taken yet |
 * | `fresh(n)` | takes at most `n` ids that the group has not had, in their order. A source that can lose messages answers behind them a table: how many are gone in front of the first of the ids, of the second and so on, and at last behind them |
 * | `urgent()` | of a source that `ranks`, as the next three: whether at this topic some messages are more urgent than others |
 * | `fresh(n, urgency)` | of those with this urgency, from 1 to 3, the most urgent first |
 * | `urgencyOf(record)` | how urgent it is |
 * | `urgency(id)` | that of the most urgent one that `fresh` could take, or of this one, or 0 |
 * | `pressing(id)` | how urgent it is, from 1 to 3, where that counts and is cheap to tell; otherwise nil |
 * | `read(ids)` | their records (Record.ts), in the same order; false where there is none any more: then the id is forgotten, and counts it as gone |
 * | `forget(ids)` | the group has settled them for good |
 * | `restore(id, record)` | a dead letter comes back under this id: `read` finds it again |
 * | `promote(now, limit)` | brings in at most `limit` messages that are due, and about a megabyte, with `bodiesOf`; returns how many, and when the next one is due or nil |
 * | `backlog()` | how many ids `fresh` could take; the last one that it gave, where what is given stays in its place |
 * | `peek(from, limit, newest)` | at most `limit` of these ids, in their order: the first behind the id `from`, or with `newest` the last in front of it; without it the first or the last of all |
 * | `outlook()` | how many messages are stored, how many are not due yet, and when the next of these is, or nil; how many there ever were, or nil |
 * | `pass()` | of a source that `passes`: moves on over what has expired in front of all there is. Whether there may be more of it |
 *
 * A pattern that applies more than an ack as a message is settled adds an operation to the loop of the script `settle`.
 *
 * @module
 */
import type { Kind, StringKeys } from "../connection/Script.ts"
import type { GroupKeys, TopicKeys } from "../wire/Keys.ts"

type SourceKey = StringKeys<TopicKeys & GroupKeys>

/** What a pattern is to `claims/`, whatever the topic. */
export interface Source {
  /** The name of the pattern in the topic's meta key. */
  readonly pattern: string
  readonly keys: Readonly<Partial<Record<SourceKey, Kind>>>
  /** Those of them that are not there while a topic is at rest. */
  readonly fleeting: ReadonlyArray<SourceKey>
  /** The functions above. */
  readonly lua: string
  /** At some topics some of its messages are more urgent than others. */
  readonly ranks?: boolean
  /** What it has is counted from where the first of it may be, and it has the function that moves this on. */
  readonly passes?: boolean
}
