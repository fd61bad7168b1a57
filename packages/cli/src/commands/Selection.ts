/**
 * Flags that select messages, and how they are compared.
 *
 * @module
 */
import { Flag } from "effect/cli"
import type { Message } from "waybill"
import { instantOf } from "./Instant.ts"

/** Refuses an empty value: an unset shell variable would otherwise select everything. */
export const text = (name: string, description: string) =>
  Flag.String(name).pipe(
    Flag.withDescription(description),
    Flag.filter(
      (value) => value !== "",
      () => `--${name} is empty: omit it to select all`
    ),
    Flag.optional
  )

/** In milliseconds since the epoch. */
export const time = (name: string, description: string) =>
  Flag.String(name).pipe(
    Flag.withDescription(description),
    Flag.filterMap(instantOf, () => `--${name} takes a time with its zone, such as 2026-01-31T12:00:00Z`),
    Flag.optional
  )

/** Binary bodies are searched as bytes, not in their printed form. */
export const holds = (body: Message.Body, text: string): boolean =>
  typeof body === "string"
    ? body.includes(text)
    : Buffer.from(body.buffer, body.byteOffset, body.byteLength).includes(text)
