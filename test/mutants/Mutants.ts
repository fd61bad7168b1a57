/**
 * Small wrongs done to the library, and the tests that must notice. `find` stands exactly once in its file: a text that
 * has moved is no mutant, and fails the run.
 */
export interface Mutant {
  readonly name: string
  /** Below `packages/waybill/src`. */
  readonly file: string
  readonly find: string
  readonly replace: string
  readonly proofs: ReadonlyArray<Proof>
}

/** Of the tests of a file whose whole name (pattern and title) fits, one at least must fail. */
export interface Proof {
  /** Below `test`. */
  readonly file: string
  readonly title: string
}

const queues = ["lists", "exactly-once"]
const custody = [...queues, "keyspace"]
const storing = ["streams", ...custody]

/** In `test/faults` the pattern stands in the title. */
const faults =
  (file: string, ...titles: ReadonlyArray<string>) =>
  (pattern: string): ReadonlyArray<Proof> =>
    titles.map((title) => ({ file: `faults/${file}.test.ts`, title: `, ${pattern} .*${title}` }))

/** The conformance suite of each pattern is a file. */
const suite =
  (...titles: ReadonlyArray<string>) =>
  (pattern: string): ReadonlyArray<Proof> =>
    titles.map((title) => ({ file: `redis/${pattern}.test.ts`, title }))

const on = (
  patterns: ReadonlyArray<string>,
  ...proofs: ReadonlyArray<(pattern: string) => ReadonlyArray<Proof>>
): ReadonlyArray<Proof> => patterns.flatMap((pattern) => proofs.flatMap((proof) => proof(pattern)))

const streamsFence = {
  file: "redis/internal/streams/DeliveryScripts.ts",
  find: "mine = owned and #owned == 1 and owned[1][4] == count"
}
const custodyFence = {
  file: "redis/internal/custody/DeliveryScripts.ts",
  find: "if redis.call('SISMEMBER', processing, member) == 0 then"
}
const operations = { A: "ack", R: "retry", D: "dead letter" }

