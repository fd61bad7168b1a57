/**
 * Applying commits, many in one call, each as a whole: ownership and completion are checked first, then conditions and the targets
 * of writes, then everything is written, the marker last.
 *
 * @module
 */
import {
  flag,
  type Given,
  type Kind,
  listOf,
  make,
  misfits,
  number,
  row,
  type Shaped,
  text
} from "../connection/Script.ts"
import { kindsOf, type Storage, storing, storingArgs } from "../publish/PublishScript.ts"

/** What a pattern contributes: its own keys and arguments, and Lua for its own deliveries and messages. */
export interface CommitParts<Keys, Args> {
  readonly keys: Keys
  readonly args: Args
  /** How the messages of a commit are stored. */
  readonly storage: Storage
  /** How many arguments a delivery has. */
  readonly delivery: number
  /**
   * Defines these functions. `i` is where the arguments of the delivery begin; those of all deliveries are together, after
   * ARGV[moreArgs].
   *
   * - `owns(i)`: whether the delivery is the caller's.
   * - `leave(i)`: the delivery, of which `owns` was just asked, is done. `leaving()`: called once, after the last one.
   */
  readonly lua: string
}

const year = 365 * 24 * 60 * 60 * 1000

/** Arguments of every commit script. */
const own = {
  ...storingArgs,
  /** How many. */
  deliveries: "number",
  /** How long a marker lasts, ms. */
  ttl: "number"
} as const

export type CommitArgs = Given<typeof own>

const replies = {
  OK: {
    /**
     * One character per delivery: `O` applied, `D` done by another delivery of the same id: both leave the group; `R` applied by an
     * earlier call; `F` not the caller's; `X` refused, nothing was changed; `P` refused in part, never to be applied again; `C` a condition
     * does not hold, nothing was changed: these three still belong to the caller.
     */
    answers: text,
    /** For each `X`, `C` and new `P`: which part, conditions first, then writes, then messages. */
    refused: listOf(row({ delivery: number, part: number, why: text })),
    /** For each message of each `O` in turn, its reply. */
    published: listOf(text),
    /** A topic was not there before. */
    opened: flag
  }
}

/**
 * `enter(base, setting)`: opens the topic whose keys begin at KEYS[base], unless it is among the open `topics`; returns why it cannot.
 * `closing()`: closes those that are `used`; returns 1 if one of them was not there before, otherwise 0.
 */
const entering = (kinds: ReadonlyArray<Kind>) => /* lua */ `
local kinds = {'${kinds.join("', '")}'}
local topics = {}
local function enter(base, chosen)
  if topics[base] then return end
  setting = chosen
  for i, kind in ipairs(kinds) do
    local key = KEYS[base + i - 1]
    local wrong = misfit(key, kind)
    if wrong then return string.find(wrong, '^WRONGTYPE') and key .. ' is not a ' .. kind or wrong end
  end
  local refused, known, _, take, close = open(unpack(KEYS, base, base + ${kinds.length - 1}))
  if not refused then topics[base] = {known = known, take = take, close = close, setting = chosen}
  elseif refused[1] == 'CONFLICT' then return 'the topic is ' .. refused[2] .. ', wire version ' .. refused[3]
  else return 'the topic is a queue in the order ' .. refused[2] .. ', not ' .. refused[3] end
end
local function closing()
  local new = 0
  for _, topic in pairs(topics) do
    if topic.used then
      setting = topic.setting
      topic.close()
      if not topic.known then new = 1 end
    end
  end
  return new
end
`

/**
 * `refusal(j)`: why the command that begins at ARGV[j] may not be run; commands found to be fine are not checked again.
 * `required(j, count)`: where the commit continues after the conditions that begin at ARGV[j]; which of them may not be read, and
 * why, or does not hold, '' and true.
 */
const refusing = /* lua */ `
local function refusal(j)
  local command, key, kind = ARGV[j], tonumber(ARGV[j + 1]), ARGV[j + 2]
  local known = fine[key]
  if not known or known[1] ~= kind then
    local wrong = misfit(KEYS[key], kind)
    if wrong then return string.find(wrong, '^WRONGTYPE') and 'the record is not a ' .. kind or wrong end
    known = {kind}
    fine[key] = known
  end
  if not known[command] then
    if may then
      local ok, allowed = pcall(may, command, KEYS[key], unpack(ARGV, j + 4, j + 3 + tonumber(ARGV[j + 3])))
      if ok and not allowed then return 'NOPERM this user has no permissions to run ' .. command .. ' there' end
    end
    known[command] = true
  end
end
local function holds(found, expected)
  local how = string.sub(expected, 1, 1)
  if not found then return how ~= '=' end
  return how ~= '-' and tostring(found) == string.sub(expected, 2)
end
local function required(j, count)
  for k = 1, count do
    local last, why = j + 3 + ARGV[j + 3], refusal(j)
    if why then return j, k, why end
    local found = try(ARGV[j], KEYS[tonumber(ARGV[j + 1])], unpack(ARGV, j + 4, last))
    if type(found) == 'table' then return j, k, found.err or 'the reply is not one value' end
    if not holds(found, ARGV[last + 1]) then return j, k, '', true end
    j = last + 2
  end
  return j, 0
end
`

