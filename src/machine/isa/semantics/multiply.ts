/** Multiplication, division and decimal adjustment (SDM 2). */
import { flagBits, RAX, RDX } from "../../../abi/x86/registers.ts";
import { VECTOR } from "../../../abi/x86/vectors.ts";
import { check } from "../../checks.ts";
import { V } from "../../state.ts";
import { cell } from "../../linkage.ts";
import { type Expr, i32, i64 } from "../../wasm/expr.ts";
import type { Func, Module } from "../../wasm/module.ts";
import { RFLAGS } from "../../../abi/x86/cr.ts";
import type { Meaning, Semantics } from "./meaning.ts";

const CHECK = {
  zero: check("divide.zero", "division of {a} by zero", "SDM 2 DIV"),
  overflow: check("divide.overflow", "the quotient of {a} by {b} does not fit", "SDM 2 DIV"),
  aam: check("aam.zero", "AAM with a base of zero", "SDM 2 AAM"),
};

/** `multiplyHigh(a, b)` unsigned and signed; `divide128(high, low, divisor)` with the rest in V.value. */
export function buildWideArithmetic(m: Module): void {
  m.func("multiplyHighU", ["i64", "i64"], ["i64"], (f, a, b) => {
    const low = (x: Expr) => x.and(0xffff_ffffn), high = (x: Expr) => x.shrU(32);
    const ll = f.let(low(a).mul(low(b)));
    const hl = f.let(high(a).mul(low(b)).add(high(ll)));
    const lh = f.let(low(a).mul(high(b)).add(low(hl)));
    f.result(high(a).mul(high(b)).add(high(hl)).add(high(lh)));
  });
  m.func("multiplyHighS", ["i64", "i64"], ["i64"], (f, a, b) => {
    const h = f.call("multiplyHighU", a, b);
    f.result(h.sub(a.shrS(63).and(b)).sub(b.shrS(63).and(a)));
  });
  // The quotient is known to fit: high < divisor, unsigned.
  m.func("divide128", ["i64", "i64", "i64"], ["i64"], (f, high, low, divisor) => {
    const quotient = f.let(i64(0)), i = f.let(i32(64)), top = f.local("i64");
    f.loop((again) => {
      f.set(top, high.shrU(63));
      f.set(high, high.shl(1).or(low.shrU(63)));
      f.set(low, low.shl(1));
      f.set(quotient, quotient.shl(1));
      f.if(top.wrap().or(high.geU(divisor)), () => {
        f.set(high, high.sub(divisor));
        f.set(quotient, quotient.or(1));
      });
      f.set(i, i.sub(1));
      f.brIf(again, i);
    });
    f.store(64, i32(0), high, V.value);
    f.result(quotient);
  });
}

/** Flags of a multiplication: CF and OF if the upper half says more than the lower. */
function productFlags(m: Meaning, low: Expr, overflow: Expr): void {
  const carry = m.f.let(overflow.nez());
  m.flagsResult(low, carry, carry.shl(flagBits.o));
}

function wideMultiply(signed: boolean): Semantics {
  return (m) => {
    const bits = m.size;
    const b = signed ? m.read(0) : m.readU(0);
    const a = signed ? m.gpr(RAX, bits) : m.gprU(RAX, bits);
    const f = m.f;
    if (bits === 64) {
      const x = f.let(a);
      const low = f.let(x.mul(b));
      const high = f.call(signed ? "multiplyHighS" : "multiplyHighU", x, b);
      m.setGpr(RAX, 64, low);
      m.setGpr(RDX, 64, high);
      return productFlags(m, low, signed ? high.ne(low.shrS(63)) : high.nez());
    }
    const product = f.let(signed ? a.sext().mul(b.sext()) : a.zext().mul(b.zext()));
    const low = f.let(product.wrap().signed(bits));
    if (bits === 8) m.setGpr(RAX, 16, product.wrap());
    else {
      m.setGpr(RAX, bits, product.wrap());
      m.setGpr(RDX, bits, product.shrU(bits).wrap());
    }
    productFlags(m, low, signed ? product.ne(low.sext()) : product.shrU(bits).nez());
  };
}

function multiply(destination: number, left: number, right: number): Semantics {
  return (m) => {
    const b = m.read(right), a = m.read(left);
    const f = m.f;
    if (m.size === 64) {
      const low = f.let(a.mul(b));
      const high = f.call("multiplyHighS", a, b);
      m.write(destination, low);
      return productFlags(m, low, high.ne(low.shrS(63)));
    }
    const product = f.let(a.sext().mul(b.sext()));
    const low = f.let(product.wrap().signed(m.size));
    m.write(destination, low);
    productFlags(m, low, product.ne(low.sext()));
  };
}

/** DIV and IDIV of twice the width by the operand. */
function divide(signed: boolean): Semantics {
  return (m) => {
    const bits = m.size;
    const f = m.f;
    const divisor = signed ? m.read(0) : m.readU(0);
    if (bits === 64) return divideLong(m, signed, divisor);
    const wide = f.let(
      bits === 8
        ? (signed ? m.gpr(RAX, 16).sext() : m.gprU(RAX, 16).zext())
        : m.gprU(RDX, bits).zext().shl(bits).or(m.gprU(RAX, bits).zext()),
    );
    if (signed && bits === 16) f.set(wide, wide.signed(32));
    const by = f.let(signed ? divisor.sext() : divisor.zext());
    m.faultIf(by.eqz(), VECTOR.DE, undefined, CHECK.zero, wide);
    // The one quotient that i64 cannot hold.
    if (signed) {
      m.faultIf(
        by.eq(-1).and(wide.eq(i64(-(1n << 63n)))),
        VECTOR.DE,
        undefined,
        CHECK.overflow,
        wide,
        by,
      );
    }
    const quotient = f.let(signed ? wide.divS(by) : wide.divU(by));
    const fits = signed ? quotient.eq(quotient.signed(bits)) : quotient.shrU(bits).eqz();
    m.faultIf(fits.eqz(), VECTOR.DE, undefined, CHECK.overflow, wide, by);
    const rest = f.let((signed ? wide.remS(by) : wide.remU(by)).wrap());
    if (bits === 8) {
      m.setGpr(RAX, 16, quotient.wrap().and(0xff).or(rest.shl(8)));
    } else {
      m.setGpr(RAX, bits, quotient.wrap());
      m.setGpr(RDX, bits, rest);
    }
  };
}

