/**
 * What the claims of a group record about a message that came back, in Lua, for its scripts.
 *
 * `marks` has a field for each message that came back at least once: attempts, fence and deaths so far, then the cause of the last
 * failure, separated by colons, and after a unit separator (31) the tally (Tally.ts). A cause may contain anything, even unit
 * separators, and a tally none: the last one counts. It is written when a delivery ends, so the delivery under way adds one to
 * each.
 *
 * @module
 */
import { suspicious } from "../../../internal/Suspects.ts"

/**
 * `marked(id)`: attempts, fence and deaths so far, and the tally, if there is one.
 * `mark(id, attempts, fence, deaths, tally, cause)`: records them.
 * `idOf(member)`: the id in a member of a processing set.
 * `free(id, deaths)`: lets others have it, after what came back before. A suspect waits in a list of its own.
 * `putBack(id, deaths)`: the same, before everything else: for deliveries that were not finished. The last one comes first.
 * `press(urgency)`: records that a message of this urgency waits now, where urgency counts; returns the most urgent one recorded.
 * `free` and `putBack` call it themselves, as far as the source tells.
 * `tell(millis)`: notifies all listeners, with the urgency of what waits now; a hint, so a missing permission does not matter.
 *
 * They use the locals `marks`, `returned`, `suspects` and `wake`, the keys.
 */
export const marking = /* lua */ `
local function marked(id)
  local text = redis.call('HGET', marks, id) or ''
  local a, f, d = string.match(text, '^(%d+):(%d+):(%d+)')
  return tonumber(a) or 0, tonumber(f) or 0, tonumber(d) or 0, string.match(text, '\\31(%d+;[01];[^%s\\31]*)$')
end
local function mark(id, attempts, fence, deaths, tally, cause)
  redis.call('HSET', marks, id, attempts .. ':' .. fence .. ':' .. deaths .. ':' .. (cause or '')
    .. (tally and '\\31' .. tally or ''))
end
local function idOf(member)
  return string.match(member, '^(.*)#%d+$') or member
end
local pressed
local function press(urgency)
  if urgency and urgency > 0 and (not pressed or urgency < pressed) then pressed = urgency end
  return pressed
end
local function putBack(id, deaths)
  press(pressing(id))
  redis.call('LPUSH', deaths >= ${suspicious} and suspects or returned, id)
end
local function free(id, deaths)
  press(pressing(id))
  redis.call('RPUSH', deaths >= ${suspicious} and suspects or returned, id)
end
local function tell(millis)
  redis.pcall('PUBLISH', wake, string.format('%.0f', millis) .. (millis == 0 and pressed and ';' .. pressed or ''))
end
`

/**
 * `headOf(record, id, tally)`: what a dead letter says about a message: its id, when it was published, and its tally, or none.
 */
export const heads = /* lua */ `
local function headOf(record, id, tally)
  local message = parsed(record)
  return message.id or id, message.at or string.match(id, '^%d+') or '0', tally or '0;0;'
end
`

/** `nth(id)`: sorts ids from a set into the order in which they were made, as far as their last number tells. */
export const nth = /* lua */ `
local function nth(id)
  return tonumber(string.match(id, '%d+$') or '0')
end
`
