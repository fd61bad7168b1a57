/**
 * Publishing a batch: all of it or none, and once however often the script runs for it. The pattern defines how one message is
 * stored, here and in the script of its commits.
 *
 * @module
 */
import { flag, type Kind, make, opener, type StringKeys, text, touching } from "../connection/Script.ts"
import { keys as kinds, type TopicKeys } from "../wire/Keys.ts"
import { announce, clock, opening } from "../wire/Lua.ts"

/** The parts a message has besides its payload: the bits of its shape. */
export const shape = {
  id: 1,
  headers: 2,
  key: 4,
  version: 8,
  after: 16,
  at: 32,
  untilSettled: 64,
  untilTaken: 128,
  coalescing: 256
} as const

/** These two are not parts. */
const unique = shape.untilSettled | shape.untilTaken

/**
 * How the names begin of delayed messages that coalesce, where they follow from the id: in the keys of delayed messages they need no
 * other record, and whatever ends a delayed message frees the id.
 */
export const coalesced = "l"

/** How a pattern stores messages. */
export interface Storage {
  /** Its own keys of a topic: a single one holds the messages or is read as the topic is opened, and several are all read first. */
  readonly keys: Readonly<Partial<Record<StringKeys<TopicKeys>, Kind>>>
  /** At most two fields of the meta key: `opening` finds what they hold in locals of these names. */
  readonly noted?: ReadonlyArray<string>
  /** Functions that work without a topic. */
  readonly lua: string
  /**
   * Runs as a topic is opened, before anything is written: returns a refusal, or defines these functions. They know its keys by name,
   * `pattern`, `wire`, what is `noted`, and the `setting` of the caller.
   *
   * - `store(payload, id, headers, key, version, unique, coalesces)`: stores a message and returns its name, which is its id where it
   *   has none. `unique`: it has its id to itself until it is settled or taken. `coalesces`: until it begins.
   * - `delay(...)`, the same of a message that is due later: its name, and its member and its body in the keys of those.
   * - `stateOf(place)`: of the message stored there: `d` it is not due yet, `o` some group has not settled it; otherwise
   *   nil. A place is a name, or `d` and a member, and may be followed by what is noted of it.
   * - `standing(id)`: the state of the message that messages of the id coalesce with, or nil; and what `replace` takes, or nil if it
   *   has begun: its member if it is not due.
   * - `replace(state, it, payload, id, headers, key, version)`: replaces it, and returns when it was first published.
   * - `finish()`: called once, after the last one.
   */
  readonly opening: string
  /** What it records after the place of a message that has its id to itself: an expression that knows its `shape`. */
  readonly noting?: string
  /**
   * How it finds messages by the ids that their publishers chose, after the window too: a statement that knows `id`, `name` and, if it
   * is delayed, `member`; and the keys that it needs.
   */
  readonly naming?: { readonly keys: Readonly<Partial<Record<StringKeys<TopicKeys>, Kind>>>; readonly lua: string }
  /** What `store(payload)` does, as an expression, where a function call would be measurable: most messages are only a payload. */
  readonly plain?: string
}

/** All keys of a topic that messages are stored under, by name. */
export const keysOf = ({ keys, naming }: Pick<Storage, "keys" | "naming">) => ({
  ...kinds("meta", "delayed", "delayedBodies", "unique", "wake"),
  ...naming?.keys,
  ...keys
})

/** The keys of a topic that messages are stored under, in the order of `open`. */
export const targetOf = (storage: Storage, keys: TopicKeys): ReadonlyArray<string> =>
  // The names that an object literal was written with are its keys.
  (Object.keys(keysOf(storage)) as Array<StringKeys<TopicKeys>>).map((name) => keys[name])

/** What they hold. */
export const kindsOf = (storage: Storage): ReadonlyArray<Kind> => Object.values(keysOf(storage))

/**
 * Lua. `open(...)`, with the keys of `targetOf`: a reply when nothing may be stored there, otherwise nil and
 *
 * - whether the topic was there before;
 * - `store` of the pattern;
 * - `take(shape, arg, seen)`: stores the message whose payload is ARGV[arg], unless its id is taken, as the key `seen` or the one of
 *   unique ids says; returns `+` when it has an id, `=` and a state for a duplicate, `~` and a state when it has replaced a message,
 *   otherwise its name, and the number of the next argument;
 * - `close()`: called once, after the last message.
 *
 * `now()`: the time, the same in the whole script. `numbered(meta)`, for `delay`: a name, and a member.
 * Uses the locals `pattern`, `wire`, `setting`, and `remembered`: how long message ids are, in ms.
 */
