/** What both vendors' rules are written with. */

/** Bit `n` of a value. */
export const bit = (value: bigint, n: number): boolean => (value >> BigInt(n) & 1n) === 1n;

/** Bits `high` to `low` of a value. */
export const bits = (value: bigint, high: number, low: number): bigint =>
  value >> BigInt(low) & (1n << BigInt(high - low + 1)) - 1n;

/** Each byte of a page-attribute table is a memory type that exists (SDM 3 12.12.2, APM 2 7.8.1). */
export const memoryTypes = (pat: bigint): boolean =>
  Array.from({ length: 8 }, (_, n) => bits(pat, 8 * n + 7, 8 * n)).every((type) =>
    [0n, 1n, 4n, 5n, 6n, 7n].includes(type)
  );
