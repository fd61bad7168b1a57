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
const claims = [...queues, "keyspace"]
const storing = ["streams", ...claims]

/** In `test/faults` the pattern stands in the title. */
const faults =
  (file: string, ...titles: ReadonlyArray<string>) =>
  (pattern: string): ReadonlyArray<Proof> =>
    titles.map((title) => ({ file: `faults/${file}.test.ts`, title: `, ${pattern} .*${title}` }))

/** The conformance suite of each pattern is a file; that of lists runs for each order, and one of them is enough. */
const suite =
  (...titles: ReadonlyArray<string>) =>
  (pattern: string): ReadonlyArray<Proof> =>
    titles.map((title) => ({
      file: `redis/${pattern}.test.ts`,
      title: pattern === "lists" ? `fifo .*${title}` : title
    }))

/** Of pub/sub, what is lost is told. */
const gaps = (...titles: ReadonlyArray<string>): ReadonlyArray<Proof> =>
  titles.map((title) => ({ file: "redis/pubsub-gaps.test.ts", title }))

const on = (
  patterns: ReadonlyArray<string>,
  ...proofs: ReadonlyArray<(pattern: string) => ReadonlyArray<Proof>>
): ReadonlyArray<Proof> => patterns.flatMap((pattern) => proofs.flatMap((proof) => proof(pattern)))

const crashed = "a message that too many consumers died with becomes a dead letter"
const died = "what a silent receiver holds goes to another one, the attempt counted"
/** Where somebody dies, stands still or is cut off, and a peer takes over. */
const takeovers = [
  faults("processes", "E1 SIGKILL", "E2 SIGKILL between", "E35 event loop"),
  faults("lines", "E13 a consumer is cut off"),
  faults("crowd", "E39 many members")
]
const aside = "a message that is set aside for its version comes back uncounted"
const retried = "a retry counts the attempt and keeps the message as it was"

const streamsFence = {
  file: "redis/internal/streams/DeliveryScripts.ts",
  find: "mine = owned and #owned == 1 and owned[1][4] == count"
}
const claimsFence = {
  file: "redis/internal/claims/DeliveryScripts.ts",
  find: "if redis.call('SISMEMBER', processing, member) == 0 then"
}
const operations = { A: "ack", R: "retry", D: "dead letter" }

