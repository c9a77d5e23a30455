/**
 * The x87 instructions as functions on the register stack: everything but the checks before and
 * the memory access. Handlers in x87.ts call them, so that each is compiled once.
 */
import { cell, cell64, setCell, setCell64 } from "../../linkage.ts";
import { type Expr, i32, i64 } from "../../wasm/expr.ts";
import type { Func, Local, Module } from "../../wasm/module.ts";
import { EXC, F, INDEFINITE, QUIET, raise, stopped } from "../../float/cells.ts";
import { C0, C1, C2, C3, setPacked } from "../../float/extended.ts";
import { empty, setTop, signExponent, significand, slot, store, top } from "./x87_state.ts";

/** What a memory operand is: numbers of `x87FromMemory` and `x87ToMemory`. */
export const MEMORY = {
  single: 0,
  double: 1,
  extended: 2,
  word: 3,
  long: 4,
  quad: 5,
  decimal: 6,
} as const;
/** Constants of FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ, by the order of their opcodes. */
const CONSTANTS: readonly (readonly [exponent: number, bits: bigint, below: number])[] = [
  // Sign and exponent, 64 bits cut off, and 1 if what was cut off is more than half an ulp.
  [0x3fff, 0x8000000000000000n, -1],
  [0x4000, 0xd49a784bcd1b8afen, 0],
  [0x3fff, 0xb8aa3b295c17f0bbn, 1],
  [0x4000, 0xc90fdaa22168c234n, 1],
  [0x3ffd, 0x9a209a84fbcff798n, 1],
  [0x3ffe, 0xb17217f7d1cf79abn, 1],
  [0, 0n, -1],
];

/** ST(i) as locals. */
function register(f: Func, i: Expr): { se: Local; sig: Local } {
  const place = f.let(slot(i));
  return { se: f.let(signExponent(place)), sig: f.let(significand(place)) };
}

function buildArithmetic(m: Module): void {
  m.func("x87Binary", ["i32", "i32", "i32", "i32"], [], (f, op, d, s, pops) => {
    f.if(empty(d).or(empty(s)), () => f.call("x87Underflow"), () => {
      const a = register(f, d), b = register(f, s);
      f.call("xArith", op, a.se, a.sig, b.se, b.sig);
    });
    f.call("x87Result", d, pops);
  }, false);
  m.func("x87BinaryMemory", ["i32"], [], (f, op) => {
    f.if(empty(i32(0)), () => f.call("x87Underflow"), () => {
      const a = register(f, i32(0));
      f.call("xArith", op, a.se, a.sig, cell(F.memorySe), cell64(F.memorySig));
    });
    f.call("x87Result", i32(0), i32(0));
  }, false);
  // mode: 1 quiet, 2 the result is given back as arithmetic flags, not left in FSW
  const finishCompare = (f: Func, cc: Local, pops: Local, mode: Expr) => {
    f.if(stopped().eqz(), () => {
      f.while(() => pops.nez(), () => {
        f.call("x87Pop");
        f.set(pops, pops.sub(1));
      });
    });
    f.if(mode.and(2), () => {
      f.call("x87Finish", cell(F.flags).and(EXC.stack).nez().mul(C1), 0);
    }, () => f.call("x87Finish", C0 | C1 | C2 | C3, cc));
  };
  m.func("x87Compare", ["i32", "i32", "i32"], ["i32"], (f, i, mode, pops) => {
    const cc = f.let(i32(C0 | C2 | C3));
    f.if(empty(i32(0)).or(empty(i)), () => f.call("x87Underflow"), () => {
      const a = register(f, i32(0)), b = register(f, i);
      f.set(cc, f.call("xCompare", a.se, a.sig, b.se, b.sig, mode.and(1)));
    });
    finishCompare(f, cc, pops, mode);
    f.result(cc.and(C0 | C2 | C3).shrU(8));
  }, false);
  m.func("x87CompareMemory", ["i32"], [], (f, pops) => {
    const cc = f.let(i32(C0 | C2 | C3));
    f.if(empty(i32(0)), () => f.call("x87Underflow"), () => {
      const a = register(f, i32(0));
      f.set(cc, f.call("xCompare", a.se, a.sig, cell(F.memorySe), cell64(F.memorySig), 0));
    });
    finishCompare(f, cc, pops, i32(0));
  }, false);
}

