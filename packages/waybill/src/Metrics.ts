/**
 * The names, units and attributes of all metrics are API: docs/telemetry.md has a table of them.
 *
 * Consumers and producers always count the messages that pass through them. `layer` adds counters for lifecycle events, and
 * `layerInspector` adds gauges for all groups in the store, whichever program consumes them.
 *
 * @module
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Schedule from "effect/Schedule"
import { Inspector, type TopicInfo } from "./Inspector.ts"
import * as Instruments from "./internal/Instruments.ts"
import type { Event } from "./Lifecycle.ts"
import { all, type AtMostOnce, type Name, type Transport } from "./Transport.ts"

const counting = <R>(transports: Effect.Effect<ReadonlyArray<Transport>, never, R>): Layer.Layer<never, never, R> =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const context = yield* Effect.context<never>()
      for (const { lifecycle } of yield* transports) yield* lifecycle.overhear((event) => countEvent(event, context))
    })
  )

/**
 * Counts lifecycle events of the transport: gaps, reconnects, dead letters that the cap dropped, crash loops. One layer per
 * transport of the process. This one covers the program's default transports, whichever it has.
 *
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { Metrics } from "waybill"
 * import { MemoryStreams } from "waybill/memory"
 *
 * const Transport = Metrics.layer.pipe(Layer.provideMerge(MemoryStreams.layer()))
 * ```
 */
export const layer: Layer.Layer<never, never, AtMostOnce> = counting(all())

/**
 * `layer` for transports with names.
 *
 * @example
 * ```ts
 * import { Layer } from "effect"
 * import { Metrics, Transport } from "waybill"
 * import { MemoryStreams } from "waybill/memory"
 *
 * class Orders extends Transport.Tag<Orders>()("shop/Orders", { guarantee: "at-least-once" }) {}
 *
 * const Main = Metrics.layerOn(Orders).pipe(Layer.provideMerge(MemoryStreams.layer({ as: Orders })))
 * ```
 */
export const layerOn = <Names extends NonEmptyReadonlyArray<Name>>(
  ...on: Names
): Layer.Layer<never, never, Names[number]["Identifier"]> => counting(all(...on))

const countEvent = (event: Event, context: Context.Context<never>): void => {
  const add = (metric: Metric.Counter<number>, count = 1) => metric.updateUnsafe(count, context)
  const addOf = (
    { group, topic }: { readonly topic: string; readonly group: string },
    metric: (topic: string, group: string) => Metric.Counter<number>,
    count?: number
  ) => {
    const as = Instruments.countedAs(topic, group, context)
    add(metric(as.topic, as.group), count)
  }
  switch (event._tag) {
    case "Settled":
      // Consumers count what they settle. A message that no consumer has seen is only counted here.
      if (event.settlement._tag === "DeadLetter" && event.settlement.reason === "CrashLoop") {
        return addOf(event, (topic, group) => Instruments.settled(topic, group, "dead_letter", "CrashLoop"))
      }
      return
    case "ConsumerFailing":
      return addOf(event, (topic, group) => Instruments.consumerFailures(topic, group, event.permanent))
    case "Claimed":
      return addOf(event, Instruments.claimed, event.count)
    case "Truncated":
      return addOf(event, Instruments.truncated, event.count)
    case "DeadLettersDropped":
      return addOf(event, Instruments.deadLettersDropped, event.count)
    case "DeadLetterUnhandled":
      return addOf(event, Instruments.deadLettersUnhandled)
    case "GroupRecreated":
      return addOf(event, Instruments.groupsRecreated)
    case "Gap":
      add(Instruments.gaps(event.group, event.gap.reason))
      if (event.gap.missed !== undefined) add(Instruments.missed(event.group, event.gap.reason), event.gap.missed)
      return
    case "Disconnected":
      return add(Instruments.disconnects(kindOf(event.role)))
    case "Reconnected":
      return add(Instruments.reconnects(kindOf(event.role)))
    case "FailedOver":
      return add(Instruments.failovers(event.mayBeLost))
  }
}

/** `reader:orders:billing` is a reader. */
const kindOf = (role: string): string => role.split(":", 1)[0] ?? role

