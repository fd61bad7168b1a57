/**
 * The faults that use has found, by the number that titles of tests give them: `case A5`, or `case A5, F4`. Each is a sentence
 * that is true now.
 */
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"

/** The letters, and what their cases have in common. */
export const kinds: Readonly<Record<string, string>> = {
  A: "messages that stay, wait or go astray",
  B: "input without a bound, or checked in the wrong place",
  C: "the command, its page, addresses and servers, the chat",
  D: "found by moving real programs over",
  F: "found by what the suites of other libraries assert"
}

export const regressions: Readonly<Record<string, string>> = {
  A1: "after a failover, deliveries that the server and the consumer disagree about are handed back",
  A2: "messages read ahead that turn out to be slow go to idle consumers",
  A3: "messages behind handlers that hang go to idle consumers",
  A4: "an urgent message does not wait for less urgent ones that were read ahead",
  A5: "once `pause` has returned nothing begins, in any process",
  A6: "a server clock that goes back does not keep a dead consumer alive",
  A7: "fences and attempts continue after `XGROUP DESTROY`",
  A8: "consumers killed by another cause hold up the messages they had for a few rounds only",
  A9: "databases of one server are separate, channels included",
  A10: "keyspace notifications that another program switches off are noticed within seconds",
  A11: "a server that stays read-only is retried with backoff, with one log line per new error",
  A12: "the lag is right after messages were trimmed unread",
  A13: "stored messages are listed in the order they are delivered",
  A14: "a handler whose lease is lost is interrupted before another consumer may begin",
  B1: "a call with very many messages is stored in parts that do not hold up other clients",
  B2: "the size limit counts everything that travels: body, headers, id and key",
  B3: "large messages that are published together do not exceed the longest string",
  B4: "a call that is too large for one step is stored in parts",
  B5: "reasons are truncated like causes",
  B6: "pages are bounded in bytes, and no command outlasts a slow connection",
  B7: "reading ahead is bounded in bytes as well as in messages",
  B8: "a failure that throws when it is inspected ends as a dead letter",
  B9: "a payload that is nested too deeply is refused, and harmless as a dead letter",
  B10: "calendar policies are replayed at the real times of the attempts",
  B11: "replaying a policy takes bounded work, however many attempts there were",
  B12: "rendering a failure takes bounded work, however large it is",
  B13: "only well-formed strings are accepted as ids, keys, headers and names",
  B14: "no two names share a key",
  B15: "unused topics cost a process next to nothing, and emptied ones can be removed",
  B16: "keys with binary names are messages of the keyspace pattern",
  C1: "output into a pipe is complete before the command exits",
  C2: "`--contains` searches bytes as bytes",
  C3: "one broken topic does not hide the others",
  C4: "the command publishes bytes unchanged or refuses them",
  C5: "no text from the store controls the terminal",
  C6: "`publish --envelope` keeps numbers as they were written",
  C7: "topics, groups and ids named with dots can be opened on the page",
  C8: "misleading URLs are refused, without showing a password",
  C9: "TLS failures are reported at once, as such",
  C10: "`NotPermitted` names command, key and channel, and the documented permissions are minimal",
  C11: "commands denied within a script are recognised on newer servers",
  C12: "servers that are too old are refused on connecting",
  C13: "nodes of a cluster and Sentinels are recognised on connecting",
  C14: "the page works through tunnels and proxies",
  C15: "usage errors go to stderr, with a line of help",
  C16: "presence in the chat depends on the store's clock only",
  C17: "of two connections of one tab, the newer may close",
  C18: "an outdated reason is not reported",
  D1: "each row of the routing table counts and replays its own failures",
  D2: "a defect while decoding is retried",
  D3: "payload types are inferred from the topic alone",
  D4: "returned messages keep their priority",
  D5: "a late group begins with the oldest message that some group has not settled",
  D6: "a renamed group is reported, and can be retired",
  D7: "UNIX sockets and any option of ioredis can be used",
  D8: "examples use the Redis they are given, and print the same each time",
  D9: "a first run prints no warnings about engines",
  D10: "the built tarballs are kept and can be installed",
  D11: "Waybill installs beside another release of ioredis",
  D12: "under a wrong prefix, the command lists those that exist",
  D13: "two in-memory stores for one topic cause a warning",
  F1: "limits apply without traffic, and no part of a partial commit is applied twice",
  F2: "deaths count through retries and releases",
  F3: "headers that one handler or producer changes stay unchanged for others",
  F4: "once `pause` has returned, nothing that was read ahead begins",
  F5: "invalid page limits fail with the same error everywhere",
  F6: "short delays of other processes are at most 50 ms late",
  F7: "options that make no sense are refused where they are given",
  F8: "publishing in memory gives subscribers their turn",
  F9: "the rate of a redrive is even from the first message",
  F10: "how many more deliveries a stream of outcomes settles is bounded"
}

const root = join(import.meta.dirname, "../..")

/** The files that name a case, by case. Those of the suite for transports count as one. */
export const named: ReadonlyMap<string, ReadonlySet<string>> = (() => {
  const found = new Map<string, Set<string>>()
  for (const folder of ["test", "packages/testing/src/suite"]) {
    for (const path of readdirSync(join(root, folder), { recursive: true, encoding: "utf8" }).toSorted()) {
      if (!path.endsWith(".ts") || path.includes("node_modules") || path.startsWith("mutants")) continue
      const source = readFileSync(join(root, folder, path), "utf8")
      for (const [, list = ""] of source.matchAll(/\b[Cc]ase ([A-F]\d+(?:, [A-F]\d+)*)/g)) {
        for (const number of list.split(", ").filter((one) => !one.startsWith("E"))) {
          const files = found.get(number) ?? new Set()
          found.set(number, files.add(folder === "test" ? `\`${path}\`` : "`TransportSuite`"))
        }
      }
    }
  }
  return found
})()

/** The section of `docs/fault-matrix.md` about them. */
export const section = (): string =>
  Object.entries(kinds)
    .map(
      ([letter, kind]) => `### ${letter}: ${kind}

| case | what holds now | tests |
|---|---|---|
${Object.entries(regressions)
  .filter(([number]) => number.startsWith(letter))
  .map(([number, sentence]) => `| ${number} | ${sentence} | ${[...(named.get(number) ?? [])].join(", ")} |`)
  .join("\n")}`
    )
    .join("\n\n")
