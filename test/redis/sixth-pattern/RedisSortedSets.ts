/**
 * The sixth pattern as its user would see it.
 *
 * @module
 */
import type { Layer } from "effect"
import type { Transport } from "waybill"
import type { IoRedis } from "waybill/redis"
import * as Pattern from "../../../packages/waybill/src/redis/internal/Pattern.ts"
import { settingsOf, type StoreOptions } from "../../../packages/waybill/src/redis/internal/Settings.ts"
import * as SortedSets from "./SortedSets.ts"

export const layer = (
  options: StoreOptions = {}
): Layer.Layer<Transport.Provided<"at-least-once">, never, IoRedis.IoRedis> =>
  Pattern.layer(SortedSets.make(), settingsOf(options))