const negateIf = (f: Func, condition: Expr, value: Expr) =>
  f.let(value.neg().when(condition, value));

function divideLong(m: Meaning, signed: boolean, divisor: Expr): void {
  const f = m.f;
  m.faultIf(divisor.eqz(), VECTOR.DE, undefined, CHECK.zero, m.gpr(RAX, 64));
  const high = f.let(m.gpr(RDX, 64)), low = f.let(m.gpr(RAX, 64));
  const negative = f.let(signed ? high.ltS(0) : i32(0));
  const negativeDivisor = f.let(signed ? divisor.ltS(0) : i32(0));
  const by = negateIf(f, negativeDivisor, divisor);
  f.if(negative, () => {
    f.set(high, high.not().add(low.eqz().zext()));
    f.set(low, low.neg());
  });
  m.faultIf(high.geU(by), VECTOR.DE, undefined, CHECK.overflow, low, divisor);
  const quotient = f.call("divide128", high, low, by);
  const rest = f.let(m.f.let(i64(0)).add(loadValue()));
  const opposite = f.let(negative.xor(negativeDivisor));
  if (signed) {
    const limit = i64(1n << 63n);
    m.faultIf(
      quotient.gtU(limit.when(opposite, i64((1n << 63n) - 1n))),
      VECTOR.DE,
      undefined,
      CHECK.overflow,
      low,
      divisor,
    );
  }
  m.setGpr(RAX, 64, negateIf(f, opposite, quotient));
  m.setGpr(RDX, 64, negateIf(f, negative, rest));
}

const loadValue = (): Expr => cell(V.value).zext().or(cell(V.value + 4).zext().shl(32));

/** DAA and DAS. */
function adjust(subtract: boolean): Semantics {
  return (m) => {
    const f = m.f;
    const old = f.let(m.gprU(RAX, 8));
    const flags = m.arithmeticFlags(RFLAGS.CF | RFLAGS.AF);
    const al = f.let(old), carry = f.let(i32(0)), half = f.let(i32(0));
    const change = (by: number) => f.set(al, (subtract ? al.sub(by) : al.add(by)).and(0xff));
    const oldCarry = f.let(flags.and(RFLAGS.CF));
    f.if(old.and(15).gtU(9).or(flags.and(RFLAGS.AF)), () => {
      // The carry of the low step counts (SDM 2 DAA, DAS).
      f.set(carry, oldCarry.or(subtract ? al.ltU(6) : al.gtU(0xf9)));
      change(6);
      f.set(half, RFLAGS.AF);
    });
    f.if(old.gtU(0x99).or(oldCarry), () => {
      change(0x60);
      f.set(carry, 1);
    });
    m.setGpr(RAX, 8, al);
    // OF is undefined: processors clear it.
    m.flagsResult(f.let(al.signed(8)), carry, half, 8);
  };
}

/** AAA and AAS. */
function adjustAscii(subtract: boolean): Semantics {
  return (m) => {
    const f = m.f;
    const ax = f.let(m.gprU(RAX, 16));
    const flags = m.arithmeticFlags(RFLAGS.AF);
    const needed = f.let(ax.and(15).gtU(9).or(flags.and(RFLAGS.AF).nez()));
    f.if(needed, () => f.set(ax, subtract ? ax.sub(0x106) : ax.add(0x106)));
    m.setGpr(RAX, 16, ax.and(0xff0f));
    m.setArithmeticFlags(RFLAGS.CF | RFLAGS.AF, needed.mul(RFLAGS.CF | RFLAGS.AF));
  };
}

export const multiplySemantics: Record<string, Semantics> = {
  mul: wideMultiply(false),
  imul: wideMultiply(true),
  imul2: multiply(0, 0, 1),
  imul3: multiply(0, 1, 2),
  div: divide(false),
  idiv: divide(true),
  daa: adjust(false),
  das: adjust(true),
  aaa: adjustAscii(false),
  aas: adjustAscii(true),
  aam: (m) => {
    const base = m.readU(0);
    m.faultIf(base.eqz(), VECTOR.DE, undefined, CHECK.aam);
    const al = m.f.let(m.gprU(RAX, 8));
    const low = m.f.let(al.remU(base));
    m.setGpr(RAX, 16, al.divU(base).shl(8).or(low));
    m.flagsLogic(m.f.let(low.signed(8)), 8);
  },
  aad: (m) => {
    const base = m.readU(0);
    const ax = m.f.let(m.gprU(RAX, 16));
    const al = m.f.let(ax.signed(8));
    const sum = m.f.let(al.add(ax.shrU(8).mul(base)).signed(8));
    m.setGpr(RAX, 16, sum.and(0xff));
    // CF, AF and OF are undefined: processors give those of the addition.
    m.flagsAdd(al, sum, 8);
  },
};
