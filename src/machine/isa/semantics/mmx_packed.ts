/**
 * Packed integer operations on vectors, for MMX registers (the low 64 bits count) and XMM registers
 * (SDM 2 under their names).
 */
import { type Expr, i32, i64 } from "../../wasm/expr.ts";
import type { Func, Local } from "../../wasm/module.ts";
import { bytes, join, lane64, shifted, shuffle, splat64, splat8, V, vector } from "./mmx_vector.ts";

/** Bits of the registers: 64 for MMX, 128 for XMM. */
export type Width = 64 | 128;
/** destination, source -> new destination; both are locals, so that they may be used twice. */
export type Packed = (a: Local, b: Local, width: Width, f: Func) => Expr;

const plain = (op: number): Packed => (a, b) => vector(op, a, b);
const swapped = (op: number): Packed => (a, b) => vector(op, b, a);

/** The registers' bytes next to each other: a's, then b's. For XMM two vectors hold them. */
const both = (a: Expr, b: Expr): Expr => join(lane64(a, 0), lane64(b, 0));

const pack = (op: number): Packed => (a, b, width, f) => {
  if (width === 128) return vector(op, a, b);
  const c = f.let(both(a, b));
  return vector(op, c, c);
};

/** Interleaves elements of `size` bytes from the low or high halves. */
const unpack = (size: number, high: boolean): Packed => (a, b, width) => {
  const start = high ? width / 16 : 0;
  const lanes = Array.from({ length: 16 }, (_, i) => {
    const element = Math.floor(i / (2 * size)), second = Math.floor(i / size) & 1;
    return (start + element * size + i % size & 15) + (second ? 16 : 0);
  });
  return shuffle(a, b, lanes);
};

/** Elements of even (or odd) number of a, then of b. */
const gather = (a: Expr, b: Expr, size: number, odd: 0 | 1, width: Width): Expr => {
  const half = width / 16;
  const lanes = Array.from({ length: 16 }, (_, i) => {
    const second = Math.floor(i / half) & 1;
    const element = 2 * Math.floor((i % half) / size) + odd;
    return (element * size + i % size & 15) + (second ? 16 : 0);
  });
  return shuffle(a, b, lanes);
};
const horizontal = (op: number, size: number): Packed => (a, b, width) =>
  vector(op, gather(a, b, size, 0, width), gather(a, b, size, 1, width));

const multiplyHigh = (low: number, high: number, shift: number, narrow: number): Packed => (a, b) =>
  vector(
    narrow,
    shifted(shift, vector(low, a, b), i32(16)),
    shifted(shift, vector(high, a, b), i32(16)),
  );

/** a, its negative or zero, by the sign of b. */
const sign = (size: 8 | 16 | 32): Packed => (a, b, _width, f) => {
  const zero = splat64(0);
  const negative = f.let(vector(V.gtS[size], zero, b));
  const value = vector(V.sub[size], vector(V.xor, a, negative), negative);
  return vector(V.andNot, value, vector(V.eq[size], b, zero));
};

const sumOfDifferences: Packed = (a, b, _width, f) => {
  const difference = vector(V.or, vector(V.subSatU[8], a, b), vector(V.subSatU[8], b, a));
  const pairs = f.let(vector(V.pairsU[16], vector(V.pairsU[8], difference)));
  const sum = vector(V.add[64], pairs, shifted(V.shrU[64], pairs, i32(32)));
  return vector(V.and, sum, splat64(0xffff));
};

/** Unsigned bytes of a times signed bytes of b, neighbours added with saturation. */
const multiplyAddBytes: Packed = (a, b) => {
  const even = vector(
    V.mul[16],
    vector(V.and, a, splat64(0x00ff_00ff_00ff_00ffn)),
    shifted(V.shrS[16], shifted(V.shl[16], b, i32(8)), i32(8)),
  );
  const odd = vector(
    V.mul[16],
    shifted(V.shrU[16], a, i32(8)),
    shifted(V.shrS[16], b, i32(8)),
  );
  return vector(V.addSatS[16], even, odd);
};

/** Wasm saturates -1 * -1 to the largest number, PMULHRSW wraps to the smallest. */
const multiplyRounded: Packed = (a, b) => {
  const least = splat64(0x8000_8000_8000_8000n);
  const wraps = vector(V.and, vector(V.eq[16], a, least), vector(V.eq[16], b, least));
  return vector(V.xor, vector(V.q15Multiply, a, b), wraps);
};

const shuffleBytes: Packed = (a, b, width) => {
  const mask = width === 64 ? 0x8787_8787_8787_8787n : 0x8f8f_8f8f_8f8f_8f8fn;
  return vector(V.swizzle, a, vector(V.and, b, splat64(mask)));
};

const low32 = 0xffff_ffffn;

