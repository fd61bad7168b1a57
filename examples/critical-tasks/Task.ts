/**
 * A task that must not get lost: an invoice to send. Who publishes it says how often it may be tried again.
 */
import { Schema } from "effect"
import { Topic } from "waybill"

export const Invoice = Schema.Struct({
  number: Schema.Int,
  by: Schema.Literals(["email", "print"]),
  retries: Schema.Int
})
export type Invoice = typeof Invoice.Type

export const Invoices = Topic.make("invoices", { payload: Invoice })

export const idOf = (invoice: Invoice) => `invoice-${invoice.number}`
