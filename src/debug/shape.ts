/**
 * Shapes of saved records: what is refused before anything is put in place.
 *
 * @module
 */
import { type Plain, RecordError } from "../devices/record.ts";
import { counted } from "./values.ts";

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
