/**
 * What all SSE instructions share: availability, memory operands of 16 bytes, the float
 * environment and the end of an instruction that may raise #XM (SDM 1 10.2.3, 11.5; SDM 3 13).
 */
import { FSW, MXCSR } from "../../../abi/x86/float.ts";
import { CR0, CR4 } from "../../../abi/x86/cr.ts";
import { VECTOR } from "../../../abi/x86/vectors.ts";
import { check } from "../../checks.ts";
import { EXC, F } from "../../float/cells.ts";
import { ABORT, ACCESS, CPU, V } from "../../state.ts";
import { cell, noteFault, setCell } from "../../linkage.ts";
import { asAmd } from "../../vendors.ts";
import { type Expr, i64, load } from "../../wasm/expr.ts";
import type { Local, Module } from "../../wasm/module.ts";
import type { Meaning } from "./meaning.ts";
import { join, lane64, splat64 } from "./mmx_vector.ts";
import { buildPartAt, partAccess } from "./parts.ts";

const CHECK = {
  noSse: check(
    "sse.ud",
    "an SSE instruction with CR0.EM set or CR4.OSFXSR clear: CR0 = {a}, CR4 = {b}",
    "SDM 3 13.1",
  ),
  switched: check("sse.nm", "an SSE instruction with CR0.TS set: CR0 = {a}", "SDM 3 13.1"),
  alignment: check("sse.alignment", "address {a} is not a multiple of 16", "SDM 2 2.4"),
  unaligned: check(
    "sse.unaligned",
    "alignment is checked, and address {a} is not a multiple of {b}",
    "APM 2 8.2.18",
  ),
  exception: check(
    "sse.xm",
    "an unmasked SIMD floating-point exception: MXCSR = {a}, raised {b}",
    "SDM 1 11.5",
  ),
  exceptionUd: check(
    "sse.xm.ud",
    "an unmasked SIMD floating-point exception with CR4.OSXMMEXCPT clear: MXCSR = {a}, raised {b}",
    "SDM 1 11.5",
  ),
};

const cr0 = (): Expr => load("i32", 32, "u", 0, CPU.cr0);
const cr4 = (): Expr => load("i32", 32, "u", 0, CPU.cr4);

/** `sseBegin()`: #UD, #NM. */
export function buildSseBegin(m: Module): void {
  m.func("sseBegin", [], [], (f) => {
    f.if(cr0().and(CR0.EM).or(cr4().and(CR4.OSFXSR).eqz()), () => {
      noteFault(f, VECTOR.UD, undefined, CHECK.noSse, cr0(), cr4());
      f.return();
    });
    f.if(cr0().and(CR0.TS), () => noteFault(f, VECTOR.NM, undefined, CHECK.switched, cr0()));
  }, false);
}

/** `mmxTop()`, `mmxEnter()`: TOP; tags too. */
export function buildMmxEnter(m: Module): void {
  m.func("mmxTop", [], [], (f) => {
    setCell(f, CPU.fsw, cell(CPU.fsw).and(~FSW.TOP));
  }, false);
  m.func("mmxEnter", [], [], (f) => {
    setCell(f, CPU.ftw, 0);
    f.call("mmxTop");
  }, false);
}

/** `sseMmxBegin()`: #MF besides. */
function buildMmxBegin(m: Module): void {
  m.func("sseMmxBegin", [], [], (f) => {
    f.call("sseBegin");
    f.if(cell(V.abort).eqz(), () => f.call("x87Pending"));
  }, false);
}

/**
 * Memory operands of 16 bytes, by segment register and offset. `sseLoadAligned(segment, offset)` and
 * `sseStoreAligned(segment, offset, value)` of moves that demand a multiple of 16,
 * `sseLoadOperand(...)` of arithmetic, `sseLoadAnywhere(...)` and `sseStoreAnywhere(...)` of moves
 * that demand nothing. `sseUnaligned(linear, bytes)`: #AC where such are checked.
 */
export function buildSseLoads(m: Module): void {
  buildPartAt(m);
  // A multiple of 16 is asked for before the stack segment is: #GP, not #SS.
  m.func("sseAligned", ["i32", "i64", "i32"], ["i64"], (f, segment, offset, write) => {
    const linear = f.call("segmentLinear", segment, offset, 16, write);
    f.if(cell(V.abort), () => {
      const stackFault = cell(V.abort).eq(ABORT.fault).and(cell(V.vector).eq(VECTOR.SS));
      f.if(stackFault.and(offset.wrap().and(15).nez()), () => {
        noteFault(f, VECTOR.GP, 0, CHECK.alignment, offset);
      });
      f.return(linear);
    });
    f.if(linear.wrap().and(15), () => noteFault(f, VECTOR.GP, 0, CHECK.alignment, linear));
    f.result(linear);
  }, false);
  m.func("sseUnaligned", ["i64", "i32"], [], (f, linear, bytes) => {
    const checked = asAmd("sse.unaligned").and(cell(V.access).and(ACCESS.align).nez());
    f.if(checked.and(linear.wrap().and(bytes.sub(1)).nez()), () => {
      noteFault(f, VECTOR.AC, 0, CHECK.unaligned, linear, bytes);
    });
  }, false);
  m.func("sseAnywhere", ["i32", "i64", "i32"], ["i64"], (f, segment, offset, write) => {
    const linear = f.call("segmentLinear", segment, offset, 16, write);
    f.if(cell(V.abort).eqz(), () => f.call("sseUnaligned", linear, 16));
    f.result(linear);
  }, false);
  m.func("sseLoad", ["i64"], ["v128"], (f, linear) => {
    f.if(cell(V.abort), () => f.return(splat64(0)));
    const low = f.call("ld64", linear, partAccess());
    f.if(cell(V.abort), () => f.return(splat64(0)));
    const high = f.call("ld64", f.call("partAt", linear, 8), partAccess());
    f.result(join(low, high));
  }, false);
  for (const where of ["Aligned", "Anywhere"]) {
    m.func(`sseLoad${where}`, ["i32", "i64"], ["v128"], (f, segment, offset) => {
      f.result(f.call("sseLoad", f.call(`sse${where}`, segment, offset, 0)));
    }, false);
  }
  m.func("sseLoadOperand", ["i32", "i64"], ["v128"], (f, segment, offset) => {
    const misaligned = cell(CPU.mxcsr).and(MXCSR.MM).nez();
    f.if(misaligned, () => f.return(f.call("sseLoadAnywhere", segment, offset)));
    f.result(f.call("sseLoadAligned", segment, offset));
  }, false);
}

