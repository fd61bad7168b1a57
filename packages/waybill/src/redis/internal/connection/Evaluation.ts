/**
 * Sends a script to the server: by its hash, and with its text if the server does not know it. Missing permissions are found
 * before the first write, and named.
 *
 * @module
 */
import { createHash } from "node:crypto"
import { memoize } from "effect/Function"
import type { Redis } from "ioredis"
import { listOf, type Script, text } from "./Script.ts"
import { isDenied } from "./ServerError.ts"

/** What is sent to the server, and the name under which the server caches it. */
const sent = memoize((script: Script) => {
  const lua = unpacking(guarded(script.lua))
  return { lua, sha1: createHash("sha1").update(lua).digest("hex") }
})

/**
 * How many words the shortest form of a command has after its key, subcommands after their command: servers newer than
 * 8.0.1 do not tell the permission of a shorter form. TIME has no key.
 */
const commandsByWords: ReadonlyArray<readonly [words: number, commands: string]> = [
  [-1, "TIME"],
  [0, "DEL, EXISTS, GET, HGETALL, HLEN, LLEN, LPOP, MGET, PEXPIRETIME, RPOP, SCARD, SMEMBERS, TYPE, UNLINK"],
  [0, "XINFO GROUPS, XINFO STREAM, XLEN, ZCARD"],
  [1, "HDEL, HEXISTS, HGET, HMGET, LINDEX, LPOS, LPUSH, PEXPIRE, PEXPIREAT, RPUSH, SADD, SET, SISMEMBER"],
  [1, "SMISMEMBER, SREM, XDEL, XGROUP DESTROY, XINFO CONSUMERS, XPENDING, ZRANK, ZREM, ZSCORE"],
  [2, "GETRANGE, HINCRBY, HSET, HSETNX, LRANGE, LREM, XACK, XGROUP CREATE, XGROUP DELCONSUMER, XGROUP SETID"],
  [2, "XRANGE, XREVRANGE, XTRIM, ZADD, ZCOUNT, ZRANGE, ZRANGEBYSCORE"],
  [3, "XADD"],
  [4, "XCLAIM"]
]
export const wordsBehindKey: Readonly<Record<string, number>> = Object.fromEntries(
  commandsByWords.flatMap(([words, commands]) => commands.split(", ").map((command) => [command, words]))
)

/** The commands with a row above that `calls` finds in a script, a subcommand after its command. */
const commandsIn = (lua: string, calls: RegExp): ReadonlySet<string> =>
  new Set(
    [...lua.matchAll(calls)]
      .map(([, word = "", next]) => (`${word} ${next}` in wordsBehindKey ? `${word} ${next}` : word))
      .filter((command) => command in wordsBehindKey)
  )

/**
 * A script that writes checks all its permissions before it does anything: one that is refused in the middle has already
 * written, and nothing undoes that. Servers that cannot check let it pass. Commands run with `pcall` are optional. A
 * script that need not check in every call marks the place with a line `-- permissions`.
 */
