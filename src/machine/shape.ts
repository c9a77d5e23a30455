/**
 * Shapes of saved records: what is refused before anything is put in place.
 *
 * @module
 */
import { type Plain, RecordError } from "./record.ts";
import { counted } from "./text.ts";

/** Refuses a value that is not so; `path` says where it stands. @throws {RecordError} */
export type Shape = (value: Plain | undefined, path: string) => void;

function refuse(path: string, value: Plain | undefined, expected: string): never {
  throw new RecordError(`${path} is ${shownPlain(value)}, expected ${expected}`);
}

function shownPlain(value: Plain | undefined): string {
  if (value === undefined) return "missing";
  if (value === null || typeof value === "boolean" || typeof value === "number") return `${value}`;
  if (typeof value === "bigint") return `0x${value.toString(16)}`;
  if (typeof value === "string") return JSON.stringify(value.slice(0, 40));
  if (value instanceof Uint8Array) return counted(value.length, "byte");
  return Array.isArray(value) ? `a list of ${value.length}` : "a record";
}

/** A whole number from `min` to `max`. */
export const whole = (min = 0, max: number = Number.MAX_SAFE_INTEGER): Shape => (value, path) => {
  const fits = Number.isSafeInteger(value) && value as number >= min && value as number <= max;
  if (!fits) refuse(path, value, `a whole number from ${min} to ${max}`);
};
/** A count of instructions, or a time in ns: there is room for more of them. */
export const amount: Shape = whole(0, 2 ** 52);
/** 32 unsigned bits. */
export const u32: Shape = whole(0, 0xffff_ffff);
/** 64 unsigned bits. */
export const u64: Shape = (value, path) => {
  if (typeof value !== "bigint" || value < 0n || value >> 64n) refuse(path, value, "64 bits");
};
/** A time in nanoseconds; Infinity: never. */
export const time: Shape = (value, path) => {
  if (value !== Infinity) whole()(value, path);
};
export const finite: Shape = (value, path) => {
  if (!Number.isFinite(value)) refuse(path, value, "a finite number");
};
export const flag: Shape = (value, path) => {
  if (typeof value !== "boolean") refuse(path, value, "true or false");
};
/** Bytes, so many if a length is given. */
export const bytes = (length?: number): Shape => (value, path) => {
  const fits = value instanceof Uint8Array && (length === undefined || value.length === length);
  if (!fits) refuse(path, value, length === undefined ? "bytes" : counted(length, "byte"));
};
/** One of these. */
export const word = (...words: readonly string[]): Shape => (value, path) => {
  if (!words.includes(value as string)) {
    refuse(
      path,
      value,
      words.map((w) => `"${w}"`).join(" or "),
    );
  }
};
export const text: Shape = (value, path) => {
  if (typeof value !== "string") refuse(path, value, "text");
};
/** Any number of the same. */
export const list = (of: Shape): Shape => (value, path) => {
  if (!Array.isArray(value)) refuse(path, value, "a list");
  value.forEach((item, i) => of(item, `${path}[${i}]`));
};
/** As many as there are shapes. */
export const tuple = (...shapes: readonly Shape[]): Shape => (value, path) => {
  if (!Array.isArray(value) || value.length !== shapes.length) {
    refuse(path, value, `a list of ${shapes.length}`);
  }
  shapes.forEach((shape, i) => shape(value[i], `${path}[${i}]`));
};
export const orNull = (shape: Shape): Shape => (value, path) => {
  if (value !== null) shape(value, path);
};

/** Refuses pairs that are not by their numbers, each once. @throws {RecordError} */
export function checkOrder(name: string, pairs: readonly (readonly [number, unknown])[]): void {
  pairs.forEach(([number], n) => {
    if (n === 0 || number > pairs[n - 1][0]) return;
    throw new RecordError(`${name}: entry ${number} is out of order`);
  });
}

const isRecord = (value: Plain | undefined): value is { readonly [key: string]: Plain } =>
  typeof value === "object" && value !== null && !Array.isArray(value) &&
  !(value instanceof Uint8Array);

/** These members and no others; those in `optional` may be missing. */
export const record = (
  members: Readonly<Record<string, Shape>>,
  optional: Readonly<Record<string, Shape>> = {},
): Shape =>
(value, path) => {
  if (!isRecord(value)) refuse(path, value, "a record");
  for (const [key, shape] of Object.entries(members)) {
    shape(Object.hasOwn(value, key) ? value[key] : undefined, `${path}.${key}`);
  }
  for (const [key, part] of Object.entries(value)) {
    if (Object.hasOwn(members, key)) continue;
    if (!Object.hasOwn(optional, key)) {
      throw new RecordError(`${path}.${key} is unknown; it has ${Object.keys(members).join(", ")}`);
    }
    optional[key](part, `${path}.${key}`);
  }
};
/** Members of any name, all of one shape. */
export const table = (of: Shape): Shape => (value, path) => {
  if (!isRecord(value)) refuse(path, value, "a record");
  for (const [key, part] of Object.entries(value)) of(part, `${path}.${key}`);
};

/** Who has a state that changes by its numbers only: a device. */
export interface Owner {
  readonly state: object;
  readonly queues?: readonly string[];
  readonly ranges?: Readonly<Record<string, readonly [least: number, most: number]>>;
}

/**
 * Like the owner's state as it is now: every member there, of the same kind and size, and no other.
 * Numbers are bytes, but for those in `ranges`, and lists in `queues` are of any length.
 */
export const like = (owner: Owner): Shape => (value, path) =>
  alike(owner.state, value, path, "", owner);

/** @param name of the member it stands in */
function alike(
  present: unknown,
  value: Plain | undefined,
  path: string,
  name: string,
  owner: Owner,
): void {
  const expected = kindOf(present), { queues, ranges } = owner;
  if (value === undefined || expected !== kindOf(value)) refuse(path, value, expected);
  if (typeof value === "bigint") return u64(value, path);
  if (typeof value === "number") return number(...ranges?.[name] ?? BYTE)(value, path);
  const queue = queues?.includes(name);
  if (value instanceof Uint8Array || Array.isArray(value)) {
    const { length } = present as ArrayLike<unknown>;
    if (!queue && value.length !== length) refuse(path, value, counted(length, "entry", "entries"));
  }
  if (Array.isArray(value)) {
    const items = present as readonly unknown[];
    value.forEach((item, i) =>
      alike(queue ? items[i] ?? 0 : items[i], item, `${path}[${i}]`, name, owner)
    );
  } else if (isRecord(value)) {
    const members = Object.entries(present as object).map(([key, part]): [string, Shape] => [
      key,
      (it, at) => alike(part, it, at, key, owner),
    ]);
    record(Object.fromEntries(members))(value, path);
  }
}

const BYTE = [0, 255] as const;
/** A whole number, or Infinity where that is the most. */
const number = (least: number, most: number): Shape =>
  most === Infinity ? time : whole(least, most);

function kindOf(value: unknown): string {
  if (value === null) return "null";
  if (value instanceof Uint8Array) return "bytes";
  if (Array.isArray(value)) return "a list";
  return typeof value === "object" ? "a record" : `a ${typeof value}`;
}
