/**
 * Case D11: a program that has `ioredis` 5 and BullMQ installs Waybill beside them, and both work on one Redis. It takes the
 * tarball that `build` leaves and what it depends on from the registry, so that without the one or the other it is skipped.
 */
import { execFile } from "node:child_process"
import { existsSync } from "node:fs"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { assert, it } from "@effect/vitest"
import { RedisServer } from "@waybill/testing"
import { Effect } from "effect"

const tarball = join(import.meta.dirname, "../tarballs/waybill-0.0.0.tgz")

const manifest = {
  private: true,
  type: "module",
  dependencies: { bullmq: "6.7.0", effect: "4.1.0", ioredis: "5.9.3", waybill: `file:${tarball}` }
}

const program = `
import { readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { Queue, Worker } from "bullmq"
import { Deferred, Effect, Layer, Schema } from "effect"
import { Redis } from "ioredis"
import { Consumer, Producer, Topic } from "waybill"
import { IoRedis, RedisStreams } from "waybill/redis"

const url = process.argv[2]
const versionFrom = (file) => createRequire(file)("ioredis/package.json").version
const lines = [0, 1].map(() => new Redis(url, { maxRetriesPerRequest: null }))
const queue = new Queue("jobs", { connection: lines[0] })
const ofBullMq = await new Promise((resolve, reject) => {
  const worker = new Worker("jobs", async (job) => job.data.said, { connection: lines[1] })
  worker.on("completed", (job, said) => worker.close().then(() => resolve(said)))
  worker.on("failed", (job, error) => reject(error))
  queue.add("job", { said: "by BullMQ" }).catch(reject)
})
await queue.close()
for (const line of lines) line.disconnect()

const Said = Topic.make("said", { payload: Schema.String })
const ofWaybill = await Effect.runPromise(
  Effect.gen(function* () {
    const heard = yield* Deferred.make()
    const Hears = Consumer.make(Said, { group: "g" }).pipe(
      Consumer.process((said) => Deferred.succeed(heard, said)),
      Consumer.layer
    )
    yield* Producer.publish(Said, "by Waybill")
    return yield* Effect.provide(Deferred.await(heard), Hears)
  }).pipe(Effect.provide(RedisStreams.layer().pipe(Layer.provide(IoRedis.layerUrl(url)))))
)
const result = {
  ofBullMq,
  ofWaybill,
  ofProgram: versionFrom(import.meta.filename),
  ofLibrary: versionFrom(new URL(import.meta.resolve("waybill/redis")).pathname)
}
process.stdout.write("\\n" + JSON.stringify(result))
`

const run = promisify(execFile)

/** What npm says where it cannot reach its registry, or where it may not take a package from it. */
const unreachable =
  /\b(?:ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|ENOTCACHED|E403)\b/

/** Asked first: without its registry npm may tell of a conflict of its own making. */
const reached = (): Promise<boolean> =>
  run("npm", ["view", `bullmq@${manifest.dependencies.bullmq}`, "version", "--fetch-retries=0"], {
    timeout: 30_000
  }).then(
    () => true,
    () => false
  )

const install = (folder: string): Promise<string | undefined> =>
  run("npm", ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--fetch-retries=0"], {
    cwd: folder,
    timeout: 150_000
  }).then(
    () => undefined,
    (error: Error & { readonly killed?: boolean; readonly stderr?: string }) => {
      if (error.killed === true || unreachable.test(error.stderr ?? "")) return "npm does not reach its registry"
      throw error
    }
  )

it("case D11: a program with ioredis 5 and BullMQ installs Waybill beside them, and both run", async ({ skip }) => {
  const skipped = (why: string) => {
    console.log(`case D11 is skipped: ${why}`)
    return skip(why)
  }
  if (!existsSync(tarball)) return skipped("there is no tarball, which build makes")
  if (!(await reached())) return skipped("npm is not there, or does not reach its registry")
  const folder = await mkdtemp(join(tmpdir(), "waybill-beside-"))
  try {
    await writeFile(join(folder, "package.json"), JSON.stringify(manifest))
    await writeFile(join(folder, "main.js"), program)
    const problem = await install(folder)
    if (problem !== undefined) return skipped(problem)
    const { stdout } = await Effect.runPromise(
      Effect.flatMap(RedisServer.RedisServer, ({ url }) =>
        Effect.promise(() => run(process.execPath, ["main.js", url], { cwd: folder, timeout: 60_000 }))
      ).pipe(Effect.provide(RedisServer.layer()))
    )
    assert.deepStrictEqual(JSON.parse(stdout.slice(stdout.lastIndexOf("\n"))), {
      ofBullMq: "by BullMQ",
      ofWaybill: "by Waybill",
      ofProgram: "5.9.3",
      ofLibrary: "6.0.0"
    })
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}, 240_000)