export interface InspectorOptions<out On = Inspector> {
  /** The name of the transport to inspect. Without it, `Inspector` is used, which layers without a name provide. */
  readonly on?: Context.Key<On, Pick<Transport, "inspector">> | undefined
  /** When to inspect: every 15 seconds by default. Inspection ends with the schedule. */
  readonly schedule?: Schedule.Schedule<unknown> | undefined
  /**
   * Which topics to inspect; all of them by default. Each of their groups costs the store a query, and the process
   * its series.
   */
  readonly topics?: ((topic: string) => boolean) | undefined
}

/**
 * Shows what `Inspector` reports about topics and groups as gauges. Run it in one process only: every process would
 * show the same figures.
 *
 * It outlives failures of the store: meanwhile `waybill_inspector_up` is 0, and the gauges of topics that could not be read
 * disappear until they can be, so that an old figure is never taken for a current one.
 *
 * @example
 * ```ts
 * import { Layer, Schedule } from "effect"
 * import { Metrics } from "waybill"
 * import { MemoryStreams } from "waybill/memory"
 *
 * const Gauges = Metrics.layerInspector({ schedule: Schedule.spaced("1 minute") }).pipe(
 *   Layer.provide(MemoryStreams.layer())
 * )
 * ```
 */
export const layerInspector = <On = Inspector>(options: InspectorOptions<On> = {}): Layer.Layer<never, never, On> =>
  Layer.effectDiscard(
    Effect.gen(function* () {
      const inspector = yield* inspectorOf(options.on)
      const context = yield* Effect.context<never>()
      const { schedule = Schedule.spaced("15 seconds"), topics: wanted = () => true } = options
      /** The series that the last round set, by topic. */
      const shown = new Map<string, ReadonlyArray<Metric.Gauge<number>>>()
      let up = true

      const hide = (topic: string, but: ReadonlySet<string>) => {
        for (const metric of shown.get(topic) ?? []) {
          if (!but.has(keyOf(metric))) Metric.removeUnsafe(metric, context)
        }
        shown.delete(topic)
      }

      const hideAll = () => {
        for (const topic of shown.keys()) hide(topic, nobody)
      }

      const show = (info: TopicInfo) => {
        const now: Array<Metric.Gauge<number>> = []
        const set = (metric: Metric.Gauge<number>, figure: number) => {
          metric.updateUnsafe(figure, context)
          now.push(metric)
        }
        for (const [make, figure] of Instruments.topicGauges) set(make(info.topic), figure(info))
        for (const group of info.groups) {
          for (const [make, figure] of Instruments.groupGauges) set(make(info.topic, group.group), figure(group))
        }
        hide(info.topic, new Set(now.map(keyOf)))
        shown.set(info.topic, now)
      }

      const inspection = Effect.gen(function* () {
        const topics = (yield* Effect.onError(inspector.topics, () => Effect.sync(hideAll))).filter(wanted)
        for (const topic of shown.keys()) if (!topics.includes(topic)) hide(topic, nobody)
        const failures: Array<Cause.Cause<unknown>> = []
        yield* Effect.forEach(
          topics,
          (topic) =>
            Effect.map(Effect.exit(inspector.describe(topic)), (exit) => {
              if (Exit.isSuccess(exit)) return show(exit.value)
              failures.push(exit.cause)
              hide(topic, nobody)
            }),
          { concurrency: 8, discard: true }
        )
        if (failures[0] !== undefined) return yield* Effect.failCause(failures[0])
      })

      const round = Effect.gen(function* () {
        const exit = yield* Effect.exit(inspection)
        Instruments.inspectorUp.updateUnsafe(Exit.isSuccess(exit) ? 1 : 0, context)
        if (Exit.isSuccess(exit)) {
          up = true
          return
        }
        if (Cause.hasInterruptsOnly(exit.cause)) return yield* exit
        if (up) yield* Effect.logWarning("the store could not be inspected", exit.cause)
        up = false
      })

      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          hideAll()
          Metric.removeUnsafe(Instruments.inspectorUp, context)
        })
      )
      yield* Effect.forkScoped(Effect.repeat(round, schedule))
    })
  )

const inspectorOf = <On>(on: InspectorOptions<On>["on"]) =>
  (on === undefined
    ? Inspector
    : // Without a name, On is its default.
      Effect.map(on, ({ inspector }) => inspector)) as Effect.Effect<Inspector["Service"], never, On>

const keyOf = ({ attributes, id }: Metric.Gauge<number>): string => JSON.stringify([id, attributes])

const nobody: ReadonlySet<string> = new Set()
