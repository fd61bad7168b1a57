/**
 * The dashboard in a real browser on a real server: what a person sees and clicks, and what strangers cannot do.
 */
import { spawn } from "node:child_process"
import { request } from "node:http"
import { join } from "node:path"
import { assert, layer } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Effect, Layer, Option, Redacted, References, Schema } from "effect"
import { HttpServerRequest } from "effect/http"
import type { Page } from "playwright-core"
import { build } from "vite"
import { Consumer, Inspector, Producer, Topic } from "waybill"
import { IoRedis, RedisStreams } from "waybill/redis"
// The command is a program and exports nothing.
import * as Guard from "../../packages/cli/src/dashboard/Guard.ts"
import { browser, hasBrowser } from "./Browser.ts"

const cli = join(import.meta.dirname, "../../packages/cli")

const hostile = `<img src=x onerror="document.title='owned'"></script><script>document.title='owned'</script>`

const Orders = Topic.make("orders", { payload: Schema.Struct({ id: Schema.String, note: Schema.String }) })

/** So many orders dead in the group `billing`, and the layer to look at them. */
const buried = Effect.fnUntraced(
  function* (count: number) {
    const { url } = yield* RedisServer.make()
    const context = yield* Layer.build(RedisStreams.layer().pipe(Layer.provideMerge(IoRedis.layer({ url }))))
    yield* Effect.gen(function* () {
      const orders = Array.from({ length: count }, (_, i) => ({ id: `o-${i}`, note: hostile }))
      for (let i = 0; i < count; i += 500) {
        yield* Producer.publishAll(Orders, orders.slice(i, i + 500), ({ id }) => ({ id }))
      }
      const Billing = Consumer.make(Orders, { group: "billing", concurrency: 64 }).pipe(
        Consumer.process(() => Effect.fail("declined")),
        Consumer.orElse(Consumer.deadLetter("Declined")),
        Consumer.layer
      )
      const inspector = yield* Inspector.Inspector
      yield* Effect.gen(function* () {
        while ((yield* inspector.describe("orders")).groups[0]?.deadLetters !== count) yield* Effect.sleep("20 millis")
      }).pipe(Effect.provide(Billing))
    }).pipe(Effect.provideContext(context))
    return { url, context }
  },
  Effect.provideService(References.MinimumLogLevel, "None")
)

/** The command, until the scope closes; answers the address that it prints. */
const dashboard = (url: string, ...args: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.callback<{ readonly address: string; readonly kill: () => void }>((resume) => {
      const child = spawn(process.execPath, [join(cli, "src/main.ts"), "dashboard", "--port", "0", ...args], {
        env: { PATH: process.env["PATH"], REDIS_URL: url },
        stdio: ["ignore", "pipe", "inherit"]
      })
      let out = ""
      child.stdout.on("data", (chunk) => {
        out += chunk
        const address = /(http:\S+)/.exec(out)?.[1]
        if (address !== undefined) resume(Effect.succeed({ address, kill: () => child.kill("SIGINT") }))
      })
      child.on("exit", (code) => resume(Effect.die(new Error(`the dashboard ended with ${code}: ${out}`))))
    }),
    ({ kill }) => Effect.sync(kill)
  ).pipe(Effect.map(({ address }) => address))

const promise = <A>(f: () => Promise<A>) => Effect.promise(f)

/** A page that notes what it asks for and what goes wrong on it. */
const open = Effect.fnUntraced(function* (
  address: string,
  options: Parameters<Effect.Success<typeof browser>["newPage"]>[0] = {}
) {
  const page = yield* promise(() => shared.newPage(options))
  const asked: Array<string> = []
  const errors: Array<string> = []
  page.on("request", (request) => asked.push(new URL(request.url()).origin))
  page.on("pageerror", (error) => errors.push(error.message))
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()))
  yield* promise(() => page.goto(address))
  return { page, asked, errors }
})

