/**
 * Why the command stopped, with an exit code that scripts can tell apart.
 *
 * | exit code | |
 * |---|---|
 * | 0 | done |
 * | 1 | invalid usage, or a bug |
 * | 2 | the server is unreachable, rejected the command, or failed |
 * | 3 | the named topic, group, message or dead letter does not exist |
 * | 4 | `doctor` found problems that need attention |
 * | 5 | not done: the action was not confirmed, or what was to be changed is in use or settled |
 * | 130 | interrupted |
 *
 * @module
 */
import { Runtime, Schema } from "effect"

/** The named topic, group, message or dead letter does not exist. */
export class NotFound extends Schema.TaggedError<NotFound>("@waybill/cli/NotFound")("NotFound", {
  what: Schema.String,
  hint: Schema.String
}) {
  override readonly [Runtime.errorExitCode] = 3
  override readonly [Runtime.errorReported] = false
  override get message(): string {
    return `${this.what}. ${this.hint}`
  }
}

/** The server is unreachable, rejected the command, or failed. */
export class ServerProblem extends Schema.TaggedError<ServerProblem>("@waybill/cli/ServerProblem")("ServerProblem", {
  detail: Schema.String
}) {
  override readonly [Runtime.errorExitCode] = 2
  override readonly [Runtime.errorReported] = false
  override get message(): string {
    return this.detail
  }
}

/** `doctor` found problems. */
export class ProblemsFound extends Schema.TaggedError<ProblemsFound>("@waybill/cli/ProblemsFound")("ProblemsFound", {
  count: Schema.Int
}) {
  override readonly [Runtime.errorExitCode] = 4
  override readonly [Runtime.errorReported] = false
  override get message(): string {
    return `${this.count} problem${this.count === 1 ? " needs" : "s need"} attention`
  }
}

/** A dangerous command was not confirmed. */
export class NotConfirmed extends Schema.TaggedError<NotConfirmed>("@waybill/cli/NotConfirmed")("NotConfirmed", {
  detail: Schema.String
}) {
  override readonly [Runtime.errorExitCode] = 5
  override readonly [Runtime.errorReported] = false
  override get message(): string {
    return this.detail
  }
}

/** What was to be changed is in use, or in a state that does not allow it. */
export class InUse extends Schema.TaggedError<InUse>("@waybill/cli/InUse")("InUse", {
  detail: Schema.String
}) {
  override readonly [Runtime.errorExitCode] = 5
  override readonly [Runtime.errorReported] = false
  override get message(): string {
    return `not done: ${this.detail}`
  }
}

/** The command line is invalid. */
export class UsageError extends Schema.TaggedError<UsageError>("@waybill/cli/UsageError")("UsageError", {
  detail: Schema.String
}) {
  override readonly [Runtime.errorExitCode] = 1
  override readonly [Runtime.errorReported] = false
  override get message(): string {
    return this.detail
  }
}
