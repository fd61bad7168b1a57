/**
 * Valid names of topics, groups and records. A string with half of a surrogate pair is not one: encoded as UTF-8 it
 * would become a different name.
 *
 * @module
 */

/** 1 to 200 characters, well-formed, no white space, no braces. */
export const isName = (name: string): boolean =>
  typeof name === "string" && /^[^\s{}]{1,200}$/.test(name) && name.isWellFormed()
