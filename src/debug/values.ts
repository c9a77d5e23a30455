/**
 * Values as the public API takes and prints them: addresses, sizes, counts, hexadecimal. What is
 * refused is refused with what was given and what was expected.
 *
 * @module
 */

/** An address as one may write it: a bigint, a safe integer, or a symbol's name. */
export type Address = bigint | number | string;

/** Names of addresses. */
export interface SymbolLookup {
  address(name: string): bigint | undefined;
}

const MASK = 0xffff_ffff_ffff_ffffn;

/** A value for a message. */
export function shown(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "bigint") return hex(value);
  return typeof value === "number" ? String(value) : value === null ? "null" : typeof value;
}

/**
 * An address of 64 bits.
 *
 * @param what what the address is for, for the message
 * @throws {TypeError} for a value of another type, {RangeError} for one that is no address
 */
export function toAddress(value: Address, what: string, symbols?: SymbolLookup): bigint {
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
        ? `${what}: there is no symbol named ${JSON.stringify(value)}`
        : `${what}: the domain has no symbols, so ${JSON.stringify(value)} names no address`,
    );
  }
  throw new TypeError(
    `${what}: a bigint, a safe integer or a symbol's name was expected, ${shown(value)} was given`,
  );
}

/** An address that must be a place in memory: 0 to 2^53. */
export function toPlace(value: Address, what: string): number {
  const address = toAddress(value, what);
  if (address > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new RangeError(`${what}: ${hex(address)} is above any memory`);
  }
  return Number(address);
}

/** A count or a length in bytes. @throws {RangeError} unless it is a whole number from `min` up */
export function toCount(value: number, what: string, min = 1, max = 2 ** 31): number {
  if (!Number.isInteger(value) || value < min || value > max) {
    throw new RangeError(
      `${what}: a whole number from ${min} to ${max} was expected, ${shown(value)} was given`,
    );
  }
  return value;
}

const UNITS: Record<string, number> = { "": 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };

/** Bytes of a size as one writes it: `"256M"`, `"1G"`, or a number of bytes. */
export function toSize(value: number | string, what: string): number {
  const match = typeof value === "string"
    ? value.trim().match(/^(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?$/i)
    : undefined;
  const bytes = typeof value === "number"
    ? value
    : match
    ? Number(match[1]) * UNITS[match[2].toUpperCase()]
    : NaN;
  if (Number.isSafeInteger(bytes) && bytes > 0) return bytes;
  throw new RangeError(
    `${what}: a size such as "256M", or a number of bytes, was expected, ${shown(value)} was given`,
  );
}

/** `0xc0100000`, padded to `digits`. */
export function hex(value: bigint | number, digits = 0): string {
  const negative = value < 0;
  const text = (negative ? -value : value).toString(16).padStart(digits, "0");
  return `${negative ? "-" : ""}0x${text}`;
}

/** A number with its thousands apart: `1,234,567`. */
export function grouped(value: number | bigint): string {
  return String(value).replace(/\B(?=(\d{3})+$)/g, ",");
}

/** `16 KiB`, `256 MiB`, or plain bytes where that is not whole. */
export function sizeText(bytes: number): string {
  for (const [unit, size] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]] as const) {
    if (bytes >= size && bytes % size === 0) return `${bytes / size} ${unit}`;
  }
  return `${bytes} bytes`;
}

/** Guest time: `1.234567890 s`. */
export function timeText(nanoseconds: number): string {
  const seconds = Math.floor(nanoseconds / 1e9);
  return `${seconds}.${String(Math.round(nanoseconds - seconds * 1e9)).padStart(9, "0")} s`;
}

/** Rows under a heading, numbers to the right. */
export function tableText(
  head: readonly string[],
  rows: readonly (readonly (string | number | bigint)[])[],
): string {
  const numeric = head.map((_, i) =>
    rows.length > 0 && rows.every((r) => typeof r[i] !== "string")
  );
  const cells = [
    head,
    ...rows.map((row) => row.map((c) => typeof c === "string" ? c : grouped(c))),
  ];
  const widths = head.map((_, i) => Math.max(...cells.map((row) => row[i]?.length ?? 0)));
  return cells.map((row) =>
    row.map((cell, i) => numeric[i] ? cell.padStart(widths[i]) : cell.padEnd(widths[i]))
      .join("  ").trimEnd()
  ).join("\n");
}

/** What inspection functions are given; a part of Deno's. */
export interface InspectOptions {
  readonly colors?: boolean;
}

/** The symbol under which an object tells Deno how it looks. */
export const INSPECT: unique symbol = Symbol.for("Deno.customInspect") as never;

/** Text in bold where colours are on. */
export const bold = (text: string, options?: InspectOptions): string =>
  options?.colors ? `\x1b[1m${text}\x1b[22m` : text;
/** Text that stands back. */
export const dim = (text: string, options?: InspectOptions): string =>
  options?.colors ? `\x1b[2m${text}\x1b[22m` : text;

/** The name of `given` that is nearest to one of `known`, for "did you mean". */
export function nearestName(given: string, known: Iterable<string>): string | undefined {
  let best: string | undefined, distance = Math.max(2, given.length / 2);
  for (const name of known) {
    if (given.length > 2 && name.toLowerCase().startsWith(given.toLowerCase())) return name;
    const d = editDistance(given.toLowerCase(), name.toLowerCase());
    if (d < distance) [best, distance] = [name, d];
  }
  return best;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
    }
    row = next;
  }
  return row[b.length];
}
