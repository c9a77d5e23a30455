/**
 * What the public API is given, checked in one way: a check takes a value and gives it back in the
 * form the inside works with, or refuses it with what was expected and what was given. Checks of
 * objects are made from checks of their keys.
 *
 * A value of another type is a `TypeError`, one of the right type that cannot be is a `RangeError`.
 *
 * @module
 */
import { hex, nearestName, shown, sizeText } from "./values.ts";

/** Names of addresses. */
export interface SymbolLookup {
  address(name: string): bigint | undefined;
}

/**
 * Checks a value.
 *
 * @param what what it is for, as the message names it: "cap", "io filter port"
 * @param symbols names that stand for addresses
 * @throws {TypeError | RangeError} naming what was expected and what was given
 */
export type ValueCheck<T> = (value: unknown, what: string, symbols?: SymbolLookup) => T;

const MASK = 0xffff_ffff_ffff_ffffn;

/** Refuses a value of another type. */
export function wrongType(what: string, expected: string, given: unknown): TypeError {
  return new TypeError(`${what}: ${expected} was expected, ${shown(given)} was given`);
}
/** Refuses a value of the right type. */
export function outOfRange(what: string, expected: string, given: unknown): RangeError {
  return new RangeError(`${what}: ${expected} was expected, ${shown(given)} was given`);
}

// --- numbers ---

/** A whole number from `min` to `max`, given as a number or a bigint. */
export function whole(min: number, max: number): ValueCheck<number> {
  const expected = min === 0 && max > 9 && Number.isInteger(Math.log2(max + 1))
    ? `a whole number from 0 to ${hex(max)}`
    : `a whole number from ${min} to ${max}`;
  return (value, what) => {
    if (typeof value !== "number" && typeof value !== "bigint") {
      throw wrongType(what, expected, value);
    }
    const number = Number(value);
    if (!Number.isSafeInteger(number) || number < min || number > max) {
      throw outOfRange(what, expected, value);
    }
    return number;
  };
}
export const u8 = whole(0, 0xff), u16 = whole(0, 0xffff), u32 = whole(0, 0xffff_ffff);

/** A count or a length in bytes, from 1 up. */
export const count = whole(1, 2 ** 31);
/** A count or a length in bytes. @throws {RangeError} unless it is a whole number from `min` up */
export function toCount(value: unknown, what: string, min = 1, max = 2 ** 31): number {
  return whole(min, max)(value, what);
}

/** A word of `bits` bits, given as a bigint or a safe integer; negative ones are two's complements. */
export function word(bits: number): ValueCheck<bigint> {
  const expected = `a bigint or a safe integer that fits in ${bits} bits`;
  return (value, what) => {
    const big = typeof value === "bigint"
      ? value
      : Number.isSafeInteger(value)
      ? BigInt(value as number)
      : undefined;
    if (big === undefined) throw wrongType(what, expected, value);
    if (big >= 1n << BigInt(bits) || big < -(1n << BigInt(bits - 1))) {
      throw outOfRange(what, expected, value);
    }
    return BigInt.asUintN(bits, big);
  };
}

/**
 * An address of 64 bits.
 *
 * @throws {TypeError} for a value of another type, {RangeError} for one that is no address
 */
export function toAddress(value: unknown, what: string, symbols?: SymbolLookup): bigint {
  if (typeof value === "bigint") {
    if (value < -(1n << 63n) || value > MASK) {
      throw new RangeError(`${what}: ${hex(value)} does not fit in 64 bits`);
    }
    return value & MASK;
  }
  if (typeof value === "number") {
    if (!Number.isSafeInteger(value)) {
      throw new RangeError(
        `${what}: ${value} is no safe integer; write addresses above 2^53 as bigint (0x…n)`,
      );
    }
    return BigInt(value) & MASK;
  }
  if (typeof value === "string") {
    const found = symbols?.address(value);
    if (found !== undefined) return found;
    throw new RangeError(
      symbols
        ? `${what}: there is no symbol named ${shown(value)}`
        : `${what}: the domain has no symbols, so ${shown(value)} names no address`,
    );
  }
  throw wrongType(what, "a bigint, a safe integer or a symbol's name", value);
}

/** A linear address that a guest can have: canonical, of 48 bits (SDM 1 3.3.7.1). */
export const linearAddress: ValueCheck<bigint> = (value, what, symbols) => {
  const address = toAddress(value, what, symbols);
  const top = address >> 47n;
  if (top === 0n || top === 0x1_ffffn) return address;
  throw outOfRange(what, "a canonical address (bits 63 to 47 all the same)", address);
};

/** A physical address: of 52 bits at most (SDM 3 4.1.4). */
export const physicalAddress: ValueCheck<bigint> = (value, what, symbols) => {
  const address = toAddress(value, what, symbols);
  if (address < 1n << 52n) return address;
  throw outOfRange(what, "a physical address (below 2^52)", address);
};

const UNITS: Record<string, number> = { "": 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };

/** Bytes of a size as one writes it: `"256M"`, `"1G"`, or a number of bytes. */
export function toSize(value: unknown, what: string): number {
  const match = typeof value === "string"
    ? value.trim().match(/^(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?$/i)
    : undefined;
  const bytes = typeof value === "number"
    ? value
    : match
    ? Number(match[1]) * UNITS[match[2].toUpperCase()]
    : NaN;
  if (Number.isSafeInteger(bytes) && bytes > 0) return bytes;
  throw outOfRange(what, `a size such as "256M", or a number of bytes,`, value);
}

/**
 * Bytes of memory: whole pages, from `min` to `max`. What is refused is shown as it was given, and the
 * limits in the same unit.
 */
export function pages(min: number, max: number): ValueCheck<number> {
  return (value, what) => {
    const bytes = toSize(value, what);
    if (bytes >= min && bytes <= max && bytes % 4096 === 0) return bytes;
    const unit = typeof value === "number" ? String : sizeText;
    throw outOfRange(what, `from ${unit(min)} to ${unit(max)} in whole pages of 4 KiB`, value);
  };
}

// --- others ---

/** true or false. */
export const flag: ValueCheck<boolean> = (value, what) => {
  if (typeof value !== "boolean") throw wrongType(what, "true or false", value);
  return value;
};

/** Text. */
export const text: ValueCheck<string> = (value, what) => {
  if (typeof value !== "string") throw wrongType(what, "text", value);
  return value;
};

/** Text that is not empty. */
export const someText: ValueCheck<string> = (value, what) => {
  if (text(value, what) === "") throw outOfRange(what, "text that is not empty", value);
  return value as string;
};

/** A function. */
// deno-lint-ignore no-explicit-any
export const callable: ValueCheck<(...args: any[]) => unknown> = (value, what) => {
  if (typeof value !== "function") throw wrongType(what, "a function", value);
  return value as () => unknown;
};

export const abortSignal: ValueCheck<AbortSignal> = (value, what) => {
  if (!(value instanceof AbortSignal)) throw wrongType(what, "an AbortSignal", value);
  return value;
};

/** One of a few values. */
export function oneOf<const T extends string | number>(...known: readonly T[]): ValueCheck<T> {
  const last = known.at(-1), rest = known.slice(0, -1);
  const expected = rest.length ? `${rest.map(shown).join(", ")} or ${shown(last)}` : shown(last);
  return (value, what) => {
    if (known.includes(value as T)) return value as T;
    const alike = typeof value === typeof known[0];
    throw (alike ? outOfRange : wrongType)(what, expected, value);
  };
}

/** Bytes: a Uint8Array, or an array of whole numbers from 0 to 255. */
export const bytes: ValueCheck<Uint8Array> = (value, what) => {
  if (value instanceof Uint8Array) return value;
  const expected = "a Uint8Array or an array of bytes";
  if (!Array.isArray(value)) {
    const hint = typeof value === "string"
      ? " (new TextEncoder().encode() makes bytes of text)"
      : "";
    throw wrongType(what, expected + hint, value);
  }
  return Uint8Array.from(value, (byte, i) => u8(byte, `${what}[${i}]`));
};

/** Text or bytes: a path or a file's contents, what is typed, what is searched. */
export const textOrBytes: ValueCheck<string | Uint8Array> = (value, what) => {
  if (typeof value === "string" || value instanceof Uint8Array) return value;
  throw wrongType(what, "text or a Uint8Array", value);
};

/** A value, or the first and last of a range. */
export function rangeOf<T extends number | bigint>(
  each: ValueCheck<T>,
): ValueCheck<T | readonly [T, T]> {
  return (value, what, symbols) =>
    Array.isArray(value) ? pairOf(each)(value, what, symbols) : each(value, what, symbols);
}

/** The first and last of a range. */
export function pairOf<T extends number | bigint>(
  each: ValueCheck<T>,
): ValueCheck<readonly [T, T]> {
  return (value, what, symbols) => {
    if (!Array.isArray(value) || value.length !== 2) {
      throw wrongType(what, "[first, last]", value);
    }
    const [first, last] = value.map((v) => each(v, what, symbols));
    if (first > last) throw outOfRange(what, "[first, last] in this order", value);
    return [first, last];
  };
}

/** A list. */
export function listOf<T>(each: ValueCheck<T>): ValueCheck<readonly T[]> {
  return (value, what, symbols) => {
    if (!Array.isArray(value)) throw wrongType(what, "an array", value);
    return value.map((v, i) => each(v, `${what}[${i}]`, symbols));
  };
}

/** Checks of an object's keys. */
// deno-lint-ignore no-explicit-any
export type OptionShape = Readonly<Record<string, ValueCheck<any>>>;

/** An object as a shape's checks give it; what is left out stays so. */
export type Checked<S extends OptionShape> = { -readonly [K in keyof S]?: ReturnType<S[K]> };

/**
 * An object of options: each key by its check, unknown ones refused.
 *
 * @example
 * ```ts
 * import { assertEquals, assertThrows } from "@std/assert";
 * import { flag, options, u16 } from "./check.ts";
 * const check = options({ port: u16, write: flag });
 * assertEquals(check({ port: 0x3f8 }, "io"), { port: 0x3f8 });
 * assertThrows(() => check({ prot: 1 }, "io"), TypeError, 'did you mean "port"?');
 * assertThrows(() => check({ port: -1 }, "io"), RangeError, "io port: a whole number");
 * ```
 */
export function options<S extends OptionShape>(shape: S): ValueCheck<Checked<S>> {
  const keys = Object.keys(shape);
  return (value, what, symbols) => {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      throw wrongType(what, "an object", value);
    }
    const result: Record<string, unknown> = {};
    for (const [key, given] of Object.entries(value)) {
      if (!Object.hasOwn(shape, key)) throw new TypeError(`${what}: ${unknownName(key, keys)}`);
      if (given !== undefined) result[key] = shape[key](given, `${what} ${key}`, symbols);
    }
    return result as Checked<S>;
  };
}

/** `there is no "prot"; did you mean "port"? It has: port, write`. */
function unknownName(given: string, known: readonly string[]): string {
  const near = nearestName(given, known);
  const has = known.length ? `it has: ${known.join(", ")}` : "it has no keys";
  return `there is no ${shown(given)}${near ? `; did you mean "${near}"?` : ""}; ${has}`;
}
