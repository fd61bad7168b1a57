/**
 * Where messages are by their ids, as far as their entries do not tell. A message that was retried or died, or that became due,
 * is an entry with another id than its own: sorted sets have that entry by the message's id. Its score is the entry's id as one
 * number, so that what was trimmed from a stream is dropped from its set by range.
 *
 * | set | members | scores |
 * |---|---|---|
 * | `own-ids` of a topic | ids that publishers chose | the entry of the stream, or the number of the message; negative, its member of `delayed` |
 * | `promoted` of a topic | members of `delayed` that became due | the entry of the stream, or the number of the message |
 * | `retry-ids` of a group | ids of messages that were retried | the entry of the retry stream; negative while the message waits for its next attempt |
 * | `dead-ids` of a group | ids of dead letters' messages | the entry among the dead letters |
 *
 * They are only an index: an entry may be gone, or belong to another message, so its id is compared.
 *
 * @module
 */

/** Above what a millisecond brings, and low enough for the times of a century. */
export const perMilli = 2048

/** How many members one call forgets. */
export const forgetLimit = 1000

/**
 * `scoreOf(entry)`: the id of an entry as one number. Further entries of the same millisecond share the last one.
 * `entryOf(score)`: the id, whatever the sign.
 * `index(set, score, id)`: without permission for it, the message is not found by its id, and that is all.
 * `unindex(set, id, entry)`: removes it unless it has a later entry by now.
 * `forgetBefore(set, first)`: drops the members of entries before this one, or of all with nil, as many as one call forgets; those that
 * wait stay.
 */
export const places = /* lua */ `
local function scoreOf(entry)
  local ms, seq = string.match(entry, '^(%d+)-(%d+)$')
  return string.format('%.0f', ms * ${perMilli} + math.min(seq, ${perMilli - 1}))
end
local function entryOf(score)
  score = math.abs(tonumber(score))
  return string.format('%.0f-%.0f', math.floor(score / ${perMilli}), score % ${perMilli})
end
local function index(set, score, id)
  redis.pcall('ZADD', set, score, id)
end
local function unindex(set, id, entry)
  local score = scoreOf(entry)
  for _, found in ipairs(redis.pcall('ZRANGE', set, score, score, 'BYSCORE', 'LIMIT', 0, ${forgetLimit})) do
    if found == id then redis.pcall('ZREM', set, id) end
  end
end
local function forgetBefore(set, first)
  local gone = redis.pcall('ZRANGE', set, '0', first and '(' .. scoreOf(first) or '+inf', 'BYSCORE', 'LIMIT', 0, ${forgetLimit})
  if #gone > 0 then redis.pcall('ZREM', set, unpack(gone)) end
end
`