function buildStores(m: Module): void {
  m.func("sseStore", ["i64", "v128"], [], (f, linear, value) => {
    f.if(cell(V.abort), () => f.return());
    // A second page is looked at before anything is stored.
    f.if(linear.wrap().and(0xfff).gtU(0xff0), () => {
      const write = f.let(partAccess().or(ACCESS.write));
      f.call("translate", linear, write);
      f.if(cell(V.abort), () => f.return());
      f.call("translate", f.call("partAt", linear, 15).and(-4096n), write);
      f.if(cell(V.abort), () => f.return());
    });
    f.call("st64", linear, partAccess(), lane64(value, 0));
    f.if(cell(V.abort), () => f.return());
    f.call("st64", f.call("partAt", linear, 8), partAccess(), lane64(value, 1));
  }, false);
  for (const where of ["Aligned", "Anywhere"]) {
    m.func(`sseStore${where}`, ["i32", "i64", "v128"], [], (f, segment, offset, value) => {
      f.call("sseStore", f.call(`sse${where}`, segment, offset, 1), value);
    }, false);
  }
}

/**
 * `sseEnvironment()`: F.* from MXCSR, no exceptions yet. `sseRaise()`: exceptions into MXCSR, #XM or
 * #UD for unmasked ones. Those found before the operation keep the others from being found.
 */
function buildEnvironment(m: Module): void {
  m.func("sseEnvironment", [], [], (f) => {
    const mxcsr = f.let(cell(CPU.mxcsr));
    setCell(f, F.flags, 0);
    setCell(f, F.masks, mxcsr.shrU(MXCSR.masks).and(0x3f));
    setCell(f, F.mode, mxcsr.shrU(MXCSR.rounding).and(3));
    const flush = MXCSR.FTZ | MXCSR.UM;
    setCell(f, F.flush, mxcsr.and(flush).eq(flush));
  }, false);
  m.func("sseRaise", [], [], (f) => {
    const flags = f.let(cell(F.flags));
    f.if(flags.eqz(), () => f.return());
    const open = f.let(cell(F.masks).xor(-1));
    const early = EXC.invalid | EXC.denormal | EXC.zeroDivide;
    f.if(flags.and(open).and(early), () => f.set(flags, flags.and(early)));
    const mxcsr = f.let(cell(CPU.mxcsr).or(flags));
    setCell(f, CPU.mxcsr, mxcsr);
    f.if(flags.and(open).eqz(), () => f.return());
    f.if(
      cr4().and(CR4.OSXMMEXCPT),
      () => noteFault(f, VECTOR.XM, undefined, CHECK.exception, mxcsr, flags),
      () => noteFault(f, VECTOR.UD, undefined, CHECK.exceptionUd, mxcsr, flags),
    );
  }, false);
}

export function buildSseAccess(m: Module): void {
  buildSseBegin(m);
  buildMmxEnter(m);
  buildMmxBegin(m);
  buildSseLoads(m);
  buildStores(m);
  buildEnvironment(m);
}

// --- operands ---

export const isMmx = (m: Meaning, i: number): boolean =>
  m.form.operands[i] === "n" && m.form.sizes[i] === 64;
export const isRegister = (m: Meaning, i: number): boolean => m.form.operands[i] === "n";

/** Checks that come first. */
export const begin = (m: Meaning): void => void m.callChecked("sseBegin");

/** Register operand `i` whole. */
export const register = (m: Meaning, i: number): Local => m.f.let(m.vector(i));

/** Operand `i` of 16 bytes of an instruction that is no move; in memory it is aligned. */
export const vectorOf = (m: Meaning, i: number): Local =>
  isRegister(m, i) ? register(m, i) : m.readVector("Operand");
/** Operand `i` of 16 bytes of a move, or of what asks for no alignment. */
export const movedVector = (m: Meaning, i: number, aligned: boolean): Local =>
  isRegister(m, i) ? register(m, i) : m.readVector(aligned ? "Aligned" : "Anywhere");

/** The low `bits` of operand `i` (an XMM register, or memory of just that width) as i64. */
export function lowOf(m: Meaning, i: number, bits: 16 | 32 | 64): Local {
  if (isRegister(m, i)) return m.f.let(m.vectorLow(i, bits));
  return m.f.let(m.readU(i).zext());
}

/** Operand `i` as a vector; a narrow memory operand fills its low part. */
export function anyOf(m: Meaning, i: number): Local {
  if (isRegister(m, i) || m.form.sizes[i] === 128) return vectorOf(m, i);
  return m.f.let(join(m.readU(i).zext(), i64(0)));
}

/** Writes register operand 0. */
export const writeRegister = (m: Meaning, value: Expr): void => m.setVector(0, value);
/** Writes the low `bits` of register operand 0 and leaves the rest. */
export const writeLow = (m: Meaning, bits: number, value: Expr): void =>
  m.setVectorLow(0, bits, value);
