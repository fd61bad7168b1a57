import { freeze, TransportSuite } from "@waybill/testing"
import { MemoryLists } from "waybill/memory"

for (const order of ["fifo", "lifo", "priority"] as const) {
  TransportSuite.run(`MemoryLists, ${order}`, {
    layer: MemoryLists.layer({ order }),
    time: "test",
    freeze,
    features: {
      groups: false,
      order: order !== "lifo",
      priorities: order === "priority",
      untilSettled: true,
      coalescing: true,
      untilTaken: true
    }
  })
}
