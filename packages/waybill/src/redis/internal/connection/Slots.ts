// oxlint-disable-next-line typescript/triple-slash-reference -- compilers that begin elsewhere find it only so
/// <reference path="./cluster-key-slot.d.ts" />
/**
 * Which master of a cluster has which slot, as far as is known: from CLUSTER SLOTS, and from the servers that say they have not.
 *
 * @module
 */
import slotOfKey from "cluster-key-slot"
import * as Address from "./Address.ts"
import type { Keys } from "./Connection.ts"

const slotCount = 16_384

/** The slot of these keys, which share one; undefined without keys. */
export const slotOf = (keys: string | Keys): number | undefined => {
  const key = typeof keys === "string" ? keys : keys[0]
  return key === undefined ? undefined : slotOfKey(key)
}

/** Where a server sends us for this one slot. */
export interface Redirection {
  /** `moved`: from now on. `asking`: for this command only, and behind ASKING. */
  readonly kind: "moved" | "asking"
  readonly slot: number
  readonly place: Address.HostPort
}

/** What MOVED and ASK say. A server that does not know its own name leaves the host out: then it is that of the server asked. */
export const redirectionOf = (detail: string, asked: Address.HostPort): Redirection | undefined => {
  const [, code, slot, host, port] = /^(MOVED|ASK) (\d+) (.*):(\d+)$/.exec(detail) ?? []
  if (code === undefined) return undefined
  return {
    kind: code === "MOVED" ? "moved" : "asking",
    slot: Number(slot),
    place: { host: host || asked.host, port: Number(port) }
  }
}

/** One row of the reply to CLUSTER SLOTS: a range, its master, and its replicas. */
interface Row {
  readonly from: number
  readonly to: number
  readonly nodes: ReadonlyArray<Address.HostPort>
}

/** Reads the reply of the server at `asked`; empty if it makes no sense. */
export const rowsOf = (reply: unknown, asked: Address.HostPort): ReadonlyArray<Row> =>
  (Array.isArray(reply) ? reply : []).flatMap((row: unknown): ReadonlyArray<Row> => {
    if (!Array.isArray(row)) return []
    const [from, to, ...nodes] = row.map((part: unknown) => part)
    return [
      {
        from: Number(from),
        to: Number(to),
        nodes: nodes.flatMap((node) => {
          if (!Array.isArray(node)) return []
          // "?" is a host that the server has yet to learn.
          const host = node[0] === null || node[0] === "" || node[0] === "?" ? asked.host : String(node[0])
          return [{ host, port: Number(node[1]) }]
        })
      }
    ]
  })

const none = () => Array.from<string | undefined>({ length: slotCount })

export class Slots {
  #masters: Array<string | undefined> = none()
  readonly #places = new Map<string, Address.HostPort>()

  /** The address of the master that has the slot, if it is known. */
  masterOf(slot: number): string | undefined {
    return this.#masters[slot]
  }

  /** The addresses of all masters that have slots. */
  get masters(): ReadonlySet<string> {
    const masters = new Set<string>()
    let last: string | undefined
    for (const master of this.#masters) {
      if (master !== undefined && master !== last) masters.add(master)
      last = master
    }
    return masters
  }

  /** All servers that were heard of lately, replicas included. */
  get places(): ReadonlyMap<string, Address.HostPort> {
    return this.#places
  }

  /** Takes over what a server says of all slots; returns whether a slot has another master now. */
  replace(rows: ReadonlyArray<Row>): boolean {
    const masters = none()
    this.#places.clear()
    for (const { from, nodes, to } of rows) {
      for (const node of nodes) this.#places.set(Address.shown(node), node)
      const [master] = nodes
      if (master !== undefined) masters.fill(Address.shown(master), from, to + 1)
    }
    const changed = masters.some((master, slot) => master !== this.#masters[slot])
    this.#masters = masters
    return changed
  }

  /** The slot is at this place; returns whether that is news. */
  move(slot: number, place: Address.HostPort): boolean {
    const master = Address.shown(place)
    this.#places.set(master, place)
    if (this.#masters[slot] === master) return false
    this.#masters[slot] = master
    return true
  }
}
