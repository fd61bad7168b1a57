/**
 * Text that strangers wrote, made safe for a message of ours: wherever it is printed it is text, and steers nothing.
 *
 * @module
 */

// Control characters, what ends a line, and what turns the direction of text around.
const unsafe = /[\p{Cc}\p{Zl}\p{Zp}\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f\ufff9-\ufffb]/gu

/** The text with every such character written as its escape. */
export const safe = (text: string): string =>
  text.replaceAll(unsafe, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`)

/** The same of several lines. */
export const safeLines = (text: string): string => text.split("\n").map(safe).join("\n")
