/**
 * Plain records as bytes: what all state is saved in and loaded from.
 *
 * Canonical: one record has one encoding. Keys are written in code-unit order, numbers as their
 * IEEE 754 bits, lengths as 32-bit little-endian. So save -> load -> save is equal byte for byte,
 * and two equal states have equal blocks.
 *
 * @module
 */

/** What a saved state may consist of. */
export type Plain =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | readonly Plain[]
  | { readonly [key: string]: Plain };

/** A saved state that is refused: damaged, of another version or configuration, or of another shape. */
export class RecordError extends Error {
  /** Of the class, for those who do not have it. */
  override name = "RecordError";
}

const tag = {
  null: 0,
  false: 1,
  true: 2,
  number: 3,
  bigint: 4,
  string: 5,
  bytes: 6,
  array: 7,
} as const;
const recordTag = 8;
const utf8 = new TextEncoder();
const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

class Writer {
  bytes = new Uint8Array(256);
  view = new DataView(this.bytes.buffer);
  length = 0;

  reserve(count: number): number {
    const at = this.length;
    this.length += count;
    if (this.length > this.bytes.length) {
      const grown = new Uint8Array(Math.max(this.length, this.bytes.length * 2));
      grown.set(this.bytes.subarray(0, at));
      this.bytes = grown;
      this.view = new DataView(grown.buffer);
    }
    return at;
  }
  u8(value: number): void {
    const at = this.reserve(1);
    this.view.setUint8(at, value);
  }
  u32(value: number): void {
    const at = this.reserve(4);
    this.view.setUint32(at, value, true);
  }
  f64(value: number): void {
    const at = this.reserve(8);
    this.view.setFloat64(at, value, true);
  }
  blob(value: Uint8Array): void {
    this.u32(value.length);
    const at = this.reserve(value.length);
    this.bytes.set(value, at);
  }
}

function put(out: Writer, value: unknown, path: string): void {
  switch (typeof value) {
    case "boolean":
      return out.u8(value ? tag.true : tag.false);
    case "number":
      if (Number.isNaN(value)) throw new TypeError(`${path} is NaN: a state holds no NaN`);
      out.u8(tag.number);
      return out.f64(value);
    case "bigint":
      out.u8(tag.bigint);
      return out.blob(utf8.encode(value.toString(16)));
    case "string":
      out.u8(tag.string);
      return out.blob(utf8.encode(value));
  }
  if (value === null) return out.u8(tag.null);
  if (value instanceof Uint8Array) {
    out.u8(tag.bytes);
    return out.blob(value);
  }
  if (Array.isArray(value)) {
    out.u8(tag.array);
    out.u32(value.length);
    for (let i = 0; i < value.length; i++) put(out, value[i], `${path}[${i}]`);
    return;
  }
  const prototype = typeof value === "object" ? Object.getPrototypeOf(value) : undefined;
  if (prototype !== Object.prototype && prototype !== null) {
    throw new TypeError(
      `${path} is ${describe(value)}; a state holds only null, booleans, numbers, bigints, ` +
        `strings, Uint8Array, arrays and plain records`,
    );
  }
  const record = value as Record<string, unknown>;
  const keys = Object.keys(record).sort();
  out.u8(recordTag);
  out.u32(keys.length);
  for (const key of keys) {
    out.blob(utf8.encode(key));
    put(out, record[key], `${path}.${key}`);
  }
}

function describe(value: unknown): string {
  if (value === undefined || typeof value === "function") return typeof value;
  if (typeof value !== "object" || value === null) return String(value);
  return `a ${value.constructor?.name ?? "record"}`;
}

class Reader {
  at = 0;
  readonly view: DataView;
  constructor(readonly bytes: Uint8Array, readonly what: string) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }
  take(count: number): number {
    const at = this.at;
    if (at + count > this.bytes.length) {
      throw new RecordError(
        `${this.what} is truncated: ${count} bytes expected at offset ${at}, ` +
          `the block has ${this.bytes.length}`,
      );
    }
    this.at += count;
    return at;
  }
  u8(): number {
    return this.view.getUint8(this.take(1));
  }
  u32(): number {
    return this.view.getUint32(this.take(4), true);
  }
  f64(): number {
    return this.view.getFloat64(this.take(8), true);
  }
  blob(): Uint8Array {
    const length = this.u32();
    const at = this.take(length);
    return this.bytes.slice(at, at + length);
  }
  text(): string {
    const at = this.at;
    try {
      return text.decode(this.blob());
    } catch (error) {
      if (error instanceof RecordError) throw error;
      throw this.damaged(at, "text that is no UTF-8");
    }
  }
  damaged(at: number, what: string): RecordError {
    return new RecordError(`${this.what} is damaged: ${what} at offset ${at}`);
  }
}

/** A record of ours is nowhere as deep; a damaged one must not exhaust the stack. */
const DEEPEST = 64;

function get(from: Reader, depth = 0): Plain {
  const at = from.at;
  if (depth > DEEPEST) throw from.damaged(at, `lists in lists, ${depth} deep`);
  const kind = from.u8();
  switch (kind) {
    case tag.null:
      return null;
    case tag.false:
      return false;
    case tag.true:
      return true;
    case tag.number: {
      const value = from.f64();
      if (Number.isNaN(value)) throw from.damaged(at, "a number that is none");
      return value;
    }
    case tag.bigint:
      return hexBigint(from, at);
    case tag.string:
      return from.text();
    case tag.bytes:
      return from.blob();
    case tag.array: {
      const length = from.u32();
      const items: Plain[] = [];
      for (let i = 0; i < length; i++) items.push(get(from, depth + 1));
      return items;
    }
    case recordTag: {
      const count = from.u32();
      const record: Record<string, Plain> = {};
      let last: string | undefined;
      for (let i = 0; i < count; i++) {
        const key = from.text();
        if (last !== undefined && key <= last) {
          throw from.damaged(at, `member ${key} after ${last}, out of order`);
        }
        if (key === "__proto__") throw from.damaged(at, `a member named ${key}`);
        record[last = key] = get(from, depth + 1);
      }
      return record;
    }
  }
  throw from.damaged(at, `the unknown kind ${kind}`);
}

function hexBigint(from: Reader, at: number): bigint {
  const digits = from.text();
  if (!/^(0|-?[1-9a-f][0-9a-f]*)$/.test(digits)) {
    throw from.damaged(at, "a whole number in other than its hexadecimal digits");
  }
  return digits.startsWith("-") ? -BigInt("0x" + digits.slice(1)) : BigInt("0x" + digits);
}

/**
 * The bytes of a plain value, in its one canonical encoding.
 *
 * @throws {TypeError} naming the path of anything that is not plain (a Map, a function, NaN).
 */
export function encodePlain(value: unknown): Uint8Array {
  const out = new Writer();
  put(out, value, "state");
  return out.bytes.slice(0, out.length);
}

/**
 * The value that {@linkcode encodePlain} wrote.
 *
 * @throws {RecordError} when the bytes are truncated, damaged, or followed by others.
 */
export function decodePlain(bytes: Uint8Array, what = "the record"): Plain {
  const from = new Reader(bytes, what);
  const value = get(from);
  if (from.at !== bytes.length) {
    throw new RecordError(
      `${what} is ${bytes.length} bytes long, its value ends at ${from.at}`,
    );
  }
  return value;
}
