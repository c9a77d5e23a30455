/** Constants of the transcendental functions, worked out exactly enough when a module is built. */

/** Fraction bits of the fixed-point numbers here. */
const BITS = 192n;
const ONE = 1n << BITS;

/** Sum of sign^k * x^(2k+1) / (2k+1) for a rational x = n / d: atan (sign -1) or atanh (sign 1). */
function arc(n: bigint, d: bigint, sign: 1n | -1n): bigint {
  let power = ONE * n / d, sum = 0n, s = 1n;
  for (let k = 1n; power !== 0n; k += 2n) {
    sum += s * power / k;
    power = power * n * n / (d * d);
    s *= sign;
  }
  return sum;
}

const LN2 = 2n * arc(1n, 3n, 1n);
/** Machin: pi = 16 atan(1/5) - 4 atan(1/239). */
const PI = 16n * arc(1n, 5n, -1n) - 4n * arc(1n, 239n, -1n);

/** 128 bits: upper and lower half. */
export type FixedPoint = readonly [high: bigint, low: bigint];

/** A fixed-point number as 128 bits, the lowest worth 2^-fraction. */
function wide(value: bigint, fraction: bigint): FixedPoint {
  const bits = value >> (BITS - fraction);
  return [bits >> 64n, bits & 0xffff_ffff_ffff_ffffn];
}

/** ln 2 with 128 fraction bits. */
export const ln2 = wide(LN2, 128n);
/** 1 / ln 2 with 127 fraction bits. */
export const log2e = wide(ONE * ONE / LN2, 127n);
/** pi and pi / 2 with 126 fraction bits. */
export const pi = wide(PI, 126n);
export const halfPi = wide(PI / 2n, 126n);
/** atan(i / 16) for i = 0 to 16 with 127 fraction bits. */
export const atanTable: readonly FixedPoint[] = Array.from(
  { length: 17 },
  (_, i) => wide(i === 16 ? PI / 4n : arc(BigInt(i), 16n, -1n), 127n),
);

/** pi of argument reduction: 66 bits, cut off (SDM 1 8.3.8); pi / 2 has the same digits. */
export const reductionPi: FixedPoint = (() => {
  const [high, low] = wide(PI, 126n);
  return [high, low & (3n << 62n)];
})();

const factorial = (n: bigint): bigint => n < 2n ? 1n : n * factorial(n - 1n);
/** `count` coefficients 1 / f(k) with 127 fraction bits. */
const series = (count: number, f: (k: bigint) => bigint): FixedPoint[] =>
  Array.from({ length: count }, (_, k) => wide(ONE / f(BigInt(k)), 127n));

/** Coefficients of what is left of a series after its leading factor, from the constant term on. */
export const SERIES = {
  /** (e^z - 1) / z for z up to ln 2. */
  exp: series(23, (k) => factorial(k + 1n)),
  /** atanh(s) / s and atan(s) / s in s^2. */
  arc: series(17, (k) => 2n * k + 1n),
  /** sin(r) / r and cos(r) in r^2, for r up to pi / 4. */
  sin: series(13, (k) => factorial(2n * k + 1n)),
  cos: series(14, (k) => factorial(2n * k)),
};
