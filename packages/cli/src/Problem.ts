/**
 * Why the command stopped, with an exit code that scripts can tell apart.
 *
 * | exit code | |
 * |---|---|
 * | 0 | done |
 * | 1 | the command line makes no sense, or a bug |
 * | 2 | the server cannot be reached, refuses us, or failed |
 * | 3 | what was named is not there |
 * | 4 | `doctor` found something that needs attention |
 * | 5 | not done: a question was answered with no, or could not be asked, or what was to be removed is in use |
 * | 130 | interrupted |
 *
 * @module
 */
import { Runtime, Schema } from "effect"

/** The named thing is not there. */
export class NotThere extends Schema.TaggedError<NotThere>()("NotThere", {
  what: Schema.String,
  hint: Schema.String
}) {
  override readonly [Runtime.errorExitCode] = 3
  override readonly [Runtime.errorReported] = false
  override get message(): string {
    return `${this.what}. ${this.hint}`
  }
}

/** The server cannot be reached, refuses us, or failed. */
export class ServerProblem extends Schema.TaggedError<ServerProblem>()("ServerProblem", {
  detail: Schema.String
}) {
  override readonly [Runtime.errorExitCode] = 2
  override readonly [Runtime.errorReported] = false
  override get message(): string {
    return this.detail
  }
}

/** `doctor` found something. */
export class Unwell extends Schema.TaggedError<Unwell>()("Unwell", {
  count: Schema.Int
}) {
  override readonly [Runtime.errorExitCode] = 4
  override readonly [Runtime.errorReported] = false
  override get message(): string {
    return `${this.count} finding${this.count === 1 ? " needs" : "s need"} attention`
  }
}

/** A dangerous command was not confirmed. */
export class NotConfirmed extends Schema.TaggedError<NotConfirmed>()("NotConfirmed", {
  detail: Schema.String
}) {
  override readonly [Runtime.errorExitCode] = 5
  override readonly [Runtime.errorReported] = false
  override get message(): string {
    return this.detail
  }
}

/** The topic to be removed is in use. */
export class InUse extends Schema.TaggedError<InUse>()("InUse", {
  detail: Schema.String
}) {
  override readonly [Runtime.errorExitCode] = 5
  override readonly [Runtime.errorReported] = false
  override get message(): string {
    return `not done: ${this.detail}`
  }
}

/** The command line makes no sense. */
export class Misuse extends Schema.TaggedError<Misuse>()("Misuse", {
  detail: Schema.String
}) {
  override readonly [Runtime.errorExitCode] = 1
  override readonly [Runtime.errorReported] = false
  override get message(): string {
    return this.detail
  }
}
