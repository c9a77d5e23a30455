/**
 * SSE arithmetic on one element (SDM 1 11.5, tables 4-7, 11-1; SDM 2). Elements travel as i64, a
 * single in the low half. F.flags collects exceptions, F.mode, F.masks and F.flush are the
 * environment (sse_environment.ts). Wasm's own float stands in where design.md section 3 allows it:
 * rounding to nearest, no DAZ or FTZ, all exceptions masked, PE set already, operands normal or
 * zero, result well inside the normal range.
 */
import { MXCSR } from "../../abi/x86/float.ts";
import { CPU } from "../state.ts";
import { cell, setCell } from "../linkage.ts";
import { Expr, i32, i64 } from "../wasm/expr.ts";
import type { Func, Local, Module } from "../wasm/module.ts";
import { EXC, exp, EXPONENT_BIAS, F, FORMAT, hi, lo, raise, sign, unmasked } from "./cells.ts";

/** A format: its letter in function names and its constants. */
export interface ElementFormat {
  readonly letter: "S" | "D";
  readonly bits: 32 | 64;
  /** FORMAT of this precision with its own range, and with that of the x87. */
  readonly format: number;
  readonly wideFormat: number;
  readonly fraction: number;
  readonly bias: number;
  /** Largest exponent field. */
  readonly top: number;
  readonly sign: bigint;
  readonly infinity: bigint;
  readonly quiet: bigint;
  /** Least normal number. */
  readonly least: bigint;
  /** QNaN indefinite. */
  readonly indefinite: bigint;
}

function elementFormat(letter: "S" | "D", bits: 32 | 64, fraction: number): ElementFormat {
  const top = letter === "S" ? 0xff : 0x7ff;
  const infinity = BigInt(top) << BigInt(fraction), sign = 1n << BigInt(bits - 1);
  const quiet = 1n << BigInt(fraction - 1);
  return {
    letter,
    bits,
    format: letter === "S" ? FORMAT.single : FORMAT.double,
    wideFormat: letter === "S" ? FORMAT.extended24 : FORMAT.extended53,
    fraction,
    bias: top >> 1,
    top,
    sign,
    infinity,
    quiet,
    least: 1n << BigInt(fraction),
    indefinite: sign | infinity | quiet,
  };
}

export const SINGLE = elementFormat("S", 32, 23);
export const DOUBLE = elementFormat("D", 64, 52);

/** What a comparison finds, as bits, so that a predicate is a mask. */
const RELATION = { less: 1, equal: 2, unordered: 4, greater: 8 } as const;

const field = (x: ElementFormat, value: Expr): Expr => value.shrU(x.fraction).wrap().and(x.top);
const magnitude = (x: ElementFormat, value: Expr): Expr => value.and(x.sign - 1n);
const signOf = (x: ElementFormat, value: Expr): Expr => value.shrU(x.bits - 1).wrap();
const isDenormal = (x: ElementFormat, abs: Expr): Expr => abs.sub(1).ltU(x.least - 1n);
const isNan = (x: ElementFormat, abs: Expr): Expr => abs.gtU(x.infinity);

/** MXCSR.DAZ: a denormal operand becomes a zero of its sign. */
function denormalsAreZeros(f: Func, x: ElementFormat, ...values: Local[]): void {
  f.if(cell(CPU.mxcsr).and(MXCSR.DAZ), () => {
    for (const v of values) {
      f.if(isDenormal(x, magnitude(x, v)), () => f.set(v, v.and(x.sign)));
    }
  });
}

/** Raises IE and leaves the function with QNaN indefinite. */
function invalid(f: Func, x: ElementFormat): void {
  raise(f, EXC.invalid);
  f.return(i64(x.indefinite));
}

/** Exponent (biased by 16383) and significand of a magnitude that is finite and not zero. */
function unpack(f: Func, x: ElementFormat, abs: Expr): { e: Local; m: Local } {
  const m = f.let(abs.shl(63 - x.fraction));
  const e = f.let(abs.shrU(x.fraction).wrap());
  f.if(e, () => {
    f.set(m, m.or(1n << 63n));
    f.set(e, e.add(EXPONENT_BIAS - x.bias));
  }, () => {
    const shift = f.let(m.clz());
    f.set(m, m.shl(shift));
    f.set(e, i32(1 + EXPONENT_BIAS - x.bias).sub(shift.wrap()));
  });
  return { e, m };
}

