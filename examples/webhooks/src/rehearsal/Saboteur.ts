/**
 * A transport with a bug: it acks some deliveries that no consumer has seen. The rehearsal must find them missing, or its
 * report proves nothing.
 */
import { Array as Arr, Effect, Layer } from "effect"
import { Settlement, Transport } from "waybill"

/** Wraps the transport around it and loses this many deliveries of `group`. */
export const layer = (group: string, count: number) =>
  Layer.effect(
    Transport.AtLeastOnce,
    Effect.gen(function* () {
      const transport = yield* Transport.AtLeastOnce
      let left = count
      const sabotage = (receiver: Transport.Receiver): Transport.Receiver => {
        const take: Transport.Receiver["take"] = Effect.fnUntraced(function* (max) {
          const deliveries = yield* receiver.take(max)
          const [first, ...rest] = deliveries
          if (left === 0) return deliveries
          left--
          yield* receiver.settle([[first, Settlement.ack]])
          return Arr.isReadonlyArrayNonEmpty(rest) ? rest : yield* take(max)
        })
        return { consumer: receiver.consumer, take, settle: (all) => receiver.settle(all), lost: receiver.lost }
      }
      return {
        ...transport,
        receive: (subscription) =>
          subscription.group === group
            ? Effect.map(transport.receive(subscription), sabotage)
            : transport.receive(subscription)
      }
    })
  )
