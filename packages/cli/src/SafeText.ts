/**
 * Makes untrusted text safe to show: on a terminal and on a page it is plain text and nothing else.
 *
 * @module
 */

// Control characters, line separators and direction marks: each can make a terminal or a page show something else.
const unsafe = /[\p{Cc}\p{Zl}\p{Zp}\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f\ufff9-\ufffb]/gu

/** The text with every such character written as its escape. */
export const safe = (text: string): string =>
  text.replaceAll(unsafe, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`)

/** The same of several lines. */
export const safeLines = (text: string): string => text.split(/\r?\n/).map(safe).join("\n")
