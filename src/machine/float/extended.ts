/**
 * The 80-bit operations of the x87 with its rules for NaNs, unsupported encodings, infinities,
 * zeros and denormals (SDM 1 4.8.3, 8.2.2, 8.5). Operands are packed: sign and exponent (i32, 16
 * bits) and significand (i64). Results in F.se and F.sig; if `stopped()` holds there is none.
 */
import { FSW } from "../../abi/x86/float.ts";
import { cell, setCell, setCell64 } from "../linkage.ts";
import { type Expr, i32, type Operand } from "../wasm/expr.ts";
import type { Func, Local, Module } from "../wasm/module.ts";
import { EXC, exp, F, hi, INDEFINITE, J, QUIET, raise, sign, unmasked } from "./cells.ts";

/** What an 80-bit number is; from `nan` on it needs the rules for NaNs. */
export const CLASS = {
  zero: 0,
  normal: 1,
  denormal: 2,
  infinity: 3,
  quiet: 4,
  signaling: 5,
  unsupported: 6,
} as const;

/** Operations of `xArith(op, ...)`: result = a op b; the two reversed ones are b op a. */
export const OP = { add: 0, mul: 1, sub: 4, subr: 5, div: 6, divr: 7 } as const;

/** Condition codes in FSW. */
export const C0 = FSW.C0, C1 = FSW.C1, C2 = FSW.C2, C3 = FSW.C3;

export const exponentOf = (se: Expr): Expr => se.and(0x7fff);
export const signOf = (se: Expr): Expr => se.shrU(15).and(1);

export function setPacked(f: Func, se: Operand, sig: Operand): void {
  setCell64(f, F.sig, sig);
  setCell(f, F.se, se);
}
export function setIndefinite(f: Func): void {
  setPacked(f, INDEFINITE.se, INDEFINITE.sig);
}
/** An infinity, or a zero, of the given sign (0 or 1). */
export function setInfinity(f: Func, sign: Expr): void {
  setPacked(f, sign.shl(15).or(0x7fff), J);
}
export function setZero(f: Func, sign: Expr): void {
  setPacked(f, sign.shl(15), 0);
}

/** Raises #IA and leaves the masked response, QNaN indefinite. */
export function invalid(f: Func): void {
  raise(f, EXC.invalid);
  setIndefinite(f);
}

/** Raises DE where `condition` holds; returns from the function if it is unmasked. */
export function denormalOperand(f: Func, condition: Expr): void {
  f.if(condition, () => {
    raise(f, EXC.denormal);
    f.if(unmasked(EXC.denormal), () => f.return());
  });
}

/** A number that is not zero, normalized: its exponent and significand as locals. */
export function unpack(f: Func, se: Expr, sig: Local): { e: Local; m: Local } {
  const shift = f.let(sig.clz());
  const field = f.let(exponentOf(se));
  const e = f.let(field.add(field.eqz()).sub(shift.wrap()));
  return { e, m: f.let(sig.shl(shift)) };
}

function buildClass(m: Module): void {
  m.func("xClass", ["i32", "i64"], ["i32"], (f, se, sig) => {
    const e = f.let(exponentOf(se));
    f.if(e.eqz(), () => f.return(i32(CLASS.denormal).when(sig.nez(), i32(CLASS.zero))));
    f.if(sig.geS(0), () => f.return(CLASS.unsupported));
    f.if(e.ne(0x7fff), () => f.return(CLASS.normal));
    f.if(sig.shl(1).eqz(), () => f.return(CLASS.infinity));
    f.result(i32(CLASS.quiet).when(sig.and(QUIET).nez(), i32(CLASS.signaling)));
  }, false);
  // Packs what fRound left.
  m.func("xPack", [], [], (f) => {
    const e = exp().when(hi().ltS(0), i32(0));
    setPacked(f, sign().shl(15).or(e), hi());
  }, false);
  // The result of an operation with a NaN or an unsupported operand (SDM 1 table 4-7).
  m.func("xNan", ["i32", "i64", "i32", "i32", "i64", "i32"], [], (f, sa, a, ca, sb, b, cb) => {
    f.if(ca.eq(CLASS.unsupported).or(cb.eq(CLASS.unsupported)), () => {
      invalid(f);
      f.return();
    });
    f.if(ca.eq(CLASS.signaling).or(cb.eq(CLASS.signaling)), () => raise(f, EXC.invalid));
    // Of a quiet and a signaling NaN the quiet one, of two alike the larger significand.
    const both = ca.geU(CLASS.quiet).and(cb.geU(CLASS.quiet));
    const larger = b.gtU(a).or(b.eq(a).and(signOf(sa).gtU(signOf(sb))));
    const second = f.let(
      cb.ltU(ca).when(ca.ne(cb), larger).when(both, cb.geU(CLASS.quiet)),
    );
    setPacked(f, sb.when(second, sa), b.when(second, a).or(QUIET));
  }, false);
}