/** What fRound left, as an element. */
function packed(x: ElementFormat): Expr {
  const e = exp().sub(EXPONENT_BIAS - x.bias).when(hi().ltS(0), i32(0));
  return sign().zext().shl(x.bits - 1).or(e.zext().shl(x.fraction))
    .or(hi().shl(1).shrU(64 - x.fraction));
}

/**
 * Rounds by `operation(format)` and leaves the function with the result. With UE unmasked PE tells
 * of rounding with an unbounded exponent, which takes a second go.
 */
function rounded(f: Func, x: ElementFormat, operation: (format: number) => void): void {
  const before = f.let(cell(F.flags));
  setCell(f, F.flags, 0);
  operation(x.format);
  const result = f.let(packed(x));
  f.if(cell(F.flags).and(unmasked(EXC.underflow)), () => {
    setCell(f, F.flags, EXC.underflow);
    operation(x.wideFormat);
  });
  raise(f, before);
  f.return(result);
}

const FLOAT_OP = { add: 0, sub: 1, mul: 2, div: 3 } as const;
/** Wasm's own operation on elements. */
function native(x: ElementFormat, op: keyof typeof FLOAT_OP | "sqrt", ...values: Expr[]): Expr {
  const single = x === SINGLE;
  const floats = values.map((v) =>
    single ? new Expr("f32", [0xbe], [v.wrap()]) : new Expr("f64", [0xbf], [v])
  );
  const base = single ? 0x92 : 0xa0;
  const code = op === "sqrt" ? (single ? 0x91 : 0x9f) : base + FLOAT_OP[op];
  const result = new Expr(single ? "f32" : "f64", [code], floats);
  return single ? new Expr("i32", [0xbc], [result]).zext() : new Expr("i64", [0xbd], [result]);
}

/** MXCSR allows Wasm's float: FTZ, RC, DAZ clear, all masks and PE set. */
const ALL_MASKS = 0x3f << MXCSR.masks, MODE = MXCSR.DAZ | MXCSR.FTZ | 3 << MXCSR.rounding;
const nativeAllowed = (): Expr =>
  cell(CPU.mxcsr).and(ALL_MASKS | MODE | EXC.precision).eq(ALL_MASKS | EXC.precision);
const isNormal = (x: ElementFormat, value: Expr): Expr => field(x, value).sub(1).ltU(x.top - 1);

/** Leaves the function with Wasm's result, if nothing but PE can have been raised. */
function fast(
  f: Func,
  x: ElementFormat,
  op: keyof typeof FLOAT_OP | "sqrt",
  ...values: Local[]
): void {
  const zeros = op === "add" || op === "sub";
  let good: Expr = nativeAllowed();
  for (const v of values) {
    const normal = isNormal(x, v);
    good = good.and(zeros ? normal.or(magnitude(x, v).eqz()) : normal);
  }
  if (op === "sqrt") good = good.and(values[0].and(x.sign).eqz());
  f.if(good, () => {
    const result = f.let(native(x, op, ...values));
    // The least normal exponent may have been tiny before rounding.
    const inside = field(x, result).sub(2).ltU(x.top - 2);
    f.if(zeros ? inside.or(magnitude(x, result).eqz()) : inside, () => f.return(result));
  });
}

/** `nanX(a, b)`: the first operand's NaN, else the second's, quieted; IE for a signaling one. */
function buildNan(m: Module, x: ElementFormat): void {
  m.func(`nan${x.letter}`, ["i64", "i64"], ["i64"], (f, a, b) => {
    const signaling = (v: Expr) => isNan(x, magnitude(x, v)).and(v.and(x.quiet).eqz());
    f.if(signaling(a).or(signaling(b)), () => raise(f, EXC.invalid));
    f.result(a.when(isNan(x, magnitude(x, a)), b).or(x.quiet));
  }, false);
}

