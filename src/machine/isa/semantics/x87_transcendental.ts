/** F2XM1, FYL2X, FYL2XP1, FSIN, FCOS, FSINCOS, FPTAN and FPATAN on the register stack (SDM 2). */
import { CPU } from "../../state.ts";
import { cell, cell64, setCell, setCell64 } from "../../linkage.ts";
import { type Expr, i32 } from "../../wasm/expr.ts";
import type { Func, Module } from "../../wasm/module.ts";
import { EXPONENT_BIAS, F, J, stopped } from "../../float/cells.ts";
import { C1, C2 } from "../../float/extended.ts";
import { buildTranscendental } from "../../float/transcendental.ts";
import { empty, signExponent, significand, slot, store } from "./x87_state.ts";

function register(f: Func, i: number) {
  const place = f.let(slot(i32(i)));
  return { se: f.let(signExponent(place)), sig: f.let(significand(place)) };
}

/** Two operands; the result replaces ST(1), ST(0) is popped. */
function binary(m: Module, name: string, params: "i32"[], work: (f: Func, p: Expr[]) => void) {
  m.func(name, params, [], (f, ...p) => {
    f.if(empty(i32(0)).or(empty(i32(1))), () => f.call("x87Underflow"), () => work(f, p));
    f.call("x87Result", 1, 1);
  }, false);
}

export function buildX87Transcendental(m: Module): void {
  buildTranscendental(m);
  m.func("x87Exp", [], [], (f) => {
    f.if(empty(i32(0)), () => f.call("x87Underflow"), () => {
      const a = register(f, 0);
      f.call("tExp", a.se, a.sig);
    });
    f.call("x87Result", 0, 0);
  }, false);
  binary(m, "x87Log", ["i32"], (f, [plus]) => {
    const x = register(f, 0), y = register(f, 1);
    f.if(
      plus,
      () => f.call("tLogPlus", x.se, x.sig, y.se, y.sig),
      () => f.call("tLog", x.se, x.sig, y.se, y.sig),
    );
  });
  binary(m, "x87Arctangent", [], (f) => {
    const x = register(f, 0), y = register(f, 1);
    f.call("tArctangent", x.se, x.sig, y.se, y.sig);
  });
  m.func("x87Sine", ["i32"], [], (f, which) => {
    setCell(f, F.extra, 0);
    f.if(empty(i32(0)), () => f.call("x87Underflow"), () => {
      const a = register(f, 0);
      f.if(f.call("tRange", a.se, a.sig).eqz(), () => f.call("tSine", a.se, a.sig, which));
    });
    f.if(stopped().eqz(), () => store(f, i32(0)));
    f.call("x87Finish", C1 | C2, cell(F.extra));
  }, false);
  buildPairs(m);
}

/** Instructions that push a second result: nothing is pushed where C2 says "out of range". */
function buildPairs(m: Module): void {
  const pair = (name: string, work: (f: Func, a: ReturnType<typeof register>) => void) =>
    m.func(name, [], [], (f) => {
      setCell(f, CPU.fsw, cell(CPU.fsw).and(~C2));
      f.call("x87PushSecond", 0);
      f.if(cell(F.extra), () => {
        const a = register(f, 0);
        setCell(f, F.extra, 0);
        const done = f.call("tRange", a.se, a.sig);
        f.if(cell(F.extra), () => {
          f.call("x87Finish", C1, C2);
          f.return();
        });
        f.if(done, () => {
          setCell(f, F.se2, cell(F.se));
          setCell64(f, F.sig2, cell64(F.sig));
        }, () => work(f, a));
      });
      f.call("x87PushSecond", 1);
    }, false);
  pair("x87Tangent", (f, a) => {
    f.call("tTangent", a.se, a.sig);
    setCell(f, F.se2, EXPONENT_BIAS);
    setCell64(f, F.sig2, J);
  });
  pair("x87SineCosine", (f, a) => {
    f.call("tSine", a.se, a.sig, 0);
    const se = f.let(cell(F.se)), sig = f.let(cell64(F.sig));
    f.call("tSine", a.se, a.sig, 1);
    setCell(f, F.se2, cell(F.se));
    setCell64(f, F.sig2, cell64(F.sig));
    setCell(f, F.se, se);
    setCell64(f, F.sig, sig);
  });
}
