/**
 * Removing a topic or a group. For a topic, the script inspects it as the inspector does, and deletes its keys in the same step
 * if nothing of it is in use.
 *
 * @module
 */
import { type Kind, make, type Script } from "../connection/Script.ts"

/** Some keys of a topic, and arguments, as a script of the inspector takes them. */
export interface Inspection {
  readonly keys: ReadonlyArray<string>
  readonly kinds: ReadonlyArray<Kind>
  readonly args: ReadonlyArray<string>
}

/** What there is of a topic. */
export interface Belongings {
  /** Hashes that no inspection uses. */
  readonly others: ReadonlyArray<string>
  /** Sorted sets of MessagePlaces.ts. */
  readonly indexes: ReadonlyArray<string>
  readonly topic: Inspection
  readonly groups: ReadonlyArray<Inspection & { readonly group: string; readonly state: string }>
}

/** `lives(state, consumer, left)`: with a heartbeat that lasts for so long. One that stayed ahead when the clock went back does not count. */
const living = /* lua */ `
local function lives(state, consumer, left)
  local lease = tonumber(redis.call('HGET', state, 'lease:' .. consumer))
  return not lease or left <= lease
end
`

/**
 * `occupied(group, now)`: the refusal while a consumer of the group lives, or nil. It uses the locals `consumers` and `state`, the keys.
 */
export const occupying = /* lua */ `${living}
local function occupied(group, now)
  local living = redis.call('ZRANGEBYSCORE', consumers, string.format('(%.0f', now), '+inf', 'WITHSCORES')
  for i = 1, #living, 2 do
    if lives(state, living[i], tonumber(living[i + 1]) - now) then return {'IN USE', 'consumers', group} end
  end
end
`

/** A script's text as the body of a Lua function of KEYS and ARGV. */
export const bodyOf = (script: Script): string => script.lua.slice(script.lua.indexOf("\n"))

/**
 * `overview` and `describe` are bodies of Lua functions of KEYS and ARGV. The first returns the reply of the script `overview` of
 * claims, followed by the names of any further groups. The second returns the `Figures` of a group after `OK`. The first may leave
 * what the second needs in the table `seen`.
 *
 * Keys: that of the groups; those of schedules and of their entries; those that no inspection uses, hashes and then indexes; then
 * those of each inspection.
 */
export const removal = (name: string, overview: string, describe: string) =>
  make({
    name,
    mode: "drains",
    keys: {},
    args: {
      /**
       * As JSON: `force`, whether only living consumers keep the topic; `others` and `indexes`, how many keys no inspection uses;
       * `topic` and `groups`, the inspections: `keys`, how many, and `args`; of a group `group`, its name, and `state`, the place of
       * that key among its keys.
       */
      inspections: "text"
    },
    replies: {
      /** Nothing is left. */
      OK: {},
      /** Expired messages remain to be passed: call again. */
      AGAIN: {}
    },
    lua: /* lua */ `${living}
local seen = {}
local function overview(KEYS, ARGV)
${overview}
end
local function describe(KEYS, ARGV)
${describe}
end
local groups = KEYS[1]
local asked = cjson.decode(inspections)
local from = 3 + asked.others
for k = 3, from do redis.call('HEXISTS', KEYS[k], '') end
for k = from + 1, from + asked.indexes do redis.call('ZRANGE', KEYS[k], 1, 0) end
from = from + asked.indexes
local scheduled = #redis.call('ZRANGE', KEYS[2], 0, 0) > 0
local function keysOf(inspection)
  local keys = {}
  for i = 1, inspection.keys do keys[i] = KEYS[from + i] end
  from = from + inspection.keys
  return keys
end
local info = overview(keysOf(asked.topic), asked.topic.args)
if info[1] ~= 'OK' then return info end
if not asked.force then
  if info[4] > 0 then return {'IN USE', 'delayed', ''} end
  if scheduled then return {'IN USE', 'schedules', ''} end
  if #asked.groups == 0 and info[3] > 0 then return {'IN USE', 'messages', ''} end
end
local known = {}
for _, inspection in ipairs(asked.groups) do
  known[inspection.group] = true
  local keys = keysOf(inspection)
  local figures = describe(keys, inspection.args)
  if figures[1] ~= 'OK' then return figures end
  for _, what in ipairs({{2, 'messages'}, {3, 'pending'}, {5, 'waiting'}, {7, 'deadLetters'}}) do
    if not asked.force and figures[what[1]] > 0 then return {'IN USE', what[2], inspection.group} end
  end
  local living = figures[10]
  for i = 1, #living, 3 do
    if lives(keys[inspection.state], living[i], living[i + 2]) then return {'IN USE', 'consumers', inspection.group} end
  end
end
-- A group that is newer than the caller's inspection has a consumer.
for _, names in ipairs({redis.call('SMEMBERS', groups), info[8] or {}}) do
  for _, group in ipairs(names) do
    if not known[group] then return {'IN USE', 'consumers', group} end
  end
end
for _, key in ipairs(KEYS) do redis.call('UNLINK', key) end
return {'OK'}
`
  })

export type RemovalScript = ReturnType<typeof removal>
