/** SSE float arithmetic, comparisons, rounding, dot products, estimates (SDM 1 11.4, 12; SDM 2). */
import { ARITHMETIC, RFLAGS } from "../../../abi/x86/cr.ts";
import { EXC, F } from "../../float/cells.ts";
import { DOUBLE, type ElementFormat, SINGLE } from "../../float/sse.ts";
import { CPU } from "../../state.ts";
import { cell, setCell } from "../../linkage.ts";
import { asAmd } from "../../vendors.ts";
import { Expr, i32, i64 } from "../../wasm/expr.ts";
import type { Func, Local, Module } from "../../wasm/module.ts";
import type { Meaning, Semantics } from "./meaning.ts";
import { join, lane64, splat64 } from "./mmx_vector.ts";
import { begin, lowOf, register, vectorOf, writeLow, writeRegister } from "./sse_access.ts";

/** Elements of a vector, as i64. */
export function elements(f: Func, x: ElementFormat, v: Local): Local[] {
  const halves = [f.let(lane64(v, 0)), f.let(lane64(v, 1))];
  if (x === DOUBLE) return halves;
  return halves.flatMap((h) => [f.let(h.and(0xffff_ffffn)), f.let(h.shrU(32))]);
}
/** The vector of these elements. */
export function assemble(x: ElementFormat, e: readonly Expr[]): Expr {
  if (x === DOUBLE) return join(e[0], e[1]);
  return join(e[0].or(e[1].shl(32)), e[2].or(e[3].shl(32)));
}

const FORMATS = [[SINGLE, "ps", "ss"], [DOUBLE, "pd", "sd"]] as const;
const BINARY = ["add", "sub", "mul", "div", "min", "max"] as const;

/**
 * Sets up the environment, works, and raises what `work` found; nothing is written before but by
 * `anyway`.
 */
export function floating<T>(m: Meaning, work: () => T, anyway?: () => void): T {
  m.f.call("sseEnvironment");
  const result = work();
  anyway?.();
  m.callChecked("sseRaise");
  return result;
}

/** A packed operation of two operands that is a function `name` of the group. */
const packedBinary = (name: string): Semantics => (m) => {
  begin(m);
  const b = vectorOf(m, 1), a = register(m, 0);
  writeRegister(m, floating(m, () => m.f.call(name, a, b)));
};
const scalarBinary = (x: ElementFormat, name: string): Semantics => (m) => {
  begin(m);
  const b = lowOf(m, 1, x.bits), a = lowOf(m, 0, x.bits);
  writeLow(m, x.bits, floating(m, () => m.f.call(name, a, b)));
};

/** `addps(a, b)` and so on: the element functions on all elements. */
function buildPacked(m: Module): void {
  for (const [x, suffix] of FORMATS) {
    for (const op of BINARY) {
      m.func(op + suffix, ["v128", "v128"], ["v128"], (f, a, b) => {
        const p = elements(f, x, a), q = elements(f, x, b);
        f.result(assemble(x, p.map((e, i) => f.call(op + x.letter, e, q[i]))));
      }, false);
    }
    m.func(`sqrt${suffix}`, ["v128"], ["v128"], (f, b) => {
      f.result(assemble(x, elements(f, x, b).map((e) => f.call(`sqrt${x.letter}`, e))));
    }, false);
    m.func(`integral${suffix}`, ["v128"], ["v128"], (f, b) => {
      f.result(assemble(x, elements(f, x, b).map((e) => f.call(`integral${x.letter}`, e))));
    }, false);
    // Horizontal: neighbours of a, then of b. ADDSUB: even elements subtract, odd ones add.
    const pairs = (op: string) =>
      m.func(`h${op}${suffix}`, ["v128", "v128"], ["v128"], (f, a, b) => {
        const e = [...elements(f, x, a), ...elements(f, x, b)];
        const sums: Local[] = [];
        for (let i = 0; i < e.length; i += 2) sums.push(f.call(op + x.letter, e[i], e[i + 1]));
        f.result(assemble(x, sums));
      }, false);
    pairs("add");
    pairs("sub");
    m.func(`addsub${suffix}`, ["v128", "v128"], ["v128"], (f, a, b) => {
      const p = elements(f, x, a), q = elements(f, x, b);
      const one = (e: Local, i: number) => f.call((i & 1 ? "add" : "sub") + x.letter, e, q[i]);
      f.result(assemble(x, p.map(one)));
    }, false);
    // `cmpps(a, b, predicate)`
    m.func(`compare${x.letter}`, ["i64", "i64", "i32"], ["i64"], (f, a, b, predicate) => {
      const signaling = i32(SIGNALING).shrU(predicate).and(1);
      const found = f.call(`relation${x.letter}`, a, b, signaling);
      const wanted = i32(PREDICATES).shrU(predicate.shl(2)).and(found);
      const ones = x === SINGLE ? 0xffff_ffffn : -1n;
      f.result(i64(ones).when(wanted, i64(0)));
    }, false);
    m.func(`cmp${suffix}`, ["v128", "v128", "i32"], ["v128"], (f, a, b, predicate) => {
      const p = elements(f, x, a), q = elements(f, x, b);
      const one = (e: Local, i: number) => f.call(`compare${x.letter}`, e, q[i], predicate);
      f.result(assemble(x, p.map(one)));
    }, false);
  }
}

