/**
 * The chat in real browser windows on two server processes: what two people see of each other, and what is left of it when
 * a server is killed while they talk.
 */
import { join } from "node:path"
import { assert, layer } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Effect, Layer } from "effect"
import type { Page } from "playwright-core"
import { build } from "vite"
import { browser, hasBrowser, windowOf } from "../../cli/Browser.ts"
import { client, start } from "./ServerProcess.ts"

const hostile = `<img src=x onerror="document.title='owned'"></script><script>document.title='owned'</script>`

/** Two servers on one Redis. */
const two = Effect.gen(function* () {
  const { url: redis } = yield* RedisServer.make()
  const [one, other] = yield* Effect.all([start({ redis }), start({ redis })], { concurrency: 2 })
  return { redis, one, other }
})

/** Runs in the page, whose types are not those of the tests. */
const uncut = (element: { readonly scrollWidth: number; readonly clientWidth: number }) =>
  element.scrollWidth <= element.clientWidth

const promise = <A>(f: () => Promise<A>) => Effect.promise(f)

let shared: Effect.Success<typeof browser>

/** A window of its own, as another person has, that notes what it asks for and what goes wrong on it. */
const open = Effect.fnUntraced(function* (
  server: { readonly port: number },
  user: string,
  options: Parameters<typeof windowOf>[1] = {}
) {
  const page = yield* windowOf(shared, options)
  const errors: Array<string> = []
  const asked = new Set<string>()
  page.on("request", (request) => asked.add(new URL(request.url()).origin))
  page.on("pageerror", (error) => errors.push(error.message))
  yield* promise(async () => {
    await page.goto(`http://127.0.0.1:${server.port}/`)
    await page.getByLabel("Your name").fill(user)
    await page.getByRole("button", { name: "Join", exact: true }).click()
    await page.getByText("You have not joined a room yet.").waitFor()
  })
  return { page, errors, asked }
})

const create = async (page: Page, room: string) => {
  await page.getByLabel("Name of a new room").fill(room)
  await page.getByRole("button", { name: "Create" }).click()
  await page.getByRole("main", { name: `Room ${room}` }).waitFor()
}

const enter = async (page: Page, room: string) => {
  await page.getByRole("button", { name: "Join a room" }).click()
  await page.getByRole("list", { name: "All rooms" }).getByRole("button", { name: room }).click()
  await page.getByRole("main", { name: `Room ${room}` }).waitFor()
}

const leave = async (page: Page, answer: "Cancel" | "Leave") => {
  await page.getByRole("button", { name: "Leave", exact: true }).click()
  await page.getByRole("dialog").getByRole("button", { name: answer }).click()
}

const say = async (page: Page, text: string) => {
  await page.getByLabel("Your message").fill(text)
  await page.keyboard.press("Enter")
}

const log = (page: Page) => page.getByRole("log")
/** What has come back from the room, as opposed to what is being sent. */
const posted = (page: Page) => log(page).locator("article[data-position] .words")
const texts = (page: Page) => posted(page).allInnerTexts()
const member = (page: Page, user: string) => page.getByRole("complementary", { name: "Members" }).getByText(user)

