/** FPREM, FPREM1, FRNDINT, FSCALE and FXTRACT (SDM 2, under their names). */
import { cell, setCell, setCell64 } from "../linkage.ts";
import { i32, i64 } from "../wasm/expr.ts";
import type { Func, Local, Module } from "../wasm/module.ts";
import { EXC, EXPONENT_BIAS, F, FORMAT, lo, raise } from "./cells.ts";
import {
  C0,
  C1,
  C2,
  C3,
  CLASS,
  denormalOperand,
  exponentOf,
  invalid,
  setInfinity,
  setPacked,
  setZero,
  signOf,
  unpack,
} from "./extended.ts";

/** The operand as the result; a pseudo-denormal becomes the normal number it stands for. */
function setOperand(f: Func, sa: Local, a: Local): void {
  setPacked(f, sa.add(exponentOf(sa).eqz().and(a.ltS(0))), a);
}

/**
 * `xRemainder(sa, a, sb, b, nearest)`: condition codes in F.extra, -1 if there is no quotient. One step takes at most 63 bits
 * off the difference of the exponents; then C2 says that the remainder is not complete.
 */
function buildRemainder(m: Module): void {
  m.func("xRemainder", ["i32", "i64", "i32", "i64", "i32"], [], (f, sa, a, sb, b, nearest) => {
    const ca = f.call("xClass", sa, a), cb = f.call("xClass", sb, b);
    setCell(f, F.extra, -1);
    f.if(ca.or(cb).geU(CLASS.quiet), () => {
      f.call("xNan", sa, a, ca, sb, b, cb);
      f.return();
    });
    f.if(ca.eq(CLASS.infinity).or(b.eqz()), () => {
      invalid(f);
      f.return();
    });
    denormalOperand(f, ca.eq(CLASS.denormal).or(cb.eq(CLASS.denormal)));
    f.if(a.eqz().or(cb.eq(CLASS.infinity)), () => {
      setCell(f, F.extra, 0);
      setOperand(f, sa, a);
      f.return();
    });
    const s = f.let(signOf(sa));
    const x = unpack(f, sa, a), y = unpack(f, sb, b);
    const d = f.let(x.e.sub(y.e));
    const q = f.let(i64(0));
    f.if(d.geS(64), () => {
      const n = f.let(d.and(31).or(32));
      setCell(f, F.extra, C2);
      f.set(x.e, x.e.sub(n));
      f.call("fRemainderBits", x.m, y.m, n);
      f.set(x.m, lo());
    }, () => {
      f.if(d.geS(0), () => {
        f.set(q, f.call("fRemainderBits", x.m, y.m, d));
        f.set(x.m, lo());
        f.set(x.e, y.e);
      });
      // Nearest: one more if the rest is beyond half the divisor, or at half with q odd.
      f.if(nearest.and(d.geS(-1)), () => {
        const twice = f.let(x.m.shl(1).when(d.geS(0), x.m));
        const beyond = y.m.ltU(twice).or(x.m.ltS(0).and(d.geS(0)))
          .or(y.m.eq(twice).and(q.and(1).nez()));
        f.if(beyond.and(x.m.nez()), () => {
          f.set(q, q.add(1));
          f.set(s, s.xor(1));
          // y - x, in units of x where x has the smaller exponent: 2y - x fits after the test.
          f.set(x.m, y.m.sub(x.m).when(d.geS(0), y.m.shl(1).sub(x.m)));
        });
      });
      const bits = f.let(q.wrap());
      setCell(
        f,
        F.extra,
        bits.and(1).mul(C1).or(bits.shrU(1).and(1).mul(C3)).or(bits.shrU(2).and(1).mul(C0)),
      );
    });
    f.if(x.m.eqz(), () => {
      setZero(f, signOf(sa));
      f.return();
    });
    const shift = f.let(x.m.clz());
    f.call("fRound", FORMAT.extended, s, x.e.sub(shift.wrap()), x.m.shl(shift), i64(0));
    f.call("xPack");
  }, false);
}

/** `fRemainderBits(a, b, n) -> q`: a * 2^n divided by b, both normalized; the rest in F.lo. */
function buildRemainderBits(m: Module): void {
  m.func("fRemainderBits", ["i64", "i64", "i32"], ["i64"], (f, a, b, n) => {
    const q = f.let(a.geU(b).zext());
    f.if(q.nez().wrap(), () => f.set(a, a.sub(b)));
    f.while(() => n.nez(), () => {
      const over = f.let(a.shrU(63));
      f.set(a, a.shl(1));
      f.set(q, q.shl(1));
      f.if(over.nez().or(a.geU(b)), () => {
        f.set(a, a.sub(b));
        f.set(q, q.or(1));
      });
      f.set(n, n.sub(1));
    });
    setCell64(f, F.lo, a);
    f.result(q);
  }, false);
}