/** Relations that satisfy a predicate, four bits each; predicates for which a QNaN is invalid. */
const PREDICATES = 0xbced_4312, SIGNALING = 0x66;

/** COMIS, UCOMIS: ZF, PF and CF; the other arithmetic flags become 0. */
const compareFlags = (x: ElementFormat, signaling: number): Semantics => (m) => {
  begin(m);
  const b = lowOf(m, 1, x.bits), a = lowOf(m, 0, x.bits);
  const found = floating(m, () => m.f.call(`relation${x.letter}`, a, b, signaling));
  // Less: CF. Equal: ZF. Unordered: all three.
  const flags = found.and(1).or(found.and(2).shl(5)).or(
    i32(RFLAGS.CF | RFLAGS.PF | RFLAGS.ZF).when(found.and(4), i32(0)),
  );
  m.setArithmeticFlags(ARITHMETIC, m.f.let(flags));
};

/** Rounding by the immediate: bits 1:0 the mode, bit 2 MXCSR's instead, bit 3 hides PE. */
function roundingOf(m: Meaning, n: Local, work: () => Local): Local {
  return floating(m, () => {
    m.f.if(n.and(4).eqz(), () => setCell(m.f, F.mode, n.and(3)));
    const result = work();
    m.f.if(n.and(8), () => setCell(m.f, F.flags, cell(F.flags).and(~EXC.precision)));
    return result;
  });
}

/** `dpps(a, b, n)`, `dppd`: products, then sums by pairs; each stage ends at an unmasked exception. */
function buildDot(m: Module): void {
  for (const [x, suffix] of FORMATS) {
    m.func(`dp${suffix}`, ["v128", "v128", "i32"], ["v128"], (f, a, b, n) => {
      const p = elements(f, x, a), q = elements(f, x, b), L = x.letter;
      // What a stage raised stands, whatever the next one raises.
      const stop = () => {
        f.if(cell(F.flags).and(cell(F.masks).xor(-1)), () => f.return(splat64(0)));
        setCell(f, CPU.mxcsr, cell(CPU.mxcsr).or(cell(F.flags)));
        setCell(f, F.flags, 0);
      };
      const products = p.map((e, i) => {
        const product = f.let(i64(0));
        f.if(n.and(0x10 << i), () => f.set(product, f.call(`mul${L}`, e, q[i])));
        return product;
      });
      stop();
      // Intel's add in another order for each element; NaNs show it.
      const add = (u: Local, v: Local) => f.call(`add${L}`, u, v);
      const sums = products.map(() => f.local("i64"));
      const pair = (values: readonly Local[], i: number, by: number) =>
        add(values[Math.min(i, i ^ by)], values[Math.max(i, i ^ by)]);
      const set = (values: Local[]) => sums.forEach((sum, i) => f.set(sum, values[i]));
      f.if(asAmd("sse.dot-order"), () => {
        const near = products.map((_, i) => pair(products, i, 1));
        if (x === DOUBLE) return set(near);
        stop();
        set(near.map((_, i) => pair(near, i, 2)));
      }, () => {
        if (x === DOUBLE) return set(products.map((e, i) => add(e, products[i ^ 1])));
        const near = products.map((e, i) => add(products[i ^ 1], e));
        stop();
        set(near.map((e, i) => add(e, near[i ^ 2])));
      });
      f.result(assemble(x, sums.map((e, i) => e.when(n.and(1 << i), i64(0)))));
    }, false);
  }
}

const f32 = (bits: Expr) => new Expr("f64", [0xbb], [new Expr("f32", [0xbe], [bits])]);
const bits = (value: Expr) => new Expr("i32", [0xbc], [new Expr("f32", [0xb6], [value])]);
const one = new Expr("f64", [0x44, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]);
const f64 = (op: number, ...values: Expr[]) => new Expr("f64", [op], values);

/**
 * `sseReciprocal(a)`, `sseRoot(a)`: estimates. The exact quotient, rounded to 12 bits of fraction: a
 * relative error of 2^-13 where SDM 2 allows 1.5 * 2^-12. Denormals count as zeros, tiny results
 * become zeros, no exceptions.
 */