layer(
  Layer.effectDiscard(
    Effect.gen(function* () {
      if (!hasBrowser) return
      const configFile = join(import.meta.dirname, "../../../examples/chat/page/vite.config.ts")
      yield* promise(() => build({ configFile, logLevel: "error" }))
      shared = yield* browser
    })
  ),
  { excludeTestServices: true, timeout: "60 seconds" }
)("the page of the chat", (it) => {
  it.effect.skipIf(!hasBrowser)(
    "two people on two servers see each other come, type, talk and go",
    () =>
      Effect.gen(function* () {
        const { one, other } = yield* two
        const ada = yield* open(one, "ada")
        const alan = yield* open(other, "alan")
        yield* promise(async () => {
          await create(ada.page, "engines")
          await member(ada.page, "ada").waitFor()
          await enter(alan.page, "engines")
          // Presence, by server and by tab.
          await ada.page.getByRole("listitem").filter({ hasText: "alanonline" }).waitFor()
          await alan.page.getByRole("listitem").filter({ hasText: "adaonline" }).waitFor()
          // Typing.
          await ada.page.getByLabel("Your message").pressSequentially("Hel")
          await alan.page.getByText("ada is typing …").waitFor()
          await say(ada.page, "Hello @alan, and\nwelcome")
          await posted(alan.page).getByText("welcome").waitFor()
          await alan.page.getByText("ada is typing …").waitFor({ state: "detached" })
          assert.strictEqual(await alan.page.locator("mark.me").innerText(), "@alan")
          await say(alan.page, "Good to be here")
          for (const { page } of [ada, alan]) await posted(page).getByText("Good to be here").waitFor()
          assert.deepStrictEqual(await texts(ada.page), ["Hello @alan, and\nwelcome", "Good to be here"])
          assert.deepStrictEqual(await texts(alan.page), await texts(ada.page))
          // What is said in a room that one does not look at is unread, until one does.
          await create(alan.page, "machines")
          await say(ada.page, "Are you still there, @alan?")
          await alan.page.getByLabel("1 unread").waitFor()
          await alan.page.getByLabel("1 mention", { exact: true }).waitFor()
          await alan.page.waitForFunction("document.title === '(1) Chat'")
          await alan.page.getByRole("button", { name: "engines" }).click()
          await posted(alan.page).getByText("still there").waitFor()
          await alan.page.waitForFunction("document.title === 'Chat'")
          // Who closes the window is offline and still a member; who leaves is none.
          await alan.page.close()
          await ada.page.getByRole("listitem").filter({ hasText: "alanoffline" }).waitFor()
        })
        const again = yield* open(other, "grace")
        yield* promise(async () => {
          await enter(again.page, "engines")
          await member(ada.page, "grace").waitFor()
          // It asks first.
          await leave(again.page, "Cancel")
          await member(ada.page, "grace").waitFor()
          await leave(again.page, "Leave")
          await member(ada.page, "grace").waitFor({ state: "detached" })
        })
        assert.deepStrictEqual([...ada.errors, ...alan.errors, ...again.errors], [])
        assert.deepStrictEqual([...ada.asked], [`http://127.0.0.1:${one.port}`])
      }).pipe(Effect.scoped),
    120_000
  )

  it.effect.skipIf(!hasBrowser)(
    "a server is killed while two talk, one reloads, and it comes back: all is there, in the same order, once",
    () =>
      Effect.gen(function* () {
        const { redis, one, other } = yield* two
        const ada = yield* open(one, "ada")
        const alan = yield* open(other, "alan")
        const said: Array<string> = []
        const both = async (from: number, to: number) => {
          for (let i = from; i < to; i++) {
            for (const [page, who] of [
              [ada.page, "ada"],
              [alan.page, "alan"]
            ] as const) {
              said.push(`${who} ${i}.`)
              await say(page, `${who} ${i}.`)
            }
          }
        }
        yield* promise(async () => {
          await create(ada.page, "engines")
          await enter(alan.page, "engines")
          await both(0, 5)
        })
        // No answer to the last ones is waited for: some are on their way when the process dies.
        yield* one.kill("SIGKILL")
        yield* one.ended
        yield* promise(async () => {
          await ada.page.getByText("Connection lost.").waitFor()
          await both(5, 10)
          // Her own wait, his are stored.
          await ada.page.getByText("sending …").nth(4).waitFor()
          await posted(alan.page).getByText("alan 9.").waitFor()
          // There is nobody who could give her the page.
          await ada.page.reload().then(
            () => assert.fail("the server is still there"),
            () => undefined
          )
        })
        yield* start({ redis, port: one.port })
        yield* promise(async () => {
          await ada.page.goto(`http://127.0.0.1:${one.port}/?room=engines`)
          await ada.page.getByRole("main", { name: "Room engines" }).waitFor()
          await both(10, 12)
          for (const { page } of [ada, alan]) {
            for (const text of said) await posted(page).getByText(text, { exact: true }).waitFor()
            await page.getByText("sending …").first().waitFor({ state: "detached" })
          }
        })
        const [hers, his] = yield* promise(() => Promise.all([texts(ada.page), texts(alan.page)]))
        assert.deepStrictEqual(hers, his)
        assert.deepStrictEqual(hers.toSorted(), said.toSorted())
        for (const who of ["ada", "alan"]) {
          const of = (all: ReadonlyArray<string>) => all.filter((text) => text.startsWith(who))
          assert.deepStrictEqual(of(hers), of(said), `${who}'s messages stand in the order in which they were sent`)
        }
        assert.deepStrictEqual([...ada.errors, ...alan.errors], [])
      }).pipe(Effect.scoped),
    120_000
  )

  it.effect.skipIf(!hasBrowser)(
    "what is written stays with its room, and what one writes is in sight; a network that goes is noticed at once",
    () =>
      Effect.gen(function* () {
        const one = yield* start({})
        const name = "ada-of-london"
        const { errors, page } = yield* open(one, name, { viewport: { width: 800, height: 600 } })
        yield* promise(async () => {
          const self = page.getByRole("navigation", { name: "Rooms" }).getByText(name)
          assert.isTrue(await self.evaluate(uncut))
          await create(page, "engines")
          await create(page, "machines")
          await page.getByLabel("Your message").fill("half a sentence")
          await page.getByRole("button", { name: "engines" }).click()
          await page.getByRole("main", { name: "Room engines" }).waitFor()
          assert.strictEqual(await page.getByLabel("Your message").inputValue(), "")
          await page.getByRole("button", { name: "machines" }).click()
          await page.getByRole("main", { name: "Room machines" }).waitFor()
          assert.strictEqual(await page.getByLabel("Your message").inputValue(), "half a sentence")

          await say(page, "long\n".repeat(80))
          await posted(page).getByText("long").waitFor()
          await log(page).evaluate((element: { scrollTop: number }) => void (element.scrollTop = 0))
          await page.getByRole("button", { name: "Newest" }).waitFor()
          await say(page, "down here")
          await posted(page).getByText("down here").waitFor()
          await page.getByRole("button", { name: "Newest" }).waitFor({ state: "detached" })

          const lit = page.getByRole("navigation", { name: "Rooms" }).locator(".dot.on")
          await lit.waitFor()
          await page.context().setOffline(true)
          // The connection itself needs 9 s.
          await page.getByText("Connection lost.").waitFor({ timeout: 4000 })
          await page.locator(".dot.on").first().waitFor({ state: "detached" })
          await page.context().setOffline(false)
          await page.getByText("Connection lost.").waitFor({ state: "detached" })
          await lit.waitFor()
        })
        assert.deepStrictEqual(errors, [])
      }).pipe(Effect.scoped),
    120_000
  )

  it.effect.skipIf(!hasBrowser)(
    "who signs out elsewhere goes in again under the same name, and a room that is gone is not shown",
    () =>
      Effect.gen(function* () {
        const one = yield* start({})
        const chat = yield* client(() => one.port)
        const { errors, page } = yield* open(one, "ada")
        const offered = page.getByRole("button", { name: "Join #engines" })
        yield* promise(() => create(page, "engines"))
        yield* chat.disconnect({ user: "ada" })
        yield* promise(async () => {
          await page.getByText("You have signed out.").waitFor()
          assert.isTrue(await page.getByRole("button", { name: "Create" }).isDisabled())
          assert.isTrue(await page.getByRole("button", { name: "Join a room" }).isDisabled())
          await page.getByRole("button", { name: "Rejoin" }).click()
          await page.getByText("You have not joined a room yet.").waitFor()
          await page.getByRole("navigation", { name: "Rooms" }).getByText("ada").waitFor()
          // The address still names it.
          await offered.click()
          await page.getByRole("main", { name: "Room engines", exact: true }).waitFor()
          await say(page, "hello")
          await posted(page).getByText("hello").waitFor()
        })
        yield* one.kill("SIGKILL")
        yield* one.ended
        yield* start({ port: one.port })
        yield* promise(async () => {
          await page.getByText("You have not joined a room yet.").waitFor()
          await offered.click()
          await page.getByRole("alert").getByText("there is no room engines").waitFor()
          await page.getByLabel("Name of a new room").fill("engines")
          await page.getByRole("button", { name: "Create" }).click()
          await page.getByText("No messages yet.").waitFor()
        })
        assert.deepStrictEqual(errors, [])
      }).pipe(Effect.scoped),
    120_000
  )

  it.effect.skipIf(!hasBrowser)(
    "history is scrolled back to its beginning, a page at a time, without a jump",
    () =>
      Effect.gen(function* () {
        const one = yield* start({})
        const chat = yield* client(() => one.port)
        const said = Array.from({ length: 130 }, (_, i) => `number ${i}`)
        yield* chat.createRoom({ room: "engines", user: "writer-0", id: "make" })
        for (const [i, text] of said.entries()) {
          // Nobody may write as much as this.
          const user = `writer-${Math.floor(i / 20)}`
          if (i % 20 === 0) yield* chat.joinRoom({ room: "engines", user })
          yield* chat.sendMessage({ room: "engines", user, id: `${i}`, text })
        }
        const alan = yield* open(one, "alan")
        yield* promise(async () => {
          await enter(alan.page, "engines")
          await posted(alan.page).getByText("number 129", { exact: true }).waitFor()
          // A page that is painted before it is full asks for more at once.
          const ends = async (atLeast: number) => {
            const shown = await texts(alan.page)
            assert.isAtLeast(shown.length, atLeast)
            assert.deepStrictEqual(shown, said.slice(-shown.length))
          }
          await ends(50)
          const place = posted(alan.page).getByText("number 80", { exact: true })
          await alan.page.getByRole("log").hover()
          await place.scrollIntoViewIfNeeded()
          await posted(alan.page).nth(99).waitFor()
          assert.isTrue(await place.isVisible())
          const { height, y } = (await place.boundingBox())!
          const view = alan.page.viewportSize()!
          assert.isTrue(y >= 0 && y + height <= view.height, "what was looked at is still in sight")
          await ends(100)
          await posted(alan.page).first().scrollIntoViewIfNeeded()
          await alan.page.getByText("This is the beginning of #engines.").waitFor()
          assert.deepStrictEqual(await texts(alan.page), said)
          await alan.page.getByRole("button", { name: "Newest" }).click()
          await alan.page.getByRole("button", { name: "Newest" }).waitFor({ state: "detached" })
        })
        assert.deepStrictEqual(alan.errors, [])
      }).pipe(Effect.scoped),
    120_000
  )

  it.effect.skipIf(!hasBrowser)(
    "hostile names are refused and hostile texts stay text, on a phone in the dark, too",
    () =>
      Effect.gen(function* () {
        const one = yield* start({})
        const ada = yield* open(one, "ada")
        yield* promise(async () => {
          await ada.page.getByRole("button", { name: "Join a room" }).click()
          await ada.page.getByText("There are no rooms yet: create one.").waitFor()
          await create(ada.page, "engines")
          await ada.page.getByRole("button", { name: "Close the list" }).click()
          await ada.page.getByRole("button", { name: "Join a room" }).click()
          await ada.page.getByText("You are in all of them.").waitFor()
          await say(ada.page, hostile)
          await posted(ada.page).getByText("<img src=x").waitFor()
          await ada.page.getByLabel("Name of a new room").fill(hostile)
          await ada.page.getByRole("button", { name: "Create" }).click()
          await ada.page.getByRole("alert").getByText("cannot be a room").waitFor()
        })
        const phone = yield* windowOf(shared, { viewport: { width: 390, height: 844 }, colorScheme: "dark" })
        yield* promise(async () => {
          await phone.goto(`http://127.0.0.1:${one.port}/`)
          await phone.getByLabel("Your name").fill(hostile)
          await phone.getByRole("button", { name: "Join", exact: true }).click()
          await phone.getByRole("alert").getByText("<img src=x").waitFor()
          await phone.getByLabel("Your name").fill("Alan")
          await phone.getByRole("button", { name: "Join", exact: true }).click()
          await enter(phone, "engines")
          await posted(phone).getByText("<img src=x").waitFor()
          assert.deepStrictEqual(await texts(phone), [hostile])
        })
        for (const page of [ada.page, phone]) {
          assert.strictEqual(yield* promise(() => page.locator("img[src=x]").count()), 0)
          assert.notInclude(yield* promise(() => page.title()), "owned")
        }
        const { background, overflow } = yield* promise(() =>
          phone.evaluate<{ readonly overflow: number; readonly background: string }>(
            // As text: it runs in the page, whose types are not those of the tests.
            `({
              overflow: document.documentElement.scrollWidth - innerWidth,
              background: getComputedStyle(document.body).backgroundColor
            })`
          )
        )
        assert.isAtMost(overflow, 0)
        assert.strictEqual(background, "rgb(18, 22, 28)")
        // One pane at a time, and a way back.
        yield* promise(async () => {
          assert.isFalse(await phone.getByRole("navigation", { name: "Rooms" }).isVisible())
          await phone.getByRole("button", { name: "Back to the rooms" }).click()
          await phone.getByRole("navigation", { name: "Rooms" }).waitFor()
        })
        assert.deepStrictEqual(ada.errors, [])
      }).pipe(Effect.scoped),
    120_000
  )
})
