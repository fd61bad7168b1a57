/**
 * Text that strangers wrote, made safe to show: on a terminal and on a page it is what it is, and nothing else.
 *
 * @module
 */

// Control characters and what turns the direction of text around: both can make a terminal or a page show something else.
const unsafe = /[\p{Cc}\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu

/** The text with every control character written as its escape. */
export const safe = (text: string): string =>
  text.replaceAll(unsafe, (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`)