function buildEstimates(m: Module): void {
  const common = (f: Func, a: Local): { abs: Local; sign: Local } => {
    const abs = f.let(a.and(0x7fff_ffff)), sign = f.let(a.and(0x8000_0000));
    f.if(abs.gtU(0x7f80_0000), () => f.return(a.or(0x40_0000)));
    f.if(abs.ltU(0x80_0000), () => f.return(sign.or(0x7f80_0000)));
    return { abs, sign };
  };
  const short = (value: Expr) => value.add(0x400).and(~0x7ff);
  m.func("sseReciprocal", ["i32"], ["i32"], (f, a) => {
    const { abs, sign } = common(f, a);
    const result = f.let(short(bits(f64(0xa3, one, f32(abs)))));
    f.if(result.ltU(0x80_0000), () => f.set(result, i32(0)));
    f.result(result.or(sign));
  }, false);
  m.func("sseRoot", ["i32"], ["i32"], (f, a) => {
    const { abs, sign } = common(f, a);
    f.if(sign, () => f.return(i32(0xffc0_0000)));
    f.if(abs.eq(0x7f80_0000), () => f.return(0));
    f.result(short(bits(f64(0xa3, one, f64(0x9f, f32(abs))))));
  }, false);
}

const estimatePacked = (name: string): Semantics => (m) => {
  begin(m);
  const parts = elements(m.f, SINGLE, vectorOf(m, 1));
  writeRegister(m, assemble(SINGLE, parts.map((e) => m.f.call(name, e.wrap()).zext())));
};
const estimateScalar = (name: string): Semantics => (m) => {
  begin(m);
  writeLow(m, 32, m.f.call(name, lowOf(m, 1, 32).wrap()));
};

const unaryPacked = (name: string): Semantics => (m) => {
  begin(m);
  const b = vectorOf(m, 1);
  writeRegister(m, floating(m, () => m.f.call(name, b)));
};

function both(x: ElementFormat, packed: string, scalar: string): Record<string, Semantics> {
  const L = x.letter, table: Record<string, Semantics> = {};
  for (const op of BINARY) {
    table[op + packed] = packedBinary(op + packed);
    table[op + scalar] = scalarBinary(x, op + L);
  }
  for (const op of ["hadd", "hsub", "addsub"]) table[op + packed] = packedBinary(op + packed);
  table[`sqrt${packed}`] = unaryPacked(`sqrt${packed}`);
  table[`sqrt${scalar}`] = (m) => {
    begin(m);
    const b = lowOf(m, 1, x.bits);
    writeLow(m, x.bits, floating(m, () => m.f.call(`sqrt${L}`, b)));
  };
  table[`cmp${packed}`] = (m) => {
    begin(m);
    const n = m.f.let(m.readU(2).and(7)), b = vectorOf(m, 1), a = register(m, 0);
    writeRegister(m, floating(m, () => m.f.call(`cmp${packed}`, a, b, n)));
  };
  table[`cmp${scalar}`] = (m) => {
    begin(m);
    const n = m.f.let(m.readU(2).and(7));
    const b = lowOf(m, 1, x.bits), a = lowOf(m, 0, x.bits);
    writeLow(m, x.bits, floating(m, () => m.f.call(`compare${L}`, a, b, n)));
  };
  table[`comi${scalar}`] = compareFlags(x, 1);
  table[`ucomi${scalar}`] = compareFlags(x, 0);
  table[`round${packed}`] = (m) => {
    begin(m);
    const n = m.readU(2), b = vectorOf(m, 1);
    writeRegister(m, roundingOf(m, n, () => m.f.call(`integral${packed}`, b)));
  };
  table[`round${scalar}`] = (m) => {
    begin(m);
    const n = m.readU(2), b = lowOf(m, 1, x.bits);
    writeLow(m, x.bits, roundingOf(m, n, () => m.f.call(`integral${L}`, b)));
  };
  table[`dp${packed}`] = (m) => {
    begin(m);
    const n = m.readU(2), b = vectorOf(m, 1), a = register(m, 0);
    writeRegister(m, floating(m, () => m.f.call(`dp${packed}`, a, b, n)));
  };
  return table;
}

export const floatSemantics: Record<string, Semantics> = {
  ...both(SINGLE, "ps", "ss"),
  ...both(DOUBLE, "pd", "sd"),
  rcpps: estimatePacked("sseReciprocal"),
  rcpss: estimateScalar("sseReciprocal"),
  rsqrtps: estimatePacked("sseRoot"),
  rsqrtss: estimateScalar("sseRoot"),
};

export function buildSseFloat(m: Module): void {
  buildPacked(m);
  buildDot(m);
  buildEstimates(m);
}
