/**
 * A Lua script with the names of its keys and arguments, and the shapes of its replies, each stated once. From the names come the
 * locals of the Lua text, the type of a call, and the check of what the keys hold.
 *
 * @module
 */

/** A script and the name that errors give it. */
export interface Script {
  readonly name: string
  readonly lua: string
  /** How it publishes, if it does and must: the number of the channel among its keys. */
  readonly announces?: { readonly command: "PUBLISH" | "SPUBLISH"; readonly key: number }
}

/** What a key holds. A channel is a name to publish on, and holds nothing. */
export type Kind = "string" | "list" | "set" | "zset" | "hash" | "stream" | "channel"

export type Argument = string | Uint8Array | number

/** Reads one part of a reply, or throws: then the script is not the expected one. */
export type Part<A> = (part: unknown) => A

const strange = (part: unknown): never => {
  throw new Error(`an invalid reply: ${String(part).slice(0, 100)}`)
}

export const text: Part<string> = (part) =>
  typeof part === "string" ? part : part instanceof Uint8Array ? part.toString() : strange(part)

export const bytes: Part<Buffer> = (part) => (Buffer.isBuffer(part) ? part : strange(part))

export const number: Part<number> = (part) => (typeof part === "number" ? part : strange(part))

export const bit: Part<0 | 1> = (part) => (part === 1 || part === 0 ? part : strange(part))

/** 1 means yes. */
export const flag: Part<boolean> = (part) => bit(part) === 1

export const listOf =
  <A>(one: Part<A>): Part<ReadonlyArray<A>> =>
  (part) =>
    Array.isArray(part) ? part.map((each) => one(each)) : strange(part)

/** Parts in sequence, under their names in TypeScript. */
export type Shape = Readonly<Record<string, Part<unknown>>>

export type Shaped<S extends Shape> = { readonly [Name in keyof S]: ReturnType<S[Name]> }

const shaped = <S extends Shape>(shape: S, parts: ReadonlyArray<unknown>, from: number): Shaped<S> => {
  const result: Record<string, unknown> = {}
  let at = from
  for (const name in shape) result[name] = shape[name]?.(parts[at++])
  // Each name of the shape has been given what its part reads.
  return result as Shaped<S>
}

export const row =
  <S extends Shape>(shape: S): Part<Shaped<S>> =>
  (part) =>
    Array.isArray(part) ? shaped(shape, part, 0) : strange(part)

/** The parts that follow, by tag. */
type Replies = Readonly<Record<string, Shape>>

type Reply<R extends Replies> = {
  [Tag in keyof R & string]: { readonly _tag: Tag } & Shaped<R[Tag]>
}[keyof R & string]

/** `number` is a number in Lua, `text` whatever was sent. */
type Arguments = Readonly<Record<string, "text" | "number">>

/** For a script that opens a topic: what it is opened as. Added to every call automatically. */
export const opener = { pattern: "text", wire: "text" } as const

export type Given<A extends Arguments> = {
  readonly [Name in Exclude<keyof A, keyof typeof opener>]: A[Name] extends "number" ? number : Argument
}

/** A script whose keys, arguments and replies are known. */
export interface TypedScript<Key extends string, Args, Reply> extends Script {
  /** In the order of KEYS. */
  readonly keyNames: ReadonlyArray<Key>
  /** In the order of ARGV. */
  readonly argNames: ReadonlyArray<(keyof Args & string) | keyof typeof opener>
  /** What the named keys hold, and those that follow them, if they are alike. */
  readonly kinds: ReadonlyArray<Kind>
  readonly moreKinds: Kind | undefined
  /** Strings in the reply stay bytes: they need not be text. */
  readonly bytes: boolean
  /** Its own reply, or undefined. */
  readonly decode: (reply: ReadonlyArray<unknown>) => Reply | undefined
}

/** The definition of a script. */
export interface Definition<
  K extends Readonly<Record<string, Kind>>,
  A extends Arguments = Arguments,
  R extends Replies = Replies
> {
  readonly name: string
  /**
   * `writes` something new: a server that is out of memory refuses it before it begins. `drains`: it only frees or moves, as
   * consumers must be able to on a server that is out of memory. `reads`: it writes nothing.
   */
  readonly mode: "writes" | "drains" | "reads"
  readonly keys: K
  /** What the keys after the named ones hold. */
  readonly moreKeys?: Kind
  /** None has the name of a key. */
  readonly args?: A
  readonly replies: R
  readonly bytes?: boolean
  readonly announces?: { readonly command: "PUBLISH" | "SPUBLISH"; readonly key: keyof K & string }
  /**
   * Finds its named keys and arguments in locals of these names; further ones begin after KEYS[moreKeys] and ARGV[moreArgs].
   * `touch()` reads every key, and so ends the script before it has written anything if one holds a foreign value.
   */
  readonly lua: string
}