export const mutants: ReadonlyArray<Mutant> = [
  ...Object.entries(operations).flatMap(([op, name]): Array<Mutant> => {
    // That of a first delivery is settled by another branch of the script.
    const stale = [
      suite(
        op === "A" ? "an ack of a repeated delivery by the former owner" : `a ${name} by the former owner is stale`
      ),
      // One of them is enough: the processes take their time.
      ...(op === "R" ? [faults("processes", "E3 SIGSTOP, then SIGCONT")] : [])
    ]
    return [
      {
        ...streamsFence,
        name: `the fence of ${name} is dropped, streams`,
        replace: `mine = op == '${op}' or owned and #owned == 1 and owned[1][4] == count`,
        proofs: on(["streams"], ...stale)
      },
      {
        ...claimsFence,
        name: `the fence of ${name} is dropped, queues and keyspace`,
        replace: `if op ~= '${op}' and redis.call('SISMEMBER', processing, member) == 0 then`,
        proofs: on(claims, ...stale)
      }
    ]
  }),
  {
    name: "the fence of a plain ack is dropped",
    file: "redis/internal/claims/DeliveryScripts.ts",
    find: "else answers[i], stale = 'F', true end",
    replace: "else answers[i] = 'O' end",
    proofs: on(claims, suite("a ack by the former owner is stale"))
  },
  {
    name: "a large batch wakes no worker",
    file: "internal/Prefetch.ts",
    find: "else queueMicrotask(this.#wakeWorkers)",
    replace: "",
    proofs: [{ file: "core/prefetch.test.ts", title: "workers begin with a large batch" }]
  },
  {
    name: "commits in order travel two calls at a time",
    file: "redis/internal/group/GroupReceiver.ts",
    find: "subscription.inOrder === true ? 1 : 2",
    replace: "2",
    proofs: [{ file: "redis/streams-commits.test.ts", title: "of a consumer in order" }]
  },
  {
    name: "the fence of a commit is dropped, exactly-once",
    file: "redis/internal/lists/CommitParts.ts",
    find: "return owned[(i - moreArgs + 1) / 2] == 1",
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
    name: "a condition of a commit always holds",
    file: "redis/internal/commit/CommitScript.ts",
    find: "return how ~= '-' and tostring(found) == string.sub(expected, 2)",
    replace: "return true",
    proofs: on(
      ["streams", "exactly-once"],
      suite("a commit whose condition does not hold", "of two commits that were made")
    )
  },
  {
    name: "a condition of a commit holds where nothing is",
    file: "redis/internal/commit/CommitScript.ts",
    find: "if not found then return how ~= '=' end",
    replace: "if not found then return true end",
    proofs: on(["streams", "exactly-once"], suite("a commit whose condition does not hold"))
  },
  {
    name: "the marker of a commit is ignored",
    file: "redis/internal/commit/CommitScript.ts",
    find: "local before = done[marker]",
    replace: "local before = false",
    proofs: ["Streams", "ExactlyOnce"].map((name) => ({
      file: "redis/limits.test.ts",
      title: `Redis${name}: after the window for published ids`
    }))
  },
  {
    name: "the marker of a commit that was applied in part is taken for that of a whole one",
    file: "redis/internal/commit/CommitScript.ts",
    find: "if partial or string.find(before, '^partial') then",
    replace: "if partial then",
    proofs: [{ file: "redis/streams-commits.test.ts", title: "a refused one whose answer was lost" }]
  },
  {
    name: "a letter does not say that its commit was applied in part",
    file: "redis/internal/commit/CommitScript.ts",
    find: "elseif partial or before then",
    replace: "elseif before then",
    proofs: ["Streams", "ExactlyOnce"].map((name) => ({
      file: "redis/limits.test.ts",
      title: `case F1.* Redis${name}: is never applied again`
    }))
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
    file: "redis/internal/claims/DeliveryScripts.ts",
    find: "op == 'L' and attempts - 1 or attempts",
    replace: "attempts",
    proofs: on(claims, suite("a release does not count the attempt"), faults("processes", "E4 SIGTERM with too little"))
  },
  {
    name: "a cancelled delivery may be retried",
    file: "redis/internal/streams/DeliveryScripts.ts",
    find: "if op ~= 'D' and redis.call('ZSCORE', cancelled, member) then",
    replace: "if false then",
    proofs: on(["streams"], suite("a cancelled delivery is told to its consumer"))
  },
  {
    name: "a cancelled delivery outlives its consumer",
    file: "redis/internal/streams/DeliveryScripts.ts",
    find: "if over or isDead and deaths >= most then",
    replace: "if isDead and deaths >= most then",
    proofs: on(["streams"], suite("a cancelled message whose consumer dies"))
  },
  {
    name: "a cancelled delivery may be retried, queues and keyspace",
    file: "redis/internal/claims/DeliveryScripts.ts",
    find: "local isOver = cancels and",
    replace: "local isOver = false and",
    proofs: on(claims, suite("a cancelled delivery is told to its consumer"))
  },
  {
    name: "a cancelled delivery outlives its consumer, queues and keyspace",
    file: "redis/internal/claims/MemberScripts.ts",
    find: "local isOver = cancels and",
    replace: "local isOver = false and",
    proofs: on(claims, suite("a cancelled message whose consumer dies"))
  },
  {
    name: "a removed message counts as missing, queues",
    file: "redis/internal/lists/ListSource.ts",
    find: "return redis.pcall('SREM', removed, id) == 1",
    replace: "return false",
    proofs: on(queues, suite("a removed message begins nowhere"))
  },
  {
    name: "a removed message counts as missing, keyspace",
    file: "redis/internal/keyspace/KeyspaceSource.ts",
    find: "missed = missed - (missed > 0 and omittedIn(to - missed, to) or 0)",
    replace: "",
    proofs: on(["keyspace"], suite("a removed message begins nowhere"))
  },
  {
    name: "a message whose priority was changed is delivered from its old place",
    file: "redis/internal/lists/ListSource.ts",
    find: "        more, places = standing(k, found)",
    replace: "        local _\n        _, places = standing(k, found)",
    proofs: [{ file: "redis/lists.test.ts", title: "priority .*a message whose priority is changed" }]
  },
  {
    name: "the id of a publisher's own is only known for its window",
    file: "redis/internal/streams/MessageScripts.ts",
    find: "elseif own then",
    replace: "elseif false then",
    proofs: [{ file: "redis/messages-by-id.test.ts", title: "RedisStreams: a publisher's own id finds" }]
  },
  {
    name: "a second retry is not indexed",
    file: "redis/internal/streams/DeliveryScripts.ts",
    find: "if id ~= entry then index(retryIds, '-' .. scoreOf(entry), id) end",
    replace: "",
    proofs: on(["streams"], suite("a message is found by the id of its receipt"))
  },
  {
    name: "the limit of crashes is dropped, streams",
    file: "redis/internal/streams/DeliveryScripts.ts",
    find: "if over or isDead and deaths >= most then",
    replace: "if false then",
    proofs: on(["streams"], suite(crashed))
  },
  ...claims.map((pattern): Mutant => ({
    name: `the limit of crashes is dropped, ${pattern}`,
    file: "redis/internal/claims/MemberScripts.ts",
    find: "elseif not isOver and deaths + 1 < most then",
    replace: "elseif not isOver then",
    proofs: on([pattern], suite(crashed))
  })),
  {
    name: "the attempt that a death ends does not count, streams",
    file: "redis/internal/streams/DeliveryScripts.ts",
    find: "if uncounting then uncounted",
    replace: "if uncounting or isDead then uncounted",
    proofs: on(["streams"], suite(died))
  },
  ...claims.map((pattern): Mutant => ({
    name: `the attempt that a death ends does not count, ${pattern}`,
    file: "redis/internal/claims/MemberScripts.ts",
    find: "mark(id, attempts + 1, fence + 1, deaths + 1, after)",
    replace: "mark(id, attempts, fence + 1, deaths + 1, after)",
    proofs: on([pattern], suite(died))
  })),
  {
    name: "the attempt that a death ends leaves no line, streams",
    file: "redis/internal/streams/DeliveryScripts.ts",
    find: "if isDead then redis.call('HSET', released, '!' .. member, log) end",
    replace: "",
    proofs: on(["streams"], suite("a message that too many consumers died with"))
  },
  {
    name: "the attempt that a death ends leaves no line, queues and keyspace",
    file: "redis/internal/claims/MemberScripts.ts",
    find: "mark(id, attempts + 1, fence + 1, deaths + 1, after)",
    replace: "mark(id, attempts + 1, fence + 1, deaths + 1, tally)",
    proofs: on(claims, suite("an attempt of a consumer that died stands among"))
  },
  {
    name: "the fence does not grow with a death, streams",
    file: "redis/internal/streams/StreamDelivery.ts",
    find: "this.fence = count",
    replace: "this.fence = 1",
    proofs: on(["streams"], ...takeovers)
  },
  ...claims.map((pattern): Mutant => ({
    name: `the fence does not grow with a death, ${pattern}`,
    file: "redis/internal/claims/MemberScripts.ts",
    find: "mark(id, attempts + 1, fence + 1, deaths + 1, after)",
    replace: "mark(id, attempts + 1, fence, deaths + 1, after)",
    proofs: on([pattern], ...takeovers)
  })),
  {
    name: "the attempt that a retry ends does not count, streams",
    file: "redis/internal/streams/DeliveryScripts.ts",
    find: "local body = {id, at, attempt, fence, cause,",
    replace: "local body = {id, at, attempt - 1, fence, cause,",
    proofs: on(["streams"], suite(retried))
  },
  {
    name: "the attempt that a retry ends does not count, queues and keyspace",
    file: "redis/internal/claims/DeliveryScripts.ts",
    find: "mark(entry, op == 'N' and attempts - 1 or attempts, fence",
    replace: "mark(entry, attempts - 1, fence",
    proofs: on(claims, suite(retried))
  },
  {
    name: "a message of a newer version is decoded",
    file: "Consumer.ts",
    find: "if (version > topic.version) return",
    replace: "if (version > Infinity) return",
    proofs: ["Streams", "Lists", "ExactlyOnce", "Keyspace"].map((name) => ({
      file: "redis/versions.test.ts",
      title: `Redis${name}.*nothing is lost or buried`
    }))
  },
  {
    name: "a message of a newer version is decoded as one of this version",
    file: "Consumer.ts",
    find: "topic.decode(body, version)",
    replace: "topic.decode(body)",
    proofs: [{ file: "core/versions.test.ts", title: "are read through their own schema, and a failed migration" }]
  },
  {
    name: "a filter lets everything through",
    file: "redis/internal/wire/Lua.ts",
    find: "if type(value) ~= 'string' or not values[value] then return false end",
    replace: "",
    proofs: on(["streams", "keyspace"], suite("a group with a filter gets what it wants"))
  },
  {
    name: "members of a group may want different messages",
    file: "redis/internal/wire/Lua.ts",
    find: "if name ~= consumer then return {'FILTERED', theirs, only} end",
    replace: "",
    proofs: on(["streams", "keyspace"], suite("members of a group that want different messages"))
  },
  {
    name: "setting a message aside counts an attempt, streams",
    file: "redis/internal/group/Settling.ts",
    find: 'settlement._tag === "Release" || isAside(settlement) ? attempt - 1',
    replace: 'settlement._tag === "Release" ? attempt - 1',
    proofs: on(["streams"], suite(aside))
  },
  {
    name: "setting a message aside counts an attempt, queues and keyspace",
    file: "redis/internal/claims/DeliveryScripts.ts",
    find: "mark(entry, op == 'N' and attempts - 1 or attempts, fence",
    replace: "mark(entry, attempts, fence",
    proofs: on(claims, suite(aside))
  },
  ...storing.flatMap((pattern): Array<Mutant> => [
    {
      name: `NOSCRIPT is an error, ${pattern}`,
      file: "redis/internal/connection/Evaluation.ts",
      find: 'error.message.startsWith("NOSCRIPT")',
      replace: 'error.message.startsWith("NOTHING")',
      proofs: on([pattern], faults("connections", "E16"))
    },
    {
      name: `a server without memory takes what is new, ${pattern}`,
      file: "redis/internal/connection/Script.ts",
      find: 'writes: "#!lua\\n"',
      replace: 'writes: "#!lua flags=allow-oom\\n"',
      proofs: on([pattern], faults("store", "E18 out of memory"))
    },
    {
      name: `a heartbeat from before the clock went back counts, ${pattern}`,
      file: "redis/internal/wire/Lua.ts",
      find: "if until_ > now + (told or lease + 60000) then",
      replace: "if false then",
      proofs: on([pattern], faults("clock", "E34: an hour back, and a consumer dies"))
    }
  ]),
  ...storing.map((pattern): Mutant => ({
    name: `a connection that is lost is not made again, ${pattern}`,
    file: "redis/internal/connection/Connection.ts",
    find: "const lost = yield* this.#connectInTheEnd()",
    replace: "const lost = yield* lostAt === undefined ? this.#connectInTheEnd() : Effect.never",
    proofs: on(
      [pattern],
      faults("server", "E5, E6 SIGKILL under", "E7 the tail"),
      faults("connections", "E14 closed by the server"),
      faults("moves", "E9, E15", "E40")
    )
  })),
  ...storing.map((pattern): Mutant => ({
    name: `a group that was lost is not told of, ${pattern}`,
    ...(pattern === "streams"
      ? {
          file: "redis/internal/streams/StreamMembership.ts",
          find: "const isLost = known && main + onRetry > 0",
          replace: "const isLost = false && known && main + onRetry > 0"
        }
      : {
          file: "redis/internal/claims/ClaimsMembership.ts",
          find: "return again && isNew ?",
          replace: "return false && isNew ?"
        }),
    proofs: on([pattern], faults("server", "E8 SIGKILL"), faults("store", "E17 (?:FLUSHALL|%s) while nothing"))
  })),
  ...storing.map((pattern): Mutant => ({
    name: `a caller waits for an answer forever, ${pattern}`,
    file: "redis/internal/connection/Connection.ts",
    find: "for (const call of this.#inFlight) {\n      if (call.expires > now) continue",
    replace: "for (const call of this.#inFlight) {\n      if (call.expires > 0) continue",
    proofs: on([pattern], faults("lines", "E11 black hole"))
  })),
  ...storing.map((pattern): Mutant => ({
    name: `a command has no time for its answer, ${pattern}`,
    file: "redis/internal/connection/Ticker.ts",
    find: "const defaultDeadline = Duration.seconds(5)",
    replace: "const defaultDeadline = Duration.millis(20)",
    proofs: on([pattern], faults("lines", "E12 (?:latency|%s),"))
  })),
  {
    name: "a server that takes no more connections is not heard out",
    file: "redis/internal/connection/Connection.ts",
    find: "Effect.raceAllFirst([otherwise, toldBy(unasked(options)), Effect.sleep(suspicious)])",
    replace: "Effect.raceFirst(otherwise, Effect.sleep(suspicious))",
    proofs: on(storing, faults("moves", "E36"))
  },
  {
    name: "the server is not asked which command it denies",
    file: "redis/internal/connection/Evaluation.ts",
    find: 'if (what === "command") error',
    replace: 'if (what === "nothing") error',
    proofs: [{ file: "faults/permissions.test.ts", title: "E21 " }]
  },
  {
    name: "pub/sub runs a command that its line of permissions does not have",
    file: "redis/internal/pubsub/Scripts.ts",
    find: "-- Everything is read before anything is written.",
    replace: "redis.call('DBSIZE')",
    proofs: [{ file: "faults/acl.test.ts", title: "E21 .*(?:PubSub|pub/sub)" }]
  },
  {
    name: "what the last attempt to connect found is reported forever",
    file: "redis/internal/connection/Connection.ts",
    find: "if (sinceMillis < staleMillis) return false",
    replace: "if (sinceMillis >= 0) return false",
    proofs: [{ file: "redis/addresses.test.ts", title: "E22" }]
  },
  {
    name: "why a certificate is not accepted is not told",
    file: "redis/internal/connection/Handshake.ts",
    find: "is not accepted: ${error.message}. Give",
    replace: "is not accepted. Give",
    proofs: [{ file: "redis/addresses.test.ts", title: "E23" }]
  },
  {
    name: "an eviction policy is not told",
    file: "redis/internal/inspect/ServerHealth.ts",
    find: 'if (policy !== undefined && policy !== "noeviction"',
    replace: 'if (policy === "never"',
    proofs: [{ file: "redis/health.test.ts", title: "E19" }]
  },
  {
    name: "what cannot be decoded is acknowledged",
    file: "internal/Workers.ts",
    find: 'put(delivery, Settlement.deadLetter("DecodeFailure", shorten(why)))',
    replace: "put(delivery, Settlement.ack)",
    proofs: [
      ...on(["streams"], faults("store", "E24")),
      ...on(queues, faults("lists", "E24")),
      ...on(["keyspace"], faults("keyspace", "E24")),
      ...on(["pub/sub"], faults("pubsub", "E24"))
    ]
  },
  {
    name: "the bytes that a consumer holds are not counted",
    file: "internal/Prefetch.ts",
    find: "this.#heldBytes += unitsOf(batch[i]!)",
    replace: "this.#heldBytes += 0",
    proofs: on(storing, faults("store", "E37"))
  },
  {
    name: "another wire version",
    file: "redis/internal/connection/ScriptReply.ts",
    find: 'export const wire = "1"',
    replace: 'export const wire = "2"',
    proofs: on(storing, faults("upgrade", "E38 what"))
  },
  {
    name: "a foreign value is not looked for",
    file: "redis/internal/connection/Script.ts",
    find: "...touched.map((call) => `  ${call}`),",
    replace: "",
    proofs: [
      ...on(["streams"], faults("store", "E20 WRONGTYPE of any key before the start")),
      ...on(queues, faults("lists", "E20 WRONGTYPE of any key before the start")),
      ...on(["keyspace"], faults("keyspace", "E20 WRONGTYPE of any key before the start")),
      ...on(["pub/sub"], faults("pubsub", "E20"))
    ]
  },
  {
    name: "an id that was published is stored again",
    file: "redis/internal/publish/PublishScript.ts",
    find: "if seen and call('EXISTS', seen) == 1 then",
    replace: "if false then",
    proofs: on(["streams", ...queues, "keyspace"], faults("store", "E27 the same id published again"))
  },
  {
    name: "what pub/sub has missed is not told",
    file: "redis/internal/pubsub/Sequences.ts",
    find: "if (missed > 0) return",
    replace: "if (missed < 0) return",
    proofs: gaps("E11, E13", "E14", "E25")
  },
  {
    name: "pub/sub does not notice that it was disconnected",
    file: "redis/internal/pubsub/Sequences.ts",
    find: "this.#interruptions++",
    replace: "",
    proofs: gaps("after a reconnect there is exactly one gap")
  },
  {
    name: "pub/sub tells of a gap where there is none",
    file: "redis/internal/pubsub/Sequences.ts",
    find: "const missed = number - last.number - 1",
    replace: "const missed = number - last.number",
    proofs: gaps("E12", "E17", "E8, E9", "E15", "E36, E40")
  },
  {
    name: "what overflows the buffer is not told",
    file: "internal/Inbox.ts",
    find: "this.#before = joined(joined(this.#before, oldest.gap), dropped)",
    replace: "",
    proofs: gaps("what is dropped is a gap", "what finds bufferBytes full")
  },
  {
    name: "a repeated batch is stored again",
    file: "redis/internal/publish/PublishScript.ts",
    find: "if number == batch then",
    replace: "if false then",
    proofs: on(["streams", ...queues, "keyspace"], faults("connections", "E10 reset before and after"))
  },
  {
    name: "a message of any size is sent",
    file: "Producer.ts",
    find: "if (bytes <= topic.maxBytes) return undefined",
    replace: "return undefined",
    proofs: [{ file: "core/edge.test.ts", title: "case B2, E25" }]
  },
  {
    name: "what expired is not counted",
    file: "redis/internal/keyspace/KeyspaceSource.ts",
    find: "if missed > 0 then",
    replace: "if false then",
    proofs: [{ file: "redis/keyspace-expiry.test.ts", title: "" }]
  },
  {
    name: "a lost lease interrupts no handler",
    file: "internal/Workers.ts",
    find: "worker.lost.add(delivery)\n      interrupt(worker)",
    replace: "worker.lost.add(delivery)",
    proofs: [
      { file: "core/consumer-faults.test.ts", title: "a lost one interrupts the handler" },
      ...on(storing, faults("leases", "case A14"))
    ]
  },
  {
    name: "a pause is ignored, queues and keyspace",
    file: "redis/internal/claims/DeliveryScripts.ts",
    find: "if redis.call('HEXISTS', state, 'paused') == 1 then return {'PAUSED'} end",
    replace: "",
    proofs: on(claims, (pattern) => [{ file: "redis/read-ahead.test.ts", title: `, ${pattern} .*case A5, F4` }])
  },
  ...storing.map((pattern): Mutant => ({
    name: `what a leaver's handlers have had does not count, ${pattern}`,
    file: "redis/internal/group/GroupReceiver.ts",
    find: "begun.length === 0 ? leave",
    replace: "begun.length >= 0 ? leave",
    proofs: on([pattern], faults("leases", "leaves before it has heard", "could not say so and left"))
  })),
  {
    name: "a dead letter does not leave, streams",
    file: "redis/internal/streams/DeliveryScripts.ts",
    find: "if answer == 'O' and count > 0 then",
    replace: "if answer == 'O' and count > 0 and op ~= 'D' then",
    proofs: on(["streams"], faults("processes", "E26 poison that always fails"))
  },
  {
    name: "a dead letter does not leave, queues and keyspace",
    file: "redis/internal/claims/DeliveryScripts.ts",
    find: "if answer ~= 'G' then",
    replace: "if answer ~= 'G' and op ~= 'D' then",
    proofs: on(claims, faults("processes", "E26 poison that always fails"))
  },
  {
    name: "what a dead consumer holds does not keep a topic from being removed",
    file: "redis/internal/inspect/Removal.ts",
    find: "{3, 'pending'}, ",
    replace: "",
    proofs: on(storing, suite("case B15: what a dead consumer holds"))
  },
  {
    name: "claims on dead letters do not last",
    file: "redis/internal/inspect/DeadLetterScripts.ts",
    find: "claims[letter[1]] = now + lease",
    replace: "claims[letter[1]] = now",
    proofs: on([...storing, "pubsub"], suite("a dead letter is claimed by one hook"))
  },
  {
    name: "a hook forgets where it was",
    file: "redis/internal/inspect/DeadLetterScripts.ts",
    find: "if position ~= recorded[1] then redis.call('HSET', state, 'hook', position) end",
    replace: "",
    proofs: on(["streams"], suite("a dead letter is claimed by one hook"))
  },
  {
    name: "what a hook has not finished is lost with its consumer",
    file: "internal/DeadLetterHook.ts",
    find: "if (this.#stopping && Exit.isFailure(exit) && Exit.hasInterrupts(exit)) return Effect.void",
    replace: "",
    proofs: [{ file: "core/hooks.test.ts", title: "is run by the next" }]
  },
  {
    name: "a confirmation that failed is forgotten",
    file: "internal/DeadLetterHook.ts",
    find: "const handled = [...this.#handled]",
    replace: "const handled = this.#handled.splice(0)",
    proofs: [{ file: "core/hooks.test.ts", title: "whose confirmation has failed" }]
  },
  {
    name: "a request gets its whole time after its subscription",
    file: "Producer.ts",
    find: "Math.max(1, millis - Math.floor(Duration.toMillis(subscribing)))",
    replace: "millis",
    proofs: [{ file: "core/request.test.ts", title: "its deadline includes that" }]
  },
  {
    name: "a request begins while the time is unknown",
    file: "internal/Responder.ts",
    find: "return now(transport).pipe(",
    replace: "return now(transport).pipe(Effect.catch(() => Effect.succeed(publishedAt)),",
    proofs: [{ file: "core/request.test.ts", title: "is not begun before the store tells the time" }]
  },
  {
    name: "a request begins after its deadline",
    file: "internal/Responder.ts",
    find: "left <= 0",
    replace: "left <= -Infinity",
    proofs: [{ file: "core/request.test.ts", title: "ends at its deadline" }]
  },
  {
    name: "a living consumer does not keep its group from being retired",
    file: "redis/internal/inspect/Removal.ts",
    find: "if lives(state, living[i], tonumber(living[i + 1]) - now) then",
    replace: "if false then",
    proofs: on(storing, suite("a group is retired once its consumers have left"))
  },
  {
    name: "a queue forgets what a retired group had not settled",
    file: "redis/internal/lists/ListSource.ts",
    find: "redis.call(order() == 'lifo' and 'RPUSH' or 'LPUSH', lists[record and urgencyOf(record) or 2], id)",
    replace: "",
    proofs: [{ file: "redis/lists-queue.test.ts", title: "fifo: what a retired group has not settled" }]
  },
  {
    name: "a move gives back a thousand messages and leaves the rest",
    file: "redis/internal/streams/InspectScripts.ts",
    find: "return {#given == 1000 and 'AGAIN' or 'OK'}",
    replace: "return {'OK'}",
    proofs: [{ file: "redis/administering.test.ts", title: "a group that is moved back gets all" }]
  },
  {
    name: "a purge forgets a thousand messages and leaves the rest",
    file: "redis/internal/streams/InspectScripts.ts",
    find: "if #given == 1000 then more = 1 end",
    replace: "",
    proofs: [{ file: "redis/administering.test.ts", title: "RedisStreams: a purge leaves none" }]
  },
  {
    name: "a purge counts as messages that a group missed",
    file: "redis/internal/keyspace/KeyspaceSource.ts",
    find: "redis.call('HSET', position, 'cursor', digits(math.max(cursor(), to)))",
    replace: "if first <= to then first = to + 1 note() end",
    proofs: on(["keyspace"], suite("a purged topic keeps its groups"))
  },
  {
    name: "a history is kept of what is not settled only",
    file: "redis/internal/streams/GroupScripts.ts",
    find: "'LIMIT', math.min(count, most))",
    replace: "'LIMIT', most)",
    proofs: [{ file: "redis/streams-publish.test.ts", title: "a history keeps about so many" }]
  },
  {
    name: "a commit stores in other topics within the limits of the last one",
    file: "redis/internal/commit/CommitScript.ts",
    find: "setting = topic.setting",
    replace: "",
    proofs: [{ file: "redis/streams-commits.test.ts", title: "within the limits of their own topic" }]
  },
  {
    name: "the bytes of a stream are estimated",
    file: "redis/internal/wire/Lua.ts",
    find: "'USAGE', stream, 'SAMPLES', 0)",
    replace: "'USAGE', stream)",
    proofs: [{ file: "redis/streams-publish.test.ts", title: "the bytes are those of small and large" }]
  },
  {
    name: "a removed message counts as cut off",
    file: "redis/internal/streams/MessageScripts.ts",
    find: "string.format('%.0f', read + 1)",
    replace: "string.format('%.0f', read)",
    proofs: [{ file: "redis/streams-publish.test.ts", title: "that is removed does not count as cut off" }]
  },
  {
    name: "what a failed stream had pulled is only released",
    file: "internal/PulledDeliveries.ts",
    find: "failed && pulled.pulled ?",
    replace: "false ?",
    proofs: on(storing, suite("what a stream of deliveries leaves"))
  },
  {
    name: "an id is freed before every group has settled its message, streams",
    file: "redis/internal/streams/UniqueIds.ts",
    find: "if not isOpen(rest, group) then",
    replace: "if true then",
    proofs: on(["streams"], suite("once every group has settled its message"))
  },
  {
    name: "an id is freed before every group has settled its message, keyspace",
    file: "redis/internal/keyspace/KeyspaceSource.ts",
    find: "if #left > 1 and isOpen(place) then",
    replace: "if false then",
    proofs: on(["keyspace"], suite("once every group has settled its message"))
  },
  {
    name: "an id is free between attempts",
    file: "redis/internal/streams/UniqueIds.ts",
    find: "if place and not isKept then redis.call('HSET'",
    replace: "if false then redis.call('HSET'",
    proofs: on(["streams"], suite("until its message is acked or dead-lettered"))
  },
  {
    name: "every beat looks for lost messages that had their ids to themselves",
    file: "redis/internal/wire/Lua.ts",
    find: "if now >= swept and now - swept < spell then return end",
    replace: "",
    proofs: [{ file: "redis/unique.test.ts", title: "looking for them costs little" }]
  },
  {
    name: "a retired group keeps an id of the one that joins under its name",
    file: "redis/internal/streams/GroupScripts.ts",
    find: "isKept = isKept and redis.call('ZSCORE', retryIds, id)",
    replace: "",
    proofs: [{ file: "redis/unique.test.ts", title: "that a retired group kept" }]
  },
  {
    name: "a beat does not ask whether the filter of the group has changed",
    file: "redis/internal/wire/Lua.ts",
    find: "return (noted[5] or '') ~= only",
    replace: "return false",
    proofs: [{ file: "redis/filters.test.ts", title: "RedisStreams: .* from none to two" }]
  },
  {
    name: "what another group has noted of the types of entries is not used",
    file: "redis/internal/streams/Selection.ts",
    find: "if isNoted then last, fields, before, base = runAfter(at) end",
    replace: "",
    proofs: [{ file: "redis/filters.test.ts", title: "goes by the notes of another" }]
  },
  {
    name: "a group runs the script for each message that it does not want",
    file: "redis/internal/streams/Reader.ts",
    find: "if (mayWant(subscription.only, entry[1])) return",
    replace: "return",
    proofs: [{ file: "redis/filters.test.ts", title: "on a quiet topic" }]
  },
  {
    name: "what was trimmed from a run of entries counts as passed",
    file: "redis/internal/streams/Selection.ts",
    find: "place - 1), '%d+$') - 1, base end",
    replace: "place - 1), '%d+$') * 0, base end",
    proofs: [{ file: "redis/filters.test.ts", title: "goes by the notes of another" }]
  },
  {
    name: "a hook is not told at once of what another consumer gives up, streams",
    file: "redis/internal/streams/DeliveryScripts.ts",
    find: "if deadLettered and isHooked() then soonest = math.min(soonest or 1, 1) end",
    replace: "",
    proofs: [{ file: "redis/dead-letter-hooks.test.ts", title: "streams: one that another consumer gives up" }]
  },
  {
    name: "a hook is not told at once of what another consumer gives up, lists",
    file: "redis/internal/claims/DeliveryScripts.ts",
    find: "if deadLettered and isHooked() then tell(1) end",
    replace: "",
    proofs: [{ file: "redis/dead-letter-hooks.test.ts", title: "lists: one that another consumer gives up" }]
  },
  {
    name: "a publisher's own header hides the type of a message",
    file: "Producer.ts",
    find: "{ ...headers, type: topic.type(payload) }",
    replace: "{ type: topic.type(payload), ...headers }",
    proofs: [{ file: "core/versions.test.ts", title: "a group gets only those that it wants" }]
  },
  {
    name: "an id is not freed when its message is taken",
    file: "redis/internal/lists/ListSource.ts",
    find: "== ' t' then",
    replace: "== ' u' then",
    proofs: on(queues, suite("until a consumer has its message"))
  },
  {
    name: "a message is put back for ever",
    file: "redis/internal/publish/PublishScript.ts",
    find: "math.min(due or 0, first + limit)",
    replace: "(due or 0)",
    proofs: on(storing, suite("a message is put back by each that follows"))
  },
  {
    name: "the limit counts from the last message that replaced the first, streams",
    file: "redis/internal/streams/StreamStorage.ts",
    find: "tonumber(before[#before]) or now()",
    replace: "now()",
    proofs: on(["streams"], suite("a message is put back by each that follows"))
  },
  {
    name: "the limit counts from the last message that replaced the first, keyspace",
    file: "redis/internal/keyspace/KeyspaceScripts.ts",
    find: "tonumber(before.at) or now()",
    replace: "now()",
    proofs: on(["keyspace"], suite("a message is put back by each that follows"))
  },
  {
    name: "a message that may be in a handler is replaced",
    file: "redis/internal/lists/ListStorage.ts",
    find: "rest == ' t' and",
    replace: "",
    proofs: on(queues, suite("is replaced until a consumer has it"))
  },
  {
    name: "schedules: a tick is published by each process that finds it due",
    file: "redis/internal/publish/ScheduleScripts.ts",
    find: "== revision and '1' or '0'",
    replace: "~= ';' and '1' or '0'",
    proofs: on(["streams", "lists"], suite("a change that is based on another revision is not made"))
  },
  {
    name: "schedules: a change forgets what is due",
    file: "Schedules.ts",
    find: "catchUp ? planned(found, now) : undefined",
    replace: "catchUp && now < 0 ? planned(found, now) : undefined",
    proofs: [{ file: "core/schedules.test.ts", title: "is published as it was defined" }]
  },
  {
    name: "schedules: a process that ends leaves the drifts it has found",
    file: "Schedules.ts",
    find: "schedules.note(topic, [], some, 0)",
    replace: "schedules.note(topic, some, [], 0)",
    proofs: [{ file: "core/schedules.test.ts", title: "a drift is known until it is over" }]
  },
  {
    name: "a consumer that leaves does not record when",
    file: "redis/internal/claims/MemberScripts.ts",
    find: "if known and leaving then",
    replace: "if known and not leaving then",
    proofs: on(["lists"], suite("for how long a group has had no consumer"))
  },
  {
    name: "schedules: a consumer of the topic does not watch them",
    file: "Transport.ts",
    find: "receive: (subscription) => Effect.tap(receive(subscription), RcMap.get(watches, subscription.topic)),",
    replace: "receive,",
    proofs: [{ file: "redis/schedules.test.ts", title: "a consumer of the topic publishes the ticks" }]
  },
  {
    name: "durability: what no replica has counts as replicated",
    file: "redis/internal/publish/Confirmation.ts",
    find: "return replicas >= 1 ?",
    replace: "return replicas >= 0 ?",
    proofs: [{ file: "redis/durability.test.ts", title: "the layer's choice counts" }]
  },
  {
    name: "durability: the server is asked once the message is stored",
    file: "redis/internal/publish/Confirmation.ts",
    find: "this.#commands ?? (yield* this.#connect())",
    replace: "this.#commands ?? (yield* this.#options.connect)",
    proofs: [{ file: "redis/durability.test.ts", title: "nothing is stored" }]
  },
  {
    name: "Sentinel: a connection stays at the old master",
    file: "redis/internal/connection/Sentinel.ts",
    find: "connection.moveTo(shown(at))",
    replace: "connection.moveTo(connection.address)",
    proofs: [{ file: "redis/sentinel.test.ts", title: "is left at once" }]
  },
  {
    name: "Sentinel: a server that is no master is good enough",
    file: "redis/internal/connection/Sentinel.ts",
    find: "master: true",
    replace: "master: false",
    proofs: [{ file: "redis/sentinel.test.ts", title: "a wrong password" }]
  },
  {
    name: "failover: what was accepted after the last look counts as kept",
    file: "redis/internal/connection/ReplicationHistory.ts",
    find: "shared !== last || accepted",
    replace: "shared !== last",
    proofs: [{ file: "redis/failed-over.test.ts", title: "all of the last look" }]
  },
  {
    name: "failover: in a cluster the other connections' histories are not compared",
    file: "redis/internal/connection/FailoverWatch.ts",
    find: "continued ?? own",
    replace: "own",
    proofs: [{ file: "redis/failed-over.test.ts", title: "a cluster" }]
  }
]
