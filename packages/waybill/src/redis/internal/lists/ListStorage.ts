/**
 * Messages in lists of ids, with the messages in a hash beside them. The notification is sent in the same step.
 *
 * @module
 */
import { shape, type Storage } from "../publish/PublishScript.ts"
import { keys } from "../wire/Keys.ts"
import { records } from "../wire/PackedMessage.ts"

/** `levelOf(headers)`: the number of the list for a message with these headers, where priorities count. */
export const levels = /* lua */ `
local function levelOf(headers)
  local ok, parsed = pcall(cjson.decode, headers or '')
  local priority = ok and type(parsed) == 'table' and parsed.priority
  return priority == 'high' and 1 or priority == 'low' and 3 or 2
end
`

/**
 * `disagreement(order, found)`: the reply if the queue has another order than the requested one, or nil. A queue opened by an
 * older version has no order yet, and takes the first one requested.
 */
export const disagreement = /* lua */ `
local function disagreement(order, found)
  if found and order ~= 'any' and order ~= found then return {'ORDERED', found, order} end
end
`

/** `setting`: the order of the queue, or `any`. With `priority`, the header of that name determines the list. */
export const storage: Storage = {
  keys: keys("high", "normal", "low", "bodies"),
  noted: ["order", "last"],
  noting: `(band(shape, ${shape.untilTaken}) ~= 0 and ' t' or '')`,
  lua: /* lua */ `${records}${levels}${disagreement}`,
  opening: /* lua */ `
  local refused = disagreement(setting, order)
  if refused then return refused end
  -- An order that was not requested yet is unknown.
  local ranked = (order or setting) == 'priority' or (order or setting) == 'any'
  local number, prefix = tonumber(last) or 0, format('%.0f-', now())
  local lists, ready, packed = {high, normal, low}, {{}, {}, {}}, {}
  local function stateOf(place)
    place = string.match(place, '^%S+')
    if string.byte(place) == 100 then
      if call('ZSCORE', delayed, string.sub(place, 2)) then return 'd' end
      place = string.match(place, '[^:]*$')
    end
    -- What this call stores is written at its end.
    local before, nth = string.match(place, '^(.*%-)(%d+)$')
    local isNew = before == prefix and tonumber(nth) > (tonumber(last) or 0)
    return (isNew or call('HEXISTS', bodies, place) == 1) and 'o'
  end
  -- One that coalesces has its id to itself until it is taken.
  local function standing(id)
    local place = call('HGET', unique, id)
    local state = place and stateOf(place)
    if not state then return end
    local where, rest = string.match(place, '^(%S+)(.*)$')
    if state == 'd' then return state, string.sub(where, 2) end
    return state, rest == ' t' and string.match(where, '[^:]*$')
  end
  local function replace(state, it, payload, id, headers, key, version)
    local text = record(payload, id, headers, key, version)
    if state == 'd' then call('HSET', delayedBodies, it, text)
    else
      local n = #packed
      packed[n + 1], packed[n + 2] = it, text
    end
    return tonumber(string.match(it, '(%d+)%-%d+$')) or now()
  end
  local function store(payload, id, headers, key, version, _, coalesces)
    number = number + 1
    local entry, text, to = prefix .. number, '0' .. payload, ready[2]
    if id or headers or key or version then
      text = record(payload, id, headers, key, version)
      if ranked then to = ready[levelOf(headers)] end
    end
    local n = #packed
    packed[n + 1], packed[n + 2] = entry, text
    to[#to + 1] = entry
    if coalesces then call('HSET', unique, id, entry .. ' t') end
    return entry
  end
  local function delay(payload, id, headers, key, version, _, coalesces)
    number = number + 1
    local entry = prefix .. number
    local member = format('%d:%015.0f:%s', ranked and levelOf(headers) or 2, number, entry)
    if coalesces then call('HSET', unique, id, 'd' .. member .. ' t') end
    return entry, member, record(payload, id, headers, key, version)
  end
  local function finish()
    call('HSET', meta, 'last', format('%.0f', number))
    if not order and setting ~= 'any' then call('HSET', meta, 'order', setting) end
    for from = 1, #packed, 2000 do
      call('HSET', bodies, unpack(packed, from, math.min(from + 1999, #packed)))
    end
    local urgency
    for to = 3, 1, -1 do
      local ids = ready[to]
      if #ids > 0 then urgency = to end
      for from = 1, #ids, 2000 do call('RPUSH', lists[to], unpack(ids, from, math.min(from + 1999, #ids))) end
    end
    -- Hints: without permission to publish, polling finds the messages. A consumer that takes what is ready does not check what is due.
    if urgency then redis.pcall('PUBLISH', wake, ranked and '0;' .. urgency or '0') end
  end
`
}
