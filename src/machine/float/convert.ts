/** Conversions between the 80-bit format and integers, single, double and packed decimal. */
import { cell, setCell } from "../linkage.ts";
import { type Expr, i32, i64 } from "../wasm/expr.ts";
import type { Module } from "../wasm/module.ts";
import {
  EXC,
  exp,
  EXPONENT_BIAS,
  F,
  FORMAT,
  hi,
  INDEFINITE,
  J,
  lo,
  QUIET,
  raise,
  unmasked,
} from "./cells.ts";
import { CLASS, exponentOf, setPacked, signOf } from "./extended.ts";
import { setWide } from "./wide.ts";

/** Smallest exponent (biased by 16383) whose numbers are too large for 64 bits of integer. */
const TOO_LARGE = EXPONENT_BIAS + 64;

function buildFrom(m: Module): void {
  // `xFromInt(value)`: exact.
  m.func("xFromInt", ["i64"], [], (f, value) => {
    f.if(value.eqz(), () => {
      setPacked(f, i32(0), i64(0));
      f.return();
    });
    const negative = f.let(value.shrU(63).wrap());
    f.if(negative, () => f.set(value, value.neg()));
    const shift = f.let(value.clz());
    setPacked(
      f,
      negative.shl(15).or(i32(EXPONENT_BIAS + 63).sub(shift.wrap())),
      value.shl(shift),
    );
  }, false);
  // `xWiden(sign, exponent field, fraction at bit 62 and below, exponent of a denormal)`
  m.func("xWiden", ["i32", "i32", "i64", "i32"], [], (f, s, field, fraction, bias) => {
    const top = f.let(s.shl(15));
    setCell(f, F.denormal, 0);
    f.if(field.eqz(), () => {
      f.if(fraction.eqz(), () => {
        setPacked(f, top, i64(0));
        f.return();
      });
      setCell(f, F.denormal, 1);
      const shift = f.let(fraction.clz());
      setPacked(f, top.or(bias.add(1).sub(shift.wrap())), fraction.shl(shift));
      f.return();
    });
    setPacked(f, top.or(field.add(bias)), fraction.or(J));
  }, false);
  // `xFromSingle(bits)`, `xFromDouble(bits)`: exact, NaNs as they are; F.denormal tells of denormals.
  m.func("xFromSingle", ["i32"], [], (f, bits) => {
    const field = f.let(bits.shrU(23).and(0xff));
    const bias = i32(0x7fff - 0xff).when(field.eq(0xff), i32(EXPONENT_BIAS - 127));
    const fraction = bits.and(0x7f_ffff).zext().shl(40);
    f.call("xWiden", bits.shrU(31), field, fraction, bias);
  }, false);
  m.func("xFromDouble", ["i64"], [], (f, bits) => {
    const field = f.let(bits.shrU(52).wrap().and(0x7ff));
    const bias = i32(0x7fff - 0x7ff).when(field.eq(0x7ff), i32(EXPONENT_BIAS - 1023));
    const fraction = bits.and(0xf_ffff_ffff_ffffn).shl(11);
    f.call("xWiden", bits.shrU(63).wrap(), field, fraction, bias);
  }, false);
}

/** `xToSingle(se, sig)` and `xToDouble`: the bits, right-aligned in an i64. */
function buildNarrow(m: Module, single: boolean): void {
  const fractionBits = single ? 23 : 52, all = single ? 0xff : 0x7ff;
  const bias = EXPONENT_BIAS - (single ? 127 : 1023);
  const drop = 63 - fractionBits;
  const fraction = (sig: Expr) => sig.shl(1).shrU(drop + 1);
  const assemble = (s: Expr, field: Expr, sig: Expr) =>
    s.zext().shl(single ? 31 : 63).or(field.zext().shl(fractionBits)).or(fraction(sig));
  m.func(single ? "xToSingle" : "xToDouble", ["i32", "i64"], ["i64"], (f, se, sig) => {
    const c = f.call("xClass", se, sig), s = f.let(signOf(se));
    f.if(c.eq(CLASS.unsupported), () => {
      raise(f, EXC.invalid);
      f.set(sig, i64(INDEFINITE.sig));
      f.set(s, i32(1));
    });
    f.if(c.eq(CLASS.signaling), () => raise(f, EXC.invalid));
    f.if(c.geU(CLASS.quiet), () => f.return(assemble(s, i32(all), sig.or(QUIET))));
    f.if(c.eq(CLASS.infinity), () => f.return(assemble(s, i32(all), i64(0))));
    f.if(c.eqz(), () => f.return(assemble(s, i32(0), i64(0))));
    const shift = f.let(sig.clz()), field = f.let(exponentOf(se));
    const e = f.let(field.add(field.eqz()).sub(shift.wrap()));
    f.call("fRound", single ? FORMAT.single : FORMAT.double, s, e, sig.shl(shift), i64(0));
    // Nothing is stored after an unmasked overflow or underflow, so nothing was rounded.
    f.if(
      cell(F.flags).and(unmasked(EXC.overflow | EXC.underflow)),
      () => setCell(f, F.flags, cell(F.flags).and(~EXC.precision)),
    );
    f.result(assemble(s, exp().sub(bias).when(hi().ltS(0), i32(0)), hi()));
  }, false);
}

