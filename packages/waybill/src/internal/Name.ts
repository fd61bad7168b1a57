/**
 * What a topic, a group or a record may be called. A string with half of a surrogate pair in it is not a name: as UTF-8 it
 * would become another one.
 *
 * @module
 */

/** 1 to 200 characters, well-formed, no white space, no braces. */
export const isName = (name: string): boolean =>
  typeof name === "string" && /^[^\s{}]{1,200}$/.test(name) && name.isWellFormed()