export const packed: Readonly<Record<string, Packed>> = {
  packsswb: pack(V.narrowS[16]),
  packssdw: pack(V.narrowS[32]),
  packuswb: pack(V.narrowU[16]),
  punpcklbw: unpack(1, false),
  punpcklwd: unpack(2, false),
  punpckldq: unpack(4, false),
  punpckhbw: unpack(1, true),
  punpckhwd: unpack(2, true),
  punpckhdq: unpack(4, true),
  pcmpgtb: plain(V.gtS[8]),
  pcmpgtw: plain(V.gtS[16]),
  pcmpgtd: plain(V.gtS[32]),
  pcmpeqb: plain(V.eq[8]),
  pcmpeqw: plain(V.eq[16]),
  pcmpeqd: plain(V.eq[32]),
  paddb: plain(V.add[8]),
  paddw: plain(V.add[16]),
  paddd: plain(V.add[32]),
  paddq: plain(V.add[64]),
  psubb: plain(V.sub[8]),
  psubw: plain(V.sub[16]),
  psubd: plain(V.sub[32]),
  psubq: plain(V.sub[64]),
  paddsb: plain(V.addSatS[8]),
  paddsw: plain(V.addSatS[16]),
  paddusb: plain(V.addSatU[8]),
  paddusw: plain(V.addSatU[16]),
  psubsb: plain(V.subSatS[8]),
  psubsw: plain(V.subSatS[16]),
  psubusb: plain(V.subSatU[8]),
  psubusw: plain(V.subSatU[16]),
  pminub: plain(V.minU[8]),
  pmaxub: plain(V.maxU[8]),
  pminsw: plain(V.minS[16]),
  pmaxsw: plain(V.maxS[16]),
  pand: plain(V.and),
  pandn: swapped(V.andNot),
  por: plain(V.or),
  pxor: plain(V.xor),
  pavgb: plain(V.average[8]),
  pavgw: plain(V.average[16]),
  pmullw: plain(V.mul[16]),
  pmulhw: multiplyHigh(V.extmulLowS, V.extmulHighS, V.shrS[32], V.narrowS[32]),
  pmulhuw: multiplyHigh(V.extmulLowU, V.extmulHighU, V.shrU[32], V.narrowU[32]),
  pmaddwd: plain(V.dot),
  pmuludq: (a, b) =>
    vector(V.mul[64], vector(V.and, a, splat64(low32)), vector(V.and, b, splat64(low32))),
  psadbw: sumOfDifferences,
  pshufb: shuffleBytes,
  phaddw: horizontal(V.add[16], 2),
  phaddd: horizontal(V.add[32], 4),
  phaddsw: horizontal(V.addSatS[16], 2),
  phsubw: horizontal(V.sub[16], 2),
  phsubd: horizontal(V.sub[32], 4),
  phsubsw: horizontal(V.subSatS[16], 2),
  pmaddubsw: multiplyAddBytes,
  psignb: sign(8),
  psignw: sign(16),
  psignd: sign(32),
  pmulhrsw: multiplyRounded,
  pabsb: (_a, b) => vector(V.abs[8], b),
  pabsw: (_a, b) => vector(V.abs[16], b),
  pabsd: (_a, b) => vector(V.abs[32], b),
};

/** Shifts: operator and bits of an element; those of `arithmetic` fill with the sign. */
export const shifts: Readonly<Record<string, { op: number; bits: number; arithmetic: boolean }>> = {
  psrlw: { op: V.shrU[16], bits: 16, arithmetic: false },
  psrld: { op: V.shrU[32], bits: 32, arithmetic: false },
  psrlq: { op: V.shrU[64], bits: 64, arithmetic: false },
  psraw: { op: V.shrS[16], bits: 16, arithmetic: true },
  psrad: { op: V.shrS[32], bits: 32, arithmetic: true },
  psllw: { op: V.shl[16], bits: 16, arithmetic: false },
  pslld: { op: V.shl[32], bits: 32, arithmetic: false },
  psllq: { op: V.shl[64], bits: 64, arithmetic: false },
};

/** `value` shifted by `count` (i64, any size). */
export function shift(name: string, value: Expr, count: Local): Expr {
  const { op, bits, arithmetic } = shifts[name];
  const tooFar = count.gtU(bits - 1);
  if (arithmetic) return shifted(op, value, i32(bits - 1).when(tooFar, count.wrap()));
  return splat64(0).when(tooFar, shifted(op, value, count.wrap()));
}

const iota = Array.from({ length: 16 }, (_, i) => i);

/** PALIGNR: a above b, shifted right by `count` (i32) bytes. */
export function align(a: Local, b: Local, count: Local, width: Width): Expr {
  const most = width / 4;
  const by = splat8(i32(most).when(count.gtU(most), count));
  if (width === 64) {
    return vector(V.swizzle, both(b, a), vector(V.add[8], bytes(iota), by));
  }
  const low = vector(V.swizzle, b, vector(V.add[8], bytes(iota), by));
  const high = vector(V.swizzle, a, vector(V.add[8], bytes(iota.map((i) => i - 16)), by));
  return vector(V.or, low, high);
}

/** PSHUFW: words of `value` by the pairs of bits of `order` (i32). */
export function shuffleWords(value: Local, order: Local): Expr {
  let result: Expr = i64(0);
  for (let i = 0; i < 4; i++) {
    const from = order.shrU(2 * i).and(3).shl(4).zext();
    result = result.or(value.shrU(from).and(0xffff).shl(16 * i));
  }
  return result;
}
