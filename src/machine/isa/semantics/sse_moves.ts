/** SSE moves, logic and shuffles: bits go from place to place, MXCSR is not looked at (SDM 2). */
import { Expr, i32, i64 } from "../../wasm/expr.ts";
import type { Local } from "../../wasm/module.ts";
import type { Meaning, Semantics } from "./meaning.ts";
import { shuffleWords } from "./mmx_packed.ts";
import {
  bytes,
  join,
  lane64,
  shifted,
  shuffle,
  splat64,
  splat8,
  V,
  vector,
  withLane64,
} from "./mmx_vector.ts";
import {
  anyOf,
  begin,
  isRegister,
  lowOf,
  movedVector,
  register,
  vectorOf,
  writeLow,
  writeRegister,
} from "./sse_access.ts";

/** 16 bytes between registers and memory. */
const move = (aligned: boolean): Semantics => (m) => {
  begin(m);
  if (m.form.operands[0] === "M") m.writeVector(aligned ? "Aligned" : "Anywhere", register(m, 1));
  else writeRegister(m, movedVector(m, 1, aligned));
};

/** MOVSS, MOVSD: a load clears the rest of the register, a move between registers leaves it. */
const moveScalar = (bits: 32 | 64): Semantics => (m) => {
  begin(m);
  const value = lowOf(m, 1, bits);
  if (m.form.operands[0] === "M") m.write(0, bits === 32 ? value.wrap() : value);
  else if (isRegister(m, 1)) writeLow(m, bits, value);
  else writeRegister(m, join(value, i64(0)));
};

/** MOVLPS and MOVHPS and their like: one half, to or from memory. */
const moveHalf = (lane: 0 | 1): Semantics => (m) => {
  begin(m);
  if (m.form.operands[0] === "M") m.write(0, m.f.let(lane64(register(m, 1), lane)));
  else {
    const value = lowOf(m, 1, 64);
    writeRegister(m, withLane64(m.vector(0), lane, value));
  }
};

/** Destination and source in, destination out. */
type Binary = (a: Local, b: Local) => Expr;
const binary = (work: Binary): Semantics => (m) => {
  begin(m);
  const b = vectorOf(m, 1), a = register(m, 0);
  writeRegister(m, work(a, b));
};
/** The same with an immediate. */
const withImmediate = (work: (a: Local, b: Local, n: Local) => Expr): Semantics => (m) => {
  begin(m);
  const n = m.readU(2), b = vectorOf(m, 1), a = register(m, 0);
  writeRegister(m, work(a, b, n));
};
/** Source in, destination out; a narrow memory operand is the low part. */
const unary = (work: (b: Local) => Expr): Semantics => (m) => {
  begin(m);
  writeRegister(m, work(anyOf(m, 1)));
};

const iota = Array.from({ length: 16 }, (_, i) => i);
/** Lanes for `shuffle` from numbers of dwords or qwords, 0 to 2n - 1. */
const lanes = (size: 4 | 8, elements: readonly number[]): number[] =>
  elements.flatMap((e) => iota.slice(0, size).map((i) => e * size + i));

/** Byte indexes of two dwords chosen by bits of `n` from `at` on. */
const dwords = (n: Local, at: number): Expr => {
  const one = (shift: number) => n.shrU(shift).and(3).mul(0x0404_0404).add(0x0302_0100).zext();
  return one(at).or(one(at + 2).shl(32));
};

/** All ones in elements whose bit in `n` is set. */
const elementMask = (size: 2 | 4 | 8, n: Local): Expr => {
  if (size === 8) {
    const one = (bit: number) => i64(0).sub(n.shrU(bit).and(1).zext());
    return join(one(0), one(1));
  }
  const bits = bytes(iota.map((i) => i % size ? 0 : 1 << (i / size)));
  const splat = new Expr("v128", [0xfd, size === 2 ? 0x10 : 0x11], [n]);
  return vector(V.eq[size === 2 ? 16 : 32], vector(V.and, splat, bits), bits);
};
/** Elements of b where the mask has ones, else of a. */
const select = (a: Expr, b: Expr, mask: Expr): Expr => vector(0x52, b, a, mask);

/** BLENDVPS and the like: the signs of XMM0's elements choose. */
const blendBySign = (op: number, bits: number): Semantics => (m) => {
  begin(m);
  const b = vectorOf(m, 1), a = register(m, 0);
  const mask = shifted(op, m.vector(2), i32(bits - 1));
  writeRegister(m, select(a, b, mask));
};

/** Signs of the elements as a number (i32x4.bitmask, i64x2.bitmask). */
const moveMask = (op: number): Semantics => (m) => {
  begin(m);
  const mask = m.f.let(new Expr("i32", [0xfd, op & 0x7f | 0x80, 1], [register(m, 1)]));
  m.write(0, m.form.sizes[0] === 64 ? mask.zext() : mask);
};

/** PSLLDQ (-1), PSRLDQ (1). */
const shiftBytes = (direction: 1 | -1): Semantics => (m) => {
  begin(m);
  const n = m.readU(1), a = register(m, 0);
  const by = splat8(i32(16).when(n.gtU(16), n));
  const from = vector(direction === 1 ? V.add[8] : V.sub[8], bytes(iota), by);
  writeRegister(m, vector(V.swizzle, a, from));
};

const logic = (work: Binary) => binary(work);
const and = logic((a, b) => vector(V.and, a, b)), or = logic((a, b) => vector(V.or, a, b));
const andn = logic((a, b) => vector(V.andNot, b, a)), xor = logic((a, b) => vector(V.xor, a, b));