/** Magnitudes of two operands after DAZ; NaNs leave the function. */
function operands(f: Func, x: ElementFormat, a: Local, b: Local): { p: Local; q: Local } {
  denormalsAreZeros(f, x, a, b);
  const p = f.let(magnitude(x, a)), q = f.let(magnitude(x, b));
  f.if(isNan(x, p).or(isNan(x, q)), () => f.return(f.call(`nan${x.letter}`, a, b)));
  return { p, q };
}
const denormal = (f: Func, x: ElementFormat, ...abs: Local[]) =>
  f.if(
    abs.map((v) => isDenormal(x, v)).reduce((u, v) => u.or(v)),
    () => raise(f, EXC.denormal),
  );

/** `addX`, `subX`, `mulX`, `divX` (a, b) and `sqrtX(a)`. */
function buildArithmetic(m: Module, x: ElementFormat): void {
  for (const op of ["add", "sub"] as const) {
    m.func(op + x.letter, ["i64", "i64"], ["i64"], (f, a, b) => {
      fast(f, x, op, a, b);
      const { p, q } = operands(f, x, a, b);
      if (op === "sub") f.set(b, b.xor(x.sign));
      const same = f.let(a.xor(b).and(x.sign).eqz());
      const infinite = p.eq(x.infinity);
      f.if(infinite.and(q.eq(x.infinity)).and(same.eqz()), () => invalid(f, x));
      denormal(f, x, p, q);
      f.if(infinite, () => f.return(a));
      f.if(q.eq(x.infinity), () => f.return(b));
      f.if(p.or(q).eqz(), () => {
        const zero = i64(x.sign).when(cell(F.mode).eq(1), i64(0));
        f.return(a.when(same, zero));
      });
      f.if(q.eqz().and(isDenormal(x, p).eqz()), () => f.return(a));
      f.if(p.eqz().and(isDenormal(x, q).eqz()), () => f.return(b));
      const zeroM = (abs: Local, u: { e: Local; m: Local }) =>
        f.if(abs.eqz(), () => f.set(u.m, i64(0)));
      const u = unpack(f, x, p), v = unpack(f, x, q);
      zeroM(p, u);
      zeroM(q, v);
      const s = signOf(x, a), t = signOf(x, b);
      rounded(f, x, (format) => f.call("fAdd", format, s, u.e, u.m, t, v.e, v.m));
      f.unreachable();
    }, false);
  }
  m.func(`mul${x.letter}`, ["i64", "i64"], ["i64"], (f, a, b) => {
    fast(f, x, "mul", a, b);
    const { p, q } = operands(f, x, a, b);
    const s = f.let(a.xor(b).and(x.sign));
    const infinite = f.let(p.eq(x.infinity).or(q.eq(x.infinity)));
    const zero = f.let(p.eqz().or(q.eqz()));
    f.if(infinite.and(zero), () => invalid(f, x));
    denormal(f, x, p, q);
    f.if(infinite, () => f.return(s.or(x.infinity)));
    f.if(zero, () => f.return(s));
    const u = unpack(f, x, p), v = unpack(f, x, q);
    rounded(f, x, (format) => f.call("fMul", format, signOf(x, s), u.e, u.m, v.e, v.m));
    f.unreachable();
  }, false);
  m.func(`div${x.letter}`, ["i64", "i64"], ["i64"], (f, a, b) => {
    fast(f, x, "div", a, b);
    const { p, q } = operands(f, x, a, b);
    const s = f.let(a.xor(b).and(x.sign));
    const infinite = p.eq(x.infinity);
    f.if(infinite.and(q.eq(x.infinity)).or(p.or(q).eqz()), () => invalid(f, x));
    f.if(q.eqz().and(p.ne(x.infinity)), () => {
      raise(f, EXC.zeroDivide);
      f.return(s.or(x.infinity));
    });
    denormal(f, x, p, q);
    f.if(infinite, () => f.return(s.or(x.infinity)));
    f.if(p.eqz().or(q.eq(x.infinity)), () => f.return(s));
    const u = unpack(f, x, p), v = unpack(f, x, q);
    rounded(f, x, (format) => f.call("fDiv", format, signOf(x, s), u.e, u.m, v.e, v.m));
    f.unreachable();
  }, false);
  m.func(`sqrt${x.letter}`, ["i64"], ["i64"], (f, a) => {
    fast(f, x, "sqrt", a);
    const { p } = operands(f, x, a, a);
    f.if(p.eqz(), () => f.return(a));
    f.if(a.and(x.sign).nez(), () => invalid(f, x));
    denormal(f, x, p);
    f.if(p.eq(x.infinity), () => f.return(a));
    const u = unpack(f, x, p);
    rounded(f, x, (format) => f.call("fSqrt", format, u.e, u.m));
    f.unreachable();
  }, false);
}

