import { TransportSuite } from "@waybill/testing"
import { MemoryPubSub } from "waybill/memory"

TransportSuite.run("MemoryPubSub", {
  layer: MemoryPubSub.layer(),
  time: "test",
  features: {
    sharing: false,
    history: false,
    deduplication: false,
    schedules: false,
    delay: false,
    redelivery: false,
    lookup: false,
    cancel: false,
    trimming: false
  }
})