/**
 * `fInteger(sign, exp, sig) -> i64`: magnitude rounded to an integer by F.mode, below 2^64; F.carry
 * is set if it reached 2^64. exp < 16383 + 64.
 */
function buildToInt(m: Module): void {
  m.func("fInteger", ["i32", "i32", "i64"], ["i64"], (f, s, e, sig) => {
    f.call("fShiftRight", sig, i64(0), i32(EXPONENT_BIAS + 63).sub(e));
    f.result(f.call("fRoundAt", i32(0), s, hi(), lo()));
  }, false);
  // `xToInt(se, sig, bits) -> i64`: rounded by F.mode; integer indefinite if it does not fit.
  m.func("xToInt", ["i32", "i64", "i32"], ["i64"], (f, se, sig, bits) => {
    const limit = f.let(i64(1).shl(bits.sub(1).zext()));
    const c = f.call("xClass", se, sig);
    const fail = () => {
      raise(f, EXC.invalid);
      setCell(f, F.up, 0);
      f.return(limit.neg());
    };
    f.if(c.geU(CLASS.infinity).or(exponentOf(se).geU(TOO_LARGE)), fail);
    f.if(c.eqz(), () => f.return(0));
    const s = f.let(signOf(se));
    const value = f.call("fInteger", s, exponentOf(se), sig);
    f.if(cell(F.carry).or(value.gtU(limit.sub(1).add(s.zext()))), fail);
    f.if(cell(F.inexact), () => raise(f, EXC.precision));
    f.result(value.neg().when(s, value));
  }, false);
}

/** Eighteen digits, two to a byte. */
const DECIMAL_LIMIT = 10n ** 18n;

function buildDecimal(m: Module): void {
  // `xFromDecimal(low 8 bytes, high 2 bytes)`: digits above 9 count as they stand (undefined).
  m.func("xFromDecimal", ["i64", "i32"], [], (f, low, high) => {
    const value = f.let(i64(0)), n = f.let(i32(18));
    const top = f.let(high.and(0xff).zext());
    f.loop((again) => {
      f.set(value, value.mul(10).add(top.shrU(4)));
      f.set(top, top.and(15).shl(4).or(low.shrU(60)));
      f.set(low, low.shl(4));
      f.set(n, n.sub(1));
      f.brIf(again, n);
    });
    f.call("xFromInt", value);
    setCell(f, F.se, cell(F.se).or(high.and(0x8000)));
  }, false);
  // `xToDecimal(se, sig)`: low 8 bytes in F.hi, high 2 bytes in F.lo; indefinite if it does not fit.
  m.func("xToDecimal", ["i32", "i64"], [], (f, se, sig) => {
    const fail = () => {
      raise(f, EXC.invalid);
      setCell(f, F.up, 0);
      setWide(f, i64(0xc000_0000_0000_0000n), i64(0xffff));
      f.return();
    };
    const c = f.call("xClass", se, sig);
    f.if(c.geU(CLASS.infinity).or(exponentOf(se).geU(TOO_LARGE)), fail);
    const s = f.let(signOf(se)), value = f.let(i64(0));
    f.if(c, () => {
      f.set(value, f.call("fInteger", s, exponentOf(se), sig));
      f.if(cell(F.carry).or(value.geU(DECIMAL_LIMIT)), fail);
      f.if(cell(F.inexact), () => raise(f, EXC.precision));
    });
    const digits = f.let(i64(0)), n = f.let(i32(16));
    f.loop((again) => {
      f.set(digits, digits.shrU(4).or(value.remU(10).shl(60)));
      f.set(value, value.divU(10));
      f.set(n, n.sub(1));
      f.brIf(again, n);
    });
    setWide(f, digits, value.divU(10).shl(4).or(value.remU(10)).or(s.zext().shl(15)));
  }, false);
}

export function buildConvert(m: Module): void {
  buildFrom(m);
  buildNarrow(m, true);
  buildNarrow(m, false);
  buildToInt(m);
  buildDecimal(m);
}
