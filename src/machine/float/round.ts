/**
 * Rounding, and the four operations and square root on unpacked numbers: sign, exponent biased by
 * 16383 and unbounded, 64-bit significand with its leading one in bit 63. They know formats, not
 * NaNs, so that x87 and SSE share them.
 */
import { cell, setCell, setCell64 } from "../linkage.ts";
import { type Expr, i32, i64 } from "../wasm/expr.ts";
import type { Func, Local, Module } from "../wasm/module.ts";
import { EXC, EXPONENT_BIAS, F, FORMAT, hi, J, lo, raise, unmasked } from "./cells.ts";

/** What an unmasked overflow or underflow adds to the exponent (SDM 1 8.5.4). */
const SCALE = 24576;

/** Lowest and highest exponent of a normal number, and bits of the 64 that a format lacks. */
const drop = (format: Expr): Expr =>
  i32(0).when(format.eqz(), i32(11).when(format.and(1), i32(40)));
const lowest = (format: Expr): Expr =>
  i32(1).when(
    format.ltU(FORMAT.double),
    i32(EXPONENT_BIAS - 1022).when(format.eq(FORMAT.double), i32(EXPONENT_BIAS - 126)),
  );
const highest = (format: Expr): Expr =>
  i32(0x7ffe).when(
    format.ltU(FORMAT.double),
    i32(EXPONENT_BIAS + 1023).when(format.eq(FORMAT.double), i32(EXPONENT_BIAS + 127)),
  );

/**
 * `fRoundAt(drop, sign, hi, lo) -> i64`: hi:lo rounded to hi without its lowest `drop` bits, by
 * F.mode. F.inexact, F.up and F.carry say what happened; after a carry the result is 2^63.
 */
function buildRoundAt(m: Module): void {
  m.func("fRoundAt", ["i32", "i32", "i64", "i64"], ["i64"], (f, bits, sign, high, low) => {
    const unit = f.let(i64(1).shl(bits.zext()));
    const rest = f.let(low);
    f.if(bits, () => {
      f.set(rest, high.shl(i64(64).sub(bits.zext())).or(low.nez().zext()));
    });
    const mode = f.let(cell(F.mode));
    const odd = high.and(unit).nez();
    const nearest = rest.gtU(J).or(rest.eq(J).and(odd));
    const directed = rest.nez().and(sign.when(mode.eq(1), mode.eq(2).and(sign.eqz())));
    const up = f.let(nearest.when(mode.eqz(), directed));
    setCell(f, F.inexact, rest.nez());
    setCell(f, F.up, up);
    const kept = f.let(high.and(i64(0).sub(unit)));
    f.if(up, () => f.set(kept, kept.add(unit)));
    const carry = f.let(up.and(kept.eqz()));
    setCell(f, F.carry, carry);
    f.result(i64(J).when(carry, kept));
  }, false);
}

function setResult(f: Func, sign: Expr, exponent: Expr, significand: Expr): void {
  setCell(f, F.sign, sign);
  setCell(f, F.exp, exponent);
  setCell64(f, F.hi, significand);
}

const inexactTo = (bit: number): Expr => cell(F.inexact).mul(bit);

/**
 * `fRound(format, sign, exp, hi, lo)`: rounds to a format with its exponent range, raises OE, UE
 * and PE, leaves the result in F.sign, F.exp, F.hi. A denormal has its exponent at the lowest and
 * bit 63 clear; an infinity lies one above the highest exponent. Tininess is detected after
 * rounding. Unmasked OE and UE scale a result for a register; other formats get no result.
 */
function buildRound(m: Module): void {
  m.func(
    "fRound",
    ["i32", "i32", "i32", "i64", "i64"],
    [],
    (f, format, sign, exponent, high, low) => {
      const bits = f.let(drop(format));
      const kept = f.call("fRoundAt", bits, sign, high, low);
      const e = f.let(exponent.add(cell(F.carry)));
      f.if(e.gtS(highest(format)), () => overflow(f, format, sign, e, kept, bits));
      f.if(
        e.ltS(lowest(format)),
        () => underflow(f, format, sign, exponent, high, low, e, kept, bits),
      );
      raise(f, inexactTo(EXC.precision));
      setResult(f, sign, e, kept);
    },
    false,
  );
}