/**
 * Further keys: for each delivery the marker that it was done; then records, the keys of topics, the markers of message ids, in any
 * order. Arguments name keys by their numbers in KEYS.
 *
 * Further arguments: for each delivery the pattern's own; then for each its fence, 1 if part of its commit was applied, the number of
 * arguments of the commit, of its conditions, writes and messages; for each condition and write: command, key, type, number of arguments,
 * arguments, and after them for a condition `=` and the reply it requires, `?` and the reply it requires if there is one, or `-` for none;
 * for each message: first key of its topic, key of its marker or 0, shape, number of arguments, payload and the
 * parts in its shape, and the setting of its topic.
 */
export const commitScript = <
  const Keys extends Readonly<Record<string, Kind>>,
  const Args extends Readonly<Record<string, "text">>
>({
  args,
  delivery,
  keys,
  lua,
  storage
}: CommitParts<Keys, Args>) =>
  make({
    name: "waybill/commit",
    mode: "writes",
    keys,
    args: { ...args, ...own },
    replies,
    lua: /* lua */ `local setting
${misfits}${storing(storage)}${entering(kindsOf(storage))}${lua}
local try = redis.pcall
local may = redis.acl_check_cmd
-- How long a marker lasts that says partial, while no dead letter says the same: whatever else may end its message.
local untold = string.format('%.0f', ttl + ${year})
local life = string.format('%.0f', ttl)
touch()
-- By marker: its content.
local done = {}
for d = 1, deliveries do done[KEYS[moreKeys + d]] = call('GET', KEYS[moreKeys + d]) end
local answers, refused, published = {}, {}, {}
local fine = {}
${refusing}local i = moreArgs + ${delivery} * deliveries + 1
for d = 1, deliveries do
  local marker, first = KEYS[moreKeys + d], moreArgs + ${delivery} * (d - 1) + 1
  local fence, partial = ARGV[i], ARGV[i + 1] == '1'
  local size, conditions = tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3])
  local writes, messages = tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5])
  i = i + 6
  local before = done[marker]
  if not owns(first) then
    -- A consumer that repeats a call after a lost reply finds its own mark.
    answers[d] = before == fence and 'R' or 'F'
  elseif partial or before then
    if partial or string.find(before, '^partial') then
      answers[d] = 'P'
      if before then call('PEXPIRE', marker, untold) end
    else
      answers[d] = 'D'
      leave(first)
    end
  else
    local begin, part, why, unmet = required(i, conditions)
    local j, changed = begin, false
    if not why then
      for k = 1, writes do
        part, why = conditions + k, refusal(j)
        if why then break end
        j = j + 4 + ARGV[j + 3]
      end
    end
    local from = j
    if not why then
      for k = 1, messages do
        part, why = conditions + writes + k, enter(tonumber(ARGV[j]), ARGV[j + 3 + ARGV[j + 3]])
        if why then break end
        j = j + 4 + ARGV[j + 3]
      end
    end
    if not why then
      j = begin
      for k = 1, writes do
        local last = j + 3 + ARGV[j + 3]
        local reply = try(ARGV[j], KEYS[tonumber(ARGV[j + 1])], unpack(ARGV, j + 4, last))
        if type(reply) == 'table' and reply.err then
          -- Earlier writes may have changed the type of any record.
          part, why, fine = conditions + k, reply.err, {}
          break
        end
        changed = true
        j = last + 1
      end
    end
    local told = #published
    if not why then
      j = from
      for k = 1, messages do
        local topic = topics[tonumber(ARGV[j])]
        local stored, answer = pcall(topic.take, tonumber(ARGV[j + 2]), j + 4, KEYS[tonumber(ARGV[j + 1])])
        if not stored then
          part, why = conditions + writes + k, answer.err or answer
          break
        end
        topic.used, changed = true, true
        published[#published + 1] = answer
        j = j + 4 + ARGV[j + 3]
      end
    end
    if not why then
      call('SET', marker, fence, 'PX', life)
      done[marker] = fence
      leave(first)
      answers[d] = 'O'
    else
      while #published > told do published[#published] = nil end
      refused[#refused + 1] = {d, part, why}
      answers[d] = changed and 'P' or unmet and 'C' or 'X'
      if changed then
        done[marker] = 'partial:' .. part .. ':' .. fence
        call('SET', marker, done[marker], 'PX', untold)
      end
    end
  end
  i = i + size
end
leaving()
return {'OK', table.concat(answers), refused, published, closing()}
`
  })

/** The reply of such a script. */
export type CommitReply = Shaped<(typeof replies)["OK"]>
