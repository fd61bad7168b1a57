/**
 * Recognises NOGROUP in all its forms.
 *
 * @module
 */
import { type Reason, Rejected } from "../../../Transport.ts"

export const groupGone = new Rejected({ command: "xreadgroup", detail: "NOGROUP the group does not exist" })

/** A blocked read is woken with UNBLOCKED when its stream is deleted; everything else says NOGROUP. */
export const isGroupGone = (reason: Reason): boolean =>
  (reason._tag === "Rejected" && reason.detail.includes("NOGROUP")) ||
  (reason._tag === "Refused" && reason.code === "UNBLOCKED")