/** `minX`, `maxX`: the second operand if either is a NaN or both are zeros. */
function buildSelect(m: Module, x: ElementFormat): void {
  // `relationX(a, b, signaling)`: RELATION; a quiet NaN is invalid too if `signaling`.
  m.func(`relation${x.letter}`, ["i64", "i64", "i32"], ["i32"], (f, a, b, signaling) => {
    denormalsAreZeros(f, x, a, b);
    const p = f.let(magnitude(x, a)), q = f.let(magnitude(x, b));
    f.if(isNan(x, p).or(isNan(x, q)), () => {
      f.if(signaling, () => raise(f, EXC.invalid), () => void f.call(`nan${x.letter}`, a, b));
      f.return(RELATION.unordered);
    });
    denormal(f, x, p, q);
    f.set(p, p.neg().when(signOf(x, a), p));
    f.set(q, q.neg().when(signOf(x, b), q));
    f.if(p.eq(q), () => f.return(RELATION.equal));
    f.result(i32(RELATION.less).when(p.ltS(q), i32(RELATION.greater)));
  }, false);
  for (const [op, chosen] of [["min", RELATION.less], ["max", RELATION.greater]] as const) {
    m.func(op + x.letter, ["i64", "i64"], ["i64"], (f, a, b) => {
      denormalsAreZeros(f, x, a, b);
      f.result(a.when(f.call(`relation${x.letter}`, a, b, 1).eq(chosen), b));
    }, false);
  }
}

/** Conversions of one format: to and from integers, to an integral value. */
function buildIntegers(m: Module, x: ElementFormat): void {
  // Magnitude rounded to an integer by F.mode; F.inexact, F.carry.
  const round = (f: Func, s: Expr, u: { e: Local; m: Local }): Local => {
    f.call("fShiftRight", u.m, i64(0), i32(EXPONENT_BIAS + 63).sub(u.e));
    return f.call("fRoundAt", i32(0), s, hi(), f.let(lo()));
  };
  // `toIntX(a, bits) -> i64`: integer indefinite if it does not fit.
  m.func(`toInt${x.letter}`, ["i64", "i32"], ["i64"], (f, a, bits) => {
    denormalsAreZeros(f, x, a);
    const limit = f.let(i64(1).shl(bits.sub(1).zext()));
    const p = f.let(magnitude(x, a)), s = f.let(signOf(x, a));
    f.if(p.eqz(), () => f.return(0));
    const fail = () => {
      raise(f, EXC.invalid);
      f.return(limit.neg());
    };
    f.if(p.geU(x.infinity), fail);
    const u = unpack(f, x, p);
    f.if(u.e.gtS(EXPONENT_BIAS + 63), fail);
    const value = round(f, s, u);
    f.if(cell(F.carry).or(value.gtU(limit.sub(1).add(s.zext()))), fail);
    f.if(cell(F.inexact), () => raise(f, EXC.precision));
    f.result(value.neg().when(s, value));
  }, false);
  // `fromIntX(value)`
  m.func(`fromInt${x.letter}`, ["i64"], ["i64"], (f, value) => {
    f.if(value.eqz(), () => f.return(0));
    const s = f.let(value.shrU(63).wrap());
    f.if(s, () => f.set(value, value.neg()));
    const shift = f.let(value.clz());
    const e = f.let(i32(EXPONENT_BIAS + 63).sub(shift.wrap()));
    f.call("fRound", x.format, s, e, value.shl(shift), i64(0));
    f.result(packed(x));
  }, false);
  // `integralX(a)`: rounded to an integral value by F.mode.
  m.func(`integral${x.letter}`, ["i64"], ["i64"], (f, a) => {
    const { p } = operands(f, x, a, a);
    f.if(p.eqz().or(p.eq(x.infinity)), () => f.return(a));
    const u = unpack(f, x, p);
    f.if(u.e.geS(EXPONENT_BIAS + x.fraction), () => f.return(a));
    const value = round(f, signOf(x, a), u);
    f.if(cell(F.inexact), () => raise(f, EXC.precision));
    const sign = a.and(x.sign);
    f.if(value.eqz(), () => f.return(sign));
    const shift = f.let(value.clz());
    const e = i64(x.bias + 63).sub(shift);
    f.result(sign.or(e.shl(x.fraction)).or(value.shl(shift).shl(1).shrU(64 - x.fraction)));
  }, false);
}