let shared: Effect.Success<typeof browser>

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
        const { context, url } = yield* buried(3)
        const address = yield* dashboard(url, "--allow-writes")
        const { asked, errors, page } = yield* open(address)
        yield* promise(async () => {
          await page.getByRole("cell", { name: "billing" }).click()
          await rows(page).nth(2).waitFor()
          await rows(page).first().getByRole("checkbox").click()
          await page.getByRole("button", { name: "Redrive the 1 marked" }).click()
          await page.getByRole("dialog").getByText("1 dead letters of billing would go back").waitFor()
          await page.getByRole("dialog").getByRole("button", { name: "Redrive" }).click()
          await page.getByText("1 sent back.").waitFor()
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
        const { url } = yield* buried(10_000)
        const { errors, page } = yield* open(yield* dashboard(url))
        yield* promise(async () => {
          let address = ""
          await page.getByRole("cell", { name: "billing" }).click()
          for (let number = 1; number <= 100; number++) {
            await page.getByText(`page ${number}`, { exact: true }).waitFor()
            // The order in which they died: the last of each page tells that it is shown.
            await rows(page).nth(99).waitFor()
            assert.strictEqual(await rows(page).count(), 100)
            if (number === 100) {
              // What was clicked is found behind any number of others.
              await rows(page).last().click()
              const message = page.getByRole("complementary")
              await message.getByText("Declined").first().waitFor()
              assert.include(await message.locator("pre").last().innerText(), "<img src=x")
              address = page.url()
              await message.getByRole("button", { name: "Close" }).click()
            }
            const first = await rows(page).first().locator("td").nth(1).innerText()
            await page.getByRole("button", { name: "Next" }).click()
            if (number < 100) {
              // All of it: "o-1" is a part of "o-100".
              const same = new RegExp(`^${first}$`)
              await rows(page).first().locator("td").nth(1).filter({ hasNotText: same }).waitFor()
            }
          }
          await page.getByText("No dead letters.").waitFor()
          await page.getByRole("button", { name: "Back" }).click()
          await rows(page).nth(99).waitFor()
          // Also by whoever was sent the address.
          await page.goto(address)
          await page.getByRole("complementary").getByText("Declined").first().waitFor()
        })
        assert.deepStrictEqual(errors, [])
      }).pipe(Effect.scoped),
    120_000
  )

  it.effect.skipIf(!hasBrowser)(
    "it fits a phone, in the dark, and says when its server is gone",
    () =>
      Effect.gen(function* () {
        const { url } = yield* buried(5)
        const { page } = yield* Effect.scoped(
          Effect.gen(function* () {
            const opened = yield* open(yield* dashboard(url), {
              viewport: { width: 390, height: 844 },
              colorScheme: "dark"
            })
            yield* promise(async () => {
              await opened.page.getByRole("cell", { name: "billing" }).click()
              await rows(opened.page).nth(4).waitFor()
            })
            return opened
          })
        )
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
        yield* promise(() => page.getByRole("alert").getByText("server is gone").waitFor())
      }).pipe(Effect.scoped),
    120_000
  )

  it.effect("on port 80 browsers leave the port out, and on IPv6 they write brackets", () =>
    Effect.sync(() => {
      const rules = { everywhere: false, writes: false, guarded: false, token: Redacted.make("t") }
      const status = (host: string, port: number, names = ["127.0.0.1", "[::1]"]) =>
        Guard.refusal(
          { ...rules, names, port },
          HttpServerRequest.fromWeb(new Request("http://localhost/", { headers: { host } })),
          "read"
        ).pipe(Option.match({ onNone: () => 200, onSome: ({ status }) => status }))
      assert.deepStrictEqual(
        [status("127.0.0.1", 80), status("127.0.0.1", 4747), status("[::1]:4747", 4747), status("[::1]", 80)],
        [200, 421, 200, 200]
      )
      assert.deepStrictEqual([status("127.0.0.1:4747@evil", 4747), status("", 80), status("a b", 80)], [421, 421, 421])
    })
  )

  it.effect(
    "strangers change nothing and see nothing",
    () =>
      Effect.gen(function* () {
        const { context, url } = yield* buried(1)
        const writing = new URL(yield* dashboard(url, "--allow-writes"))
        const looking = new URL(yield* dashboard(url))
        const token = writing.hash.slice("#token=".length)
        const ask = (to: URL, method: string, path: string, headers: Record<string, string>) =>
          Effect.callback<{ readonly status: number; readonly headers: NodeJS.Dict<string | string[]> }>((resume) => {
            const asked = request({ host: to.hostname, port: to.port, method, path, headers }, (response) => {
              response.resume()
              resume(Effect.succeed({ status: response.statusCode ?? 0, headers: response.headers }))
            })
            asked.on("error", (error) => resume(Effect.die(error)))
            asked.end(method === "POST" ? JSON.stringify({ dryRun: false }) : undefined)
          })
        const redrive = "/api/topics/orders/groups/billing/redrive"
        const json = { "content-type": "application/json" }
        const bearer = { authorization: `Bearer ${token}` }
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
          const answer = yield* ask(to, method, path, headers)
          assert.strictEqual(answer.status, status, what)
          if (status === 200) {
            assert.include(String(answer.headers["content-security-policy"]), "default-src 'none'")
            assert.strictEqual(answer.headers["x-content-type-options"], "nosniff")
          }
        }
        const inspector = yield* Effect.provideContext(Inspector.Inspector, context)
        assert.strictEqual((yield* inspector.describe("orders")).groups[0]?.deadLetters, 1)
        // Where others reach it, looking needs the token, too; any address will do, a name that resolves to us will not.
        const everywhere = new URL(yield* dashboard(url, "--host", "0.0.0.0"))
        const looks = { authorization: `Bearer ${everywhere.hash.slice("#token=".length)}` }
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
        assert.strictEqual((yield* ask(writing, "POST", redrive, { ...json, ...bearer })).status, 200)
        assert.strictEqual((yield* inspector.describe("orders")).groups[0]?.deadLetters, 0)
      }).pipe(Effect.scoped),
    120_000
  )
})
