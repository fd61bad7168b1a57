/**
 * Every name that a user can import, and why it is public: anything else is internal. Names that came after 0f878d4, which had
 * 241, are listed under `since`.
 */
import { existsSync, readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import * as testing from "@waybill/testing"
import { Schema } from "effect"
import * as waybill from "waybill"

const sources = {
  waybill: "packages/waybill/src/index.ts",
  "waybill/memory": "packages/waybill/src/memory/index.ts",
  "waybill/redis": "packages/waybill/src/redis/index.ts",
  "@waybill/testing": "packages/testing/src/index.ts",
  // Not in the index, which does without ioredis.
  "@waybill/testing/temporaryKeys": "packages/testing/src/temporaryKeys.ts"
}

/** By package and module: the names, and the reason above them. */
const surface: Record<string, Record<string, string>> = {
  "waybill Commit": {
    "writes and messages that a handler returns, applied with the ack": "Commit make",
    "the kinds of records, and their types":
      "Counter Hash List Members Scores Text counter hash list set sortedSet text",
    "what Records and transports are given": "Publication Query RecordType Reply Write",
    "since: records with a schema": "InvalidRecord Value Values value values",
    "since: what must hold for a commit to be applied": "Condition ConditionFailed Lookup"
  },
  "waybill Consumer": {
    "declares a consumer":
      "Consumer Options Source dispatch make process processBatch timeout transactional onFailure orElse onGap",
    "routes of failures": "acknowledge deadLetter retry",
    "runs it": "layer run stream Outcome",
    "a failure that handlers meet": "HandlerTimeout",
    "since: what handlers may be and return": "HandlerEffect HandlerResult",
    "since: what happens with a lost lease": "LeaseLost",
    "since: the type of a route, for functions that return one": "Route",
    "since: a guard": "isConsumer",
    "since: deliveries as a stream, settled by its reader": "Pulled deliveries",
    "since: what runs after the handlers": "onDeadLetter onSettled",
    "since: answers requests": "respond"
  },
  "waybill DeadLetters": {
    "lists, redrives and discards dead letters": "Decoded Report discard redrive stream",
    "since: decodes one that Inspector returned": "decode"
  },
  "waybill Delivery": {
    "what a handler is given": "Delivery",
    "since: the delivery of the handler that is running": "Current",
    "since: for transports: failures by row, and what names a delivery": "Failures Handle"
  },
  "waybill Failure": {
    "since: what a failure said, kept as data": "FailedAttempt Failure Said of said"
  },
  "waybill Gap": {
    "what a subscriber missed": "Gap"
  },
  "waybill Health": {
    "asks whether the store is healthy": "Options check respond",
    "the answer": "Problem Report",
    "what a transport provides for it": "Store"
  },
  "waybill Inspector": {
    "the port": "Inspector",
    "its figures and messages":
      "ConsumerInfo DeadLetter GroupInfo PendingMessage StoredMessage TopicInfo WaitingMessage",
    "its pages": "Page",
    "since: pages from the end": "BackwardPage",
    "since: which messages a topic keeps": "Retention",
    "since: one message by its id, and those that are not due": "DelayedMessage LocatedMessage MessageInGroup",
    "since: why a topic may not be removed, and what retiring a group does":
      "RemoveOptions Retirement inUse retirement",
    "since: where a group begins or goes on": "Place Start"
  },
  "waybill Lifecycle": {
    "events of transports and consumers": "Event Lifecycle"
  },
  "waybill Log": {
    "reads a topic as a log": "Entry first last stream",
    "since: searches what is not due yet": "Delayed delayed"
  },
  "waybill Message": {
    "what travels": "Body Due Headers Message Outgoing Receipt",
    "since: how urgent a message is": "Priority",
    "since: for how long a message has its id to itself": "Unique Uniqueness",
    "since: what publishing waits for": "Durability",
    "since: messages of an id that become one": "Coalescing",
    "since: which messages a group wants": "Filter"
  },
  "waybill Metrics": {
    "layers that count": "InspectorOptions layer layerInspector",
    "since: for transports with names": "layerOn"
  },
  "waybill Producer": {
    publishes: "Options publish publishAll",
    "makes a message without publishing it, for commits": "message",
    "since: publishes a stream": "sink",
    "since: asks and waits for the answer": "RequestOptions Unanswered request",
    "since: limits of a call that is stored as a whole": "maxAtomicBytes maxAtomicMessages"
  },
  "waybill Records": {
    "since: reads a record": "read",
    "since: and notices when it changes before the commit": "Observed observe"
  },
  "waybill Replies": {
    "since: receives the answers to requests": "Replies Waiting layer"
  },
  "waybill RetryPolicy": {
    "a schedule as a policy, and the standard one": "RetryPolicy standard"
  },
  "waybill Schedules": {
    "since: what schedules are": "Definition InvalidSchedule Options Schedule Scheduled cron every",
    "since: declares and changes them": "LayerOptions layer pause remove resume run upsert",
    "since: lists them, and what is wrong with them": "Drift Info Outcome drifts list outcome"
  },
  "waybill Settlement": {
    "how a delivery ends, for transports and their tests":
      "Ack DeadLetter Release Retry Settlement ack commit deadLetter release retry",
    "since: how a cancelled delivery ends": "cancelled"
  },
  "waybill Topic": {
    "declares a topic": "Topic make",
    "errors of its payloads": "DecodeFailure InvalidPayload PayloadTooLarge",
    "since: a topic by its name alone, for operators": "Inspected byName",
    "since: older versions of its payload": "Older Writable from",
    "since: several types of messages": "union",
    "since: a topic whose messages are answered": "Reply RequestTopic request",
    "since: messages of an id that become one": "debounce latest throttle"
  },
  "waybill Transport": {
    "the port, and what it is asked": "Receiver Settled Subscription Transport",
    guarantees: "AtLeastOnce AtMostOnce Transactional",
    "errors of every transport":
      "AuthenticationFailed Disconnected MarkerTooShort NotOffered NotPermitted NotificationsDisabled Overflow Reason Refused Rejected TopicConflict TransportError WrongKeyType",
    "since: names for several transports":
      "Guarantee GuaranteeOf Included Including Keeps Name Naming Needs NotProvided Provided Tag all defaultName find includes layer notProvided",
    "since: errors": "InvalidLimit InvalidName InvalidTime InvalidUrl TlsFailed TopicInUse UnsupportedServer",
    "since: stored, and may be lost": "NotFsynced NotReplicated",
    "since: errors of single messages": "MessageInUse MessageNotFound MessageNotWaiting MessageSettled",
    "since: what a receiver wants back, and how deliveries end": "Ending Recall",
    "since: keeps schedules":
      "Made ScheduleChange ScheduleReply ScheduleStore Schedules StoredSchedule UnreadableSchedule",
    "since: dead letters for the hooks of consumers": "ClaimedDeadLetters DeadLetterClaim"
  },
  "waybill/memory MemoryExactlyOnce": {
    "a pattern in memory": "Options layer"
  },
  "waybill/memory MemoryHealth": {
    "health of the stores in memory": "layer"
  },
  "waybill/memory MemoryKeyspace": {
    "a pattern in memory": "Options layer"
  },
  "waybill/memory MemoryLists": {
    "a pattern in memory": "Options layer"
  },
  "waybill/memory MemoryPubSub": {
    "a pattern in memory": "Options layer"
  },
  "waybill/memory MemoryStreams": {
    "a pattern in memory": "Options layer"
  },
  "waybill/redis IoRedis": {
    "the connection to a server": "Connection IoRedis Options layer layerConfig layerEffectRedis layerUrl make",
    "since: what a URL says, without its password": "addressOf",
    "since: sends commands to the server that has their keys": "Commands"
  },
  "waybill/redis RedisExactlyOnce": {
    "a pattern on Redis": "Options layer"
  },
  "waybill/redis RedisHealth": {
    "health of a server": "Options layer"
  },
  "waybill/redis RedisInspector": {
    "inspects topics of every pattern": "layer"
  },
  "waybill/redis RedisKeyspace": {
    "a pattern on Redis": "Options layer"
  },
  "waybill/redis RedisLists": {
    "a pattern on Redis": "Options layer"
  },
  "waybill/redis RedisPatterns": {
    "since: all patterns by name, for tools": "advice layer names"
  },
  "waybill/redis RedisPubSub": {
    "a pattern on Redis": "Options layer"
  },
  "waybill/redis RedisStreams": {
    "a pattern on Redis": "Options layer"
  },
  "@waybill/testing FaultProxy": {
    "breaks connections": "FaultProxy layer make",
    "since: a slow line": "Line"
  },
  "@waybill/testing History": {
    "records what happened": "Event Fact Recorder follow inMemory observe toFile",
    "reads and judges it": "NoHistory Promises Remains Report check read render trace"
  },
  "@waybill/testing Probe": {
    "waits for what happens in a test": "Probe layer",
    "since: for transports with names": "layerOn"
  },
  "@waybill/testing RedisCluster": {
    "since: a cluster for a file of tests": "Migration Options RedisCluster layer make"
  },
  "@waybill/testing RedisSentinel": {
    "since: servers watched by Sentinels, for a file of tests": "Options RedisSentinel layer make"
  },
  "@waybill/testing RedisServer": {
    "a server for one test": "Options RedisServer RedisServerUnavailable layer make"
  },
  "@waybill/testing ServerClock": {
    "since: the clock of a server, set by a test": "ServerClock make unavailable"
  },
  "@waybill/testing TransportSuite": {
    "the contract of a transport": "Options checks run verify"
  },
  "@waybill/testing": {
    "waits until there is nothing left to do": "NeverIdle runUntilIdle",
    "since: makes a receiver stand still": "freeze"
  },
  "@waybill/testing/temporaryKeys": {
    "since: leaves nothing behind on a shared server": "temporaryKeys"
  }
}

/** Names that the module at `path` exports, types too, which are gone at run time. */
const exportsOf = (path: string): ReadonlyArray<string> => {
  const text = readFileSync(path, "utf8")
  const declared = [
    ...text.matchAll(/^export (?:declare |abstract )*(?:const|class|interface|type|function\*?|let) (\w+)/gm)
  ]
  const listed = [...text.matchAll(/^export (?:type )?\{([^}]*)\}/gm)].flatMap(([, names = ""]) =>
    names.split(",").map((name) =>
      name
        .trim()
        .replace(/^type /, "")
        .replace(/^.* as /, "")
    )
  )
  const passedOn = [...text.matchAll(/^export \* from "(.+)"$/gm)].flatMap(([, to = ""]) =>
    exportsOf(join(dirname(path), to))
  )
  return [...new Set([...declared.map(([, name = ""]) => name), ...listed, ...passedOn])].filter((name) => name !== "")
}

