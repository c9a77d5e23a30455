/**
 * Meanings of the MMX instructions, with the XMM forms of those that have them under the same key
 * (SDM 1 9, 11; SDM 2). Every MMX instruction but EMMS makes all x87 registers valid and TOP zero;
 * a write to an MMX register sets the exponent and sign of the x87 register to ones.
 */
import { RDI } from "../../../abi/x86/registers.ts";
import { CR0 } from "../../../abi/x86/cr.ts";
import { VECTOR } from "../../../abi/x86/vectors.ts";
import { check } from "../../checks.ts";
import { ACCESS, CPU, V } from "../../state.ts";
import { cell, noteFault, setCell } from "../../linkage.ts";
import { asAmd } from "../../vendors.ts";
import { type Expr, i32, i64, load } from "../../wasm/expr.ts";
import type { Local, Module } from "../../wasm/module.ts";
import type { Meaning, Semantics } from "./meaning.ts";
import {
  align,
  type Packed,
  packed,
  shift,
  shifts,
  shuffleWords,
  type Width,
} from "./mmx_packed.ts";
import { byteMask, join, lane64, splat64 } from "./mmx_vector.ts";
import { buildMmxEnter, buildSseBegin, buildSseLoads } from "./sse_access.ts";

const CHECK = {
  emulated: check("mmx.ud", "an MMX instruction with CR0.EM set: CR0 = {a}", "SDM 3 12.1"),
  switched: check("mmx.nm", "an MMX instruction with CR0.TS set: CR0 = {a}", "SDM 3 12.1"),
};

const cr0 = (): Expr => load("i32", 32, "u", 0, CPU.cr0);

/** What the meanings call; `mmxBegin()`: #UD, #NM, #MF. */
function functions(m: Module): void {
  buildSseBegin(m);
  buildMmxEnter(m);
  buildSseLoads(m);
  m.func("mmxBegin", [], [], (f) => {
    f.if(cr0().and(CR0.EM), () => {
      noteFault(f, VECTOR.UD, undefined, CHECK.emulated, cr0());
      f.return();
    });
    f.if(cr0().and(CR0.TS), () => {
      noteFault(f, VECTOR.NM, undefined, CHECK.switched, cr0());
      f.return();
    });
    f.call("x87Pending");
  }, false);
}

const isMmx = (m: Meaning, i: number) => m.form.operands[i] === "n" && m.form.sizes[i] === 64;
const isXmm = (m: Meaning, i: number) => m.form.operands[i] === "n" && m.form.sizes[i] === 128;

/** Checks that come before everything else, by the registers the form names. */
function begin(m: Meaning): void {
  const kinds = m.form.operands.map((_, i) => i);
  if (kinds.some((i) => isXmm(m, i))) m.callChecked("sseBegin");
  if (kinds.some((i) => isMmx(m, i))) m.callChecked("mmxBegin");
}
/** From here on state changes. */
function enter(m: Meaning): void {
  m.commit();
  if (m.form.operands.some((_, i) => isMmx(m, i))) m.f.call("mmxEnter");
}

/** Low 64 bits of operand `i` (32-bit operands with zeros above). */
function read64(m: Meaning, i: number): Local {
  const form = m.form.operands[i];
  if (form !== "n") return m.f.let(m.readU(i).zext());
  return m.f.let(m.vectorLow(i));
}

/** Operand `i` as a vector. */
function readVector(m: Meaning, i: number): Local {
  if (isXmm(m, i)) return m.f.let(m.vector(i));
  if (isMmx(m, i) || m.form.sizes[i] <= 64) return m.f.let(splat64(read64(m, i)));
  return m.readVector("Operand");
}

/** Writes a vector to register operand `i`. */
function writeVector(m: Meaning, i: number, value: Expr): void {
  if (isMmx(m, i)) m.setMmx(i, lane64(value, 0));
  else m.setVector(i, value);
}
const widthOf = (m: Meaning): Width => isXmm(m, 0) ? 128 : 64;

const operation = (work: Packed): Semantics => (m) => {
  begin(m);
  const b = readVector(m, 1), a = readVector(m, 0);
  enter(m);
  writeVector(m, 0, work(a, b, widthOf(m), m.f));
};

const shiftOf = (name: string): Semantics => (m) => {
  begin(m);
  const count = m.f.local("i64");
  if (m.form.operands[1] === "i") m.f.set(count, m.readU(1).zext());
  else m.f.set(count, lane64(readVector(m, 1), 0));
  const value = readVector(m, 0);
  enter(m);
  writeVector(m, 0, shift(name, value, count));
};

