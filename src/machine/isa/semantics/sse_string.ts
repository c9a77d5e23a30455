/** PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM (SDM 2 4.1). */
import { ARITHMETIC } from "../../../abi/x86/cr.ts";
import { flagBits, RAX, RCX, RDX } from "../../../abi/x86/registers.ts";
import { V } from "../../state.ts";
import { type Expr, i32, i64, load } from "../../wasm/expr.ts";
import type { Func, Local, Module } from "../../wasm/module.ts";
import type { Meaning, Semantics } from "./meaning.ts";
import { join, lane64 } from "./mmx_vector.ts";
import { begin, movedVector, register } from "./sse_access.ts";

/** The two strings lie here while they are compared. */
const FIRST = V.strings, SECOND = FIRST + 16;

/** Bits of the immediate. */
const WORDS = 1, SIGNED = 2, MOST = 0x40;

/** How many elements: 16 bytes or 8 words. */
const count = (n: Expr): Expr => i32(16).shrU(n.and(WORDS));

/** Element `i` of a string, extended as the immediate says. */
function element(f: Func, place: number, n: Local, i: Expr): Local {
  const value = f.local("i32");
  f.if(n.and(WORDS), () => {
    f.set(value, load("i32", 16, "u", i.shl(1), place));
    f.if(n.and(SIGNED), () => f.set(value, value.signed(16)));
  }, () => {
    f.set(value, load("i32", 8, "u", i, place));
    f.if(n.and(SIGNED), () => f.set(value, value.signed(8)));
  });
  return value;
}

function each(f: Func, end: Expr, body: (i: Local) => void): void {
  const i = f.let(i32(0));
  f.while(() => i.ltU(end), () => {
    body(i);
    f.set(i, i.add(1));
  });
}

/** `sseLength(second, n)`: elements before the first zero. `sseCompare(n, l1, l2)`: IntRes1. */
function functions(m: Module): void {
  m.func("sseElement", ["i32", "i32", "i32"], ["i32"], (f, second, n, i) => {
    f.if(second, () => f.return(element(f, SECOND, n, i)));
    f.result(element(f, FIRST, n, i));
  }, false);
  m.func("sseLength", ["i32", "i32"], ["i32"], (f, second, n) => {
    each(f, count(n), (i) => {
      f.if(f.call("sseElement", second, n, i).eqz(), () => f.return(i));
    });
    f.result(count(n));
  }, false);
  const first = (f: Func, n: Local, i: Expr) => f.call("sseElement", 0, n, i);
  const second = (f: Func, n: Local, i: Expr) => f.call("sseElement", 1, n, i);
  m.func("sseStrings", ["i32", "i32", "i32"], ["i32"], (f, n, l1, l2) => {
    const size = f.let(count(n)), result = f.let(i32(0)), hit = f.local("i32");
    const note = (j: Local) => f.set(result, result.or(hit.shl(j)));
    const aggregation = n.shrU(2).and(3);
    const any = () =>
      each(f, l2, (j) => {
        f.set(hit, 0);
        const b = second(f, n, j);
        each(f, l1, (i) => f.set(hit, hit.or(first(f, n, i).eq(b))));
        note(j);
      });
    const ranges = () =>
      each(f, l2, (j) => {
        f.set(hit, 0);
        const b = second(f, n, j);
        each(f, l1.shrU(1), (i) => {
          const low = first(f, n, i.shl(1)), high = first(f, n, i.shl(1).or(1));
          const inside = b.geU(low).and(b.leU(high));
          f.set(hit, hit.or(b.geS(low).and(b.leS(high)).when(n.and(SIGNED), inside)));
        });
        note(j);
      });
    const equalEach = () =>
      each(f, size, (j) => {
        const inFirst = j.ltU(l1), inSecond = j.ltU(l2);
        const equal = f.let(first(f, n, j).eq(second(f, n, j)));
        f.set(hit, equal.and(inFirst).and(inSecond).or(inFirst.or(inSecond).eqz()));
        note(j);
      });
    const ordered = () =>
      each(f, size, (j) => {
        f.set(hit, 1);
        each(f, size.sub(j), (i) => {
          const k = f.let(i.add(j));
          const equal = first(f, n, i).eq(second(f, n, k)).and(k.ltU(l2));
          f.set(hit, hit.and(equal.or(i.geU(l1))));
        });
        note(j);
      });
    f.switch(aggregation, [any, ranges, equalEach], ordered);
    // Polarity: as it is, inverted, as it is, inverted where the second string has an element.
    const all = i32(1).shl(size).sub(1);
    const mask = all.when(n.and(0x20).eqz(), i32(1).shl(l2).sub(1));
    f.if(n.and(0x10), () => f.set(result, result.xor(mask)));
    f.result(result.and(all));
  }, false);
  m.func("sseStringMask", ["i32", "i32"], ["v128"], (f, n, bits) => {
    f.if(n.and(MOST).eqz(), () => f.return(join(bits.zext(), i64(0))));
    each(f, count(n), (i) => {
      const ones = i32(0).sub(bits.shrU(i).and(1));
      f.if(
        n.and(WORDS),
        () => f.store(16, i.shl(1), ones, FIRST),
        () => f.store(8, i, ones, FIRST),
      );
    });
    f.result(join(load("i64", 64, "u", 0, FIRST), load("i64", 64, "u", 0, FIRST + 8)));
  }, false);
}

/** Length in EAX or EDX (RAX, RDX with REX.W): its magnitude, at most `count`. */
function explicitLength(m: Meaning, register: typeof RAX | typeof RDX, n: Local): Local {
  const { f } = m;
  const value = f.let(m.form.operandSize === 64 ? m.gpr(register, 64) : m.gpr(register, 32).sext());
  f.if(value.ltS(0), () => f.set(value, value.neg()));
  const most = f.let(count(n));
  return f.let(most.when(value.gtU(most.zext()), value.wrap()));
}

const compare = (explicit: boolean, mask: boolean): Semantics => (m) => {
  begin(m);
  const { f } = m;
  const n = m.readU(2), b = movedVector(m, 1, false), a = register(m, 0);
  f.store(64, 0, lane64(a, 0), FIRST);
  f.store(64, 0, lane64(a, 1), FIRST + 8);
  f.store(64, 0, lane64(b, 0), SECOND);
  f.store(64, 0, lane64(b, 1), SECOND + 8);
  const l1 = explicit ? explicitLength(m, RAX, n) : f.call("sseLength", 0, n);
  const l2 = explicit ? explicitLength(m, RDX, n) : f.call("sseLength", 1, n);
  const bits = f.call("sseStrings", n, l1, l2);
  const most = f.let(count(n));
  const flags = bits.nez().or(l2.ltU(most).shl(flagBits.z)).or(l1.ltU(most).shl(flagBits.s))
    .or(bits.and(1).shl(flagBits.o));
  m.setArithmeticFlags(ARITHMETIC, f.let(flags));
  if (mask) return m.setXmm0(f.call("sseStringMask", n, bits));
  const index = i32(31).sub(bits.clz()).when(n.and(MOST), bits.ctz());
  m.setGpr(RCX, 32, f.let(index.when(bits, most)));
};

export const stringSemantics: Record<string, Semantics> = {
  pcmpestri: compare(true, false),
  pcmpestrm: compare(true, true),
  pcmpistri: compare(false, false),
  pcmpistrm: compare(false, true),
};
export const buildSseStrings = functions;