export const mutants: ReadonlyArray<Mutant> = [
  ...Object.entries(operations).flatMap(([op, name]): Array<Mutant> => {
    // That of a first delivery is settled by another branch of the script.
    const stale = suite(
      op === "A" ? "an ack of a repeated delivery by the former owner" : `a ${name} by the former owner is stale`
    )
    return [
      {
        ...streamsFence,
        name: `the fence of ${name} is dropped, streams`,
        replace: `mine = op == '${op}' or owned and #owned == 1 and owned[1][4] == count`,
        proofs: on(["streams"], stale)
      },
      {
        ...custodyFence,
        name: `the fence of ${name} is dropped, queues and keyspace`,
        replace: `if op ~= '${op}' and redis.call('SISMEMBER', processing, member) == 0 then`,
        proofs: on(custody, stale)
      }
    ]
  }),
  {
    name: "the fence of a plain ack is dropped",
    file: "redis/internal/custody/DeliveryScripts.ts",
    find: "else answers[i], stale = 'F', true end",
    replace: "else answers[i] = 'O' end",
    proofs: on(custody, suite("a ack by the former owner is stale"))
  },
  {
    name: "the fence of a commit is dropped, exactly-once",
    file: "redis/internal/lists/CommitParts.ts",
    find: "return redis.call('SISMEMBER', processing, ARGV[i]) == 1",
    replace: "return true",
    proofs: on(["exactly-once"], suite("commit"))
  },
  {
    name: "the fence of a commit is dropped, streams",
    file: "redis/internal/streams/CommitParts.ts",
    find: "return owned and #owned == 1 and owned[1][4] == count",
    replace: "return true",
    proofs: on(["streams"], suite("commit"))
  },
  {
    name: "the marker of a commit is ignored",
    file: "redis/internal/CommitScript.ts",
    find: "local before = call('GET', marker)",
    replace: "local before = false",
    proofs: on(["exactly-once", "streams"], suite("commit"))
  },
  {
    name: "a released attempt counts, streams",
    file: "redis/internal/streams/DeliveryScripts.ts",
    find: "if op == 'L' then redis.call('HINCRBY', released, member, 1) end",
    replace: "",
    proofs: on(
      ["streams"],
      suite("a release does not count the attempt"),
      faults("processes", "E4 SIGTERM with too little")
    )
  },
  {
    name: "a released attempt counts, queues and keyspace",
    file: "redis/internal/custody/DeliveryScripts.ts",
    find: "op == 'L' and attempts - 1 or attempts",
    replace: "attempts",
    proofs: on(
      custody,
      suite("a release does not count the attempt"),
      faults("processes", "E4 SIGTERM with too little")
    )
  },
  {
    name: "the limit of crashes is dropped, streams",
    file: "redis/internal/streams/DeliveryScripts.ts",
    find: "if died and deaths >= most then",
    replace: "if false then",
    proofs: on(["streams"], faults("processes", "E26 poison that kills"))
  },
  {
    name: "the limit of crashes is dropped, queues and keyspace",
    file: "redis/internal/custody/MemberScripts.ts",
    find: "elseif deaths + 1 < most then",
    replace: "elseif true then",
    proofs: on(custody, faults("processes", "E26 poison that kills"))
  },
  {
    name: "NOSCRIPT is an error",
    file: "redis/internal/Connection.ts",
    find: 'error.message.startsWith("NOSCRIPT")',
    replace: 'error.message.startsWith("NOTHING")',
    proofs: on(storing, faults("connections", "E16"))
  },
  ...Object.entries({
    streams: "redis/internal/streams/PublishScript.ts",
    lists: "redis/internal/lists/PublishScript.ts",
    keyspace: "redis/internal/keyspace/KeyspaceScripts.ts"
  }).map(([pattern, file]): Mutant => ({
    name: `a repeated batch is stored again, ${pattern}`,
    file,
    find: "if number == ARGV[3] then",
    replace: "if false then",
    proofs: on(pattern === "lists" ? queues : [pattern], faults("connections", "E10 reset before and after"))
  })),
  {
    name: "what expired is not counted",
    file: "redis/internal/keyspace/KeyspaceSource.ts",
    find: "if missed > 0 then",
    replace: "if false then",
    proofs: [{ file: "redis/keyspace-expiry.test.ts", title: "" }]
  },
  {
    name: "a lost lease interrupts nobody",
    file: "internal/Workers.ts",
    find: "slot.lost.add(delivery)\n        interrupt(slot)",
    replace: "slot.lost.add(delivery)",
    proofs: [
      { file: "core/consumer-faults.test.ts", title: "a lost one interrupts the handler" },
      ...on(storing, faults("leases", "case A14"))
    ]
  },
  {
    name: "a pause is ignored, queues and keyspace",
    file: "redis/internal/custody/DeliveryScripts.ts",
    find: "if redis.call('HEXISTS', state, 'paused') == 1 then return {'PAUSED'} end",
    replace: "",
    proofs: on(custody, (pattern) => [{ file: "redis/read-ahead.test.ts", title: `, ${pattern} .*cases A5 and F4` }])
  },
  {
    name: "what a leaver's handlers have had does not count",
    file: "redis/internal/Membership.ts",
    find: "begun.length === 0 ? handBack",
    replace: "begun.length >= 0 ? handBack",
    proofs: on(storing, faults("leases", "leaves before it has heard", "could not say so and left"))
  },
  {
    name: "a dead letter does not leave, streams",
    file: "redis/internal/streams/DeliveryScripts.ts",
    find: "if answer == 'O' and count > 0 then",
    replace: "if answer == 'O' and count > 0 and op ~= 'D' then",
    proofs: on(["streams"], faults("processes", "E26 poison that always fails"))
  },
  {
    name: "a dead letter does not leave, queues and keyspace",
    file: "redis/internal/custody/DeliveryScripts.ts",
    find: "if answer == 'O' then",
    replace: "if answer == 'O' and op ~= 'D' then",
    proofs: on(custody, faults("processes", "E26 poison that always fails"))
  }
]