/** The names that an object literal was written with are its keys. */
export const namesOf = <T extends object>(table: T) => Object.keys(table) as Array<keyof T & string>

const headers = { writes: "#!lua\n", drains: "#!lua flags=allow-oom\n", reads: "#!lua flags=no-writes,allow-oom\n" }

export const make = <
  const K extends Readonly<Record<string, Kind>>,
  const A extends Arguments = Record<never, never>,
  const R extends Replies = Record<never, never>
>(
  definition: Definition<K, A, R>
): TypedScript<keyof K & string, Given<A>, Reply<R>> => {
  const { announces, keys, name, replies } = definition
  const keyNames = namesOf(keys)
  const argNames = Object.keys(definition.args ?? {}) as Array<(keyof Given<A> & string) | keyof typeof opener>
  return {
    name,
    lua: headers[definition.mode] + prelude(definition) + definition.lua,
    keyNames,
    kinds: Object.values(keys),
    moreKinds: definition.moreKeys,
    argNames,
    bytes: definition.bytes === true,
    ...(announces && { announces: { command: announces.command, key: keyNames.indexOf(announces.key) + 1 } }),
    decode: (reply) => {
      const tag = text(reply[0])
      const shape = replies[tag]
      // The tag is the one of the shape.
      return shape && ({ _tag: tag, ...shaped(shape, reply, 1) } as unknown as Reply<R>)
    }
  }
}

/** Reads next to nothing of a key, and fails if it holds something else. A user who may run our scripts may run these commands. */
export const touches = {
  string: ["GETRANGE", "0, 0"],
  list: ["LLEN"],
  set: ["SISMEMBER", "''"],
  zset: ["ZRANGE", "1, 0"],
  hash: ["HEXISTS", "''"],
  stream: ["XLEN"],
  channel: []
} as const satisfies Record<Kind, ReadonlyArray<string>>

/** Lua that does so with the key in this local. */
export const touching = (key: string, kind: Kind): Array<string> => {
  const [command, ...rest] = touches[kind]
  return command === undefined ? [] : [`redis.call('${command}', ${[key, ...rest].join(", ")})`]
}

/** `misfit(key, kind)`, in Lua: the error of doing so, or nil. A user without permission gets one too. */
export const misfits = /* lua */ `
local touches = {${Object.entries(touches)
  .map(
    ([kind, [command, ...rest]]) => `${kind} = {${command === undefined ? "" : [`'${command}'`, ...rest].join(", ")}}`
  )
  .join(", ")}}
local function misfit(key, kind)
  local touch = touches[kind]
  if not touch then return 'ERR unknown type ' .. kind end
  local reply = touch[1] and redis.pcall(touch[1], key, unpack(touch, 2))
  return type(reply) == 'table' and reply.err or nil
end
`

const prelude = ({
  args = {},
  keys,
  lua,
  moreKeys,
  name
}: Pick<
  Definition<Readonly<Record<string, Kind>>, Arguments, Replies>,
  "name" | "keys" | "moreKeys" | "args" | "lua"
>): string => {
  const names = Object.keys(keys)
  const twice = names.find((name) => name in args)
  if (twice !== undefined) throw new Error(`${name} has a key and an argument of the name ${twice}`)
  const arguments_ = Object.entries(args).map(([name, kind], i) => [
    name,
    kind === "number" ? `tonumber(ARGV[${i + 1}])` : `ARGV[${i + 1}]`
  ])
  const used = (word: string): boolean => lua.includes(word)
  const touched = Object.entries(keys).flatMap(([name, kind]) => touching(name, kind))
  return [
    ...(names.length === 0 ? [] : [`local ${names.join(", ")} = ${names.map((_, i) => `KEYS[${i + 1}]`).join(", ")}`]),
    ...(arguments_.length === 0
      ? []
      : [`local ${arguments_.map(([name]) => name).join(", ")} = ${arguments_.map(([, value]) => value).join(", ")}`]),
    ...(used("moreKeys") || (used("touch()") && moreKeys !== undefined) ? [`local moreKeys = ${names.length}`] : []),
    ...(used("moreArgs") ? [`local moreArgs = ${arguments_.length}`] : []),
    ...(used("touch()")
      ? [
          "local function touch()",
          ...touched.map((call) => `  ${call}`),
          ...(moreKeys === undefined
            ? []
            : [`  for k = moreKeys + 1, #KEYS do ${touching("KEYS[k]", moreKeys).join()} end`]),
          "end"
        ]
      : []),
    ""
  ].join("\n")
}

/** The names of keys: the others are functions of a name. */
export type StringKeys<Keys> = { [Name in keyof Keys]: Keys[Name] extends string ? Name : never }[keyof Keys] & string

/** The keys of a call in the order of KEYS. */
export const keysOf = <Key extends string>(
  { keyNames }: TypedScript<Key, never, unknown>,
  keys: NoInfer<Readonly<Record<Key, string>>>
): Array<string> => keyNames.map((name) => keys[name])