function buildRest(m: Module): void {
  // Returns from an operation with one operand that is a NaN or unsupported.
  m.func("xRoundToInt", ["i32", "i64"], [], (f, sa, a) => {
    const ca = f.call("xClass", sa, a);
    f.if(ca.geU(CLASS.quiet), () => {
      f.call("xNan", sa, a, ca, sa, a, ca);
      f.return();
    });
    setPacked(f, sa, a);
    denormalOperand(f, ca.eq(CLASS.denormal));
    const e = f.let(exponentOf(sa));
    f.if(ca.eqz().or(e.geU(EXPONENT_BIAS + 63)), () => f.return());
    const value = f.call("fInteger", signOf(sa), e, a);
    f.if(cell(F.inexact), () => raise(f, EXC.precision));
    f.call("xFromInt", value.shrU(1).when(value.ltS(0), value));
    f.if(value.ltS(0), () => setPacked(f, cell(F.se).add(1), value));
    setCell(f, F.se, cell(F.se).or(sa.and(0x8000)));
  }, false);
  m.func("xScale", ["i32", "i64", "i32", "i64"], [], (f, sa, a, sb, b) => {
    const ca = f.call("xClass", sa, a), cb = f.call("xClass", sb, b);
    f.if(ca.or(cb).geU(CLASS.quiet), () => {
      f.call("xNan", sa, a, ca, sb, b, cb);
      f.return();
    });
    const down = f.let(signOf(sb));
    f.if(cb.eq(CLASS.infinity), () => {
      // Zero times infinity, infinity times zero.
      f.if(a.eqz().and(down.eqz()).or(ca.eq(CLASS.infinity).and(down)), () => {
        invalid(f);
        f.return();
      });
      denormalOperand(f, ca.eq(CLASS.denormal));
      f.if(down, () => setZero(f, signOf(sa)), () => setInfinity(f, signOf(sa)));
      f.if(a.eqz().or(ca.eq(CLASS.infinity)), () => setPacked(f, sa, a));
      f.return();
    });
    denormalOperand(f, ca.eq(CLASS.denormal).or(cb.eq(CLASS.denormal)));
    f.if(a.eqz().or(b.eqz()).or(ca.eq(CLASS.infinity)), () => {
      setOperand(f, sa, a);
      f.return();
    });
    const eb = f.let(exponentOf(sb)), n = f.let(i32(0));
    f.if(eb.geU(EXPONENT_BIAS + 17), () => f.set(n, i32(0x20000)), () => {
      f.if(eb.geU(EXPONENT_BIAS), () => {
        f.set(n, b.shrU(i32(EXPONENT_BIAS + 63).sub(eb).zext()).wrap());
      });
    });
    const x = unpack(f, sa, a);
    f.call(
      "fRound",
      FORMAT.extended,
      signOf(sa),
      x.e.add(n.neg().when(down, n)),
      x.m,
      i64(0),
    );
    f.call("xPack");
  }, false);
  // `xExtract(sa, a)`: the exponent in F.se, F.sig; the significand in F.se2, F.sig2.
  m.func("xExtract", ["i32", "i64"], [], (f, sa, a) => {
    const ca = f.call("xClass", sa, a);
    const both = () => {
      setCell(f, F.se2, cell(F.se));
      f.copy(F.sig2, F.sig, 8);
    };
    f.if(ca.geU(CLASS.quiet), () => {
      f.call("xNan", sa, a, ca, sa, a, ca);
      both();
      f.return();
    });
    setCell(f, F.se2, sa);
    setCell64(f, F.sig2, a);
    f.if(ca.eqz(), () => {
      raise(f, EXC.zeroDivide);
      setInfinity(f, i32(1));
      f.return();
    });
    f.if(ca.eq(CLASS.infinity), () => {
      setInfinity(f, i32(0));
      f.return();
    });
    denormalOperand(f, ca.eq(CLASS.denormal));
    const x = unpack(f, sa, a);
    f.call("xFromInt", x.e.sub(EXPONENT_BIAS).sext());
    setCell(f, F.se2, sa.and(0x8000).or(EXPONENT_BIAS));
    setCell64(f, F.sig2, x.m);
  }, false);
}

export function buildRemainders(m: Module): void {
  buildRemainderBits(m);
  buildRemainder(m);
  buildRest(m);
}
