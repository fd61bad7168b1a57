/**
 * The dashboard in a real browser on a real server: what a person sees and clicks, and what strangers cannot do.
 */
import { request } from "node:http"
import { join } from "node:path"
import { assert, layer } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import {
  Console,
  DateTime,
  Effect,
  Exit,
  Layer,
  Option,
  Redacted,
  References,
  Schedule,
  Schema,
  Scope,
  Stream
} from "effect"
import { HttpServerRequest } from "effect/http"
import type { Page } from "playwright-core"
import { build } from "vite"
import { Consumer, Inspector, Producer, Schedules, Topic } from "waybill"
import { IoRedis, RedisLists, RedisStreams } from "waybill/redis"
// The command is a program and exports nothing.
import * as Guard from "../../packages/cli/src/dashboard/Guard.ts"
import { isUpTo } from "../../packages/cli/src/dashboard/Life.ts"
import { client } from "../redis/Fixture.ts"
import { browser, hasBrowser, windowOf } from "./Browser.ts"
import { start } from "./Terminal.ts"

const cli = join(import.meta.dirname, "../../packages/cli")

const hostile = `<img src=x onerror="document.title='owned'"></script><script>document.title='owned'</script>`

const Orders = Topic.make("orders", { payload: Schema.Struct({ id: Schema.String, note: Schema.String }) })

/** Asks once more and again, until the answer is as it must become. */
const until = <E, R>(holds: Effect.Effect<boolean, E, R>) =>
  Effect.gen(function* () {
    while (!(yield* holds)) yield* Effect.sleep("20 millis")
  })

const Parcels = Topic.make("parcels", { payload: Schema.String })

type Row = Parameters<typeof Consumer.orElse<string>>[0]

/** A server, and what looks at it and writes to it. */
const opened = Effect.gen(function* () {
  const { url } = yield* RedisServer.make()
  const context = yield* Layer.build(RedisStreams.layer().pipe(Layer.provideMerge(IoRedis.layer({ url }))))
  return { url, context }
})

/** A server with that many dead orders of a group; `deadLetter` adds one more. */
const withDeadLetters = Effect.fnUntraced(function* (
  count: number,
  reasonOf: (id: string) => string = () => "Declined",
  prefix = "o-",
  group = "billing"
) {
  const { context, url } = yield* opened
  const Billing = Consumer.make(Orders, { group, concurrency: 64 }).pipe(
    Consumer.process(({ id }) => Effect.fail({ id, trace: "no\u202etrace" })),
    Consumer.orElse(({ id }) => Consumer.deadLetter(reasonOf(id))),
    Consumer.layer
  )
  const deadLetter = (...ids: ReadonlyArray<string>) =>
    Effect.gen(function* () {
      const inspector = yield* Inspector.Inspector
      const deadLetters = Effect.map(inspector.describe("orders"), ({ groups }) => groups[0]?.deadLetters ?? 0)
      const dead = (yield* deadLetters) + ids.length
      const orders = ids.map((id) => ({ id, note: hostile }))
      for (let i = 0; i < ids.length; i += 500) {
        yield* Producer.publishAll(Orders, orders.slice(i, i + 500), ({ id }) => ({ id }))
      }
      yield* Effect.provide(until(Effect.map(deadLetters, (found) => found === dead)), Billing)
    }).pipe(Effect.provideContext(context), Effect.provideService(References.MinimumLogLevel, "None"))
  yield* deadLetter(...Array.from({ length: count }, (_, i) => `${prefix}${i}`))
  return { url, context, deadLetter }
})

/** The command, until the scope closes; answers the address that it prints. */
const dashboard = (url: string, ...args: ReadonlyArray<string>) =>
  Effect.acquireRelease(start(["dashboard", "--port", "0", ...args], { url }), (child) =>
    Effect.sync(() => child.kill("SIGINT"))
  ).pipe(
    Effect.flatMap((child) =>
      Effect.callback<string>((resume) => {
        let out = ""
        let err = ""
        child.stdout?.on("data", (chunk) => {
          out += chunk
          const address = /(https?:\S+)/.exec(out)?.[1]
          if (address !== undefined) resume(Effect.succeed(address))
        })
        child.stderr?.on("data", (chunk) => (err += chunk))
        child.on("exit", (code) => resume(Effect.die(new Error(`the dashboard ended with ${code}: ${out}${err}`))))
      })
    )
  )

const promise = <A>(f: () => Promise<A>) => Effect.promise(f)

/** A page that notes what it asks for and what goes wrong on it. */
const open = Effect.fnUntraced(function* (address: string, options: Parameters<typeof windowOf>[1] = {}) {
  const page = yield* windowOf(shared, options)
  const asked: Array<string> = []
  const errors: Array<string> = []
  page.on("request", (request) => asked.push(new URL(request.url()).origin))
  page.on("pageerror", (error) => errors.push(error.message))
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()))
  yield* promise(() => page.goto(address))
  return { page, asked, errors }
})

let shared: Effect.Success<typeof browser>

/** One request, with headers that a browser would not let a page set. */
const ask = (to: URL, method: string, path: string, headers: Record<string, string> = {}, body?: string) =>
  Effect.callback<{
    readonly status: number
    readonly headers: NodeJS.Dict<string | string[]>
    readonly text: string
  }>((resume) => {
    const asked = request({ host: to.hostname, port: to.port, method, path, headers }, (response) => {
      let text = ""
      response.on("data", (chunk) => (text += chunk))
      response.on("end", () =>
        resume(Effect.succeed({ status: response.statusCode ?? 0, headers: response.headers, text }))
      )
    })
    asked.on("error", (error) => resume(Effect.die(error)))
    asked.end(body)
  })

/** What carries the token of the dashboard at this address. */
const bearerOf = (address: URL) => ({ authorization: `Bearer ${address.hash.slice("#token=".length)}` })

const rows = (page: Page) => page.locator(".group tbody tr.link")