const guarded = (lua: string): string => {
  const [header = "", ...rest] = lua.split("\n")
  if (!header.startsWith("#!lua") || header.includes("no-writes")) return lua
  const checks = [...commandsIn(lua, /\b(?:call|ask)\('([A-Z]+)'(?:, '([A-Z]+)')?/g)].map((command) => {
    const words = wordsBehindKey[command] ?? 0
    const said = command.split(" ").map((word) => `'${word}'`)
    const key = words < 0 ? [] : ["KEYS[1]", ...Array<string>(words).fill("''")]
    return `  need('${command.toLowerCase().replace(" ", "|")}', ${[...said, ...key].join(", ")})`
  })
  const asking = [
    "if redis.acl_check_cmd then",
    "  local function need(command, ...)",
    "    if redis.acl_check_cmd(...) then return end",
    '    error({err = "NOPERM this user has no permissions to run the \'" .. command .. "\' command"})',
    "  end",
    ...checks,
    "end"
  ].join("\n")
  return lua.includes(here) ? lua.replace(here, () => asking) : [header, asking, ...rest].join("\n")
}

const here = "-- permissions"

/** How many arguments a command may have: managed servers refuse one with more. */
const maxArguments = 3999

/** Precedes packed arguments. It contains a space, unlike the first argument of any script. */
const packed = "packed arguments"

/** Packed arguments appear in ARGV as if they were not. */
const unpacking = (lua: string): string =>
  lua.replace(
    "\n",
    `\nlocal ARGV = ARGV\nif #ARGV == 2 and ARGV[1] == '${packed}' then ARGV = cmsgpack.unpack(ARGV[2]) end\n`
  )

/** The same arguments, as one if they are too many for a command. The keys are unchanged, because they have to be declared. */
const fitting = (
  keys: number,
  args: ReadonlyArray<string | Uint8Array | number>
): ReadonlyArray<string | Uint8Array | number> => (keys + args.length + 3 > maxArguments ? [packed, pack(args)] : args)

/** MessagePack: an array of strings, each with its length in four bytes. */
export const pack = (args: ReadonlyArray<string | Uint8Array | number>): Buffer => {
  const head = (type: number, length: number) => {
    const bytes = Buffer.allocUnsafe(5)
    bytes[0] = type
    bytes.writeUInt32BE(length, 1)
    return bytes
  }
  const parts: Array<Uint8Array> = [head(0xdd, args.length)]
  for (const arg of args) {
    const bytes = arg instanceof Uint8Array ? arg : Buffer.from(String(arg))
    parts.push(head(0xdb, bytes.length), bytes)
  }
  return Buffer.concat(parts)
}

/**
 * Finds out why a script was refused. Its keys need not be declared, because nothing is touched.
 *
 * | ARGV | |
 * |---|---|
 * | 1 | how many keys |
 * | 2... | the keys |
 * | then | for each command: its words, how many belong after its key, and the key it is about |
 *
 * | reply | |
 * |---|---|
 * | `key`, key | the first key that the user has no access to |
 * | `command`, command | the first command that it may not run, a subcommand after `|` |
 * | nothing | neither |
 */
export const refusal: Script = {
  name: "waybill/refusal",
  lua: `#!lua flags=no-writes
local last = 1 + ARGV[1]
for i = 2, last do
  -- A user who has come here may run EVAL, so only the key is in question.
  local known, allowed = pcall(redis.acl_check_cmd, 'EVAL', '', '1', ARGV[i])
  if known and not allowed then return {'key', ARGV[i]} end
end
for i = last + 1, #ARGV, 3 do
  local words, behind = {}, tonumber(ARGV[i + 1])
  for word in string.gmatch(ARGV[i], '%a+') do words[#words + 1] = word end
  if behind >= 0 then words[#words + 1] = ARGV[1 + ARGV[i + 2]] end
  for _ = 1, behind do words[#words + 1] = '' end
  local known, allowed = pcall(redis.acl_check_cmd, unpack(words))
  if known and not allowed then return {'command', string.lower((string.gsub(ARGV[i], ' ', '|')))} end
end
`
}

/** The arguments of `refusal` for a script: every command that it names may be the reason. */
const suspicions = (script: Script, keys: ReadonlyArray<string | Buffer>): ReadonlyArray<string | Buffer | number> => [
  keys.length,
  ...keys,
  ...[...commandsIn(script.lua, /'([A-Z]{3,})'(?=(?:, '([A-Z]{3,})')?)/g)].flatMap((command) => [
    command,
    wordsBehindKey[command] ?? 0,
    1
  ]),
  ...(script.announces === undefined ? [] : [script.announces.command, 1, script.announces.key])
]

/** A server that does not know the script has not run it, so sending its text then does not run it twice. */
export const evaluate = (
  client: Redis,
  script: Script,
  keys: ReadonlyArray<string | Buffer>,
  args: ReadonlyArray<string | Uint8Array | number>,
  buffers: boolean,
  /** Runs before each command. */
  before?: (client: Redis) => void,
  /** Runs behind each command; what it does behind the one that ran the script is waited for. */
  behind?: (client: Redis) => Promise<void>
): Promise<unknown> => {
  let last: Promise<void> | undefined
  const call = (command: string, scriptOrHash: string): Promise<unknown> => {
    before?.(client)
    const head: Array<string | Buffer | number> = [scriptOrHash, keys.length]
    const all = head.concat(keys, fitting(keys.length, args).map(toArgument))
    const reply = buffers ? client.callBuffer(command, all) : client.call(command, all)
    last = behind?.(client)
    // Nobody waits for it if the script was not run.
    last?.catch(() => {})
    return reply
  }
  /** The server does not say which key it was about, nor within a script which command: find out, and say it in the server's words. */
  const explain = async (error: unknown): Promise<never> => {
    if (isDenied(error) && script.announces !== undefined && error.message.includes("channel")) {
      error.message = `NOPERM this user has no permissions to access the channel '${keys[script.announces.key - 1]}'`
    } else if (isDenied(error)) {
      const asked = client.eval(refusal.lua, 0, ...suspicions(script, keys)).then(listOf(text))
      const [what, name] = await asked.catch((): ReadonlyArray<string> => []) // it is no list if it was neither
      if (what === "command") error.message = `NOPERM this user has no permissions to run the '${name}' command`
      if (what === "key") error.message = `NOPERM this user has no permissions to access the key '${name}'`
    }
    throw error
  }
  const { lua, sha1 } = sent(script)
  const reply = call("EVALSHA", sha1).catch((error: unknown) =>
    error instanceof Error && error.message.startsWith("NOSCRIPT") ? call("EVAL", lua).catch(explain) : explain(error)
  )
  return behind === undefined ? reply : reply.then((value) => last?.then(() => value))
}

/** ioredis only accepts bytes as `Buffer`; the view copies nothing. */
const toArgument = (value: string | Uint8Array | number): string | Buffer | number =>
  value instanceof Uint8Array && !Buffer.isBuffer(value)
    ? Buffer.from(value.buffer, value.byteOffset, value.byteLength)
    : (value as string | Buffer | number)