function overflow(
  f: Func,
  format: Local,
  sign: Local,
  e: Local,
  kept: Local,
  bits: Local,
): void {
  f.if(unmasked(EXC.overflow), () => {
    raise(f, inexactTo(EXC.precision).or(EXC.overflow));
    f.if(e.sub(SCALE).leS(0x7ffe).and(format.ltU(FORMAT.double)), () => {
      setResult(f, sign, e.sub(SCALE), kept);
      f.return();
    });
    // FSCALE can go beyond what scaling brings back: an infinity, as processors have it.
    f.if(format.ltU(FORMAT.double), () => {
      raise(f, EXC.precision);
      setCell(f, F.up, 1);
      setResult(f, sign, highest(format).add(1), i64(J));
      f.return();
    });
  });
  f.if(unmasked(EXC.overflow).eqz(), () => raise(f, EXC.overflow | EXC.precision));
  const mode = f.let(cell(F.mode));
  const infinite = f.let(mode.eqz().or(sign.when(mode.eq(1), mode.eq(2).and(sign.eqz()))));
  setCell(f, F.up, infinite);
  const top = highest(format);
  setResult(
    f,
    sign,
    top.add(infinite),
    i64(J).when(infinite, i64(-1).shl(bits.zext())),
  );
  f.return();
}

function underflow(
  f: Func,
  format: Local,
  sign: Local,
  exponent: Local,
  high: Local,
  low: Local,
  e: Local,
  kept: Local,
  bits: Local,
): void {
  f.if(unmasked(EXC.underflow), () => {
    raise(f, inexactTo(EXC.precision).or(EXC.underflow));
    f.if(e.add(SCALE).gtS(0).and(format.ltU(FORMAT.double)), () => {
      setResult(f, sign, e.add(SCALE), kept);
      f.return();
    });
    f.if(format.ltU(FORMAT.double), () => {
      raise(f, EXC.precision);
      setCell(f, F.up, 0);
      setResult(f, sign, lowest(format), i64(0));
      f.return();
    });
  });
  const floor = f.let(lowest(format));
  f.if(cell(F.flush), () => {
    raise(f, EXC.underflow | EXC.precision);
    setResult(f, sign, floor, i64(0));
    f.return();
  });
  f.call("fShiftRight", high, low, floor.sub(exponent));
  const small = f.call("fRoundAt", bits, sign, hi(), lo());
  f.if(cell(F.inexact), () => raise(f, EXC.underflow | EXC.precision));
  setResult(f, sign, floor, small);
  f.return();
}

/**
 * `fAdd(format, sa, ea, ma, sb, eb, mb)`, `fMul(format, s, ea, ma, eb, mb)`,
 * `fDiv(format, s, ea, ma, eb, mb)`, `fSqrt(format, ea, ma)`: operands are normalized and not
 * zero, but for fAdd, where either may be zero. Results as fRound leaves them; an exact zero has
 * F.hi = 0.
 */
