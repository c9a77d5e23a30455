import { brief } from "../src/builder/errors.ts";

const UNITS: Record<string, number> = { "": 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 };

/**
 * Bytes of a size as one writes it: `256M`, `1G`, `4096`.
 *
 * @throws RangeError for anything else.
 * @example
 * ```ts
 * if (parseSize("1.5K") !== 1536) throw new Error("unexpected");
 * ```
 */
export function parseSize(text: string): number {
  const match = text.trim().match(/^(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?$/i);
  const bytes = match ? Number(match[1]) * UNITS[match[2].toUpperCase()] : NaN;
  if (Number.isSafeInteger(bytes) && bytes > 0) return bytes;
  throw new RangeError(`expected a size such as 256M or 1G, got ${brief(JSON.stringify(text))}`);
}