layer(
  Layer.effectDiscard(
    Effect.gen(function* () {
      yield* promise(() => build({ configFile: join(cli, "page/vite.config.ts"), logLevel: "error" }))
      if (hasBrowser) shared = yield* browser
    })
  ),
  { excludeTestServices: true, timeout: "120 seconds" }
)("waybill dashboard", (it) => {
  it.effect.skipIf(!hasBrowser)(
    "a dead letter is sent back with two clicks, and a hostile payload stays text",
    () =>
      Effect.gen(function* () {
        const { context, url } = yield* withDeadLetters(3)
        const address = yield* dashboard(url, "--allow-writes")
        const { asked, errors, page } = yield* open(address)
        yield* promise(async () => {
          await page.getByRole("cell", { name: "billing" }).click()
          await rows(page).nth(2).waitFor()
          await rows(page).first().getByRole("checkbox").click()
          await page.getByRole("button", { name: "Redrive 1 selected" }).click()
          await page.getByRole("dialog").getByText("1 dead letter of billing would go back").waitFor()
          await page.getByRole("dialog").getByRole("button", { name: "Redrive" }).click()
          await page.getByText("1 redriven.").waitFor()
          await rows(page).nth(2).waitFor({ state: "detached" })
        })
        assert.strictEqual(yield* promise(() => rows(page).count()), 2)
        const inspector = yield* Effect.provideContext(Inspector.Inspector, context)
        const [group] = (yield* inspector.describe("orders")).groups
        assert.deepStrictEqual([group?.deadLetters, group?.waiting], [2, 1])

        yield* promise(async () => {
          await rows(page).first().click()
          const message = page.getByRole("complementary")
          await message.getByText("Declined").first().waitFor()
          assert.include(await message.locator("pre").last().innerText(), "<img src=x")
          await message.getByRole("button", { name: "Close" }).click()
        })
        assert.strictEqual(yield* promise(() => page.title()), "Waybill")
        assert.strictEqual(yield* promise(() => page.locator("img[src=x]").count()), 0)
        assert.notInclude(page.url(), "token", "the token does not stay in the address")
        assert.deepStrictEqual(new Set(asked), new Set([new URL(address).origin]))
        assert.deepStrictEqual(errors, [])
        // Pausing shows, here and in the store.
        yield* promise(async () => {
          await page.getByRole("button", { name: "Pause" }).click()
          await page.getByRole("button", { name: "Resume" }).waitFor()
        })
        assert.isTrue((yield* inspector.describe("orders")).groups[0]?.paused)
      }).pipe(Effect.scoped),
    120_000
  )

  it.effect.skipIf(!hasBrowser)(
    "ten thousand dead letters are a hundred lines on the page at a time, to the last",
    () =>
      Effect.gen(function* () {
        const { url } = yield* withDeadLetters(10_000)
        const { errors, page } = yield* open(yield* dashboard(url))
        const seen = new Set<string>()
        yield* promise(async () => {
          await page.getByRole("cell", { name: "billing" }).click()
          await rows(page).nth(99).waitFor()
          for (let number = 1; number <= 3; number++) {
            for (const id of await rows(page).locator("td:first-child").allInnerTexts()) seen.add(id)
            assert.strictEqual(seen.size, number * 100)
            await page.getByRole("button", { name: "Next" }).click()
            // The number is that of the lines: with it, they are there.
            await page.getByText(`page ${number + 1}`, { exact: true }).waitFor()
          }
          await page.getByRole("button", { name: "Back" }).click()
          await page.getByText("page 3", { exact: true }).waitFor()
          await rows(page).last().click()
          await page.getByRole("complementary").getByText("Declined").first().waitFor()
        })
        // All the others as the page asks for them: a browser takes its time to draw each.
        const took: Array<number> = []
        const clicked = new URL(page.url())
        const place = clicked.searchParams
        const all = new Set<string>()
        let last: { readonly id: string; readonly entry: string } | undefined
        let start: string | undefined
        for (let more = true; more;) {
          const began = performance.now()
          const after = last === undefined ? "" : `&after=${last.entry}`
          const { text } = yield* ask(clicked, "GET", `/api/topics/orders/groups/billing/dead?limit=100${after}`)
          took.push(performance.now() - began)
          const answer: { readonly items: ReadonlyArray<{ id: string; entry: string }>; readonly more: boolean } =
            JSON.parse(text)
          for (const { id } of answer.items) all.add(id)
          if (answer.items.length > 0) start = last?.entry
          last = answer.items.at(-1) ?? last
          // A full page says that there may be more; the one behind the last is empty.
          more = answer.more
          assert.isTrue(answer.items.length === 100 || all.size === 10_000)
        }
        assert.strictEqual(all.size, 10_000)
        assert.isTrue([...seen].every((id) => all.has(id)))
        yield* promise(async () => {
          // One that was clicked is found behind any number of others, also by those who were sent the address.
          place.set("message", last?.id ?? "")
          place.set("at", start ?? "")
          await page.goto(clicked.href)
          const message = page.getByRole("complementary")
          await message.getByText("Declined").first().waitFor()
          assert.include(await message.locator("pre").last().innerText(), last?.id ?? "")
          assert.include(await message.locator("pre").last().innerText(), "<img src=x")
        })
        assert.deepStrictEqual(errors, [])
        const median = (times: ReadonlyArray<number>) => times.toSorted((a, b) => a - b)[Math.floor(times.length / 2)]!
        const [early, late] = [median(took.slice(0, 50)), median(took.slice(50))]
        yield* Console.log(
          `a page of dead letters: median ${early.toFixed()} ms, of the later half ${late.toFixed()} ms`
        )
        // The last page is as near as the first, at whatever pace this machine has.
        assert.isBelow(late, 5 * early)
      }).pipe(Effect.scoped),
    120_000
  )

  it.effect.skipIf(!hasBrowser)(
    "it fits a phone, in the dark, and says when its server is gone",
    () =>
      Effect.gen(function* () {
        const { url } = yield* withDeadLetters(5, undefined, undefined, "billing".repeat(8))
        const life = yield* Scope.fork(yield* Effect.scope)
        const { page } = yield* open(yield* Scope.provide(dashboard(url), life), {
          viewport: { width: 390, height: 844 },
          colorScheme: "dark"
        })
        yield* promise(async () => {
          const line = page.getByRole("row", { name: "billing" })
          await line.waitFor()
          const heads = await page.locator(".topics th:visible").allInnerTexts()
          const cells = line.locator("td:visible")
          assert.deepStrictEqual(heads, ["Group", "Lag", "Dead"])
          assert.include(await cells.first().innerText(), "orders")
          assert.strictEqual(await cells.last().innerText(), "5")
          const box = await cells.last().boundingBox()
          assert.isAtMost(box!.x + box!.width, 390)
          await line.click()
          await rows(page).nth(4).waitFor()
        })
        yield* Scope.close(life, Exit.void)
        const { background, overflow } = yield* promise(() =>
          page.evaluate<{ readonly overflow: number; readonly background: string }>(
            // As text: it runs in the page, whose types are not those of the tests.
            `({
              overflow: document.documentElement.scrollWidth - innerWidth,
              background: getComputedStyle(document.body).backgroundColor
            })`
          )
        )
        assert.isAtMost(overflow, 0)
        assert.strictEqual(background, "rgb(18, 22, 28)")
        yield* promise(() => page.getByRole("alert").getByText("server is unreachable").waitFor())
      }).pipe(Effect.scoped),
    120_000
  )

  it.effect.skipIf(!hasBrowser)(
    "the life of a message has its stations, and a group that was never given it is not said to have settled it",
    () =>
      Effect.gen(function* () {
        const { context, url } = yield* opened
        const consuming = (group: string, handle: () => Effect.Effect<void, string>, row: Row) =>
          Consumer.make(Parcels, { group, shutdown: "1 milli" }).pipe(
            Consumer.process(handle),
            Consumer.orElse(row),
            Consumer.layer
          )
        const lost = Consumer.deadLetter("Lost")
        const later = Consumer.retry(Schedule.max([Schedule.spaced("1 hour"), Schedule.recurs(1)]))
        yield* Effect.gen(function* () {
          const inspector = yield* Inspector.Inspector
          const has = (holds: (group: Inspector.GroupInfo) => boolean, name: string) =>
            until(
              Effect.map(inspector.describe("parcels"), ({ groups }) =>
                groups.some((g) => g.group === name && holds(g))
              )
            )
          yield* Effect.provide(
            has(() => true, "never"),
            consuming("never", () => Effect.void, lost)
          )
          yield* Layer.build(
            Layer.mergeAll(
              consuming("settles", () => Effect.void, lost),
              consuming("holds", () => Effect.never, lost),
              consuming("waits", () => Effect.fail("no\u202eroad"), later),
              consuming("rejects", () => Effect.fail("no road"), lost)
            )
          )
          yield* Producer.publish(Parcels, "a book", { id: "parcel-1", delay: "100 millis" })
          yield* has(({ pending }) => pending === 1, "holds")
          yield* has(({ waiting }) => waiting === 1, "waits")
          yield* has(({ deadLetters }) => deadLetters === 1, "rejects")
          yield* has(({ lag, pending, reached }) => lag + pending === 0 && reached !== "0-0", "settles")
          const { page } = yield* open(yield* dashboard(url))
          yield* promise(async () => {
            await page.getByRole("cell", { name: "never" }).click()
            await page.getByRole("tab", { name: "Messages" }).click()
            await rows(page).first().click()
            const stations = async (list: string) => {
              const found = page.getByRole("complementary").getByRole("list", { name: list, exact: true })
              await found.waitFor()
              return await found.getByRole("listitem").locator("strong").allInnerTexts()
            }
            assert.deepStrictEqual(await stations("On its way to the groups"), ["published", "delayed"])
            assert.deepStrictEqual(await stations("In never"), ["not delivered yet", "settled"])
            assert.deepStrictEqual(await stations("In holds"), ["delivered", "settled"])
            assert.deepStrictEqual(await stations("In waits"), ["delivered", "waiting", "settled"])
            assert.deepStrictEqual(await stations("In rejects"), ["delivered", "dead-lettered"])
            assert.deepStrictEqual(await stations("In settles"), ["delivered", "settled"])
            const passed = (list: string) =>
              page.getByRole("list", { name: list, exact: true }).locator("li.done, li.bad, li.now").count()
            assert.deepStrictEqual(
              [await passed("In never"), await passed("In holds"), await passed("In settles")],
              [0, 1, 2]
            )
          })
        }).pipe(Effect.provideContext(context))
      }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None")),
    120_000
  )

  it.effect("in a queue, which a message leaves as it is given, what is stored was not given yet", () =>
    Effect.gen(function* () {
      const { url } = yield* RedisServer.make()
      const context = yield* Layer.build(RedisLists.layer().pipe(Layer.provideMerge(IoRedis.layer({ url }))))
      const inspector = yield* Effect.provideContext(Inspector.Inspector, context)
      const Post = Consumer.make(Parcels, { group: "post" }).pipe(
        Consumer.process(() => Effect.fail("no road")),
        Consumer.orElse(Consumer.deadLetter("Lost")),
        Consumer.layer
      )
      const post = Effect.map(inspector.describe("parcels"), ({ groups }) => groups[0])
      const publish = (id: string) => Producer.publish(Parcels, "a book", { id })
      yield* publish("parcel-1").pipe(
        Effect.andThen(until(Effect.map(post, (group) => group?.deadLetters === 1))),
        Effect.provide(Post),
        Effect.andThen(publish("parcel-2")),
        Effect.provideContext(context)
      )
      const address = new URL(yield* dashboard(url))
      const given = Effect.fnUntraced(function* (id: string) {
        const { text } = yield* ask(address, "GET", `/api/topics/parcels/life/${id}`)
        const { groups } = JSON.parse(text) as { readonly groups: ReadonlyArray<{ readonly given?: boolean }> }
        return groups.map((group) => group.given)
      })
      assert.deepStrictEqual(yield* given("parcel-1"), [true])
      assert.deepStrictEqual(yield* given("parcel-2"), [false])
    }).pipe(Effect.scoped, Effect.provideService(References.MinimumLogLevel, "None"))
  )

  it("positions are compared as numbers", () => {
    assert.isTrue(isUpTo("9-5", "10-0"))
    assert.isTrue(isUpTo("10-9", "10-10"))
    assert.isTrue(isUpTo("10-10", "10-10"))
    assert.isFalse(isUpTo("10-11", "10-10"))
    assert.isFalse(isUpTo("18446744073709551615-1", "18446744073709551614-9"))
    assert.isTrue(isUpTo("9", "10"))
    assert.isFalse(isUpTo("10", "9"))
  })

  it.effect.skipIf(!hasBrowser)(
    "a topic that no group reads can be opened, searched for and read back to its first message",
    () =>
      Effect.gen(function* () {
        const { context, url } = yield* opened
        const parcels = Array.from({ length: 250 }, (_, i) => `parcel-${i}`)
        yield* Effect.provideContext(
          Producer.publishAll(Parcels, parcels, (id) => ({ id })),
          context
        )
        const address = yield* dashboard(url)
        const { page } = yield* open(address)
        yield* promise(async () => {
          await page.getByRole("searchbox").fill("nothing")
          await page.getByRole("row", { name: "no group" }).waitFor({ state: "detached" })
          await page.getByRole("searchbox").fill("PARC")
          const line = page.getByRole("row", { name: "no group" })
          const heads = await page.locator(".topics th").allInnerTexts()
          const cells = await line.getByRole("cell").allInnerTexts()
          assert.deepStrictEqual([cells[heads.indexOf("Stored")], cells[heads.indexOf("Lag")]], ["250", "–"])
          await line.click()
          const seen: Array<string> = []
          for (const [number, size] of [100, 100, 50].entries()) {
            await page.getByText(`page ${number + 1}`, { exact: true }).waitFor()
            await rows(page)
              .nth(size - 1)
              .waitFor()
            seen.push(...(await rows(page).locator("td:first-child").allInnerTexts()))
            if (number < 2) await page.getByRole("button", { name: "Next" }).click()
          }
          assert.deepStrictEqual(seen, parcels.toReversed())
          assert.isTrue(await page.getByRole("button", { name: "Next" }).isDisabled())
          await rows(page).last().click()
          await page.getByRole("complementary").getByText("No group has ever joined this topic.").waitFor()
          await page.goto(new URL("/?topic=parcels", address).href)
          await rows(page).nth(99).waitFor()
        })
      }).pipe(Effect.scoped),
    120_000
  )

  it.effect.skipIf(!hasBrowser)(
    "two quick clicks turn one page, whose number is that of its lines, while the answer is slow",
    () =>
      Effect.gen(function* () {
        const { url } = yield* withDeadLetters(250)
        const { page } = yield* open(yield* dashboard(url))
        yield* promise(async () => {
          await page.getByRole("cell", { name: "billing" }).click()
          await rows(page).nth(99).waitFor()
          const ids = () => rows(page).locator("td:first-child").allInnerTexts()
          const first = await ids()
          let answer = () => {}
          const asked = new Promise<void>((resolve) => {
            const held = new Promise<void>((release) => (answer = release))
            void page.route(/\/dead\?.*after=/, async (route) => {
              resolve()
              await held
              await route.continue()
            })
          })
          await page.evaluate(
            `(async () => {
              const next = [...document.querySelectorAll(".pager button")].find((one) => one.textContent === "Next")
              next.click()
              await new Promise((resolve) => setTimeout(resolve))
              next.click()
            })()`
          )
          await asked
          assert.isTrue(await page.getByText("page 1", { exact: true }).isVisible())
          assert.deepStrictEqual(await ids(), first)
          answer()
          await page.getByText("page 2", { exact: true }).waitFor()
          const second = await ids()
          assert.deepStrictEqual([second.length, second.filter((id) => first.includes(id))], [100, []])
          await page.getByRole("button", { name: "Next" }).click()
          await page.getByText("page 3", { exact: true }).waitFor()
          const third = await ids()
          assert.strictEqual(new Set([...first, ...second, ...third]).size, 250)
          // What cannot be turned to is said, beside the lines that are there.
          await page.getByRole("button", { name: "Back" }).click()
          await page.getByText("page 2", { exact: true }).waitFor()
          await page.route(/\/dead\?.*after=/, (route) => route.fulfill({ status: 502, json: { why: "out of paper" } }))
          await page.getByRole("button", { name: "Next" }).click()
          await page.getByRole("alert").getByText("out of paper").waitFor()
          await page.waitForResponse(/overview/)
          assert.isTrue(await page.getByRole("alert").isVisible())
          assert.deepStrictEqual(await ids(), second)
        })
      }).pipe(Effect.scoped),
    120_000
  )

  it.effect.skipIf(!hasBrowser)(
    "when all of a reason is gone the others show, and lines follow the store without losing a mark",
    () =>
      Effect.gen(function* () {
        const { deadLetter, url } = yield* withDeadLetters(4, (id) =>
          id === "o-0" || id === "o-1" ? "Expired" : "Declined"
        )
        const { page } = yield* open(yield* dashboard(url, "--allow-writes"))
        yield* promise(async () => {
          await page.getByRole("cell", { name: "billing" }).click()
          await rows(page).nth(3).waitFor()
          // A mark that the filter hides is told.
          await page.getByRole("checkbox", { name: "Select o-2" }).click()
          await page.getByLabel("Reason").selectOption("Expired")
          await page.getByText("1 selected, 1 of them not on this page").waitFor()
          await page.getByRole("button", { name: "Clear selection" }).click()
          await page.getByRole("button", { name: "Discard all with reason Expired" }).click()
          await page.getByRole("dialog").getByText("2 dead letters of billing with reason Expired").waitFor()
          await page.getByRole("dialog").getByRole("button", { name: "Discard" }).click()
          await page.getByText("2 discarded.").waitFor()
          await page.getByRole("button", { name: "Discard all …" }).waitFor()
          assert.strictEqual(await page.getByLabel("Reason").inputValue(), "")
          await rows(page).nth(1).waitFor()
          await page.getByRole("checkbox", { name: "Select o-2" }).click()
        })
        yield* deadLetter("o-9")
        yield* promise(async () => {
          await rows(page).nth(2).waitFor()
          assert.isTrue(await page.getByRole("checkbox", { name: "Select o-2" }).isChecked())
          await page.getByRole("button", { name: "Discard 1 selected" }).click()
          await page.getByRole("dialog").waitFor()
        })
        yield* deadLetter("o-10")
        yield* promise(async () => {
          // The figures go on beside the question; the lines wait for its answer.
          await page.locator(".tabs .count").first().getByText("4", { exact: true }).waitFor()
          await page.waitForResponse(/overview/)
          assert.strictEqual(await rows(page).count(), 3)
          await page.getByRole("dialog").getByRole("button", { name: "Cancel" }).click()
          await rows(page).nth(3).waitFor()
          assert.isTrue(await page.getByRole("checkbox", { name: "Select o-2" }).isChecked())
        })
      }).pipe(Effect.scoped),
    120_000
  )

  it.effect.skipIf(!hasBrowser)("a server that was restarted, and what may be lost, is shown", () =>
    Effect.gen(function* () {
      const { kill, port, start, url } = yield* RedisServer.make()
      const { page } = yield* open(yield* dashboard(url))
      yield* promise(() => page.getByText(`waybill on 127.0.0.1:${port}`).waitFor())
      yield* Effect.andThen(kill, start)
      yield* promise(() => page.getByText(`127.0.0.1:${port} took over at`).waitFor({ timeout: 60_000 }))
    }).pipe(Effect.scoped)
  )

  it.effect.skipIf(!hasBrowser)("an empty reason is one of several, and not all of them", () =>
    Effect.gen(function* () {
      const { url } = yield* RedisServer.make()
      const redis = yield* client(url)
      yield* promise(async () => {
        await redis.sadd("waybill:topics", "t")
        await redis.sadd("{waybill:t}:groups", "g")
        await redis.xgroup("CREATE", "{waybill:t}:stream", "g", "0", "MKSTREAM")
        for (const [i, reason] of ["", "Odd"].entries()) {
          const head = ["reason", reason, "cause", "", "attempts", "1", "fence", "1", "id", `m-${i}`, "at", "1"]
          const rest = ["origin", `${i + 1}-1`, "consumer", "c", "payload", "1"]
          await redis.xadd("{waybill:t}:group:g:dead", `${Date.now()}-${i}`, ...head, ...rest)
        }
      })
      const { page } = yield* open(yield* dashboard(url, "--allow-writes"))
      yield* promise(async () => {
        await page.getByRole("cell", { name: "g", exact: true }).click()
        await rows(page).nth(1).waitFor()
        await page.getByLabel("Reason").selectOption({ label: "none" })
        await page.getByRole("button", { name: "Discard all without a reason" }).click()
        await page.getByRole("dialog").getByText("1 dead letter of g without a reason would be deleted").waitFor()
        await page.getByRole("dialog").getByRole("button", { name: "Discard" }).click()
        await page.getByText("1 discarded.").waitFor()
        await page.getByRole("cell", { name: "m-0", exact: true }).waitFor({ state: "detached" })
        assert.isTrue(await page.getByRole("cell", { name: "m-1", exact: true }).isVisible())
      })
    }).pipe(Effect.scoped)
  )

  it.effect.skipIf(!hasBrowser)(
    "text that would turn around what stands beside it is shown as its escapes",
    () =>
      Effect.gen(function* () {
        const { url } = yield* withDeadLetters(1, () => "De\u202eclined", "\u2066o-\u202e")
        const { errors, page } = yield* open(yield* dashboard(url))
        yield* promise(async () => {
          await page.getByRole("cell", { name: "billing" }).click()
          await rows(page).first().click()
          const message = page.getByRole("complementary")
          await message.getByText("dead-lettered", { exact: true }).waitFor()
          const text = await page.locator("body").innerText()
          for (const shown of ["\\u2066o-\\u202e0", "De\\u202eclined", "no\\u202etrace"]) assert.include(text, shown)
          assert.notMatch(text, /[\u202e\u2066]/)
          assert.match(await message.getByLabel("Attempts").innerText(), /^1\s+Failure\s+.*, \S+-\d+-\w+$/)
          const failure = await message.getByLabel("The failure").innerText()
          assert.match(failure, /^Failure\s+id\s+"\\u2066o-\\u202e0"\s+trace\s+"no\\u202etrace"$/)
        })
        assert.deepStrictEqual(errors, [])
      }).pipe(Effect.scoped),
    120_000
  )

  it.effect.skipIf(!hasBrowser)(
    "without the token there are no buttons, and a word about the address; the charts tell the last values",
    () =>
      Effect.gen(function* () {
        const { url } = yield* withDeadLetters(1)
        const address = yield* dashboard(url, "--allow-writes")
        const { page } = yield* open(new URL("/?topic=orders&group=billing", address).href)
        yield* promise(async () => {
          await page.getByRole("note").getByText("open the address with the token").waitFor()
          await rows(page).first().waitFor()
          for (const name of ["Pause", "Redrive", "Discard"]) {
            assert.strictEqual(await page.getByRole("button", { name }).count(), 0, name)
          }
          assert.strictEqual(await page.getByRole("checkbox").count(), 0)
          await page.getByRole("figure").getByText("lag 0").waitFor()
          // The same tab, with the token.
          await page.goto("about:blank")
          await page.goto(address)
          await page.getByText("changes allowed", { exact: true }).waitFor()
          assert.strictEqual(await page.getByRole("note").count(), 0)
        })
      }).pipe(Effect.scoped),
    120_000
  )

  it.effect("a request that makes no sense is told why, and changes nothing", () =>
    Effect.gen(function* () {
      const { context, url } = yield* withDeadLetters(1)
      const address = new URL(yield* dashboard(url, "--allow-writes"))
      const inspector = yield* Effect.provideContext(Inspector.Inspector, context)
      const { commands } = yield* Effect.provideContext(IoRedis.IoRedis, context)
      const keys = commands.run("dbsize", [], (client) => client.dbsize())
      const before = yield* keys
      const groups = "/api/topics/orders/groups"
      const bearer = bearerOf(address)
      for (const [method, path, status, word, body] of [
        ["POST", `${groups}/nobody/pause`, 404, "has no group nobody", "{}"],
        ["POST", `${groups}/nobody/redrive`, 404, "has no group nobody", `{"dryRun":false}`],
        ["POST", "/api/topics/nothing/groups/billing/pause", 404, "topic nothing does not exist", "{}"],
        ["POST", "/api/topics/nothing/groups/billing/resume", 404, "topic nothing does not exist", "{}"],
        ["POST", `${groups}/nobody/retire`, 404, "has no group nobody", `{"dryRun":false}`],
        ["POST", `${groups}/nobody/move`, 404, "has no group nobody", `{"dryRun":false,"to":"latest"}`],
        ["POST", `${groups}/billing/move`, 400, "to", `{"dryRun":false,"to":"somewhere"}`],
        ["POST", `${groups}/billing/retire`, 400, "dryRun", "{}"],
        ["POST", "/api/topics/orders/purge", 400, "dryRun", "{}"],
        ["POST", `${groups}/billing/redrive`, 400, "is not valid JSON", "garbage"],
        ["POST", `${groups}/billing/redrive`, 400, "dryRun", "{}"],
        ["GET", `${groups}/billing/dead?after=zzz`, 400, "position zzz does not exist", undefined],
        ["GET", `${groups}/billing/pending?after=zzz`, 400, "position zzz does not exist", undefined],
        ["GET", "/api/topics/orders/messages?after=zzz", 400, "position zzz does not exist", undefined],
        ["GET", "/api/topics/orders/messages?before=zzz", 400, "position zzz does not exist", undefined],
        [
          "GET",
          "/api/topics/orders/life/none?group=billing&list=dead&at=zzz",
          400,
          "position zzz does not exist",
          undefined
        ]
      ] as const) {
        const answer = yield* ask(address, method, path, bearer, body)
        assert.strictEqual(answer.status, status, path)
        const { why } = JSON.parse(answer.text) as { readonly why: string }
        assert.include(why, word)
      }
      const stranger = yield* ask(address, "GET", "/api/overview", { host: "evil.example" })
      assert.strictEqual(stranger.text.split("127.0.0.1").length, 2, "each name once")

      const [letter] = yield* inspector.deadLetters("orders", "billing", { after: Option.none(), limit: 1 })
      const entries = ["x y", "9-9-9", "1-1", letter!.entry, letter!.entry]
      const redrive = (dryRun: boolean) =>
        ask(address, "POST", `${groups}/billing/redrive`, bearer, JSON.stringify({ entries, dryRun }))
      assert.deepStrictEqual(JSON.parse((yield* redrive(true)).text), { examined: 4, selected: 1, done: 0 })
      assert.strictEqual(yield* keys, before)
      assert.deepStrictEqual(JSON.parse((yield* redrive(false)).text), { examined: 4, selected: 4, done: 1 })
    }).pipe(Effect.scoped)
  )

  it.effect.skipIf(!hasBrowser)(
    "a body has room for its words on a small screen, whatever the ids and the reasons are",
    () =>
      Effect.gen(function* () {
        const { url } = yield* withDeadLetters(1, () => "InsufficientFunds", "9f0c8a52-6f1b-4c8d-9a55-2f7f3f0e8b1")
        const { page } = yield* open(yield* dashboard(url, "--allow-writes"), {
          viewport: { width: 1280, height: 760 }
        })
        yield* promise(async () => {
          await page.getByRole("cell", { name: "billing" }).click()
          const cell = rows(page).first().locator("td.body")
          const box = await cell.boundingBox()
          assert.isAtLeast(box!.width, 230)
          assert.isAtMost(box!.x + box!.width, 1280)
        })
      }).pipe(Effect.scoped),
    120_000
  )

  it.effect("on port 80 browsers leave the port out, and on IPv6 they write brackets", () =>
    Effect.sync(() => {
      const rules = { everywhere: false, writes: false, guarded: false, token: Redacted.make("t") }
      const status = (host: string, port: number, names = ["10.0.0.1", "[2001:db8::1]"]) =>
        Guard.refusal(
          { ...rules, names, port },
          HttpServerRequest.fromWeb(new Request("http://localhost/", { headers: { host } })),
          "read"
        ).pipe(Option.match({ onNone: () => 200, onSome: ({ status }) => status }))
      assert.deepStrictEqual(
        [
          status("10.0.0.1", 80),
          status("10.0.0.1", 4747),
          status("[2001:db8::1]:4747", 4747),
          status("[2001:db8::1]", 80)
        ],
        [200, 421, 200, 200]
      )
      assert.deepStrictEqual([status("127.0.0.1:4747@evil", 4747), status("", 80), status("a b", 80)], [421, 421, 421])
    })
  )

  it.effect("case C14: through a forwarded port, and behind a proxy that speaks HTTPS under another name", () =>
    Effect.gen(function* () {
      const { url } = yield* withDeadLetters(1)
      const pause = "/api/topics/orders/groups/billing/pause"
      const plain = new URL(yield* dashboard(url, "--allow-writes"))
      const bearer = bearerOf(plain)
      for (const [host, origin, status] of [
        ["localhost:9000", "http://localhost:9000", 200],
        ["127.0.0.1:80", "http://127.0.0.1:80", 200],
        ["[::1]:12345", "http://[::1]:12345", 200],
        ["localhost", "http://localhost", 200],
        ["localhost:9000", "http://localhost:9001", 403],
        ["localhost:9000", "http://evil.example", 403],
        ["localhost.evil.example:9000", undefined, 421],
        ["waybill.example", "https://waybill.example", 421]
      ] as const) {
        const headers = { host, ...bearer, ...(origin === undefined ? {} : { origin }) }
        assert.strictEqual((yield* ask(plain, "GET", "/api/overview", headers)).status, status, `${host} ${origin}`)
        assert.strictEqual((yield* ask(plain, "POST", pause, headers, "{}")).status, status, `${host} ${origin}`)
      }
      const shown = yield* dashboard(url, "--allow-writes", "--public-url", "https://Waybill.example/ops/")
      assert.match(shown, /^https:\/\/waybill\.example\/ops\/#token=/)
      const publicUrl = new URL("https://waybill.example/")
      const rules = { names: ["127.0.0.1"], port: 4747, everywhere: false, writes: true, guarded: true, publicUrl }
      const status = (headers: Record<string, string>, asks: "read" | "write" = "write") =>
        Guard.refusal(
          { ...rules, token: Redacted.make("t") },
          HttpServerRequest.fromWeb(
            new Request("http://localhost/", { headers: { authorization: "Bearer t", ...headers } })
          ),
          asks
        ).pipe(Option.match({ onNone: () => 200, onSome: ({ status }) => status }))
      const origin = "https://waybill.example"
      assert.deepStrictEqual(
        [
          status({ host: "waybill.example", origin, "sec-fetch-site": "same-origin" }),
          // A proxy may ask by the name that it knows.
          status({ host: "127.0.0.1:4747", origin }),
          status({ host: "waybill.example", origin, authorization: "no" }, "read"),
          status({ host: "waybill.example", origin: "https://evil.example" }),
          status({ host: "evil.example", origin }),
          status({ host: "waybill.example", origin, "sec-fetch-site": "cross-site" })
        ],
        [200, 200, 401, 403, 421, 403]
      )
    }).pipe(Effect.scoped)
  )

  it.effect.skipIf(!hasBrowser)("case C7: a topic, a group and an id that are dots are opened and steered", () =>
    Effect.gen(function* () {
      const { url } = yield* RedisServer.make()
      const redis = yield* client(url)
      const names = [".", "..", "~", "~.", "...", "%2e"]
      yield* promise(async () => {
        for (const name of names) {
          await redis.sadd("waybill:topics", name)
          await redis.sadd(`{waybill:${name}}:groups`, name)
          await redis.xgroup("CREATE", `{waybill:${name}}:stream`, name, "0", "MKSTREAM")
          const head = ["reason", "Odd", "cause", "", "attempts", "1", "fence", "1", "id", name, "at", "1"]
          const rest = ["origin", "1-1", "consumer", "c", "payload", `"the body of ${name}"`]
          await redis.xadd(`{waybill:${name}}:group:${name}:dead`, "1-1", ...head, ...rest)
        }
      })
      const { errors, page } = yield* open(yield* dashboard(url, "--allow-writes"))
      for (const name of names) {
        yield* promise(async () => {
          const place = new URL(page.url())
          place.search = String(new URLSearchParams({ topic: name, group: name, message: name }))
          await page.goto(String(place))
          await page.getByRole("complementary").getByText(`"the body of ${name}"`).waitFor()
          await page.getByRole("complementary").getByRole("button", { name: "Close" }).click()
          await page.getByRole("button", { name: "Pause" }).click()
          await page.getByRole("button", { name: "Resume" }).waitFor()
        })
        const paused = yield* promise(() => redis.hget(`{waybill:${name}}:group:${name}:state`, "paused"))
        assert.strictEqual(paused, "1", name)
      }
      assert.deepStrictEqual(errors, [])
    }).pipe(Effect.scoped)
  )

  it.effect.skipIf(!hasBrowser)(
    "a delayed message is listed, rescheduled and run, interrupted, and deleted once it is dead",
    () =>
      Effect.gen(function* () {
        const { context, url } = yield* opened
        const Handler = Consumer.make(Parcels, { group: "post" }).pipe(
          Consumer.process(() => Effect.never),
          Consumer.layer
        )
        yield* Effect.provideContext(Layer.build(Handler), context)
        yield* Effect.provideContext(Producer.publish(Parcels, "box", { id: "p/1", delay: "1 hour" }), context)
        const found = Effect.provideContext(
          Effect.flatMap(Inspector.Inspector, (inspector) => inspector.message("parcels", "p/1")),
          context
        )
        const { errors, page } = yield* open(`${yield* dashboard(url, "--allow-writes")}`)
        const message = page.getByLabel("The message")
        yield* promise(async () => {
          await page.getByRole("cell", { name: "post" }).click()
          await page.getByRole("tab", { name: "Delayed" }).click()
          await page.getByRole("cell", { name: "p/1", exact: true }).click()
          await message.getByLabel("Time to be due").fill("2100-01-01T00:00:00")
          await message.getByRole("button", { name: "Reschedule" }).click()
          await message.getByText(/^delayed until .*2100/).waitFor()
        })
        assert.strictEqual(
          new Date(Option.getOrThrow(yield* found).dueAt ?? 0).getFullYear(),
          new Date(2100, 0, 1).getFullYear()
        )
        yield* promise(async () => {
          await message.getByRole("button", { name: "Run now" }).click()
          await message.getByRole("button", { name: "Interrupt" }).click()
          await page.getByRole("dialog").getByRole("button", { name: "Interrupt" }).click()
          await message.getByText("Cancelled", { exact: true }).waitFor()
          await message.getByRole("button", { name: "Delete" }).click()
          await page.getByRole("dialog").getByRole("button", { name: "Delete" }).click()
          await message.getByText("no longer stored").waitFor()
        })
        assert.isTrue(Option.isNone(yield* found))
        assert.deepStrictEqual(errors, [])
      }).pipe(Effect.scoped)
  )

  it.effect.skipIf(!hasBrowser)("the schedules of a topic are shown, paused and run", () =>
    Effect.gen(function* () {
      const { context, url } = yield* opened
      const start = DateTime.makeUnsafe("2100-01-01T00:00:00Z")
      const nightly = Schedules.cron("nightly", "0 3 * * *", { topic: Parcels, payload: "all", start })
      yield* Effect.provideContext(Schedules.upsert(nightly), context)
      const { errors, page } = yield* open(yield* dashboard(url, "--allow-writes"))
      yield* promise(async () => {
        await page.getByRole("cell", { name: "parcels" }).click()
        await page.getByRole("cell", { name: "0 3 * * * UTC" }).waitFor()
        await page.getByRole("button", { name: "Pause" }).click()
        await page.getByRole("button", { name: "Resume" }).waitFor()
        await page.getByRole("button", { name: "Run now" }).click()
      })
      const inspector = yield* Effect.provideContext(Inspector.Inspector, context)
      yield* until(Effect.map(inspector.describe("parcels"), ({ depth }) => depth === 1))
      yield* promise(async () => {
        await page.getByRole("button", { name: "Remove" }).click()
        await page.getByRole("dialog").getByRole("button", { name: "Remove" }).click()
        await page.getByRole("cell", { name: "nightly", exact: true }).waitFor({ state: "detached" })
      })
      assert.deepStrictEqual(yield* Effect.provideContext(Stream.runCollect(Schedules.list(Parcels)), context), [])
      assert.deepStrictEqual(errors, [])
    }).pipe(Effect.scoped)
  )

  it.effect.skipIf(!hasBrowser)(
    "groups are moved and retired and topics purged, after the page has said what that does",
    () =>
      Effect.gen(function* () {
        const { context, url } = yield* opened
        const inspector = yield* Effect.provideContext(Inspector.Inspector, context)
        const groups = Effect.map(inspector.describe("parcels"), ({ groups }) => groups)
        const joining = Consumer.make(Parcels, { group: "old" }).pipe(
          Consumer.process(() => Effect.void),
          Consumer.layer
        )
        yield* until(Effect.map(groups, (all) => all.length === 1)).pipe(
          Effect.provide(joining),
          Effect.provideContext(context)
        )
        yield* Effect.provideContext(Producer.publishAll(Parcels, ["a", "b", "c"]), context)
        const { errors, page } = yield* open(yield* dashboard(url, "--allow-writes"))
        const does = (go: string, said: RegExp) => async () => {
          await page.getByRole("button", { name: `${go} …` }).click()
          await page.getByRole("dialog").getByText(said).waitFor()
          await page.getByRole("dialog").getByRole("button", { name: go, exact: true }).click()
        }
        yield* promise(() => page.getByRole("cell", { name: "old" }).click())
        yield* promise(does("Move", /old has 3 messages to go, and would have 0/))
        yield* until(Effect.map(groups, ([old]) => old?.lag === 0))
        yield* promise(does("Retire", /old has 0 unsettled messages and 0 dead letters.*It has had no consumer for/))
        yield* until(Effect.map(groups, (all) => all.length === 0))
        yield* promise(async () => {
          await page.getByText("This group no longer exists").waitFor()
          await page.getByRole("cell", { name: "parcels" }).click()
        })
        yield* promise(does("Purge", /3 stored messages of parcels/))
        yield* until(Effect.map(inspector.describe("parcels"), ({ depth }) => depth === 0))
        assert.deepStrictEqual(errors, [])
      }).pipe(Effect.scoped)
  )

  it.effect.skipIf(!hasBrowser)("case C3: the page shows the other topics, and names the one that cannot be read", () =>
    Effect.gen(function* () {
      const { url } = yield* withDeadLetters(1)
      const redis = yield* client(url)
      yield* promise(async () => {
        await redis.sadd("waybill:topics", "broken")
        await redis.set("{waybill:broken}:meta", "of a wrong type")
      })
      const { page } = yield* open(yield* dashboard(url))
      yield* promise(async () => {
        await page.getByRole("cell", { name: "billing" }).waitFor()
        await page
          .getByRole("alert")
          .getByText(/broken cannot be read: the key \{waybill:broken\}:meta/)
          .waitFor()
      })
    }).pipe(Effect.scoped)
  )

  it.effect(
    "strangers change nothing and see nothing",
    () =>
      Effect.gen(function* () {
        const { context, url } = yield* withDeadLetters(1)
        const writing = new URL(yield* dashboard(url, "--allow-writes"))
        const looking = new URL(yield* dashboard(url))
        const redrive = "/api/topics/orders/groups/billing/redrive"
        const json = { "content-type": "application/json" }
        const bearer = bearerOf(writing)
        const dead = JSON.stringify({ dryRun: false })
        const cases = [
          ["without a token", writing, "POST", redrive, json, 401],
          ["with a wrong token", writing, "POST", redrive, { ...json, authorization: "Bearer x" }, 401],
          [
            "from another page, whatever it knows",
            writing,
            "POST",
            redrive,
            { ...json, ...bearer, origin: "http://evil.example" },
            403
          ],
          ["by a name that only resolves to us", writing, "GET", "/api/overview", { host: "evil.example" }, 421],
          ["an image in another page", writing, "GET", "/api/overview", { "sec-fetch-site": "cross-site" }, 403],
          ["the page, by such a name", writing, "GET", "/", { host: "evil.example" }, 421],
          ["where the page only looks", looking, "POST", redrive, { ...json, ...bearer }, 403],
          ["a method that is none of ours", writing, "DELETE", redrive, bearer, 404],
          ["looking is allowed", writing, "GET", "/api/overview", {}, 200],
          ["a page that is too large", writing, "GET", "/api/topics/orders/groups/billing/dead?limit=100000", {}, 400],
          ["files outside of the page", writing, "GET", "/../../package.json", {}, 404],
          ["what is not there", writing, "GET", "/api/nothing", {}, 404],
          [
            "names as long as they may be",
            writing,
            "GET",
            `/api/topics/${"t".repeat(200)}/groups/${"g".repeat(200)}/dead`,
            {},
            200
          ],
          ["the page itself", writing, "GET", "/", {}, 200]
        ] as const
        for (const [what, to, method, path, headers, status] of cases) {
          const answer = yield* ask(to, method, path, headers, method === "POST" ? dead : undefined)
          assert.strictEqual(answer.status, status, what)
          assert.include(String(answer.headers["content-security-policy"]), "default-src 'none'", what)
          assert.strictEqual(answer.headers["x-content-type-options"], "nosniff", what)
        }
        const inspector = yield* Effect.provideContext(Inspector.Inspector, context)
        assert.strictEqual((yield* inspector.describe("orders")).groups[0]?.deadLetters, 1)
        // Where others reach it, looking needs the token, too; any address will do, a name that resolves to us will not.
        const everywhere = new URL(yield* dashboard(url, "--host", "0.0.0.0"))
        const looks = bearerOf(everywhere)
        const local = new URL(`http://127.0.0.1:${everywhere.port}`)
        for (const [host, headers, status] of [
          [local.host, looks, 200],
          ["10.1.2.3:8080", looks, 200],
          [everywhere.host, looks, 200],
          [local.host, {}, 401],
          ["evil.example", looks, 421]
        ] as const) {
          const answer = yield* ask(local, "GET", "/api/overview", { ...headers, host })
          assert.strictEqual(answer.status, status, host)
        }
        assert.strictEqual((yield* ask(writing, "POST", redrive, { ...json, ...bearer }, dead)).status, 200)
        assert.strictEqual((yield* inspector.describe("orders")).groups[0]?.deadLetters, 0)
      }).pipe(Effect.scoped),
    120_000
  )
})
