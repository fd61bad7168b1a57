import { freeze, TransportSuite } from "@waybill/testing"
import { MemoryStreams } from "waybill/memory"

TransportSuite.run("MemoryStreams", {
  layer: MemoryStreams.layer(),
  time: "test",
  features: { transactional: true, filters: true, untilSettled: true, coalescing: true },
  freeze
})
