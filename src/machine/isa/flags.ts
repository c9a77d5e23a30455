/**
 * Lazy arithmetic flags. The last producer leaves its kind and two values; a reader works out the
 * flags it needs. Values are sign-extended to 64 bits, so that most conditions do not depend on the
 * operand width.
 */
import { CPU } from "../state.ts";
import { cell, cell64, setCell } from "../system.ts";
import { type Expr, i32, i64 } from "../wasm/expr.ts";
import type { Module } from "../wasm/module.ts";

/** Kinds of flagOp, in bits 8 and up; the operand width in bits is below. */
export const FLAG_KIND = {
  /** All flags stand in rflags. */
  explicit: 0,
  /** X = first operand, Y = sum. */
  add: 1,
  /** X = first operand, Y = second. */
  sub: 2,
  /** X = CF, AF and OF as in EFLAGS, Y = result (SF, ZF, PF). */
  result: 3,
} as const;
export type FlagKind = (typeof FLAG_KIND)[keyof typeof FLAG_KIND];

export const CF = 1, PF = 4, AF = 0x10, ZF = 0x40, SF = 0x80, OF = 0x800;
/** The six arithmetic flags. */
export const ARITHMETIC = CF | PF | AF | ZF | SF | OF;

/** 1 if the low byte of `value` has an even number of ones. */
export const parity = (value: Expr): Expr => value.wrap().and(0xff).popcnt().and(1).xor(1);

/** The sign at bit `width` - 1 (an i32 expression), as 0 or 1. */
const signAt = (value: Expr, width: Expr): Expr =>
  value.shl(i64(64).sub(width.zext())).shrU(63).wrap();

/** The conditions that need no width, per kind; undefined where the width matters. */
export function condition(kind: FlagKind, cc: number, x: Expr, y: Expr): Expr | undefined {
  const positive = positiveCondition(kind, cc >> 1, x, y);
  return positive && (cc & 1 ? positive.eqz() : positive);
}

function positiveCondition(kind: FlagKind, pair: number, x: Expr, y: Expr): Expr | undefined {
  if (kind === FLAG_KIND.sub) {
    if (pair === 1) return x.ltU(y);
    if (pair === 2) return x.eq(y);
    if (pair === 3) return x.leU(y);
    if (pair === 5) return parity(x.sub(y));
    if (pair === 6) return x.ltS(y);
    if (pair === 7) return x.leS(y);
    return undefined;
  }
  if (kind === FLAG_KIND.add) {
    if (pair === 1) return y.ltU(x);
    if (pair === 2) return y.eqz();
    if (pair === 3) return y.ltU(x).or(y.eqz());
    if (pair === 4) return y.ltS(0);
    if (pair === 5) return parity(y);
    return undefined;
  }
  if (kind === FLAG_KIND.result) {
    const overflow = x.shrU(11).and(1).wrap();
    if (pair === 0) return overflow;
    if (pair === 1) return x.and(1).wrap();
    if (pair === 2) return y.eqz();
    if (pair === 3) return x.and(1).wrap().or(y.eqz());
    if (pair === 4) return y.ltS(0);
    if (pair === 5) return parity(y);
    if (pair === 6) return y.ltS(0).xor(overflow);
    return y.ltS(0).xor(overflow).or(y.eqz());
  }
  return undefined;
}

/** A condition from explicit flags (an i32 of EFLAGS). */
function explicitCondition(pair: number, flags: Expr): Expr {
  const bit = (n: number) => flags.shrU(n).and(1);
  const less = bit(7).xor(bit(11));
  return [
    bit(11),
    bit(0),
    bit(6),
    bit(0).or(bit(6)),
    bit(7),
    bit(2),
    less,
    less.or(bit(6)),
  ][pair];
}

/** Functions `arithmeticFlags() -> i32`, `materialize()` and `cond0..cond7() -> 0 | 1`. */
export function buildFlags(m: Module): void {
  m.func("arithmeticFlags", [], ["i32"], (f) => {
    const op = f.let(cell(CPU.flagOp));
    f.if(op.eqz(), () => f.return(cell64(CPU.rflags).wrap().and(ARITHMETIC)));
    const kind = f.let(op.shrU(8)), width = f.let(op.and(0xff));
    const x = f.let(cell64(CPU.flagX)), y = f.let(cell64(CPU.flagY));
    const flags = f.local("i32"), r = f.local("i64"), b = f.local("i64"), carry = f.local("i32");
    f.if(kind.eq(FLAG_KIND.result), () => {
      f.set(flags, x.wrap().and(CF | AF | OF));
      f.set(r, y);
    }, () => {
      f.if(kind.eq(FLAG_KIND.sub), () => {
        f.set(r, x.sub(y));
        f.set(b, y);
        f.set(carry, x.ltU(y));
        f.set(flags, signAt(x.xor(b).and(x.xor(r)), width).shl(11));
      }, () => {
        f.set(r, y);
        f.set(b, y.sub(x));
        f.set(carry, y.ltU(x));
        f.set(flags, signAt(x.xor(r).and(b.xor(r)), width).shl(11));
      });
      f.set(flags, flags.or(carry).or(x.xor(b).xor(r).wrap().and(AF)));
    });
    f.set(r, r.shl(i64(64).sub(width.zext())));
    f.result(
      flags.or(r.eqz().shl(6)).or(r.shrU(63).wrap().shl(7)).or(
        parity(r.shrU(i64(64).sub(width.zext()))).shl(2),
      ),
    );
  });
  m.func("materialize", [], [], (f) => {
    f.if(cell(CPU.flagOp), () => {
      const flags = f.call("arithmeticFlags");
      f.store(32, i32(0), cell(CPU.rflags).and(~ARITHMETIC).or(flags), CPU.rflags);
      setCell(f, CPU.flagOp, 0);
    });
  });
  for (let pair = 0; pair < 8; pair++) {
    m.func(`cond${pair}`, [], ["i32"], (f) => {
      const op = f.let(cell(CPU.flagOp));
      f.if(op.eqz(), () => f.return(explicitCondition(pair, cell(CPU.rflags))));
      const x = f.let(cell64(CPU.flagX)), y = f.let(cell64(CPU.flagY));
      for (const kind of [FLAG_KIND.sub, FLAG_KIND.add, FLAG_KIND.result] as const) {
        const value = positiveCondition(kind, pair, x, y);
        if (value) f.if(op.shrU(8).eq(kind), () => f.return(value));
      }
      f.result(explicitCondition(pair, f.call("arithmeticFlags")));
    });
  }
}
