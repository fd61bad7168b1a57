/**
 * Text from strangers, made safe for our messages: wherever it is printed it stays text and controls nothing.
 *
 * @module
 */

// Control characters, line terminators, and characters that change the direction of text.
const unsafe = /[\p{Cc}\p{Zl}\p{Zp}\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f\ufff9-\ufffb]/gu

/** The text with every such character escaped. */
export const safe = (text: string): string =>
  text.replaceAll(unsafe, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`)

/** The same for several lines. */
export const safeLines = (text: string): string => text.split("\n").map(safe).join("\n")