/** `widen(a)`: single to double; `narrow(a)`: double to single. */
function buildWidths(m: Module): void {
  const shift = DOUBLE.fraction - SINGLE.fraction;
  m.func("widen", ["i64"], ["i64"], (f, a) => {
    const { p } = operands64(f, SINGLE, a, (nan) => {
      const payload = nan.and(SINGLE.least - 1n).shl(shift);
      return signBit(SINGLE, DOUBLE, nan).or(payload).or(DOUBLE.infinity);
    });
    const s = f.let(signBit(SINGLE, DOUBLE, a));
    f.if(p.eq(SINGLE.infinity), () => f.return(s.or(DOUBLE.infinity)));
    f.if(p.eqz(), () => f.return(s));
    denormal(f, SINGLE, p);
    const u = unpack(f, SINGLE, p);
    const e = u.e.sub(EXPONENT_BIAS - DOUBLE.bias).zext();
    f.result(s.or(e.shl(DOUBLE.fraction)).or(u.m.shl(1).shrU(64 - DOUBLE.fraction)));
  }, false);
  m.func("narrow", ["i64"], ["i64"], (f, a) => {
    const { p } = operands64(f, DOUBLE, a, (nan) => {
      const payload = nan.and(DOUBLE.least - 1n).shrU(shift);
      return signBit(DOUBLE, SINGLE, nan).or(payload).or(SINGLE.infinity);
    });
    const s = f.let(signBit(DOUBLE, SINGLE, a));
    f.if(p.eq(DOUBLE.infinity), () => f.return(s.or(SINGLE.infinity)));
    f.if(p.eqz(), () => f.return(s));
    denormal(f, DOUBLE, p);
    const u = unpack(f, DOUBLE, p), negative = f.let(signOf(DOUBLE, a));
    rounded(
      f,
      SINGLE,
      (format) => f.call("fRound", format, negative, u.e, u.m, i64(0)),
    );
    f.unreachable();
  }, false);
}

/** The sign of a number of one format as a number of another. */
const signBit = (from: ElementFormat, to: ElementFormat, a: Expr): Expr =>
  a.shrU(from.bits - 1).shl(to.bits - 1);

/** Magnitude after DAZ; a NaN leaves the function, quieted and converted. */
function operands64(
  f: Func,
  x: ElementFormat,
  a: Local,
  convert: (nan: Expr) => Expr,
): { p: Local } {
  denormalsAreZeros(f, x, a);
  const p = f.let(magnitude(x, a));
  f.if(isNan(x, p), () => f.return(convert(f.call(`nan${x.letter}`, a, a))));
  return { p };
}

/**
 * Element functions: `add`, `sub`, `mul`, `div`, `min`, `max`, `sqrt`, `relation`, `integral`,
 * `toInt`, `fromInt` with S or D behind; `widen`, `narrow`. The float core is there already.
 */
export function buildSseElements(m: Module): void {
  for (const x of [SINGLE, DOUBLE]) {
    buildNan(m, x);
    buildArithmetic(m, x);
    buildSelect(m, x);
    buildIntegers(m, x);
  }
  buildWidths(m);
}
