/** Packed integers of SSE4.1 and SSE4.2 without an MMX form, and PTEST (SDM 2). */
import { ARITHMETIC } from "../../../abi/x86/cr.ts";
import { flagBits } from "../../../abi/x86/registers.ts";
import { Expr, i32, i64 } from "../../wasm/expr.ts";
import type { Func, Local, Module } from "../../wasm/module.ts";
import type { Semantics } from "./meaning.ts";
import { bytes, join, lane64, shifted, splat64, splat8, V, vector } from "./mmx_vector.ts";
import { anyOf, begin, register, vectorOf, writeRegister } from "./sse_access.ts";

const plain = (op: number): Semantics => (m) => {
  begin(m);
  const b = vectorOf(m, 1), a = register(m, 0);
  writeRegister(m, vector(op, a, b));
};
/** PMOVSX, PMOVZX: a chain of extensions of the low half. */
const extend = (...ops: number[]): Semantics => (m) => {
  begin(m);
  const b: Expr = anyOf(m, 1);
  writeRegister(m, ops.reduce((v, op) => vector(op, v), b));
};

const SIGN = { 8: 0x87, 16: 0xa7, 32: 0xc7 } as const, ZERO = { 8: 0x89, 16: 0xa9, 32: 0xc9 };

const lowSigned = (v: Local): Expr => shifted(0xcc, shifted(V.shl[64], v, i32(32)), i32(32));

const multiplySigned: Semantics = (m) => {
  begin(m);
  const b = vectorOf(m, 1), a = register(m, 0);
  writeRegister(m, vector(V.mul[64], lowSigned(a), lowSigned(b)));
};

const anyTrue = (v: Expr): Expr => new Expr("i32", [0xfd, 0x53], [v]);
/** ZF: no common bit; CF: the source has no bit that the destination lacks. */
const test: Semantics = (m) => {
  begin(m);
  const b = vectorOf(m, 1), a = register(m, 0);
  const zero = anyTrue(vector(V.and, a, b)).eqz().shl(flagBits.z);
  m.setArithmeticFlags(ARITHMETIC, m.f.let(zero.or(anyTrue(vector(V.andNot, b, a)).eqz())));
};

/** Least word of the source and its place. */
const leastWord: Semantics = (m) => {
  begin(m);
  const b = vectorOf(m, 1);
  writeRegister(m, join(m.f.call("sseLeastWord", b), i64(0)));
};
function buildLeastWord(m: Module): void {
  m.func("sseLeastWord", ["v128"], ["i64"], (f, v) => {
    // Each word above its number, so that the least of them is the first of the least.
    const best = f.let(i64(0x7fff_ffff));
    for (let n = 0; n < 8; n++) {
      const word = lane64(v, n < 4 ? 0 : 1).shrU(16 * (n & 3)).and(0xffff);
      const key = f.let(word.shl(3).or(n));
      f.if(key.ltU(best), () => f.set(best, key));
    }
    f.result(best.shrU(3).or(best.and(7).shl(16)));
  }, false);
}

const iota = Array.from({ length: 16 }, (_, i) => i);
/** MPSADBW: four bytes of the source against eight overlapping fours of the destination. */
function sumsOfDifferences(f: Func, a: Local, b: Local, n: Local): Expr {
  const from = f.let(n.and(4)), block = f.let(n.and(3).shl(2));
  let sum: Expr = splat64(0);
  for (let j = 0; j < 4; j++) {
    const x = vector(V.swizzle, a, vector(V.add[8], bytes(iota), splat8(from.add(j))));
    const y = vector(V.swizzle, b, splat8(block.add(j)));
    const difference = vector(V.sub[16], vector(ZERO[8], x), vector(ZERO[8], y));
    sum = vector(V.add[16], sum, vector(V.abs[16], difference));
  }
  return sum;
}

export const packedSemantics: Record<string, Semantics> = {
  pmovsxbw: extend(SIGN[8]),
  pmovsxbd: extend(SIGN[8], SIGN[16]),
  pmovsxbq: extend(SIGN[8], SIGN[16], SIGN[32]),
  pmovsxwd: extend(SIGN[16]),
  pmovsxwq: extend(SIGN[16], SIGN[32]),
  pmovsxdq: extend(SIGN[32]),
  pmovzxbw: extend(ZERO[8]),
  pmovzxbd: extend(ZERO[8], ZERO[16]),
  pmovzxbq: extend(ZERO[8], ZERO[16], ZERO[32]),
  pmovzxwd: extend(ZERO[16]),
  pmovzxwq: extend(ZERO[16], ZERO[32]),
  pmovzxdq: extend(ZERO[32]),
  pcmpeqq: plain(0xd6),
  pcmpgtq: plain(0xd9),
  packusdw: plain(V.narrowU[32]),
  pminsb: plain(0x76),
  pminsd: plain(0xb6),
  pminuw: plain(0x97),
  pminud: plain(0xb7),
  pmaxsb: plain(0x78),
  pmaxsd: plain(0xb8),
  pmaxuw: plain(0x99),
  pmaxud: plain(0xb9),
  pmulld: plain(0xb5),
  pmuldq: multiplySigned,
  phminposuw: leastWord,
  ptest: test,
  mpsadbw: (m) => {
    begin(m);
    const n = m.readU(2), b = vectorOf(m, 1), a = register(m, 0);
    writeRegister(m, sumsOfDifferences(m.f, a, b, n));
  },
};

export function buildSsePacked(m: Module): void {
  buildLeastWord(m);
}
