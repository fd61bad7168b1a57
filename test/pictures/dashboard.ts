/**
 * `node test/pictures/dashboard.ts`: takes the pictures of the dashboard, of a small shop with some trouble, on a Redis
 * of its own. Build the page first (`pnpm --dir packages/cli run page`).
 */
import { type ChildProcess, spawn } from "node:child_process"
import { join } from "node:path"
import { NodeRuntime } from "@effect/platform-node"
import { RedisServer } from "@waybill/testing"
import { Effect, Layer, Random, References, Schedule, Schema } from "effect"
import { Consumer, Producer, Topic } from "waybill"
import { IoRedis, RedisLists, RedisStreams } from "waybill/redis"
import { browser } from "../cli/Browser.ts"
import { desktop, phone, root, take } from "./Pictures.ts"

const Orders = Topic.make("orders", { payload: Schema.Struct({ customer: Schema.String, total: Schema.Int }) })
const Mails = Topic.make("mails", { payload: Schema.Struct({ to: Schema.String, about: Schema.String }) })

class CardDeclined extends Schema.TaggedError<CardDeclined>()("CardDeclined", { code: Schema.String }) {}
class GatewayTimeout extends Schema.TaggedError<GatewayTimeout>()("GatewayTimeout", {}) {}

const customers = ["ada", "grace", "alan", "edsger", "barbara", "donald", "frances", "tony"]

/** Fails now and then, differently. */
const charge = Effect.gen(function* () {
  yield* Effect.sleep(yield* Random.nextIntBetween(20, 60))
  const luck = yield* Random.next
  if (luck < 0.03) return yield* new CardDeclined({ code: luck < 0.01 ? "expired" : "insufficient_funds" })
  if (luck < 0.12) return yield* new GatewayTimeout()
})

const working = (millis: number) => () => Effect.sleep(millis)

const orders = Layer.mergeAll(
  Consumer.make(Orders, { group: "billing", concurrency: 4 }).pipe(
    Consumer.process(() => charge),
    Consumer.onFailure({
      CardDeclined: ({ code }) => Consumer.deadLetter(code),
      GatewayTimeout: Consumer.retry(Schedule.max([Schedule.exponential("2 seconds"), Schedule.recurs(3)]))
    }),
    Consumer.layer
  ),
  Consumer.make(Orders, { group: "shipping", concurrency: 8 }).pipe(
    Consumer.process(working(40)),
    Consumer.orElse(Consumer.deadLetter("Unknown")),
    Consumer.layer
  ),
  // Too slow for what comes in.
  Consumer.make(Orders, { group: "search", concurrency: 1 }).pipe(
    Consumer.process(working(25)),
    Consumer.orElse(Consumer.deadLetter("Unknown")),
    Consumer.layer
  )
)

const mails = Consumer.make(Mails, { group: "sender", concurrency: 2 }).pipe(
  Consumer.process(working(50)),
  Consumer.orElse(Consumer.deadLetter("Unknown")),
  Consumer.layer
)

/** Comes in waves. */
const customersCome = Effect.gen(function* () {
  let number = 1000
  for (let turn = 0; ; turn++) {
    const wave = Math.round(12 + 8 * Math.sin(turn / 6))
    for (let i = 0; i < wave; i++) {
      const customer = customers[yield* Random.nextIntBetween(0, customers.length - 1)]!
      const total = yield* Random.nextIntBetween(500, 20_000)
      yield* Producer.publish(Orders, { customer, total }, { id: `order-${number++}` })
    }
    yield* Effect.sleep("250 millis")
  }
})

const mailsCome = Effect.gen(function* () {
  for (const customer of customers) {
    yield* Producer.publish(Mails, { to: `${customer}@example.com`, about: "Your order is on its way" })
    yield* Effect.sleep("60 millis")
  }
}).pipe(Effect.forever)

/** The command, until the scope closes; answers the address that it prints. */
const dashboard = (url: string) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly address: string; readonly child: ChildProcess }>((resume) => {
      const main = join(root, "packages/cli/src/main.ts")
      const child = spawn(process.execPath, [main, "dashboard", "--port", "0", "--allow-writes"], {
        env: { PATH: process.env["PATH"], REDIS_URL: url },
        stdio: ["ignore", "pipe", "inherit"]
      })
      let out = ""
      child.stdout.on("data", (chunk) => {
        out += chunk
        const address = /(http:\S+)/.exec(out)?.[1]
        if (address !== undefined) resume(Effect.succeed({ address, child }))
      })
    }),
    ({ child }) => Effect.sync(() => child.kill("SIGINT"))
  ).pipe(Effect.map(({ address }) => address))

const pictures = Effect.gen(function* () {
  const { url } = yield* RedisServer.make()
  const redis = IoRedis.layer({ url })
  yield* Effect.forkScoped(
    Effect.provide(customersCome, Layer.provideMerge(orders, Layer.provide(RedisStreams.layer(), redis)))
  )
  yield* Effect.forkScoped(
    Effect.provide(mailsCome, Layer.provideMerge(mails, Layer.provide(RedisLists.layer(), redis)))
  )
  const address = yield* dashboard(url)
  const chromium = yield* browser
  const show = Effect.fnUntraced(function* (options: Parameters<typeof chromium.newPage>[0]) {
    const page = yield* Effect.promise(() => chromium.newPage(options))
    yield* Effect.promise(async () => {
      await page.goto(address)
      await page.getByRole("cell", { name: "billing" }).click()
      // Nothing is pointed at.
      await page.mouse.move(0, 0)
    })
    return page
  })
  const large = yield* show({ ...desktop, viewport: { width: 1280, height: 680 } })
  const small = yield* show(phone)
  // The charts have to get something to show.
  yield* Effect.sleep("75 seconds")
  yield* Effect.promise(() => large.locator(".group tbody tr").nth(9).waitFor())
  yield* take(large, "dashboard")
  yield* take(small, "dashboard-phone")
})

pictures.pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "Error"), NodeRuntime.runMain)
