/** Random numbers by seed and index, and values at which processors go wrong. */

/** A small fast generator (sfc32): the same seed and index give the same numbers. */
export class Random {
  #a: number;
  #b: number;
  #c: number;
  #count = 1;

  constructor(seed: number, index = 0) {
    this.#a = seed | 0;
    this.#b = index | 0;
    this.#c = (index / 0x1_0000_0000) | 0;
    for (let i = 0; i < 12; i++) this.u32();
  }

  /** 32 random bits, 0 to 2^32 - 1. */
  u32(): number {
    const t = (this.#a + this.#b + this.#count) | 0;
    this.#count = (this.#count + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + t) | 0;
    return t >>> 0;
  }

  /** An integer of 0 to n - 1. */
  below(n: number): number {
    return Math.floor((this.u32() / 0x1_0000_0000) * n);
  }

  /** True with probability p. */
  chance(p: number): boolean {
    return this.u32() < p * 0x1_0000_0000;
  }

  /** One of a list. */
  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)];
  }

  /** 64 random bits. */
  u64(): bigint {
    return (BigInt(this.u32()) << 32n) | BigInt(this.u32());
  }
}

const WIDTHS = [8n, 16n, 32n, 64n];

/** A 64-bit integer: random, small, or at a sign or size boundary of 8, 16, 32 or 64 bits. */
export function integer(random: Random): bigint {
  const r = random.below(10);
  if (r < 3) return random.u64();
  if (r < 4) return BigInt(random.below(256));
  if (r < 5) return BigInt.asUintN(64, -BigInt(random.below(256)));
  if (r < 7) return BigInt(random.u32());
  if (r < 8) return 1n << BigInt(random.below(64));
  const width = random.pick(WIDTHS), sign = 1n << (width - 1n);
  const value = sign + BigInt(random.below(3)) - 1n;
  return BigInt.asUintN(64, random.chance(0.5) ? value : -value);
}

/** Significand and exponent pairs (80-bit), signs apart: zeros, limits, NaNs, invalid forms. */
const SPECIAL: readonly [exponent: number, significand: bigint][] = [
  [0, 0n],
  [0, 1n], // denormals
  [0, 0x7fff_ffff_ffff_ffffn],
  [0, 0x8000_0000_0000_0000n], // pseudo-denormals
  [0, 0xffff_ffff_ffff_ffffn],
  [1, 0x8000_0000_0000_0000n], // least normal
  [0x7ffe, 0xffff_ffff_ffff_ffffn], // greatest
  [0x7fff, 0x8000_0000_0000_0000n], // infinity
  [0x7fff, 0xc000_0000_0000_0000n], // indefinite (negative), QNaN
  [0x7fff, 0xc000_0000_1234_5678n],
  [0x7fff, 0x8000_0000_0000_0001n], // SNaN
  [0x7fff, 0xa000_0000_0000_0000n],
  [0x7fff, 0n], // pseudo-infinity
  [0x7fff, 0x4000_0000_0000_0000n], // pseudo-NaN
  [0x3fff, 0x4000_0000_0000_0000n], // unnormal
  [0x1234, 0n],
  [0x3fff, 0x8000_0000_0000_0000n], // 1
  [0x3ffe, 0x8000_0000_0000_0000n], // 0.5
  [0x4000, 0x8000_0000_0000_0000n], // 2
  [0x4000, 0xc90f_daa2_2168_c235n], // pi
  [0x3fff, 0xc90f_daa2_2168_c235n], // pi / 2
  [0x400e, 0x8000_0000_0000_0000n], // 2^15
  [0x401e, 0x8000_0000_0000_0000n], // 2^31
  [0x403e, 0x8000_0000_0000_0000n], // 2^63
  [0x403a, 0xde0b_6b3a_7640_0000n], // 10^18
  [0x407e, 0xffff_ff80_0000_0000n], // about the greatest single
  [0x3f81, 0x8000_0000_0000_0000n], // least normal single
  [0x3c01, 0x8000_0000_0000_0000n], // least normal double
  [0x43fe, 0xffff_ffff_ffff_fc00n], // about the greatest double
];

/** Writes an 80-bit value, 10 bytes; `near` draws exponents close to it. */
export function putX87(random: Random, view: DataView, at: number, near?: number): void {
  let exponent: number, significand: bigint;
  const r = random.below(10);
  if (near !== undefined && r < 7) {
    exponent = near + random.below(5) - 2;
    significand = fraction(random);
  } else if (r < 5) [exponent, significand] = random.pick(SPECIAL);
  else {
    exponent = r < 7 ? 0x3fff + random.below(140) - 70 : random.below(0x7fff);
    significand = fraction(random);
  }
  view.setBigUint64(at, significand, true);
  view.setUint16(at + 8, exponent | (random.chance(0.5) ? 0x8000 : 0), true);
}

/** A normal significand: random, short, or with long runs of equal bits (rounding cases). */
function fraction(random: Random): bigint {
  const top = 0x8000_0000_0000_0000n, r = random.below(5);
  if (r < 2) return top | random.u64();
  if (r < 3) return top | (BigInt(random.u32()) << 32n);
  const run = (1n << BigInt(random.below(64))) - 1n;
  return top | (random.chance(0.5) ? run : BigInt.asUintN(64, ~run)) ^ BigInt(random.below(4));
}

/** Bits of a double. */
export function doubleBits(random: Random): bigint {
  const sign = random.chance(0.5) ? 1n << 63n : 0n;
  return sign | exponentAndFraction(random, 11n, 52n);
}

/** Bits of a single. */
export function floatBits(random: Random): number {
  const sign = random.chance(0.5) ? 1n << 31n : 0n;
  return Number(sign | exponentAndFraction(random, 8n, 23n));
}

function exponentAndFraction(random: Random, ebits: bigint, fbits: bigint): bigint {
  const top = (1n << ebits) - 1n, bias = top >> 1n, mask = (1n << fbits) - 1n;
  const exponents = [0n, 0n, 1n, bias, bias + 1n, bias - 1n, top - 1n, top, top];
  const e = random.chance(0.4)
    ? random.pick(exponents)
    : random.chance(0.6)
    ? bias + BigInt(random.below(40)) - 20n
    : BigInt.asUintN(Number(ebits), random.u64());
  const fractions = [0n, 1n, mask, (mask >> 1n) + 1n, mask >> 1n];
  const f = random.chance(0.4) ? random.pick(fractions) : random.u64() & mask;
  return (e << fbits) | f;
}

/** Writes packed integers or floats of interest; `size` is 8 or 16 bytes. */
export function putVector(random: Random, view: DataView, start: number, size: number): void {
  const form = random.below(4);
  for (let at = start; at < start + size; at += 8) {
    if (form === 0) view.setBigUint64(at, integer(random), true);
    else if (form === 1) {
      for (let i = 0; i < 8; i += 2) {
        view.setUint16(at + i, Number(integer(random) & 0xffffn), true);
      }
    } else if (form === 2) view.setBigUint64(at, doubleBits(random), true);
    else for (let i = 0; i < 8; i += 4) view.setUint32(at + i, floatBits(random), true);
  }
}
