/**
 * Every measure, in the order of the report.
 */
import type { Measure } from "./Measure.ts"
import { catchUp } from "./measures/CatchUp.ts"
import { consume } from "./measures/Consume.ts"
import { depth } from "./measures/Depth.ts"
import { exactlyOnce } from "./measures/ExactlyOnce.ts"
import { filters } from "./measures/Filters.ts"
import { groups } from "./measures/Groups.ts"
import { heap, heapMixed } from "./measures/Heap.ts"
import { idle } from "./measures/Idle.ts"
import { keyspace } from "./measures/Keyspace.ts"
import { latency } from "./measures/Latency.ts"
import { lists } from "./measures/Lists.ts"
import { lookup } from "./measures/Lookup.ts"
import { memory } from "./measures/Memory.ts"
import { operator } from "./measures/Operator.ts"
import { publishOneByOne } from "./measures/Publish.ts"
import { publishAll } from "./measures/PublishAll.ts"
import { pubSub } from "./measures/PubSub.ts"
import { retries } from "./measures/Retries.ts"
import { schedules } from "./measures/Schedules.ts"
import { tracing } from "./measures/Tracing.ts"
import { unique } from "./measures/Unique.ts"
import { webhooks } from "./measures/Webhooks.ts"

export const measures: ReadonlyArray<Measure> = [
  consume,
  publishAll,
  publishOneByOne,
  webhooks,
  latency,
  memory,
  heap,
  heapMixed,
  depth,
  groups,
  filters,
  idle,
  tracing,
  retries,
  pubSub,
  lists,
  exactlyOnce,
  keyspace,
  catchUp,
  operator,
  lookup,
  unique,
  schedules
]