/** Writes operand 0, a general register or memory, in its width. */
function writeGeneral(m: Meaning, value: Expr): void {
  m.write(0, m.form.sizes[0] === 64 ? value.zext() : value.wrap());
}

/** MOVD, MOVQ, MOVQ2DQ, MOVDQ2Q: 32 or 64 bits; an XMM destination gets zeros above. */
const move: Semantics = (m) => {
  begin(m);
  const value = read64(m, 1);
  if (m.form.operands[0] !== "n") {
    // Intel's reset TOP, though not the tags, even if the store then faults.
    if (isMmx(m, 1) && m.isMemory(0)) {
      m.f.if(asAmd("mmx.store-top").eqz(), () => m.f.call("mmxTop"));
      m.mayFaultLate = true;
    }
    writeGeneral(m, value);
    enter(m);
    return;
  }
  enter(m);
  if (isMmx(m, 0)) m.setMmx(0, value);
  else m.setVector(0, join(value, i64(0)));
};

const moveMask: Semantics = (m) => {
  begin(m);
  const mask = m.f.let(byteMask(readVector(m, 1)));
  enter(m);
  writeGeneral(m, isMmx(m, 1) ? mask.and(0xff) : mask);
};

const insertWord: Semantics = (m) => {
  begin(m);
  const word = m.readU(1), n = m.readU(2);
  enter(m);
  const mask = isMmx(m, 0) ? 3 : 7;
  m.setVectorElement(0, n.and(mask), 16, word);
  if (isMmx(m, 0)) m.setMmx(0, m.vectorLow(0));
};

const extractWord: Semantics = (m) => {
  begin(m);
  const n = m.readU(2), mask = isMmx(m, 1) ? 3 : 7;
  const word = m.f.let(m.vectorElement(1, n.and(mask), 16));
  writeGeneral(m, word);
  enter(m);
};

/** MASKMOVQ, MASKMOVDQU: bytes of operand 0 whose sign in operand 1 is set, to DS:rDI. */
const maskedMove: Semantics = (m) => {
  begin(m);
  const count = isXmm(m, 0) ? 16 : 8;
  const offset = m.f.let(m.pointer(RDI, m.addressMask()));
  const linear = m.callChecked("segmentLinear", m.segment, offset, count, 1);
  m.callChecked("sseUnaligned", linear, count);
  const mask = m.f.let(byteMask(readVector(m, 1)));
  m.f.if(mask.and((1 << count) - 1), () => {
    m.callChecked("probeAccess", linear, cell(V.access).or(ACCESS.write), count);
  });
  m.mayFaultLate = true;
  const i = m.f.let(i32(0));
  m.f.loop((again) => {
    m.f.if(mask.shrU(i).and(1), () => {
      m.f.call(
        "st8",
        linear.add(i.zext()),
        cell(V.access),
        m.vectorElement(0, i, 8),
      );
      m.abortIfSet();
    });
    m.f.set(i, i.add(1));
    m.f.brIf(again, i.ltU(count));
  });
  enter(m);
};

const semantics: Record<string, Semantics> = {
  emms: (m) => {
    m.callChecked("mmxBegin");
    m.commit();
    m.f.call("mmxEnter");
    setCell(m.f, CPU.ftw, 0xffff);
  },
  movd: move,
  movq: move,
  movq2dq: move,
  movdq2q: move,
  movntq: move,
  pmovmskb: moveMask,
  maskmovq: maskedMove,
  maskmovdqu: maskedMove,
  pinsrw: insertWord,
  pextrw: extractWord,
  pshufw: (m) => {
    begin(m);
    const value = read64(m, 1), order = m.readU(2);
    enter(m);
    m.setMmx(0, shuffleWords(value, order));
  },
  palignr: (m) => {
    begin(m);
    const b = readVector(m, 1), a = readVector(m, 0), count = m.readU(2);
    enter(m);
    writeVector(m, 0, align(a, b, count, widthOf(m)));
  },
};
for (const name in packed) semantics[name] = operation(packed[name]);
for (const name in shifts) semantics[name] = shiftOf(name);

/** MMX and packed integers of SSE2 and SSSE3 under the same keys; and the functions they call. */
export const mmxGroup = { semantics, functions };
