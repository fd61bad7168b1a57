import { freeze, TransportSuite } from "@waybill/testing"
import { MemoryKeyspace } from "waybill/memory"

TransportSuite.run("MemoryKeyspace", {
  layer: MemoryKeyspace.layer({ ttl: "1 day" }),
  time: "test",
  freeze,
  features: { filters: true, positions: false, trimming: false, untilSettled: true, coalescing: true }
})
