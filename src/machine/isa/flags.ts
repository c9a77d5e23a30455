/**
 * Lazy arithmetic flags. The last producer leaves its kind and up to two values; a reader works out
 * the flags it needs. Values are sign-extended to 64 bits, so that most conditions do not depend on
 * the operand width. CF has a cell of its own while flags are lazy, because INC and DEC leave it.
 */
import { flagBits } from "../../abi/x86/registers.ts";
import { ARITHMETIC, RFLAGS } from "../../abi/x86/cr.ts";
import { CPU } from "../state.ts";
import { cell, cell64, setCell } from "../linkage.ts";
import { type Expr, i32, i64 } from "../wasm/expr.ts";
import type { Func, Local, Module } from "../wasm/module.ts";

/** Kinds of flagOp, in bits 8 and up; the operand width in bits is below. */
export const FLAG_KIND = {
  /** All flags stand in rflags. */
  explicit: 0,
  /** X = first operand, Y = sum. */
  add: 1,
  /** X = first operand, Y = second. */
  sub: 2,
  /** X = AF and OF as in EFLAGS, Y = result (SF, ZF, PF). */
  result: 3,
  /** Y = result; AF and OF are clear. */
  logic: 4,
  /** Y = result of INC, of DEC. */
  increment: 5,
  decrement: 6,
} as const;
export type FlagKindName = keyof typeof FLAG_KIND;
export type FlagKind = (typeof FLAG_KIND)[FlagKindName];

const { CF, AF, OF } = RFLAGS;

/** 1 if the low byte of `value` has an even number of ones. */
const parity = (value: Expr): Expr => value.wrap().and(0xff).popcnt().and(1).xor(1);

/** The sign at bit `width` - 1 (an i32 expression), as 0 or 1. */
const signAt = (value: Expr, width: Expr): Expr =>
  value.shl(i64(64).sub(width.zext())).shrU(63).wrap();

/** Conditions that need no width, per kind; undefined where the width matters. */
export function condition(kind: FlagKind, cc: number): Expr | undefined {
  const positive = positiveCondition(kind, cc >> 1);
  return positive && (cc & 1 ? positive.eqz() : positive);
}

/**
 * The kind to generate code for where flags of `kind` are tested for condition `cc`: kinds that give
 * the same expression have the same; 0 if there is none.
 */
export function conditionKind(kind: FlagKind, cc: number): FlagKind {
  const pair = cc >> 1;
  if (kind === FLAG_KIND.explicit || !positiveCondition(kind, pair)) return FLAG_KIND.explicit;
  if (pair === CARRY) return FLAG_KIND.add;
  const own = kind === FLAG_KIND.sub || (pair === CARRY_ZERO ? kind === FLAG_KIND.logic : pair > 5);
  return own || pair === 0 ? kind : FLAG_KIND.add;
}

const CARRY = 1, CARRY_ZERO = 3;

