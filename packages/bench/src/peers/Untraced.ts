/**
 * Waybill without tracing: a second copy of the library in this process, its sources changed while loading wherever
 * they ask for a span. It fails when such a place is missing: then this file is out of date.
 */
import { registerHooks } from "node:module"
import type { Work } from "../Work.ts"
import type * as Waybill from "./Waybill.ts"

const mark = "?untraced"

/** The text in each source, and its replacement without tracing. */
const places: Readonly<Record<string, readonly [traced: string, untraced: string]>> = {
  "/waybill/src/Consumer.ts": ['handle: traced(handle as Handle, records, options.trace ?? "link")', "handle"],
  "/waybill/src/Producer.ts": [
    "if (!Tracing.records(fiber)) return send(Tracing.traceparent(fiber.cache.span))",
    "return send(undefined)"
  ]
}

registerHooks({
  resolve: (specifier, context, next) => {
    const found = next(specifier, context)
    const inside = /\/packages\/(waybill|bench)\/src\//.test(found.url)
    return inside && context.parentURL?.endsWith(mark) === true ? { ...found, url: found.url + mark } : found
  },
  load: (url, context, next) => {
    const found = next(url, context)
    const place = Object.keys(places).find((path) => url.endsWith(path + mark))
    if (place === undefined) return found
    const [traced, untraced] = places[place]!
    const source = String(found.source)
    if (!source.includes(traced)) throw new Error(`${place} no longer says: ${traced}`)
    return { ...found, source: source.replace(traced, untraced) }
  }
})

/** In the memory of the process. */
export const onMemory = async (work: Work) => {
  // The same module under another name, which types do not know.
  const copy = (await import(`./Waybill.ts${mark}`)) as typeof Waybill
  return copy.onMemory(work)
}