function buildMoves(m: Module): void {
  // `x87FromMemory(kind, low, high)` into F.memorySe, F.memorySig.
  m.func("x87FromMemory", ["i32", "i64", "i32"], [], (f, kind, low, high) => {
    setCell(f, F.denormal, 0);
    f.switch(kind, [
      () => f.call("xFromSingle", low.wrap()),
      () => f.call("xFromDouble", low),
      () => setPacked(f, high, low),
      () => f.call("xFromInt", low.signed(16)),
      () => f.call("xFromInt", low.signed(32)),
      () => f.call("xFromInt", low),
    ], () => f.call("xFromDecimal", low, high));
    setCell(f, F.memorySe, cell(F.se));
    setCell64(f, F.memorySig, cell64(F.sig));
  }, false);
  // FLD and its kin: pushes F.memorySe, F.memorySig.
  m.func("x87Load", ["i32"], [], (f, kind) => {
    f.if(kind.leU(MEMORY.double).and(empty(i32(7))), () => {
      f.if(cell(F.denormal), () => raise(f, EXC.denormal));
      const nan = cell(F.memorySe).and(0x7fff).eq(0x7fff)
        .and(cell64(F.memorySig).shl(1).nez());
      f.if(nan, () => {
        f.if(cell64(F.memorySig).and(QUIET).eqz(), () => raise(f, EXC.invalid));
        setCell64(f, F.memorySig, cell64(F.memorySig).or(QUIET));
      });
    });
    setPacked(f, cell(F.memorySe), cell64(F.memorySig));
    f.call("x87Push");
  }, false);
  // `x87ToMemory(kind, truncate) -> value` of ST(0); high part of wide ones in F.extra.
  m.func("x87ToMemory", ["i32", "i32"], ["i64"], (f, kind, truncate) => {
    f.if(truncate, () => setCell(f, F.mode, 3));
    const a = register(f, i32(0));
    f.if(empty(i32(0)), () => {
      f.call("x87Underflow");
      f.set(a.se, i32(INDEFINITE.se));
      f.set(a.sig, i64(INDEFINITE.sig));
    });
    const value = f.let(a.sig);
    setCell(f, F.extra, a.se);
    f.switch(kind, [
      () => f.set(value, f.call("xToSingle", a.se, a.sig)),
      () => f.set(value, f.call("xToDouble", a.se, a.sig)),
      () => {},
      () => f.set(value, f.call("xToInt", a.se, a.sig, 16)),
      () => f.set(value, f.call("xToInt", a.se, a.sig, 32)),
      () => f.set(value, f.call("xToInt", a.se, a.sig, 64)),
    ], () => {
      f.call("xToDecimal", a.se, a.sig);
      f.set(value, cell64(F.hi));
      setCell(f, F.extra, cell64(F.lo).wrap());
    });
    f.result(value);
  }, false);
  m.func("x87Stored", ["i32"], [], (f, pops) => {
    f.if(notStored().eqz().and(pops), () => f.call("x87Pop"));
    f.call("x87Finish", C1, 0);
  }, false);
  m.func("x87LoadRegister", ["i32"], [], (f, i) => {
    f.if(empty(i), () => f.call("x87Underflow"), () => {
      const a = register(f, i);
      setPacked(f, a.se, a.sig);
    });
    f.call("x87Push");
  }, false);
  m.func("x87StoreRegister", ["i32", "i32"], [], (f, i, pops) => {
    f.if(empty(i32(0)), () => f.call("x87Underflow"), () => {
      const a = register(f, i32(0));
      setPacked(f, a.se, a.sig);
    });
    f.call("x87Result", i, pops);
  }, false);
  // The alias of FSTP at D9 /3: an empty ST(0) is popped, nothing more.
  m.func("x87StoreAlias", ["i32"], [], (f, i) => {
    f.if(empty(i32(0)).eqz(), () => {
      const a = register(f, i32(0));
      f.call("x87Store", i, a.se, a.sig);
    });
    f.call("x87Pop");
    f.call("x87Finish", C1, 0);
  }, false);
  m.func("x87Exchange", ["i32"], [], (f, i) => {
    const a = register(f, i32(0)), b = register(f, i);
    const none = f.let(empty(i32(0))), other = f.let(empty(i));
    f.if(none.or(other), () => f.call("x87Underflow"));
    for (const [missing, r] of [[none, a], [other, b]] as const) {
      f.if(missing, () => {
        f.set(r.se, i32(INDEFINITE.se));
        f.set(r.sig, i64(INDEFINITE.sig));
      });
    }
    f.if(stopped().eqz(), () => {
      f.call("x87Store", i, a.se, a.sig);
      f.call("x87Store", i32(0), b.se, b.sig);
    });
    f.call("x87Finish", C1, 0);
  }, false);
  m.func("x87ConditionalMove", ["i32", "i32"], [], (f, i, move) => {
    f.if(empty(i32(0)).or(empty(i)), () => {
      f.call("x87Underflow");
      f.call("x87Result", 0, 0);
      f.return();
    });
    const b = register(f, i);
    f.if(move, () => f.call("x87Store", i32(0), b.se, b.sig));
  }, false);
}

/** Not zero if an exception stands that keeps a store from memory. */
export const notStored = (): Expr =>
  cell(F.flags).and(cell(F.masks).xor(-1)).and(
    EXC.invalid | EXC.denormal | EXC.zeroDivide | EXC.overflow | EXC.underflow,
  );