function positiveCondition(kind: FlagKind, pair: number): Expr | undefined {
  const x = cell64(CPU.flagX), y = cell64(CPU.flagY);
  if (pair === CARRY) return cell(CPU.flagCarry);
  if (kind === FLAG_KIND.sub) {
    return [
      undefined,
      undefined,
      x.eq(y),
      x.leU(y),
      undefined,
      parity(x.sub(y)),
      x.ltS(y),
      x.leS(y),
    ][
      pair
    ];
  }
  if (pair === 2) return y.eqz();
  if (pair === 4) return y.ltS(0);
  if (pair === 5) return parity(y);
  if (kind === FLAG_KIND.logic) return [i32(0), undefined, , y.eqz(), , , y.ltS(0), y.leS(0)][pair];
  if (pair === CARRY_ZERO) return cell(CPU.flagCarry).or(y.eqz());
  if (kind !== FLAG_KIND.result) return undefined;
  const overflow = cell(CPU.flagX).shrU(11).and(1);
  const less = y.ltS(0).xor(overflow);
  return pair === 0 ? overflow : pair === 6 ? less : less.or(y.eqz());
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

/** CF as 0 or 1, whatever the kind. */
export const carryFlag = (): Expr =>
  cell(CPU.flagCarry).when(cell(CPU.flagOp), cell(CPU.rflags).and(CF));

/** AF and OF of an increment or decrement with result `r`. */
function stepFlags(f: Func, r: Local, width: Local, increment: boolean): Expr {
  const top = f.let(i64(1).shl(width.sub(1).zext()));
  // r is the least number after an increment that overflows, one less after a decrement.
  const overflow = r.xor(increment ? top : top.sub(1)).shl(i64(64).sub(width.zext())).eqz();
  return overflow.shl(flagBits.o).or(r.wrap().and(15).eq(increment ? 0 : 15).shl(flagBits.a));
}

function buildArithmeticFlags(m: Module): void {
  m.func("arithmeticFlags", [], ["i32"], (f) => {
    const op = f.let(cell(CPU.flagOp));
    f.if(op.eqz(), () => f.return(cell(CPU.rflags).and(ARITHMETIC)));
    const kind = f.let(op.shrU(8)), width = f.let(op.and(0xff));
    const x = f.let(cell64(CPU.flagX)), y = f.let(cell64(CPU.flagY));
    const flags = f.let(i32(0)), r = f.let(y);
    const sum = (b: Expr) => f.set(flags, x.xor(b).xor(r).wrap().and(AF));
    f.if(kind.eq(FLAG_KIND.result), () => f.set(flags, x.wrap().and(AF | OF)));
    f.if(kind.eq(FLAG_KIND.sub), () => {
      f.set(r, x.sub(y));
      sum(y);
      f.set(flags, flags.or(signAt(x.xor(y).and(x.xor(r)), width).shl(flagBits.o)));
    });
    f.if(kind.eq(FLAG_KIND.add), () => {
      const b = f.let(y.sub(x));
      sum(b);
      f.set(flags, flags.or(signAt(x.xor(r).and(b.xor(r)), width).shl(flagBits.o)));
    });
    f.if(kind.eq(FLAG_KIND.increment), () => f.set(flags, stepFlags(f, r, width, true)));
    f.if(kind.eq(FLAG_KIND.decrement), () => f.set(flags, stepFlags(f, r, width, false)));
    f.set(r, r.shl(i64(64).sub(width.zext())));
    f.result(
      flags.or(cell(CPU.flagCarry)).or(r.eqz().shl(flagBits.z)).or(
        r.shrU(63).wrap().shl(flagBits.s),
      ).or(
        parity(r.shrU(i64(64).sub(width.zext()))).shl(2),
      ),
    );
  });
}

/**
 * Functions `arithmeticFlags() -> i32`, `materialize()`, `cond0..cond7() -> 0 | 1`, and
 * `setCarryOverflow(CF | OF)`, which leaves the other flags.
 */
export function buildFlags(m: Module): void {
  buildArithmeticFlags(m);
  m.func("materialize", [], [], (f) => {
    f.if(cell(CPU.flagOp), () => {
      const flags = f.call("arithmeticFlags");
      f.store(32, i32(0), cell(CPU.rflags).and(~ARITHMETIC).or(flags), CPU.rflags);
      setCell(f, CPU.flagOp, 0);
    });
  });
  m.func("setCarryOverflow", ["i32"], [], (f, flags) => {
    const kind = f.let(cell(CPU.flagOp).shrU(8));
    f.if(kind.eq(FLAG_KIND.result).or(kind.eq(FLAG_KIND.logic)), () => {
      const adjust = cell(CPU.flagX).and(AF).when(kind.eq(FLAG_KIND.result), i32(0));
      f.store(64, i32(0), adjust.or(flags.and(OF)).zext(), CPU.flagX);
      setCell(f, CPU.flagCarry, flags.and(CF));
      setCell(f, CPU.flagOp, cell(CPU.flagOp).and(0xff).or(FLAG_KIND.result << 8));
      f.return();
    });
    f.call("materialize");
    setCell(f, CPU.rflags, cell(CPU.rflags).and(~(CF | OF)).or(flags));
  });
  for (let pair = 0; pair < 8; pair++) {
    m.func(`cond${pair}`, [], ["i32"], (f) => {
      const op = f.let(cell(CPU.flagOp));
      f.if(op.eqz(), () => f.return(explicitCondition(pair, cell(CPU.rflags))));
      if (pair === CARRY) return f.result(cell(CPU.flagCarry));
      const kind = f.let(op.shrU(8));
      for (const known of Object.values(FLAG_KIND)) {
        const value = known && positiveCondition(known, pair);
        if (value) f.if(kind.eq(known), () => f.return(value));
      }
      f.result(explicitCondition(pair, f.call("arithmeticFlags")));
    });
  }
}
