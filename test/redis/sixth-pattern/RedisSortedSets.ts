/**
 * The sixth pattern as its user would see it.
 *
 * @module
 */
import * as Pattern from "../../../packages/waybill/src/redis/internal/Pattern.ts"
import { settingsOf, type StoreOptions } from "../../../packages/waybill/src/redis/internal/Settings.ts"
import * as SortedSets from "./SortedSets.ts"

export const layer = Pattern.layer("at-least-once", (options: StoreOptions) => [SortedSets.make(), settingsOf(options)])