/** `xAdd`, `xMul`, `xDiv` (sign of a product, a and b with their classes, whether one is denormal). */
function buildParts(m: Module): void {
  const params = ["i32", "i32", "i64", "i32", "i32", "i64", "i32", "i32"] as const;
  m.func("xAdd", params, [], (f, _s, sa, a, ca, sb, b, cb, denormal) => {
    const aInfinite = ca.eq(CLASS.infinity), bInfinite = cb.eq(CLASS.infinity);
    f.if(aInfinite.and(bInfinite).and(signOf(sa.xor(sb))), () => {
      invalid(f);
      f.return();
    });
    denormalOperand(f, denormal);
    f.if(aInfinite.or(bInfinite), () => {
      setInfinity(f, signOf(sa.when(aInfinite, sb)));
      f.return();
    });
    f.if(a.or(b).eqz(), () => {
      const different = signOf(sa).ne(signOf(sb));
      setZero(f, cell(F.mode).eq(1).when(different, signOf(sa)));
      f.return();
    });
    const x = unpack(f, sa, a), y = unpack(f, sb, b);
    f.call("fAdd", cell(F.format), signOf(sa), x.e, x.m, signOf(sb), y.e, y.m);
    f.call("xPack");
  }, false);
  m.func("xMul", params, [], (f, s, sa, a, ca, sb, b, cb, denormal) => {
    const infinite = f.let(ca.eq(CLASS.infinity).or(cb.eq(CLASS.infinity)));
    const zero = f.let(a.eqz().or(b.eqz()));
    f.if(infinite.and(zero), () => {
      invalid(f);
      f.return();
    });
    denormalOperand(f, denormal);
    f.if(infinite, () => {
      setInfinity(f, s);
      f.return();
    });
    f.if(zero, () => {
      setZero(f, s);
      f.return();
    });
    const x = unpack(f, sa, a), y = unpack(f, sb, b);
    f.call("fMul", cell(F.format), s, x.e, x.m, y.e, y.m);
    f.call("xPack");
  }, false);
  m.func("xDiv", params, [], (f, s, sa, a, ca, sb, b, cb, denormal) => {
    const aInfinite = f.let(ca.eq(CLASS.infinity)), bInfinite = f.let(cb.eq(CLASS.infinity));
    f.if(aInfinite.and(bInfinite).or(a.or(b).eqz()), () => {
      invalid(f);
      f.return();
    });
    f.if(b.eqz().and(aInfinite.eqz()), () => {
      raise(f, EXC.zeroDivide);
      setInfinity(f, s);
      f.return();
    });
    denormalOperand(f, denormal);
    f.if(aInfinite, () => {
      setInfinity(f, s);
      f.return();
    });
    f.if(bInfinite.or(a.eqz()), () => {
      setZero(f, s);
      f.return();
    });
    const x = unpack(f, sa, a), y = unpack(f, sb, b);
    f.call("fDiv", cell(F.format), s, x.e, x.m, y.e, y.m);
    f.call("xPack");
  }, false);
  m.func("xSqrt", ["i32", "i64"], [], (f, sa, a) => {
    const ca = f.call("xClass", sa, a);
    f.if(ca.geU(CLASS.quiet), () => {
      f.call("xNan", sa, a, ca, sa, a, ca);
      f.return();
    });
    f.if(ca.nez().and(signOf(sa)), () => {
      invalid(f);
      f.return();
    });
    denormalOperand(f, ca.eq(CLASS.denormal));
    f.if(ca.eqz().or(ca.eq(CLASS.infinity)), () => {
      setPacked(f, sa, a);
      f.return();
    });
    const x = unpack(f, sa, a);
    f.call("fSqrt", cell(F.format), x.e, x.m);
    f.call("xPack");
  }, false);
}