function buildArithmetic(m: Module): void {
  m.func(
    "fAdd",
    ["i32", "i32", "i32", "i64", "i32", "i32", "i64"],
    [],
    (f, format, sa, ea, ma, sb, eb, mb) => {
      f.if(mb.eqz().or(ma.nez().and(ea.gtS(eb).or(ea.eq(eb).and(ma.geU(mb))))).eqz(), () => {
        const s = f.let(sa), e = f.let(ea), g = f.let(ma);
        f.set(sa, sb);
        f.set(ea, eb);
        f.set(ma, mb);
        f.set(sb, s);
        f.set(eb, e);
        f.set(mb, g);
      });
      // Now a is the larger one, or b is zero.
      f.if(mb.nez(), () => f.call("fShiftRight", mb, i64(0), ea.sub(eb)), () => {
        setCell64(f, F.hi, 0);
        setCell64(f, F.lo, 0);
      });
      const high = f.let(hi()), low = f.let(lo());
      f.if(sa.eq(sb), () => {
        f.set(high, high.add(ma));
        f.if(high.ltU(ma), () => {
          f.set(low, low.shrU(1).or(high.shl(63)).or(low.and(1)));
          f.set(high, high.shrU(1).or(J));
          f.set(ea, ea.add(1));
        });
      }, () => {
        f.set(high, ma.sub(high).sub(low.nez().zext()));
        f.set(low, low.neg());
        f.if(high.or(low).eqz(), () => {
          setResult(f, cell(F.mode).eq(1), i32(0), i64(0));
          setCell(f, F.up, 0);
          f.return();
        });
        f.set(ea, ea.sub(f.call("fNormalize", high, low)));
        f.set(high, hi());
        f.set(low, lo());
      });
      f.call("fRound", format, sa, ea, high, low);
    },
    false,
  );
  m.func("fMul", ["i32", "i32", "i32", "i64", "i32", "i64"], [], (f, format, s, ea, ma, eb, mb) => {
    const low = f.let(ma.mul(mb)), high = f.call("fMulHi", ma, mb);
    const e = f.let(ea.add(eb).sub(EXPONENT_BIAS - 1));
    f.if(high.geS(0), () => {
      f.set(high, high.shl(1).or(low.shrU(63)));
      f.set(low, low.shl(1));
      f.set(e, e.sub(1));
    });
    f.call("fRound", format, s, e, high, low);
  }, false);
  m.func("fDiv", ["i32", "i32", "i32", "i64", "i32", "i64"], [], (f, format, s, ea, ma, eb, mb) => {
    const e = f.let(ea.sub(eb).add(EXPONENT_BIAS - 1)), low = f.let(i64(0));
    f.if(ma.geU(mb), () => {
      f.set(low, ma.shl(63));
      f.set(ma, ma.shrU(1));
      f.set(e, e.add(1));
    });
    const q = f.call("fDiv64", ma, low, mb);
    f.call("fRound", format, s, e, q, fraction(lo(), mb.sub(lo())));
  }, false);
  m.func("fSqrt", ["i32", "i32", "i64"], [], (f, format, ea, ma) => {
    // Bit by bit: the root of a 128-bit integer, two of whose bits come in each round.
    const odd = ea.sub(EXPONENT_BIAS).and(1);
    const low = f.let(ma.shl(63));
    const high = f.let(ma.shrU(1));
    f.if(odd, () => {
      f.set(low, i64(0));
      f.set(high, ma);
    });
    const root = f.let(i64(0)), rest = f.let(i64(0)), over = f.let(i64(0)), n = f.let(i32(64));
    f.loop((again) => {
      // over:rest is a 66-bit remainder, 4 * remainder + next two bits, against 4 * root + 1.
      f.set(over, over.shl(2).or(rest.shrU(62)));
      f.set(rest, rest.shl(2).or(high.shrU(62)));
      f.set(high, high.shl(2).or(low.shrU(62)));
      f.set(low, low.shl(2));
      const trial = f.let(root.shl(2).or(1)), trialOver = f.let(root.shrU(62));
      f.set(root, root.shl(1));
      f.if(over.gtU(trialOver).or(over.eq(trialOver).and(rest.geU(trial))), () => {
        f.set(over, over.sub(trialOver).sub(rest.ltU(trial).zext()));
        f.set(rest, rest.sub(trial));
        f.set(root, root.or(1));
      });
      f.set(n, n.sub(1));
      f.brIf(again, n);
    });
    const e = ea.sub(EXPONENT_BIAS).shrS(1).add(EXPONENT_BIAS);
    const more = over.nez().or(rest.gtU(root));
    const part = i64(0xc000_0000_0000_0000n).when(more, i64(0x4000_0000_0000_0000n));
    f.call("fRound", format, i32(0), e, root, part.when(rest.or(over).nez(), i64(0)));
  }, false);
}

/** A remainder r of divisor d as bits below the quotient's ulp: what counts is r against d - r. */
const fraction = (r: Expr, rest: Expr): Expr =>
  i64(0).when(
    r.eqz(),
    i64(J).when(
      r.eq(rest),
      i64(0xc000_0000_0000_0000n).when(r.gtU(rest), i64(0x4000_0000_0000_0000n)),
    ),
  );

export function buildRounding(m: Module): void {
  buildRoundAt(m);
  buildRound(m);
  buildArithmetic(m);
}
