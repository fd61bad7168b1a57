/**
 * The seam between claims, which record who holds which message, and a pattern, which knows where messages come from.
 *
 * The claims of each group: which consumers live (`consumers`), what each of them holds unsettled (`processing:<consumer>`), what
 * came back and in which attempt (`returned`, `suspects`, `waiting`, `marks`), the dead letters, and whether the group is paused.
 * Claims deal in ids: one id per message, without white space and without `#`. The pattern decides what an id stands for, and
 * provides a `Source`:
 *
 * - its keys, which come first in KEYS of every script, by name;
 * - Lua that defines the functions below. It precedes the scripts of `claims/` and may use the functions of Lua.ts such as
 *   `clock`, and its keys;
 * - for one topic and group (`BoundSource`): where to listen for notifications, which are only hints: a lost one
 *   costs at most one poll interval.
 *
 * | Lua function | |
 * |---|---|
 * | `open(group, start, known, setting)` | a group joins, whether it is `known` or new, and then from `earliest` or `latest`. Returns a refusal or nil. All checks are done; it may write |
 * | `probe()` | reads the keys that `fresh` and `read` touch, before anything is taken |
 * | `fresh(n)` | takes at most `n` ids that the group has not had, in order. A source that can lose messages also returns a table: how many are gone before the first of the ids, before the second and so on, and after the last. One that `filters` passes over what `wants(key, headers)` refuses, a variable that it declares, and calls `passed(entry, id)`, another, for what has an id of its own; and returns whether it has left some for the next call |
 * | `urgent()` | only for a source that `ranks`, like the next three: whether some messages of this topic are more urgent than others |
 * | `fresh(n, urgency)` | of those with this urgency, from 1 to 3, the most urgent first |
 * | `urgencyOf(record)` | its urgency |
 * | `urgency(id)` | that of the most urgent message that `fresh` could take, or of this one, or 0 |
 * | `pressing(id)` | its urgency, from 1 to 3, if that counts and is cheap to find; otherwise nil |
 * | `read(ids)` | their records (PackedMessage.ts), in the same order; false if one is gone: then the id is forgotten and counted as gone |
 * | `forget(ids)` | the group has settled them for good |
 * | `dropped(id)` | only for a source that `drops`: this one, which `fresh` has taken and `read` has not found, was removed |
 * | `restore(id, record)` | a dead letter comes back under this id: `read` finds it again |
 * | `promote(now, limit)` | brings in at most `limit` due messages, and about a megabyte, with `bodiesOf`; returns how many, and when the next one is due or nil |
 * | `backlog()` | how many ids `fresh` could take; and the last one that it gave, if given messages stay in place |
 * | `peek(from, limit, newest)` | at most `limit` of these ids, in order: the first after the id `from`, or with `newest` the last before it; without it the first or the last of all |
 * | `outlook()` | how many messages are stored, how many are not due yet, and when the next of these is due or nil; how many there ever were, or nil |
 * | `freed(entries, ids, group)` | only for a source that `frees`: the group has settled these messages, which have ids of their own |
 * | `given(entry, id)` | only for a source that `gives`: a consumer is given it for the first time. `freed` follows as well while the key `named` exists |
 * | `pass()` | only for a source that `passes`: moves on over expired messages at the front. Returns whether there may be more of them |
 * | `clear(mark)` | deletes some of what `fresh` could take or `promote` bring in. `mark`: "" at first, then what the last call, perhaps for another group, returned; so what comes later stays. Returns a mark as text, and whether there may be more |
 * | `close()` | the group is retired: deletes what the source keeps for it |
 * | `handBack(id)` | only for a source that `hands`: the group, which is being retired, has not settled it. Puts it before everything that `fresh` takes; returns how many bytes it read |
 *
 * With `finding`, messages are found by their ids: Lua that uses only the source's keys of the topic, and defines these functions. A note
 * says where a message was stored: its entry, which is what the source calls it, or `d` and its member of `delayed`. A place is a group
 * and where it has a message (MessageScripts.ts), with its keys by name in `place.keys`.
 *
 * | Lua function | |
 * |---|---|
 * | `entryIn(note)` | the entry, also of a message that was noted as delayed and became due; nil if there is none |
 * | `find(id, notes, places)` | the message of this id, which is where one of the notes says, or the id itself: its entry, its record, and if it is delayed when it is due and its member |
 * | `recordIn(place, entry, record)` | what the group has of it, given the record that was found or nil |
 * | `isUnread(place, entry)` | nothing in the group tells of it: whether it has yet to be given it, or has settled it |
 * | `withdraw(entry, places, record)` | deletes it everywhere except for groups whose consumers hold it, so that `fresh` passes over it |
 * | `unname(id, entry)` | the message is no longer found by the id that its publisher chose |
 * | `lateOf(member, body)` | the entry of a delayed message, or "" if its record has its id, and its record |
 *
 * A pattern that applies more than an ack when a message is settled adds an operation to the loop of the script `settle`.
 *
 * @module
 */
import type { Kind, StringKeys } from "../connection/Script.ts"
import type { GroupKeys, TopicKeys } from "../wire/Keys.ts"

type SourceKey = StringKeys<TopicKeys & GroupKeys>

/** What a pattern provides to `claims/`, whatever the topic. */
export interface Source {
  /** The name of the pattern in the topic's meta key. */
  readonly pattern: string
  readonly keys: Readonly<Partial<Record<SourceKey, Kind>>>
  /** Those of them that do not exist while a topic is idle. */
  readonly fleeting: ReadonlyArray<SourceKey>
  /** The functions above. */
  readonly lua: string
  readonly finding?: string
  /** For a source that `ranks` and has `finding`: `ranks` and `prioritise`, see ListSource.ts. */
  readonly prioritising?: string
  readonly drops?: boolean
  /** Whether its groups may have a filter. */
  readonly filters?: boolean
  /** Whether some messages of its topics may be more urgent than others. */
  readonly ranks?: boolean
  /** Whether its messages are counted from where the first may be, with the function that moves this on. */
  readonly passes?: boolean
  /** Whether messages leave the topic when a group takes them, so that retiring the group has to hand them back. */
  readonly hands?: boolean
  /** Whether its messages may have their ids to themselves until they are settled, with `freed`; until they are taken, with `given`. */
  readonly frees?: boolean
  readonly gives?: boolean
}