function buildUnary(m: Module): void {
  // `x87Sign(and, xor)`: FABS, FCHS.
  m.func("x87Sign", ["i32", "i32"], [], (f, and, xor) => {
    f.if(empty(i32(0)), () => f.call("x87Underflow"), () => {
      const a = register(f, i32(0));
      setPacked(f, a.se.and(and).xor(xor), a.sig);
    });
    f.call("x87Result", 0, 0);
  }, false);
  m.func("x87Examine", [], [], (f) => {
    const a = register(f, i32(0));
    const cc = f.let(i32(C3 | C0));
    f.if(empty(i32(0)).eqz(), () => {
      const c = f.call("xClass", a.se, a.sig);
      f.switch(c, [
        () => f.set(cc, i32(C3)),
        () => f.set(cc, i32(C2)),
        () => f.set(cc, i32(C3 | C2)),
        () => f.set(cc, i32(C2 | C0)),
        () => f.set(cc, i32(C0)),
        () => f.set(cc, i32(C0)),
      ], () => f.set(cc, i32(0)));
    });
    f.call("x87Finish", C0 | C1 | C2 | C3, cc.or(a.se.shrU(15).mul(C1)));
  }, false);
  m.func("x87Test", [], [], (f) => {
    setCell(f, F.memorySe, 0);
    setCell64(f, F.memorySig, 0);
    f.call("x87CompareMemory", 0);
  }, false);
  m.func("x87Constant", ["i32"], [], (f, n) => {
    const mode = f.let(cell(F.mode));
    const set = ([se, bits, below]: (typeof CONSTANTS)[number]) => {
      const up = below < 0 ? i32(0) : i32(below).when(mode.eqz(), mode.eq(2));
      setPacked(f, i32(se), i64(bits).add(up.zext()));
    };
    f.switch(
      n,
      CONSTANTS.slice(0, -1).map((c) => () => set(c)),
      () => set(CONSTANTS[CONSTANTS.length - 1]),
    );
    f.call("x87Push");
  }, false);
  const unary = (name: string, operation: string) =>
    m.func(name, [], [], (f) => {
      f.if(empty(i32(0)), () => f.call("x87Underflow"), () => {
        const a = register(f, i32(0));
        f.call(operation, a.se, a.sig);
      });
      f.call("x87Result", 0, 0);
    }, false);
  unary("x87Sqrt", "xSqrt");
  unary("x87RoundToInt", "xRoundToInt");
  m.func("x87Scale", [], [], (f) => {
    f.if(empty(i32(0)).or(empty(i32(1))), () => f.call("x87Underflow"), () => {
      const a = register(f, i32(0)), b = register(f, i32(1));
      f.call("xScale", a.se, a.sig, b.se, b.sig);
    });
    f.call("x87Result", 0, 0);
  }, false);
  m.func("x87Remainder", ["i32"], [], (f, nearest) => {
    setCell(f, F.extra, -1);
    f.if(empty(i32(0)).or(empty(i32(1))), () => f.call("x87Underflow"), () => {
      const a = register(f, i32(0)), b = register(f, i32(1));
      f.call("xRemainder", a.se, a.sig, b.se, b.sig, nearest);
    });
    f.if(stopped().eqz(), () => store(f, i32(0)));
    // Without a quotient only C2 (and C1) are written.
    const none = f.let(cell(F.extra).ltS(0));
    f.call(
      "x87Finish",
      i32(C1 | C2).when(none, i32(C0 | C1 | C2 | C3)),
      i32(0).when(none, cell(F.extra)),
    );
  }, false);
  m.func("x87Extract", [], [], (f) => {
    f.call("x87PushSecond", 0);
    f.if(cell(F.extra), () => {
      const a = register(f, i32(0));
      f.call("xExtract", a.se, a.sig);
    });
    f.call("x87PushSecond", 1);
  }, false);
}

/**
 * Instructions that replace ST(0) and push a second result: `x87PushSecond(0)` sees to stack faults
 * (F.extra = 1 if there is none), `x87PushSecond(1)` writes F.se, F.sig to ST(0) and pushes F.se2,
 * F.sig2.
 */
function buildSecond(m: Module): void {
  m.func("x87PushSecond", ["i32"], [], (f, end) => {
    f.if(end.eqz(), () => {
      const under = f.let(empty(i32(0))), over = f.let(empty(i32(7)).eqz());
      f.if(under.or(over), () => {
        f.call("x87Underflow");
        setCell(f, F.up, under.eqz());
        setCell(f, F.se2, INDEFINITE.se);
        setCell64(f, F.sig2, INDEFINITE.sig);
      });
      setCell(f, F.extra, under.or(over).eqz());
      f.return();
    });
    f.if(stopped().eqz(), () => {
      store(f, i32(0));
      setTop(f, top().sub(1));
      f.call("x87Store", 0, cell(F.se2), cell64(F.sig2));
    });
    f.call("x87Finish", C1, 0);
  }, false);
}

export function buildX87Operations(m: Module): void {
  buildArithmetic(m);
  buildMoves(m);
  buildSecond(m);
  buildUnary(m);
}