/** `xArith(op, sa, a, sb, b)`. */
function buildArith(m: Module): void {
  m.func("xArith", ["i32", "i32", "i64", "i32", "i64"], [], (f, op, sa, a, sb, b) => {
    const ca = f.call("xClass", sa, a), cb = f.call("xClass", sb, b);
    f.if(ca.or(cb).geU(CLASS.quiet), () => {
      f.call("xNan", sa, a, ca, sb, b, cb);
      f.return();
    });
    f.if(op.eq(OP.subr).or(op.eq(OP.divr)), () => {
      for (const [x, y] of [[sa, sb], [a, b], [ca, cb]]) {
        const t = f.let(x);
        f.set(x, y);
        f.set(y, t);
      }
    });
    const s = f.let(signOf(sa.xor(sb)));
    const eitherDenormal = f.let(
      ca.eq(CLASS.denormal).or(cb.eq(CLASS.denormal)).or(cell(F.denormal)),
    );
    f.if(op.eq(OP.mul), () => {
      f.call("xMul", s, sa, a, ca, sb, b, cb, eitherDenormal);
      f.return();
    });
    f.if(op.geU(OP.div), () => {
      f.call("xDiv", s, sa, a, ca, sb, b, cb, eitherDenormal);
      f.return();
    });
    f.if(op.nez(), () => f.set(sb, sb.xor(0x8000)));
    f.call("xAdd", s, sa, a, ca, sb, b, cb, eitherDenormal);
  }, false);
}

/**
 * `xCompare(sa, a, sb, b, quiet) -> C3, C2, C0`; quiet: only signaling NaNs are invalid (FUCOM).
 */
function buildCompare(m: Module): void {
  m.func("xCompare", ["i32", "i64", "i32", "i64", "i32"], ["i32"], (f, sa, a, sb, b, quiet) => {
    const ca = f.call("xClass", sa, a), cb = f.call("xClass", sb, b);
    f.if(ca.or(cb).geU(CLASS.quiet), () => {
      const bad = ca.geU(CLASS.signaling).or(cb.geU(CLASS.signaling)).or(quiet.eqz());
      f.if(bad, () => raise(f, EXC.invalid));
      f.return(C0 | C2 | C3);
    });
    f.if(
      ca.eq(CLASS.denormal).or(cb.eq(CLASS.denormal)).or(cell(F.denormal)),
      () => raise(f, EXC.denormal),
    );
    f.if(a.or(b).eqz(), () => f.return(C3));
    const s = f.let(signOf(sa));
    f.if(s.ne(signOf(sb)), () => f.return(i32(C0).when(s, i32(0))));
    // Same sign. A pseudo-denormal has the exponent of the smallest normal number.
    const ea = f.let(exponentOf(sa)), eb = f.let(exponentOf(sb));
    f.set(ea, ea.add(ea.eqz().and(a.ltS(0))));
    f.set(eb, eb.add(eb.eqz().and(b.ltS(0))));
    f.if(ea.eq(eb).and(a.eq(b)), () => f.return(C3));
    const less = ea.ltU(eb).or(ea.eq(eb).and(a.ltU(b)));
    f.result(less.ne(s).mul(C0));
  }, false);
}

export function buildExtended(m: Module): void {
  buildClass(m);
  buildParts(m);
  buildArith(m);
  buildCompare(m);
}
