/**
 * A packed message is a message as one string of bytes, cheap to make and to read in Lua and here: a payload needs one
 * character before it.
 *
 * | first character | what follows |
 * |---|---|
 * | `0` | the payload |
 * | `0` + the sum of: 1 id, 2 headers, 4 key, 8 version, 16 publishing time | the byte length of each of these, in this order, each followed by a comma; a line feed; their values; the payload |
 *
 * @module
 */
import type { Body, Headers, Message } from "../../../Message.ts"
import { marker } from "./Envelope.ts"
import { bodyOf, headersOf, wholeOf } from "./Fields.ts"

export const part = { id: 1, headers: 2, key: 4, version: 8, at: 16 } as const

/**
 * `record(payload, id, headers, key, version, at)`: the packed message; nil parts are left out.
 * `parsed(record)`: its parts by name: payload, id, headers, key, v, at.
 * `fieldsOf(parts)`: alternating field names and values, as a dead letter has them after its head.
 */
export const records = /* lua */ `
local function record(payload, id, headers, key, version, at)
  local shape, lengths, parts = 48, {}, {}
  local function put(bit, value)
    if not value then return end
    shape = shape + bit
    lengths[#lengths + 1] = #value .. ','
    parts[#parts + 1] = value
  end
  put(${part.id}, id)
  put(${part.headers}, headers)
  put(${part.key}, key)
  put(${part.version}, version)
  put(${part.at}, at)
  if shape == 48 then return '0' .. payload end
  return string.char(shape) .. table.concat(lengths) .. '\\n' .. table.concat(parts) .. payload
end
local function parsed(text)
  local shape = (string.byte(text, 1) or 48) - 48
  if shape == 0 then return {payload = string.sub(text, 2)} end
  local lengths, from = string.match(text, '^.([%d,]+)\\n()')
  if not lengths then return {payload = text} end
  local of, bit_, next = {}, 1, string.gmatch(lengths, '%d+')
  for _, name in ipairs({'id', 'headers', 'key', 'v', 'at'}) do
    if bit.band(shape, bit_) ~= 0 then
      local length = tonumber(next() or '0')
      of[name] = string.sub(text, from, from + length - 1)
      from = from + length
    end
    bit_ = bit_ * 2
  end
  of.payload = string.sub(text, from)
  return of
end
local function fieldsOf(message)
  local fields = {'payload', message.payload}
  for _, name in ipairs({'headers', 'key', 'v'}) do
    if message[name] then
      fields[#fields + 1] = name
      fields[#fields + 1] = message[name]
    end
  end
  return fields
end
`

/**
 * `recordOf(text, at)`: the packed message for a text that another program wrote (Envelope.ts), at this time. A malformed
 * envelope keeps all its bytes under headers that cannot be read, so it becomes a dead letter.
 */
export const envelopes = /* lua */ `
local function recordOf(text, at)
  if string.sub(text, 1, ${marker.length}) ~= '${marker}' then return record(text, nil, nil, nil, nil, at) end
  local json, payload = string.match(string.sub(text, ${marker.length + 1}), '^([^\\n]*)\\n?(.*)$')
  local sound, line = pcall(cjson.decode, json)
  sound = sound and type(line) == 'table' and string.find(json, '^%s*{')
  local function take(field, kind)
    local value = sound and line[field]
    if not sound or value == nil then return nil end
    sound = type(value) == kind and value ~= '' and (kind ~= 'number' or value >= 0 and value % 1 == 0 and value < 1e15)
    return sound and kind == 'number' and string.format('%.0f', value) or value
  end
  local id, key, version, published = take('id', 'string'), take('key', 'string'), take('v', 'number'), take('at', 'number')
  local headers = take('headers', 'table')
  if sound and headers then
    for name, value in pairs(headers) do sound = sound and type(name) == 'string' and type(value) == 'string' end
    headers = next(headers) and cjson.encode(headers)
  end
  if not sound then return record(text, nil, '', nil, nil, at) end
  return record(payload, id, headers or nil, key, version, published or at)
end
`

/** The contents of a packed message; absent parts are undefined. */
export interface Reading {
  id: string | undefined
  body: Body
  headers: Headers | undefined
  key: string | undefined
  version: number | undefined
  publishedAt: number | undefined
}

const zero = 48

/**
 * Reads the packed message at `from`. `text` is the same as `bytes` if all of it is ASCII: cutting a string costs next to
 * nothing. Whatever it holds, the result is a message, if need be with a body that no topic decodes.
 */
export const read = (bytes: Buffer, text: string | undefined, from: number, to: number): Reading => {
  const reading: Reading = {
    id: undefined,
    body: "",
    headers: undefined,
    key: undefined,
    version: undefined,
    publishedAt: undefined
  }
  const shape = (bytes[from] ?? zero) - zero
  let at = from + 1
  let sound = true
  if (shape !== 0) {
    const end = bytes.indexOf(10, at)
    const lengths = bytes.toString("latin1", at, end).split(",")
    at = end + 1
    let next = 0
    const cut = (): string => {
      const start = at
      at += Number(lengths[next++])
      return text === undefined ? bytes.toString("utf8", start, at) : text.slice(start, at)
    }
    if (end < 0 || end >= to || lengths.some((length) => !/^\d*$/.test(length))) {
      return { ...reading, body: bytes.subarray(from, to) }
    }
    if (shape & part.id) reading.id = cut()
    if (shape & part.headers) {
      reading.headers = headersOf(cut())
      sound = reading.headers !== undefined
    }
    if (shape & part.key) reading.key = cut()
    if (shape & part.version) {
      reading.version = wholeOf(cut())
      sound &&= reading.version !== undefined
    }
    if (shape & part.at) reading.publishedAt = wholeOf(cut())
  }
  // Bytes of the reply: a copy, so that one message does not retain the whole batch.
  if (!sound) reading.body = Uint8Array.prototype.slice.call(bytes, at, to)
  else reading.body = text === undefined ? textOf(bytes, at, to) : text.slice(at, to)
  return reading
}

/** Text if the bytes are text; the exact check costs more and is only for those that may not be. */
const textOf = (bytes: Buffer, from: number, to: number): Body => {
  const text = bytes.toString("utf8", from, to)
  return text.includes("\uFFFD") ? bodyOf(Uint8Array.prototype.slice.call(bytes, from, to)) : text
}

/** Packs an equal message, for one that can no longer be read. */
export const write = (message: Message): Uint8Array => {
  const parts: Array<Buffer> = []
  let shape = zero
  const put = (bit: number, value: string | undefined) => {
    if (value === undefined) return
    shape += bit
    parts.push(Buffer.from(value))
  }
  put(part.headers, Object.keys(message.headers).length === 0 ? undefined : JSON.stringify(message.headers))
  put(part.key, message.key)
  put(part.version, message.version === 1 ? undefined : String(message.version))
  const lengths = parts.map(({ length }) => `${length},`).join("")
  const head = String.fromCharCode(shape) + (shape === zero ? "" : `${lengths}\n`)
  return Buffer.concat([Buffer.from(head), ...parts, Buffer.from(message.body)])
}
