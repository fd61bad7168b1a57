/** The lines of attempts: bounded whatever a failure says, and text that any store hands on. */
import { assert, describe, it } from "@effect/vitest"
import { Duration } from "effect"
import { Settlement } from "waybill"
import { joined, noted, read } from "../../packages/waybill/src/internal/Attempts.ts"

const ending = (tag: string, message: string) => Settlement.retry(Duration.zero, "cause", undefined, { tag, message })
const now = 1_795_447_473_548

describe("the log of attempts", () => {
  it.each([
    ["short", "host-1", "Busy", "no slot"],
    ["nothing at all", "", "", ""],
    ["what stands between the parts", "a,b@c|d;e=f%g+h", "|@,;=%+", "=1@2,=1@2 %20 |x"],
    ["lines and other white space", "a\tb", "a\u00a0b", "a\r\n\u2028b\ufeffc"],
    ["control characters", "\u001f", "\u0000", "a\u001fb\u0085c\u007f"],
    ["halves of characters", "\ud83d", "\udc00", "\ud83d and \udc00"],
    ["long text", "c".repeat(500), "t".repeat(500), "m".repeat(500)],
    ["long text of many bytes", "ü".repeat(500), "🚚".repeat(500), "漢".repeat(500)],
    ["long text that is encoded", "%".repeat(500), ",".repeat(500), "@".repeat(500)]
  ])("holds %s", (_, consumer, tag, message) => {
    const line = noted("", 1234, consumer, ending(tag, message), now)
    assert.isAtMost(Buffer.byteLength(line), 200)
    // Older builds read `=1@2` as a row, and end a tally with white space or a unit separator.
    assert.notMatch(line, /[\s\p{Cc};=]/u)
    assert.isTrue(line.isWellFormed())
    const [attempt, ...others] = read(line)
    assert.deepStrictEqual(others, [])
    assert.strictEqual(attempt?.attempt, 1234)
    assert.strictEqual(attempt?.endedAt, now)
    for (const [kept, said] of [
      [attempt!.consumer, consumer],
      [attempt!.tag, tag],
      [attempt!.message, message]
    ] as const) {
      const whole = said.toWellFormed().replace(/\s+/g, " ").trim()
      if (kept !== whole) assert.isTrue(kept.endsWith("...") && whole.startsWith(kept.slice(0, -3)), kept)
      if (whole.length < 20) assert.strictEqual(kept, whole)
    }
  })

  it("keeps the last ten, and reads nothing that somebody else wrote", () => {
    let log = ""
    for (let attempt = 1; attempt <= 25; attempt++) log = noted(log, attempt, "c", ending("Busy", ""), now)
    const numbers = (text: string) => read(text).map(({ attempt }) => attempt)
    assert.deepStrictEqual(numbers(log), [16, 17, 18, 19, 20, 21, 22, 23, 24, 25])
    assert.deepStrictEqual(numbers(joined(log, "|26,c,Busy,@1")), [17, 18, 19, 20, 21, 22, 23, 24, 25, 26])
    for (const foreign of ["|", "||", "1,c,Busy,@1|x", "|1,c,Busy@1", "|1,c,Busy,no+time@", "|-1,c,t,m@1"]) {
      assert.deepStrictEqual(
        numbers(foreign).filter((attempt) => attempt !== 1),
        [],
        foreign
      )
      assert.isAtMost(numbers(foreign).length, 1)
    }
    assert.strictEqual(read("|1,%zz,%,%e0@1")[0]?.consumer, "%zz")
  })
})