export const storing = ({ noted = [], ...storage }: Storage): string => /* lua */ `${clock}${announce}${opening}
local call, format, band = redis.call, string.format, bit.band
local instant
local function now()
  instant = instant or clock()
  return instant
end
-- Padded, so that messages due in the same millisecond keep their order.
local function numbered(meta)
  local number = call('HINCRBY', meta, 'delayed', 1)
  return format('%.0f-d%d', now(), number), format('%012d', number)
end
${storage.lua}
local function open(${Object.keys(keysOf(storage)).join(", ")})
  local soonest
  local ${["conflict", "known", ...noted].join(", ")} = opening(${["meta", ...noted.map((field) => `'${field}'`)].join(", ")})
  if conflict then return conflict end
${storage.opening}
  local function take(shape, arg, seen)
    local payload, id, headers, key, version, due = ARGV[arg], nil, nil, nil, nil, nil
    arg = arg + 1
    if band(shape, ${shape.id}) ~= 0 then id, arg = ARGV[arg], arg + 1 end
    if band(shape, ${shape.headers}) ~= 0 then headers, arg = ARGV[arg], arg + 1 end
    if band(shape, ${shape.key}) ~= 0 then key, arg = ARGV[arg], arg + 1 end
    if band(shape, ${shape.version}) ~= 0 then version, arg = ARGV[arg], arg + 1 end
    if band(shape, ${shape.after}) ~= 0 then due, arg = now() + ARGV[arg], arg + 1 end
    if band(shape, ${shape.at}) ~= 0 then due, arg = tonumber(ARGV[arg]), arg + 1 end
    local isUnique, coalesces = band(shape, ${unique}) ~= 0, band(shape, ${shape.coalescing}) ~= 0
    if coalesces then
      local limit, state, it = ARGV[arg], standing(id)
      arg = arg + 1
      if state and (limit == '' or not it) then return '=' .. state, arg end
      if state then
        local limit, first = tonumber(limit), replace(state, it, payload, id, headers, key, version)
        -- One that is due stays due.
        if limit > 0 and state == 'd' and tonumber(call('ZSCORE', delayed, it)) > now() then
          due = math.max(now(), math.min(due or 0, first + limit))
          call('ZADD', delayed, due, it)
          soonest = math.min(soonest or due, due)
        end
        return '~' .. state, arg
      end
    elseif isUnique then
      local place = call('HGET', unique, id)
      local state = place and stateOf(place)
      if state then return '=' .. state, arg end
    elseif seen and call('EXISTS', seen) == 1 then return '=', arg end
    local name, member, body
    if due and due > now() then
      name, member, body = delay(payload, id, headers, key, version, isUnique, coalesces)
      call('HSET', delayedBodies, member, body)
      call('ZADD', delayed, due, member)
      soonest = math.min(soonest or due, due)
    else
      name = store(payload, id, headers, key, version, isUnique, coalesces)
    end
    if seen and not coalesces then
      local place = member and 'd' .. member or name
      if not isUnique then
        call('SET', seen, place, 'PX', remembered)
        ${storage.naming?.lua ?? ""}
      else call('HSET', unique, id, ${storage.noting === undefined ? "place" : `place .. ${storage.noting}`}) end
    end
    return id and '+' or name, arg
  end
  local function close()
    if not known then call('HSET', meta, 'pattern', pattern, 'wire', wire) end
    finish()
    if soonest then announce(wake, soonest - now()) end
  end
  return nil, known, store, take, close
end
`

/** Arguments of every script that stores messages. */
export const storingArgs = {
  ...opener,
  /** How long message ids are remembered, ms. */
  remembered: "text"
} as const

/** Of those that store into one topic. */
export const settingArg = {
  /** The pattern's options for it, as its storage needs them. */
  setting: "text"
} as const

/**
 * Stores a batch, or returns the previous reply if it was already stored.
 *
 * Further keys: for each message with an id, the marker that it was stored.
 *
 * Further arguments, for each message: payload, then the parts in its shape, in the order of the bits; and if it coalesces, how many
 * ms after the first of its id it may be put back, or "" if the first one is kept.
 */
export const publishScript = (pattern: string, storage: Storage) => {
  const own = Object.entries(storage.keys)
  return make({
    name: `waybill/${pattern}/publish`,
    mode: "writes",
    keys: {
      ...keysOf(storage),
      /** The number of this publisher's last batch, and its reply. */
      publisher: "string"
    },
    args: {
      ...storingArgs,
      ...settingArg,
      /** Number of the batch, growing. */
      batch: "text",
      /** How long the reply is kept, ms. */
      kept: "text",
      /** One character per message, counted from "0": the bits of its parts. */
      shapes: "text",
      /** One character per message with an id, counted from "0": the other bits, 64 times as small. "" if there are none. */
      uniques: "text"
    },
    replies: {
      OK: {
        /** Separated by commas: the id of the message; `+` if the caller gave it; `=` or `~` and a state, see `take`. */
        answers: text,
        /** The topic was not there before. */
        isNew: flag
      }
      // And `STALE`: a later batch of this publisher was already stored, this one was given up.
    },
    lua: /* lua */ `${storing(storage)}
local refused, known, store, take, close = open(${Object.keys(keysOf(storage)).join(", ")})
if refused then return refused end
local last = call('GETRANGE', publisher, 0, 19)
if known and last ~= '' and not string.find(shapes, '[@-o]') then
  -- A recent publisher has had its keys and permissions checked.
${own.length > 1 ? own.flatMap(([name, kind]) => touching(name, kind)).join("\n") : ""}
else
  -- permissions
  touch()
end
if last ~= '' then
  local number = string.match(last, '^%d+')
  if number == batch then return {'OK', string.sub(call('GET', publisher), #number + 2), 0} end
  if tonumber(number) > tonumber(batch) then return {'STALE'} end
end
local byte, answers, arg, marker = string.byte, {}, moreArgs + 1, moreKeys
for i = 1, #shapes do
  local shape = byte(shapes, i) - 48
  if shape == 0 then
    local payload = ARGV[arg]
    answers[i], arg = ${storage.plain ?? "store(payload)"}, arg + 1
  else
    local seen
    if band(shape, ${shape.id}) ~= 0 then
      marker = marker + 1
      seen = KEYS[marker]
      if uniques ~= '' then shape = shape + 64 * (byte(uniques, marker - moreKeys) - 48) end
    end
    answers[i], arg = take(shape, arg, seen)
  end
end
close()
local answer = table.concat(answers, ',')
call('SET', publisher, batch .. ' ' .. answer, 'PX', kept)
return {'OK', answer, known and 0 or 1}
`
  })
}

/** What a pattern publishes with. */
export interface Publishing {
  readonly script: ReturnType<typeof publishScript>
  /** The pattern's options for a topic, as its storage needs them. */
  readonly settingOf: (topic: string) => string | number
}
