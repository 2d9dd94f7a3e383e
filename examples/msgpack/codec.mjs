// MessagePack as docs/protocol.md uses it: text, numbers, arrays, maps with text as keys; no bin, no extension types.

const MAX_DEPTH = 8; // levels of arrays and maps; the message itself is the first
const MAX_ITEMS = 1 << 20; // of an array or map
const NUMBERS = { // by the first byte: the method of DataView that reads the number, and its length
  0xca: ["getFloat32", 4], 0xcb: ["getFloat64", 8],
  0xcc: ["getUint8", 1], 0xcd: ["getUint16", 2], 0xce: ["getUint32", 4], 0xcf: ["getBigUint64", 8],
  0xd0: ["getInt8", 1], 0xd1: ["getInt16", 2], 0xd2: ["getInt32", 4], 0xd3: ["getBigInt64", 8],
};
const SIZES = { // by the first byte: what follows, and the length of its size
  0xd9: ["text", 1], 0xda: ["text", 2], 0xdb: ["text", 4],
  0xdc: ["array", 2], 0xdd: ["array", 4], 0xde: ["map", 2], 0xdf: ["map", 4],
};
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export class Unfinished extends Error {} // the rest of the message is missing

/** One message of a Buffer, and the number of its bytes. */
export function read(data, limit) {
  const reader = { data, at: 0 };
  let message;
  try {
    message = decode(reader, 1);
  } catch (error) {
    if (!(error instanceof Unfinished) || data.length <= limit) throw error;
    reader.at = data.length;
  }
  if (reader.at > limit) throw new Error(`expected a message of at most ${limit} bytes`);
  return [message, reader.at];
}

/** An answer [1, id, failure, result], or an event [2, method, [params]]. */
export function replyOf(message) {
  if (Array.isArray(message)) {
    const [kind, id, failure, result] = message;
    const numbered = Number.isInteger(id) && id >= 0 && id < 2 ** 32;
    if (message.length === 4 && kind === 1 && (numbered || (id === null && failure !== null))) return { id, failure, result };
    if (message.length === 3 && kind === 2 && typeof id === "string" && failure?.length === 1) return { event: id, params: failure[0] };
  }
  throw new Error("expected an answer [1, id, error, result] or an event [2, method, [params]]");
}

function take(reader, size) {
  if (reader.data.length - reader.at < size) throw new Unfinished();
  reader.at += size;
  return reader.data.subarray(reader.at - size, reader.at);
}

function decode(reader, depth) {
  const [kind] = take(reader, 1);
  if (kind < 0x80) return kind;
  if (kind < 0x90) return decodeMap(reader, kind & 15, depth);
  if (kind < 0xa0) return decodeArray(reader, kind & 15, depth);
  if (kind < 0xc0) return utf8.decode(take(reader, kind & 31));
  if (kind >= 0xe0) return kind - 256;
  if (kind === 0xc0) return null;
  if (kind === 0xc2 || kind === 0xc3) return kind === 0xc3;
  if (kind in NUMBERS) {
    const [method, size] = NUMBERS[kind];
    const bytes = take(reader, size);
    return Number(new DataView(bytes.buffer, bytes.byteOffset, size)[method](0));
  }
  if (!(kind in SIZES)) throw new Error(`expected text, a number, an array or a map, found the byte ${kind}`);
  const [what, length] = SIZES[kind];
  const size = take(reader, length).readUIntBE(0, length);
  if (what === "text") return utf8.decode(take(reader, size));
  return what === "array" ? decodeArray(reader, size, depth) : decodeMap(reader, size, depth);
}

function decodeArray(reader, count, depth) {
  if (count > MAX_ITEMS || depth > MAX_DEPTH) throw new Error(`expected ${MAX_ITEMS} items and ${MAX_DEPTH} levels at most`);
  const items = [];
  while (items.length < count) items.push(decode(reader, depth + 1));
  return items;
}

function decodeMap(reader, count, depth) {
  const items = decodeArray(reader, 2 * count, depth);
  const members = [];
  for (let at = 0; at < items.length; at += 2) {
    if (typeof items[at] !== "string") throw new Error("expected a key that is text");
    members.push([items[at], items[at + 1]]);
  }
  return Object.fromEntries(members);
}

/** A value as MessagePack. */
export function encode(value) {
  return Buffer.concat([...pieces(value)]);
}

function* pieces(value) {
  if (value === null) yield Buffer.of(0xc0);
  else if (typeof value === "boolean") yield Buffer.of(value ? 0xc3 : 0xc2);
  else if (typeof value === "number") yield number(value);
  else if (typeof value === "string") {
    const text = Buffer.from(value);
    if (text.length > 31 && text.length < 256) yield Buffer.of(0xd9, text.length);
    else yield head(text.length, 31, 0xa0, 0xda);
    yield text;
  } else if (Array.isArray(value)) {
    yield head(value.length, 15, 0x90, 0xdc);
    for (const each of value) yield* pieces(each);
  } else {
    const members = Object.entries(value);
    yield head(members.length, 15, 0x80, 0xde);
    for (const [key, each] of members) {
      yield* pieces(key);
      yield* pieces(each);
    }
  }
}

/** A size: in the first byte if it is at most `most`, otherwise in two or four bytes behind it. */
function head(size, most, first, long) {
  if (size <= most) return Buffer.of(first | size);
  return size < 0x10000 ? packed(long, "setUint16", 2, size) : packed(long + 1, "setUint32", 4, size);
}

function number(value) {
  if (!Number.isInteger(value)) return packed(0xcb, "setFloat64", 8, value);
  if (value >= -32 && value < 128) return Buffer.of(value & 0xff);
  if (value < 0) return packed(0xd3, "setBigInt64", 8, BigInt(value));
  if (value < 0x100) return Buffer.of(0xcc, value);
  if (value < 0x10000) return packed(0xcd, "setUint16", 2, value);
  return value < 2 ** 32 ? packed(0xce, "setUint32", 4, value) : packed(0xcf, "setBigUint64", 8, BigInt(value));
}

function packed(first, method, size, value) {
  const bytes = Buffer.alloc(1 + size, first);
  new DataView(bytes.buffer, bytes.byteOffset)[method](1, value);
  return bytes;
}
