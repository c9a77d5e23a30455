/**
 * Values as the public API prints them: addresses, sizes, counts, times, tables.
 *
 * @module
 */
import { counted, grouped } from "../machine/text.ts";

export { counted, grouped };

const MAX_SHOWN = 60;

/** A value for a message; long ones are cut. */
export function shown(value: unknown): string {
  switch (typeof value) {
    case "string":
      return JSON.stringify(
        value.length > MAX_SHOWN ? `${value.slice(0, MAX_SHOWN)}…` : value,
      );
    case "bigint":
      return hex(value);
    case "number":
    case "boolean":
    case "undefined":
      return String(value);
    case "function":
      return "a function";
    case "symbol":
      return "a symbol";
  }
  if (value === null) return "null";
  if (Array.isArray(value)) {
    return value.length <= 4
      ? `[${value.map((v) => typeof v === "object" ? "…" : shown(v)).join(", ")}]`
      : `an array of ${value.length}`;
  }
  const name = (value as object).constructor?.name;
  if (ArrayBuffer.isView(value)) return `${name} of ${counted(value.byteLength, "byte")}`;
  return name && name !== "Object" ? `an object of class ${name}` : "an object";
}

/** Throws where nobody catches it: an error in a callback of a script's must not vanish. */
export function throwLate(error: unknown): void {
  queueMicrotask(() => {
    throw error;
  });
}

/** `0xc0100000`, padded to `digits`. */
export function hex(value: bigint | number, digits = 0): string {
  const negative = value < 0;
  const text = (negative ? -value : value).toString(16).padStart(digits, "0");
  return `${negative ? "-" : ""}0x${text}`;
}

/** `16 KiB`, `256 MiB`, or plain bytes where that is not whole. */
export function sizeText(bytes: number): string {
  for (const [unit, size] of [["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]] as const) {
    if (bytes >= size && bytes % size === 0) return `${bytes / size} ${unit}`;
  }
  return counted(bytes, "byte");
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
  /** The text may have escape sequences for colours. */
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
  if (given.length > MAX_SHOWN) return undefined;
  let best: string | undefined, distance = Math.max(2, given.length / 2);
  for (const name of known) {
    if (given.length > 2 && name.toLowerCase().startsWith(given.toLowerCase())) return name;
    const d = editDistance(given.toLowerCase(), name.toLowerCase());
    if (d < distance) [best, distance] = [name, d];
  }
  return best;
}

/** Letters put in, left out, changed, or two that stand the wrong way round. */
function editDistance(a: string, b: string): number {
  let before: number[] = [], row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      next[j] = Math.min(row[j] + 1, next[j - 1] + 1, row[j - 1] + same);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        next[j] = Math.min(next[j], before[j - 2] + 1);
      }
    }
    [before, row] = [row, next];
  }
  return row[b.length];
}
