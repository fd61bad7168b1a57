import { TransportSuite } from "@waybill/testing"
import { MemoryKeyspace } from "waybill/memory"

TransportSuite.run("MemoryKeyspace", {
  layer: MemoryKeyspace.layer({ ttl: "1 day" }),
  time: "test",
  silence: MemoryKeyspace.silence,
  features: { trimming: false }
})