/** Names as a user writes them, by module. */
const found = (): Record<string, ReadonlyArray<string>> => {
  const modules: Record<string, ReadonlyArray<string>> = {}
  for (const [name, index] of Object.entries(sources)) {
    const path = join(import.meta.dirname, "..", index)
    const text = readFileSync(path, "utf8")
    for (const [, module = "", file = ""] of text.matchAll(/^export (?:type )?\* as (\w+) from "(.+)"$/gm)) {
      modules[`${name} ${module}`] = exportsOf(join(dirname(path), file)).toSorted()
    }
    const own = exportsOf(path).filter((one) => !existsSync(join(dirname(path), `${one}.ts`)) || /^[a-z]/.test(one))
    if (own.length > 0) modules[name] = own.toSorted()
  }
  return modules
}

const isNew = (reason: string) => reason.startsWith("since: ")

describe("the public surface", () => {
  it("every exported name has a reason, and every reason a name", () => {
    const listed = Object.fromEntries(
      Object.entries(surface).map(([module, reasons]) => [
        module,
        Object.values(reasons).join(" ").split(" ").toSorted()
      ])
    )
    assert.deepStrictEqual(found(), listed)
  })

  it("every error is identified by its package and its name", () => {
    const wrong = Object.entries({ waybill, testing }).flatMap(([at, modules]) =>
      [...Object.values(modules), modules].flatMap((module: object) =>
        Object.entries(module).flatMap(([name, value]: [string, unknown]) => {
          if (!Schema.isSchema(value) || !("identifier" in value)) return []
          const identifier = at === "testing" ? `@waybill/testing/${name}` : `waybill/${name}`
          return value.identifier === identifier ? [] : [`${name}: ${String(value.identifier)}`]
        })
      )
    )
    assert.deepStrictEqual(wrong, [])
  })

  it("of the 241 names of 0f878d4 at most 180 are left", () => {
    const counts = { old: 0, since: 0 }
    for (const reasons of Object.values(surface)) {
      for (const [reason, names] of Object.entries(reasons))
        counts[isNew(reason) ? "since" : "old"] += names.split(" ").length
    }
    console.log(`public names: ${counts.old} of the 241 of 0f878d4, and ${counts.since} since`)
    assert.isAtMost(counts.old, 180)
  })
})
