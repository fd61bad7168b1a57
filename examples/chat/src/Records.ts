/**
 * What is remembered beside the rooms, by name. Commands write it, all of a command together, and everyone reads it.
 *
 * Several processes write at once, after having read, so only what commutes is written: sets, and lists in which the order
 * decides. Who claimed a room first is first in its list, whoever else believed the same; a read marker is the furthest of
 * the last eight that were set.
 *
 * @module
 */
import { Schema } from "effect"
import { Commit } from "waybill"
import { Sent } from "./Protocol.ts"

/** The names of all rooms. */
export const rooms = Commit.set("rooms")

/** Who wanted to make the room, as ids of commands; the first one did. */
export const claims = (room: string) => Commit.list(`claims/${room}`)

export const members = (room: string) => Commit.set(`members/${room}`)

/** The rooms of a user: the other side of `members`, written in the same step. */
export const roomsOf = (user: string) => Commit.set(`rooms-of/${user}`)

/** A user's own messages, the last ones; texts of `SentJson`. */
export const sent = (user: string) => Commit.list(`sent/${user}`)

export const SentJson = Schema.fromJsonString(Sent)

/** Positions up to which a user has read a room; the furthest one counts. */
export const reads = (user: string, room: string) => Commit.list(`read/${user}/${room}`)

/** How many positions are kept: so many tabs may mark at the same moment. */
export const readsKept = 8

/** How the command of this id ended, for who asked. */
export const answer = (command: string) => Commit.text(`answer/${command}`)

export const Answer = Schema.Literals(["Done", "RoomNotFound", "NotAMember", "TooManyRooms"])
export type Answer = typeof Answer.Type