const shuffled = (size: 4 | 8, elements: readonly number[]): Semantics =>
  binary((a, b) => shuffle(a, b, lanes(size, elements)));

/** PSHUFLW (0), PSHUFHW (1). */
const shuffleHalf = (lane: 0 | 1): Semantics => (m) => {
  begin(m);
  const n = m.readU(2), b = vectorOf(m, 1);
  const half = m.f.let(lane64(b, lane));
  writeRegister(m, withLane64(b, lane, shuffleWords(half, n)));
};

/** Writes a general register or memory of its own width. */
function writeGeneral(m: Meaning, value: Expr): void {
  m.write(0, m.form.sizes[0] === 64 ? value : value.wrap());
}

/** PEXTRB, PEXTRD, PEXTRQ, EXTRACTPS. */
const extract = (bits: 8 | 32 | 64): Semantics => (m) => {
  begin(m);
  const bit = m.readU(2).and(128 / bits - 1).mul(bits).zext();
  const v = register(m, 1);
  const half = lane64(v, 1).when(bit.and(64).wrap(), lane64(v, 0));
  const value = half.shrU(bit.and(63));
  writeGeneral(m, m.f.let(bits === 64 ? value : value.and((1n << BigInt(bits)) - 1n)));
};
/** PINSRB, PINSRD, PINSRQ. */
const insert = (bits: 8 | 32 | 64): Semantics => (m) => {
  begin(m);
  const value = m.readU(1), n = m.readU(2);
  m.setVectorElement(0, n.and(128 / bits - 1), bits, bits === 64 ? value.zext() : value);
};

const insertSingle: Semantics = (m) => {
  begin(m);
  const n = m.readU(2), a = register(m, 0);
  const value = m.f.local("i64");
  if (isRegister(m, 1)) {
    const b = register(m, 1);
    const half = lane64(b, 1).when(n.and(0x80), lane64(b, 0));
    m.f.set(value, half.shrU(n.shrU(1).and(0x20).zext()).and(0xffff_ffffn));
  } else m.f.set(value, m.readU(1).zext());
  const both = m.f.let(value.or(value.shl(32)));
  const slot = m.f.let(i32(1).shl(n.shrU(4).and(3))), zero = m.f.let(n.and(15));
  const inserted = select(a, splat64(both), elementMask(4, slot));
  writeRegister(m, vector(V.andNot, inserted, elementMask(4, zero)));
};

export const moveSemantics: Record<string, Semantics> = {
  movaps: move(true),
  movapd: move(true),
  movdqa: move(true),
  movups: move(false),
  movupd: move(false),
  movdqu: move(false),
  lddqu: move(false),
  movntps: move(true),
  movntpd: move(true),
  movntdq: move(true),
  movntdqa: move(true),
  movss: moveScalar(32),
  movsd: moveScalar(64),
  movlps: moveHalf(0),
  movlpd: moveHalf(0),
  movhps: moveHalf(1),
  movhpd: moveHalf(1),
  movhlps: shuffled(8, [3, 1]),
  movlhps: shuffled(8, [0, 2]),
  movsldup: unary((b) => shuffle(b, b, lanes(4, [0, 0, 2, 2]))),
  movshdup: unary((b) => shuffle(b, b, lanes(4, [1, 1, 3, 3]))),
  movddup: unary((b) => splat64(lane64(b, 0))),
  movmskps: moveMask(0xa4),
  movmskpd: moveMask(0xc4),
  unpcklps: shuffled(4, [0, 4, 1, 5]),
  unpckhps: shuffled(4, [2, 6, 3, 7]),
  unpcklpd: shuffled(8, [0, 2]),
  unpckhpd: shuffled(8, [1, 3]),
  punpcklqdq: shuffled(8, [0, 2]),
  punpckhqdq: shuffled(8, [1, 3]),
  pshufd: withImmediate((_, b, n) => vector(V.swizzle, b, join(dwords(n, 0), dwords(n, 4)))),
  pshuflw: shuffleHalf(0),
  pshufhw: shuffleHalf(1),
  shufps: withImmediate((a, b, n) =>
    join(
      lane64(vector(V.swizzle, a, splat64(dwords(n, 0))), 0),
      lane64(vector(V.swizzle, b, splat64(dwords(n, 4))), 0),
    )
  ),
  shufpd: withImmediate((a, b, n) =>
    join(
      lane64(a, 1).when(n.and(1), lane64(a, 0)),
      lane64(b, 1).when(n.and(2), lane64(b, 0)),
    )
  ),
  pslldq: shiftBytes(-1),
  psrldq: shiftBytes(1),
  andps: and,
  andpd: and,
  andnps: andn,
  andnpd: andn,
  orps: or,
  orpd: or,
  xorps: xor,
  xorpd: xor,
  blendps: withImmediate((a, b, n) => select(a, b, elementMask(4, n))),
  blendpd: withImmediate((a, b, n) => select(a, b, elementMask(8, n))),
  pblendw: withImmediate((a, b, n) => select(a, b, elementMask(2, n))),
  blendvps: blendBySign(0xac, 32),
  blendvpd: blendBySign(0xcc, 64),
  pblendvb: blendBySign(0x6c, 8),
  pextrb: extract(8),
  pextrd: extract(32),
  pextrq: extract(64),
  extractps: extract(32),
  pinsrb: insert(8),
  pinsrd: insert(32),
  pinsrq: insert(64),
  insertps: insertSingle,
};
