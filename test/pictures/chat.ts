/**
 * `node test/pictures/chat.ts`: takes the pictures of examples/chat, of a conversation on a server in memory. Build the page
 * first (`pnpm --dir examples/chat run page`).
 */
import { NodeRuntime } from "@effect/platform-node"
import { Effect, Stream } from "effect"
import { browser } from "../cli/Browser.ts"
import { client, start } from "../examples/chat/ServerProcess.ts"
import { desktop, phone, take } from "./Pictures.ts"

const conversation = [
  ["grace", "Good morning! I have found the bug in the relay. It was a bug."],
  ["alan", "An actual one?"],
  ["grace", "A moth. It is taped into the log book, with a note."],
  ["edsger", "Then we should speak of errors and not of bugs: nobody put a moth there by accident of thought."],
  ["alan", "@edsger the moth may disagree"],
  ["alan", "@ada are the tables for the Bernoulli numbers ready? We could run them tonight."],
  ["grace", "The machine is free from six on.\nI can set it up, if somebody brings the cards."]
] as const

const elsewhere = [
  ["machines", "alan", "The tape is eight metres longer than before. Slowly it looks unlimited."],
  ["machines", "edsger", "It still halts, I am told."],
  ["tea", "grace", "@ada there is cake"]
] as const

const others = ["grace", "alan", "edsger"]

const pictures = Effect.gen(function* () {
  const server = yield* start({})
  const chat = yield* client(() => server.port)
  for (const room of ["engines", "machines", "proofs", "tea"]) {
    yield* chat.createRoom({ room, user: "alan", id: room })
    for (const user of ["ada", "edsger", "grace", "barbara"]) yield* chat.joinRoom({ room, user })
  }
  for (const user of others) {
    const connected = chat.connect({ user, tab: user, positions: {} })
    yield* Stream.runDrain(connected).pipe(Effect.ignore, Effect.forkScoped)
  }
  for (const [i, [user, text]] of conversation.entries()) {
    yield* chat.sendMessage({ room: "engines", user, id: `${i}`, text })
  }
  const chromium = yield* browser
  const show = Effect.fnUntraced(function* (user: string, options: typeof desktop | typeof phone) {
    const page = yield* Effect.promise(() => chromium.newPage(options))
    yield* Effect.promise(async () => {
      await page.goto(`http://127.0.0.1:${server.port}/?room=engines`)
      await page.getByLabel("Your name").fill(user)
      await page.getByRole("button", { name: "Join", exact: true }).click()
      await page.getByText("if somebody brings the cards").waitFor()
    })
    return page
  })
  const large = yield* show("ada", desktop)
  const small = yield* show("grace", phone)
  yield* Effect.promise(async () => {
    await large.getByLabel("Your message").fill("They are ready, and punched. See you at six!")
    await large.keyboard.press("Enter")
    for (const page of [large, small]) await page.locator("article[data-position]").nth(7).waitFor()
  })
  for (const [i, [room, user, text]] of elsewhere.entries()) {
    yield* chat.sendMessage({ room, user, id: `elsewhere-${i}`, text })
  }
  yield* Effect.promise(() => large.getByLabel("1 mention").waitFor())
  yield* chat.typing({ room: "engines", user: "edsger" })
  for (const page of [large, small]) yield* Effect.promise(() => page.getByText("edsger is typing").waitFor())
  yield* take(large, "chat")
  yield* take(small, "chat-phone")
})

pictures.pipe(Effect.scoped, NodeRuntime.runMain)
