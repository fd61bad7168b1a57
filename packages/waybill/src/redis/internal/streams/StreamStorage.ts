/**
 * Messages as entries of a stream.
 *
 * @module
 */
import type { KeptLimits } from "../../../internal/Limits.ts"
import { perMilli } from "../inspect/MessagePlaces.ts"
import { coalesced, type Storage } from "../publish/PublishScript.ts"
import { keys } from "../wire/Keys.ts"
import { ids, maps, shorten, unseen } from "../wire/Lua.ts"
import { opens } from "./UniqueIds.ts"

/** Limits as scripts take them: length, age in ms, and bytes. */
export const limitsText = ({ maxAgeMillis, maxBytes, maxLength }: KeptLimits): string =>
  [maxLength, maxAgeMillis, maxBytes].map((limit) => (limit === Infinity ? "" : String(limit))).join(":")

/** `setting`: the limits of the stream, or "". */
export const storage: Storage = {
  keys: keys("stream"),
  naming: {
    keys: keys("ownIds"),
    lua: /* lua */ `
        local ms, seq = string.match(name, '^(%d+)%-(%d+)$')
        call('ZADD', ownIds, member and '-' .. member or format('%.0f', ms * ${perMilli} + math.min(seq, ${perMilli - 1})), id)`
  },
  lua: /* lua */ `
local function fieldsOf(payload, id, headers, key, version, unique)
  local fields = {'payload', payload}
  local function put(name, value)
    if not value then return end
    fields[#fields + 1] = name
    fields[#fields + 1] = value
  end
  put('id', id)
  put('headers', headers)
  put('key', key)
  put('v', version)
  put('unique', unique and 'settled')
  return fields
end
`,
  plain: "call('XADD', stream, '*', 'payload', payload)",
  opening: /* lua */ `
  local function stateOf(place)
    if string.byte(place) == 100 then return call('ZSCORE', delayed, string.sub(place, 2)) and 'd' end
    -- Defined here, since most calls need none of it.
    ${ids}${maps}${opens}
    return isOpen(place) and 'o'
  end
  local function store(payload, id, headers, key, version, unique)
    if not (id or headers or key or version) then return call('XADD', stream, '*', 'payload', payload) end
    return call('XADD', stream, '*', unpack(fieldsOf(payload, id, headers, key, version, unique)))
  end
  local function later(at, ...)
    local fields = fieldsOf(...)
    fields[#fields + 1] = 'at'
    fields[#fields + 1] = format('%.0f', at)
    return cmsgpack.pack(fields)
  end
  local function standing(id)
    local member = '${coalesced}' .. id
    if call('ZSCORE', delayed, member) then return 'd', member end
  end
  local function replace(_, member, payload, id, headers, key, version)
    local ok, before = pcall(cmsgpack.unpack, call('HGET', delayedBodies, member) or '')
    local first = ok and type(before) == 'table' and tonumber(before[#before]) or now()
    call('HSET', delayedBodies, member, later(first, payload, id, headers, key, version))
    return first
  end
  local function delay(payload, id, headers, key, version, unique, coalesces)
    local name, member = numbered(meta)
    return name, coalesces and '${coalesced}' .. id or member,
      later(now(), payload, id or name, headers, key, version, unique)
  end
  local function finish()
    if setting == '' then return end
    -- Defined here, since most calls need none of them.
    ${ids}${unseen}${shorten}
    shorten(stream, meta, setting, now())
  end
`
}
