/**
 * The transcendental operations of the x87, to well under one ulp of the 80-bit result (SDM 1
 * 8.3.10): series on 128-bit fixed-point numbers. Results in F.se, F.sig (and F.se2, F.sig2), PE
 * whenever a series was used. Trigonometric arguments are reduced by a pi of 66 bits, as processors
 * do (SDM 1 8.3.8).
 */
import { cell, setCell, setCell64 } from "../linkage.ts";
import { type Expr, i32, i64 } from "../wasm/expr.ts";
import type { Func, Local, Module } from "../wasm/module.ts";
import { EXC, EXPONENT_BIAS, F, FORMAT, hi, J, lo, raise } from "./cells.ts";
import {
  atanTable,
  type FixedPoint,
  halfPi,
  ln2,
  log2e,
  pi,
  reductionPi,
  SERIES,
} from "./constants.ts";
import {
  C2,
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
import { setWide } from "./wide.ts";

const BIAS = EXPONENT_BIAS;

/** A 128-bit number in two locals. */
interface Pair {
  readonly h: Local;
  readonly l: Local;
}
type Parts = { readonly h: Expr; readonly l: Expr };

/** The number in F.hi, F.lo. */
const take = (f: Func): Pair => ({ h: f.let(hi()), l: f.let(lo()) });
const constant = ([h, l]: FixedPoint): Parts => ({ h: i64(h), l: i64(l) });
function multiply(f: Func, a: Parts, b: Parts): Pair {
  f.call("fMulWide", a.h, a.l, b.h, b.l);
  return take(f);
}
function shiftRight(f: Func, a: Parts, n: Expr): Pair {
  f.call("fShiftRight", a.h, a.l, n);
  return take(f);
}
/** Normalizes `a`; gives it and the number of bits it was shifted by. */
function normalize(f: Func, a: Parts): Pair & { n: Local } {
  const n = f.call("fNormalize", a.h, a.l);
  return { n, ...take(f) };
}
function add(f: Func, a: Parts, b: Parts): Pair {
  const l = f.let(a.l.add(b.l));
  return { h: f.let(a.h.add(b.h).add(l.ltU(b.l).zext())), l };
}
function subtract(f: Func, a: Parts, b: Parts): Pair {
  return { h: f.let(a.h.sub(b.h).sub(a.l.ltU(b.l).zext())), l: f.let(a.l.sub(b.l)) };
}

/** Sum of c[k] * (sign z)^k with 127 fraction bits; z has 128, sign is - where `minus` holds. */
function sum(f: Func, z: Parts, coefficients: readonly FixedPoint[], minus: Expr | number): Pair {
  const last = coefficients[coefficients.length - 1];
  setWide(f, i64(last[0]), i64(last[1]));
  for (let k = coefficients.length - 2; k >= 0; k--) {
    const [h, l] = coefficients[k];
    f.call("tStep", z.h, z.l, i64(h), i64(l), minus);
  }
  return take(f);
}

/** Rounds a product of `sign`, 2^(e - bias) and a number with `fraction` fraction bits. */
function round(f: Func, sign: Expr, e: Expr, a: Parts, fraction: number): void {
  const w = normalize(f, a);
  f.call("fRound", FORMAT.extended, sign, e.add(127 - fraction).sub(w.n), w.h, w.l.or(1));
  f.call("xPack");
  raise(f, EXC.precision);
}

/** A result that is its operand but for less than half an ulp: processors give the operand. */
function nearly(f: Func, sign: Expr, e: Expr, m: Expr): void {
  setCell(f, F.mode, 3);
  f.call("fRound", FORMAT.extended, sign, e, m, i64(1));
  f.call("xPack");
  f.return();
}

function returnNan(f: Func, sa: Local, a: Local, ca: Local): void {
  f.if(ca.geU(CLASS.quiet), () => {
    f.call("xNan", sa, a, ca, sa, a, ca);
    f.return();
  });
}

function buildStep(m: Module): void {
  // One step of Horner's scheme on F.hi:F.lo.
  m.func("tStep", ["i64", "i64", "i64", "i64", "i32"], [], (f, zh, zl, ch, cl, minus) => {
    f.call("fMulWide", zh, zl, hi(), lo());
    const a = take(f), c = { h: ch, l: cl };
    f.if(minus, () => {
      const r = subtract(f, c, a);
      setWide(f, r.h, r.l);
    }, () => {
      const r = add(f, c, a);
      setWide(f, r.h, r.l);
    });
  }, false);
}

/** `tExp(sa, a)`: 2^a - 1 for |a| <= 1; anything larger comes back as it is. */
function buildExp(m: Module): void {
  m.func("tExp", ["i32", "i64"], [], (f, sa, a) => {
    const ca = f.call("xClass", sa, a);
    returnNan(f, sa, a, ca);
    setPacked(f, sa, a);
    f.if(ca.eqz(), () => f.return());
    f.if(ca.eq(CLASS.infinity), () => {
      f.if(signOf(sa), () => setPacked(f, 0xbfff, J));
      f.return();
    });
    denormalOperand(f, ca.eq(CLASS.denormal));
    const x = unpack(f, sa, a), s = f.let(signOf(sa));
    f.if(x.e.geS(BIAS), () => {
      raise(f, EXC.precision);
      f.if(sa.eq(0x8000 | BIAS).and(a.eq(J)), () => setPacked(f, 0xbffe, J));
      f.return();
    });
    const y = multiply(f, { h: x.m, l: i64(0) }, constant(ln2));
    const z = shiftRight(f, y, i32(BIAS - 1).sub(x.e));
    const factor = sum(f, z, SERIES.exp, s);
    round(f, s, x.e, multiply(f, y, factor), 126);
  }, false);
}

/**
 * `tLogRatio(nh, nl, dh, dl)`: 2 atanh(n / d) / ln 2 for two normalized numbers that stand for
 * n * 2^-127 and d * 2^-127, times 2^e: normalized in F.hi:F.lo, its exponent in F.exp.
 */
function buildLogRatio(m: Module): void {
  m.func("tLogRatio", ["i64", "i64", "i64", "i64", "i32"], [], (f, nh, nl, dh, dl, e) => {
    f.call("fDivWide", nh, nl, dh, dl);
    const s = normalize(f, take(f));
    const exponent = f.let(e.sub(s.n));
    // s = (h:l) 2^-127 2^exponent, exponent <= -3: as a fraction of 128 bits, for the square.
    const fixed = shiftRight(f, s, exponent.add(1).neg());
    const z = multiply(f, fixed, fixed);
    const factor = sum(f, z, SERIES.arc, 0);
    const product = normalize(f, multiply(f, s, factor));
    const result = normalize(f, multiply(f, product, constant(log2e)));
    // Two products with one integer bit too many, and the factor 2.
    setCell(f, F.exp, exponent.add(BIAS + 3).sub(product.n).sub(result.n));
    setWide(f, result.h, result.l);
  }, false);
  // `tLog2(e, mh, ml)`: log2 of a normalized number; normalized in F.hi:F.lo with F.sign, F.exp;
  // zero gives F.hi = 0.
  m.func("tLog2", ["i32", "i64", "i64"], [], (f, e, mh, ml) => {
    const k = f.let(e.sub(BIAS)), half = f.let(mh.gtU(0xb504_f333_f9de_6484n));
    f.set(k, k.add(half));
    // The number between sqrt(1/2) and sqrt(2), with 126 fraction bits.
    const x = shiftRight(f, { h: mh, l: ml }, half.add(1));
    const one = { h: i64(1n << 62n), l: i64(0) };
    const negative = f.let(x.h.ltU(1n << 62n));
    const n: Pair = { h: f.local("i64"), l: f.local("i64") };
    f.if(negative, () => {
      const d = subtract(f, one, x);
      f.set(n.h, d.h);
      f.set(n.l, d.l);
    }, () => {
      const d = subtract(f, x, one);
      f.set(n.h, d.h);
      f.set(n.l, d.l);
    });
    const sign = f.let(k.shrU(31)), size = f.let(k);
    f.if(sign, () => f.set(size, k.neg()));
    // |k| with 113 fraction bits.
    const whole = f.let(size.zext().shl(49));
    f.if(n.h.or(n.l).eqz(), () => {
      const w = normalize(f, { h: whole, l: i64(0) });
      setCell(f, F.sign, sign);
      setCell(f, F.exp, i32(BIAS + 14).sub(w.n));
      setWide(f, w.h, w.l);
      f.if(whole.eqz(), () => setCell64(f, F.hi, 0));
      f.return();
    });
    const top = normalize(f, n), bottom = normalize(f, add(f, x, one));
    f.call("tLogRatio", top.h, top.l, bottom.h, bottom.l, bottom.n.sub(top.n));
    f.if(k.eqz(), () => {
      setCell(f, F.sign, negative);
      f.return();
    });
    const part = f.let(cell(F.exp));
    const fraction = shiftRight(f, take(f), i32(BIAS + 14).sub(part));
    const total: Pair = { h: f.local("i64"), l: f.local("i64") };
    f.if(sign.eq(negative), () => {
      const t = add(f, { h: whole, l: i64(0) }, fraction);
      f.set(total.h, t.h);
      f.set(total.l, t.l);
    }, () => {
      const t = subtract(f, { h: whole, l: i64(0) }, fraction);
      f.set(total.h, t.h);
      f.set(total.l, t.l);
    });
    const w = normalize(f, total);
    setCell(f, F.sign, sign);
    setCell(f, F.exp, i32(BIAS + 14).sub(w.n));
    setWide(f, w.h, w.l);
  }, false);
}

/** y times the logarithm that tLog2 or tLogRatio left, whose sign is given. */
function timesLog(f: Func, sign: Expr, sy: Local, y: { e: Local; m: Local }): void {
  const e = f.let(cell(F.exp)), s = f.let(sign.xor(signOf(sy)));
  f.if(hi().eqz(), () => {
    setZero(f, s);
    f.return();
  });
  const product = multiply(f, take(f), { h: y.m, l: i64(0) });
  round(f, s, e.add(y.e).sub(BIAS), product, 126);
}

function buildLog(m: Module): void {
  // `tLog(sx, x, sy, y)`: y log2(x)
  m.func("tLog", ["i32", "i64", "i32", "i64"], [], (f, sx, x, sy, y) => {
    const cx = f.call("xClass", sx, x), cy = f.call("xClass", sy, y);
    f.if(cx.or(cy).geU(CLASS.quiet), () => {
      f.call("xNan", sx, x, cx, sy, y, cy);
      f.return();
    });
    const infinite = f.let(cy.eq(CLASS.infinity));
    const isOne = sx.eq(BIAS).and(x.eq(J));
    const bad = cx.nez().and(signOf(sx)).or(y.eqz().and(x.eqz().or(cx.eq(CLASS.infinity))))
      .or(infinite.and(isOne));
    f.if(bad, () => {
      invalid(f);
      f.return();
    });
    f.if(x.eqz(), () => {
      f.if(infinite.eqz(), () => raise(f, EXC.zeroDivide));
      setInfinity(f, signOf(sy).xor(1));
      f.return();
    });
    denormalOperand(f, cx.eq(CLASS.denormal).or(cy.eq(CLASS.denormal)));
    const below = f.let(exponentOf(sx).ltU(BIAS));
    f.if(infinite.or(cx.eq(CLASS.infinity)), () => {
      setInfinity(f, signOf(sy).xor(below));
      f.return();
    });
    f.if(y.eqz(), () => {
      setZero(f, signOf(sy).xor(below));
      f.return();
    });
    const a = unpack(f, sx, x), b = unpack(f, sy, y);
    f.call("tLog2", a.e, a.m, i64(0));
    timesLog(f, cell(F.sign), sy, b);
  }, false);
  // `tLogPlus(sx, x, sy, y)`: y log2(x + 1); for x <= -1 the result is x, as processors have it.
  m.func("tLogPlus", ["i32", "i64", "i32", "i64"], [], (f, sx, x, sy, y) => {
    const cx = f.call("xClass", sx, x), cy = f.call("xClass", sy, y);
    f.if(cx.or(cy).geU(CLASS.quiet), () => {
      f.call("xNan", sx, x, cx, sy, y, cy);
      f.return();
    });
    const s = f.let(signOf(sx)), product = f.let(s.xor(signOf(sy)));
    const xInfinite = f.let(cx.eq(CLASS.infinity)), yInfinite = f.let(cy.eq(CLASS.infinity));
    f.if(xInfinite.and(s.or(y.eqz())).or(yInfinite.and(x.eqz())), () => {
      invalid(f);
      f.return();
    });
    denormalOperand(f, cx.eq(CLASS.denormal).or(cy.eq(CLASS.denormal)));
    f.if(xInfinite.or(yInfinite), () => {
      setInfinity(f, product);
      f.return();
    });
    f.if(x.eqz().or(y.eqz()), () => {
      setZero(f, product);
      f.return();
    });
    const a = unpack(f, sx, x), b = unpack(f, sy, y);
    f.if(s.and(a.e.geS(BIAS)), () => {
      setPacked(f, sx, x);
      raise(f, EXC.precision);
      f.return();
    });
    f.if(a.e.geS(BIAS - 2), () => buildFarLog(f, s, a, sy, b));
    // Near zero: log(1 + x) = 2 atanh(x / (2 + x)).
    const small = shiftRight(f, { h: a.m, l: i64(0) }, i32(BIAS + 1).sub(a.e));
    const two = { h: i64(J), l: i64(0) };
    const down = subtract(f, two, small), up = add(f, two, small);
    const d = normalize(f, { h: down.h.when(s, up.h), l: down.l.when(s, up.l) });
    f.call("tLogRatio", a.m, i64(0), d.h, d.l, a.e.sub(BIAS + 1).add(d.n));
    timesLog(f, s, sy, b);
  }, false);
}

/** log2(1 + x) for |x| of 1/4 and more: the sum is exact in 128 bits, or x is large. */
function buildFarLog(
  f: Func,
  s: Local,
  a: { e: Local; m: Local },
  sy: Local,
  b: { e: Local; m: Local },
): void {
  const large = f.let(a.e.geS(BIAS));
  const top = f.let(i32(BIAS).when(large.eqz(), a.e).add(1));
  const x = shiftRight(f, { h: a.m, l: i64(0) }, top.sub(a.e));
  const one = shiftRight(f, { h: i64(J), l: i64(0) }, top.sub(BIAS));
  const plus = add(f, one, x), minus = subtract(f, one, x);
  const w = normalize(f, { h: minus.h.when(s, plus.h), l: minus.l.when(s, plus.l) });
  f.call("tLog2", top.sub(w.n), w.h, w.l);
  timesLog(f, cell(F.sign), sy, b);
  f.return();
}

/**
 * `tReduce(e, m) -> quadrant`: |x| = quadrant * pi/2 + r with |r| <= pi/4; r normalized in
 * F.hi:F.lo, F.exp, F.sign. `tSin()`, `tCos()`: of what tReduce left, which they take as arguments
 * (hi, lo, exponent); the value in F.hi:F.lo with 126 (sine, times 2^(exponent - bias)) or 127
 * fraction bits.
 */
function buildReduce(m: Module): void {
  m.func("tReduce", ["i32", "i64"], ["i32"], (f, e, x) => {
    const q = f.let(i32(0)), a: Pair = { h: f.let(x), l: f.let(i64(0)) };
    setCell(f, F.sign, 0);
    const [ph, pl] = reductionPi;
    const P = { h: i64(ph), l: i64(pl) };
    // Below pi / 4 nothing is to be done.
    f.if(e.ltS(BIAS - 1).or(e.eq(BIAS - 1).and(x.ltU(ph))), () => {
      setCell(f, F.exp, e);
      setWide(f, x, i64(0));
      f.return(0);
    });
    const n = f.let(e.sub(BIAS));
    f.if(n.ltS(0), () => {
      f.set(a.l, x.shl(63));
      f.set(a.h, x.shrU(1));
    }, () => {
      const over = f.let(i64(0));
      f.loop((again) => {
        const fits = over.nez().or(a.h.gtU(ph)).or(a.h.eq(ph).and(a.l.geU(pl)));
        f.set(q, q.shl(1));
        f.if(fits, () => {
          const r = subtract(f, a, P);
          f.set(a.h, r.h);
          f.set(a.l, r.l);
          f.set(q, q.or(1));
        });
        f.if(n.eqz(), () => {}, () => {
          f.set(over, a.h.shrU(63));
          f.set(a.h, a.h.shl(1).or(a.l.shrU(63)));
          f.set(a.l, a.l.shl(1));
        });
        f.set(n, n.sub(1));
        f.brIf(again, n.geS(0));
      });
    });
    // Nearer to the next multiple: r = pi/2 - a, with the other sign.
    const other = subtract(f, P, a);
    f.if(a.h.gtU(other.h).or(a.h.eq(other.h).and(a.l.gtU(other.l))), () => {
      f.set(a.h, other.h);
      f.set(a.l, other.l);
      f.set(q, q.add(1));
      setCell(f, F.sign, 1);
    });
    const w = normalize(f, a);
    setCell(f, F.exp, i32(BIAS).sub(w.n));
    setWide(f, w.h, w.l);
    f.result(q.and(3));
  }, false);
  const square = (f: Func, h: Local, l: Local, e: Local) => {
    const fixed = shiftRight(f, { h, l }, i32(BIAS - 1).sub(e));
    return multiply(f, fixed, fixed);
  };
  m.func("tSin", ["i64", "i64", "i32"], [], (f, h, l, e) => {
    const factor = sum(f, square(f, h, l, e), SERIES.sin, 1);
    f.call("fMulWide", h, l, factor.h, factor.l);
  }, false);
  m.func("tCos", ["i64", "i64", "i32"], [], (f, h, l, e) => {
    sum(f, square(f, h, l, e), SERIES.cos, 1);
  }, false);
}

/** `tSine(sa, a, which)`: 0 sine, 1 cosine, of a number that is not NaN, infinite or out of range. */
function buildSine(m: Module): void {
  m.func("tSine", ["i32", "i64", "i32"], [], (f, sa, a, which) => {
    f.if(a.eqz(), () => {
      setPacked(f, i32(BIAS).when(which, sa), i64(J).when(which, a));
      f.return();
    });
    const x = unpack(f, sa, a);
    f.if(x.e.ltS(BIAS - 40), () => {
      f.if(which, () => nearly(f, i32(0), i32(BIAS), i64(J)));
      nearly(f, signOf(sa), x.e, x.m);
    });
    const q = f.call("tReduce", x.e, x.m);
    const r = take(f), e = f.let(cell(F.exp)), rs = f.let(cell(F.sign));
    // A cosine is a sine one quadrant on; its own sign does not matter, a cosine's r neither.
    f.set(q, q.add(which));
    const s = f.let(q.shrU(1).and(1).xor(i32(0).when(which, signOf(sa))));
    f.if(q.and(1), () => {
      f.call("tCos", r.h, r.l, e);
      round(f, s, i32(BIAS), take(f), 127);
    }, () => {
      f.call("tSin", r.h, r.l, e);
      round(f, s.xor(rs), e, take(f), 126);
    });
  }, false);
  m.func("tTangent", ["i32", "i64"], [], (f, sa, a) => {
    f.if(a.eqz(), () => {
      setPacked(f, sa, a);
      f.return();
    });
    const x = unpack(f, sa, a);
    f.if(x.e.ltS(BIAS - 40), () => nearly(f, signOf(sa), x.e, x.m));
    const q = f.call("tReduce", x.e, x.m);
    const r = take(f),
      e = f.let(cell(F.exp)),
      s = f.let(cell(F.sign).xor(signOf(sa)).xor(q.and(1)));
    f.call("tSin", r.h, r.l, e);
    const sine = normalize(f, take(f));
    f.call("tCos", r.h, r.l, e);
    const cosine = normalize(f, take(f));
    // Exponents, relative to the bias: sine e + 1 - n, cosine -n.
    const d = f.let(e.sub(BIAS - 1).sub(sine.n).add(cosine.n));
    f.if(q.and(1), () => {
      f.call("fDivWide", cosine.h, cosine.l, sine.h, sine.l);
      f.set(d, d.neg());
    }, () => f.call("fDivWide", sine.h, sine.l, cosine.h, cosine.l));
    round(f, s, d.add(BIAS), take(f), 127);
  }, false);
  // `tRange(sa, a) -> 1` if there is nothing to compute: the result is set, or F.extra = C2.
  m.func("tRange", ["i32", "i64"], ["i32"], (f, sa, a) => {
    const ca = f.call("xClass", sa, a);
    f.if(ca.geU(CLASS.quiet), () => {
      f.call("xNan", sa, a, ca, sa, a, ca);
      f.return(1);
    });
    f.if(ca.eq(CLASS.infinity), () => {
      invalid(f);
      f.return(1);
    });
    f.if(exponentOf(sa).geU(BIAS + 63), () => {
      setPacked(f, sa, a);
      setCell(f, F.extra, C2);
      f.return(1);
    });
    f.if(ca.eq(CLASS.denormal), () => {
      raise(f, EXC.denormal);
      f.if(cell(F.masks).and(EXC.denormal).eqz(), () => f.return(1));
    });
    f.result(i32(0));
  }, false);
}

/** `tArc(qh, ql, e)`: atan of a normalized number up to 1; F.hi:F.lo, F.exp normalized. */
function buildArc(m: Module): void {
  m.func("tArcSmall", ["i64", "i64", "i32"], [], (f, h, l, e) => {
    const fixed = shiftRight(f, { h, l }, i32(BIAS - 1).sub(e));
    const factor = sum(f, multiply(f, fixed, fixed), SERIES.arc, 1);
    const w = normalize(f, multiply(f, { h, l }, factor));
    setCell(f, F.exp, e.add(1).sub(w.n));
    setWide(f, w.h, w.l);
  }, false);
  m.func("tArc", ["i64", "i64", "i32"], [], (f, h, l, e) => {
    f.if(e.ltS(BIAS - 5), () => {
      f.call("tArcSmall", h, l, e);
      f.return();
    });
    // atan(q) = atan(c) + atan((q - c) / (1 + q c)), c the nearest sixteenth; 127 fraction bits.
    const q = shiftRight(f, { h, l }, i32(BIAS).sub(e));
    const i = f.let(q.h.shrU(58).add(1).shrU(1));
    const c = { h: i.shl(59), l: i64(0) };
    const below = f.let(q.h.ltU(c.h));
    const under = subtract(f, c, q), over = subtract(f, q, c);
    const n: Pair = {
      h: f.let(under.h.when(below, over.h)),
      l: f.let(under.l.when(below, over.l)),
    };
    const base: Pair = { h: f.local("i64"), l: f.local("i64") };
    const set = (w: FixedPoint) => {
      f.set(base.h, i64(w[0]));
      f.set(base.l, i64(w[1]));
    };
    f.switch(i.wrap(), atanTable.slice(0, -1).map((w) => () => set(w)), () => set(atanTable[16]));
    f.if(n.h.or(n.l).nez(), () => {
      const product = multiply(f, q, c);
      const top = normalize(f, n);
      const bottom = normalize(f, add(f, product, { h: i64(1n << 62n), l: i64(0) }));
      f.call("fDivWide", top.h, top.l, bottom.h, bottom.l);
      const t = normalize(f, take(f));
      // n has 127 fraction bits, the divisor 126.
      f.call("tArcSmall", t.h, t.l, i32(BIAS - 1).sub(top.n).add(bottom.n).sub(t.n));
      const part = shiftRight(f, take(f), i32(BIAS).sub(cell(F.exp)));
      const less = subtract(f, base, part), more = add(f, base, part);
      f.set(base.h, less.h.when(below, more.h));
      f.set(base.l, less.l.when(below, more.l));
    });
    const w = normalize(f, base);
    setCell(f, F.exp, i32(BIAS).sub(w.n));
    setWide(f, w.h, w.l);
  }, false);
}

/** `tArctangent(sx, x, sy, y)`: the angle of the point (x, y) (SDM 2 table 3-29). */
function buildArctangent(m: Module): void {
  // `tAngle(sign, quarters, minus, e, hi, lo)`: quarters * pi/4 -+ a small angle, rounded.
  m.func(
    "tAngle",
    ["i32", "i32", "i32", "i32", "i64", "i64"],
    [],
    (f, s, whole, minus, e, h, l) => {
      f.if(whole.eqz(), () => {
        round(f, s, e, { h, l }, 127);
        f.return();
      });
      const small = shiftRight(f, { h, l }, i32(BIAS + 1).sub(e));
      const full = { h: i64(pi[0]), l: i64(pi[1]) },
        half = { h: i64(halfPi[0]), l: i64(halfPi[1]) };
      const two = f.let(whole.eq(2));
      const base = { h: f.let(full.h.when(two, half.h)), l: f.let(full.l.when(two, half.l)) };
      const less = subtract(f, base, small), more = add(f, base, small);
      round(
        f,
        s,
        i32(BIAS),
        { h: less.h.when(minus, more.h), l: less.l.when(minus, more.l) },
        126,
      );
    },
    false,
  );
  m.func("tArctangent", ["i32", "i64", "i32", "i64"], [], (f, sx, x, sy, y) => {
    const cx = f.call("xClass", sx, x), cy = f.call("xClass", sy, y);
    f.if(cx.or(cy).geU(CLASS.quiet), () => {
      f.call("xNan", sx, x, cx, sy, y, cy);
      f.return();
    });
    denormalOperand(f, cx.eq(CLASS.denormal).or(cy.eq(CLASS.denormal)));
    const s = f.let(signOf(sy)), left = f.let(signOf(sx));
    const xInfinite = f.let(cx.eq(CLASS.infinity)), yInfinite = f.let(cy.eq(CLASS.infinity));
    // On the x axis, or as good as: zero or pi.
    f.if(y.eqz().or(xInfinite.and(yInfinite.eqz())), () => {
      f.if(left.eqz(), () => setZero(f, s), () => {
        f.call("tAngle", s, 2, 0, 0, i64(0), i64(0));
      });
      f.return();
    });
    f.if(xInfinite.and(yInfinite), () => {
      const [h, l] = atanTable[16];
      f.call("tAngle", s, left.shl(1), 1, BIAS, i64(h), i64(l));
      f.return();
    });
    f.if(x.eqz().or(yInfinite), () => {
      f.call("tAngle", s, 1, 0, 0, i64(0), i64(0));
      f.return();
    });
    const a = unpack(f, sx, x), b = unpack(f, sy, y);
    const steep = f.let(b.e.gtS(a.e).or(b.e.eq(a.e).and(b.m.gtU(a.m))));
    const d = f.let(a.e.sub(b.e).when(steep, b.e.sub(a.e)));
    f.call("fDivWide", a.m.when(steep, b.m), i64(0), b.m.when(steep, a.m), i64(0));
    const q = normalize(f, take(f));
    f.call("tArc", q.h, q.l, d.add(BIAS).sub(q.n));
    // pi/2 - a (right, steep), pi/2 + a (left, steep), pi - a (left), a.
    const whole = i32(1).when(steep, left.shl(1));
    f.call("tAngle", s, whole, steep.xor(left), cell(F.exp), hi(), lo());
  }, false);
}

export function buildTranscendental(m: Module): void {
  buildStep(m);
  buildExp(m);
  buildLogRatio(m);
  buildLog(m);
  buildReduce(m);
  buildSine(m);
  buildArc(m);
  buildArctangent(m);
}
