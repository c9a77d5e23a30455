// Plain records as bytes: what every device's state is saved in and loaded from.
//
// Canonical: one record has one encoding. Keys are written in code-unit order, numbers as their
// IEEE 754 bits, lengths as 32-bit little-endian. So save -> load -> save is equal byte for byte,
// and two equal states have equal blocks.

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

/** What {@linkcode saveRecord} and {@linkcode loadRecord} need of the owner of a state. */
export interface Stateful {
  /** Unique within one machine, for example `"pit"`. */
  readonly name: string;
  /** Of the state's shape; a block of another version is refused. */
  readonly version: number;
  /** One plain record: all there is to save. */
  state: object;
  /** Names of the state's members that are queues: their length changes, that of others does not. */
  readonly queues?: readonly string[];
}

/** A block that cannot be read: wrong owner, wrong version, truncated, or of another shape. */
export class RecordError extends Error {
  override name = "RecordError";
}

const magic = 0x526d7678; // "xvmR"
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

/** The owner's whole state as one block: magic, name, version, length, record. */
export function saveRecord(owner: Stateful): Uint8Array {
  const out = new Writer();
  out.u32(magic);
  out.blob(utf8.encode(owner.name));
  out.u32(owner.version);
  out.blob(encodePlain(owner.state));
  return out.bytes.slice(0, out.length);
}

/**
 * Puts a block made by {@linkcode saveRecord} in place of the owner's state.
 * The owner is unchanged when this throws.
 *
 * @throws {RecordError} when the block is another owner's, of another version, truncated, or its
 * record has other members than the owner's state.
 */
export function loadRecord(owner: Stateful, block: Uint8Array): void {
  owner.state = checkRecord(owner, block);
}

/** The state in a block made by {@linkcode saveRecord}; refused as {@linkcode loadRecord} does. */
export function checkRecord(owner: Stateful, block: Uint8Array): object {
  const what = `the saved state of ${owner.name}`;
  const from = new Reader(block, what);
  const found = from.u32();
  if (found !== magic) {
    throw new RecordError(
      `${what} starts with 0x${found.toString(16)}, expected 0x${magic.toString(16)}`,
    );
  }
  const name = from.text();
  if (name !== owner.name) {
    throw new RecordError(`this is the saved state of ${name}, expected ${owner.name}`);
  }
  const version = from.u32();
  if (version !== owner.version) {
    throw new RecordError(`${what} has version ${version}, expected ${owner.version}`);
  }
  const state = decodePlain(from.blob(), what);
  if (from.at !== block.length) {
    throw new RecordError(`${what} is ${block.length} bytes long, its block ends at ${from.at}`);
  }
  checkLike(owner, state, what);
  return state as object;
}

/**
 * Every member of the owner's present state must be there, of the same kind and size, and no other;
 * numbers are whole, or Infinity.
 *
 * @throws {RecordError} naming the member that is not so
 */
export function checkLike(owner: Stateful, state: Plain, what: string): void {
  checkShape(owner.state, state, what, "state", owner.queues ?? []);
}

function checkShape(
  present: unknown,
  loaded: Plain,
  what: string,
  path: string,
  queues: readonly string[],
): void {
  const [expected, given] = [kindOf(present), kindOf(loaded)];
  if (expected !== given) {
    throw new RecordError(`${what}: ${path} is ${given}, expected ${expected}`);
  }
  if (typeof loaded === "number") return checkNumber(loaded, what, path);
  const isQueue = queues.includes(path.slice(path.lastIndexOf(".") + 1));
  if (loaded instanceof Uint8Array || Array.isArray(loaded)) {
    const length = (present as ArrayLike<unknown>).length;
    if (!isQueue && loaded.length !== length) {
      throw new RecordError(`${what}: ${path} has ${loaded.length} entries, expected ${length}`);
    }
  }
  if (Array.isArray(loaded)) {
    const like = present as readonly unknown[];
    loaded.forEach((item, i) =>
      checkShape(isQueue ? like[i] ?? 0 : like[i], item, what, `${path}[${i}]`, queues)
    );
  }
  if (expected !== "a record") return;
  const [mine, theirs] = [present as Record<string, unknown>, loaded as Record<string, Plain>];
  for (const key of Object.keys(mine)) {
    if (!Object.hasOwn(theirs, key)) throw new RecordError(`${what}: ${path}.${key} is missing`);
    checkShape(mine[key], theirs[key], what, `${path}.${key}`, queues);
  }
  for (const key of Object.keys(theirs)) {
    if (!Object.hasOwn(mine, key)) throw new RecordError(`${what}: ${path}.${key} is unknown`);
  }
}

function checkNumber(value: number, what: string, path: string): void {
  if (Number.isSafeInteger(value) || value === Infinity) return;
  throw new RecordError(`${what}: ${path} is ${value}, expected a whole number`);
}

function kindOf(value: unknown): string {
  if (value === null) return "null";
  if (value instanceof Uint8Array) return "bytes";
  if (Array.isArray(value)) return "an array";
  return typeof value === "object" ? "a record" : `a ${typeof value}`;
}
