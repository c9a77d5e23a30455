/**
 * The x87 register stack and its status: what every x87 instruction begins and ends with (SDM 1
 * 8.1, 8.4, 8.5, 8.7).
 *
 * CPU.ftw holds 11B for an empty register and 00B for any other, in physical order. The other two
 * tags (zero, special) are worked out from the contents when the tag word is stored, as processors
 * do (SDM 1 8.1.7). V.x87Opcode is the running instruction's FOP.
 */
import { FSW } from "../../../abi/x86/float.ts";
import { CR0 } from "../../../abi/x86/cr.ts";
import { VECTOR } from "../../../abi/x86/vectors.ts";
import { check } from "../../checks.ts";
import { CPU, SEGMENT, V } from "../../state.ts";
import { cell, cell64, noteFault, setCell, setCell64 } from "../../linkage.ts";
import { coprocessorQuiet } from "../../system/exceptions/coprocessor.ts";
import { asAmd } from "../../vendors.ts";
import { type Expr, i32, load } from "../../wasm/expr.ts";
import type { Func, Module } from "../../wasm/module.ts";
import { EXC, F, raise, stopped } from "../../float/cells.ts";
import { C1, setIndefinite } from "../../float/extended.ts";

const CHECK = {
  notAvailable: check(
    "x87.nm",
    "x87 instruction with CR0.EM or CR0.TS set: CR0 = {a}",
    "SDM 3 13.1",
  ),
  wait: check("x87.wait", "WAIT with CR0.MP and CR0.TS set: CR0 = {a}", "SDM 2 WAIT"),
};

const fsw = (): Expr => cell(CPU.fsw);
const cr0 = (): Expr => load("i32", 32, "u", 0, CPU.cr0);
/** Number of the register on top of the stack. */
export const top = (): Expr => fsw().shrU(FSW.top).and(7);

/** Address of ST(i) in memory 0. */
export const slot = (i: Expr): Expr => top().add(i).and(7).shl(4).add(CPU.fpr0);
export const significand = (place: Expr): Expr => load("i64", 64, "u", place);
export const signExponent = (place: Expr): Expr => load("i32", 16, "u", place, 8);
/** 1 if ST(i) is empty. */
export const empty = (i: Expr): Expr => cell(CPU.ftw).shrU(top().add(i).and(7).shl(1)).and(3).eq(3);

export function setTop(f: Func, value: Expr): void {
  setCell(f, CPU.fsw, fsw().and(~FSW.TOP).or(value.and(7).shl(FSW.top)));
}
export function tagEmpty(f: Func, i: Expr): void {
  const bits = i32(3).shl(top().add(i).and(7).shl(1));
  setCell(f, CPU.ftw, cell(CPU.ftw).or(bits));
}

/** Writes F.se and F.sig to ST(i). */
export function store(f: Func, i: Expr): void {
  f.call("x87Store", i, cell(F.se), cell64(F.sig));
}

/** `x87Available()`: #NM; `x87Begin()`: #NM, #MF, and the float environment from FCW. */
function buildBegin(m: Module): void {
  m.func("x87Available", [], [], (f) => {
    f.if(
      cr0().and(CR0.EM | CR0.TS),
      () => noteFault(f, VECTOR.NM, undefined, CHECK.notAvailable, cr0()),
    );
  }, false);
  m.func("x87Environment", [], [], (f) => {
    const fcw = f.let(cell(CPU.fcw));
    setCell(f, F.flags, 0);
    setCell(f, F.masks, fcw.and(0x3f));
    setCell(f, F.mode, fcw.shrU(10).and(3));
    // Precision control 3 and the reserved 1 are 64 bits, 2 is 53, 0 is 24.
    const control = f.let(fcw.shrU(8).and(3));
    setCell(f, F.format, i32(2).when(control.eqz(), control.eq(2)));
    for (const place of [F.flush, F.up, F.denormal]) setCell(f, place, 0);
  }, false);
  m.func("x87Begin", [], [], (f) => {
    f.call("x87Available");
    f.if(cell(V.abort), () => f.return());
    f.call("x87Pending");
    f.call("x87Environment");
  }, false);
  m.func("x87Wait", [], [], (f) => {
    f.if(cr0().and(CR0.MP | CR0.TS).eq(CR0.MP | CR0.TS), () => {
      noteFault(f, VECTOR.NM, undefined, CHECK.wait, cr0());
      f.return();
    });
    f.call("x87Pending");
  }, false);
  // `x87Pointers(opcode, ip)`: FIP, FCS; `x87MemoryPointers(opcode, ip, offset, segment)`: FDP, FDS too.
  m.func("x87Pointers", ["i32", "i64"], [], (f, opcode, ip) => {
    setCell64(f, CPU.fip, ip);
    setCell(f, V.x87Opcode, opcode);
    f.if(asAmd("x87.opcode"), () => setCell(f, CPU.fop, opcode));
    setCell(f, CPU.fcs, cell(CPU["cs.selector"]).and(0xffff));
  }, false);
  m.func(
    "x87MemoryPointers",
    ["i32", "i64", "i64", "i32"],
    [],
    (f, opcode, ip, offset, segment) => {
      f.call("x87Pointers", opcode, ip);
      setCell64(f, CPU.fdp, offset);
      setCell(f, CPU.fds, load("i32", 16, "u", segment, SEGMENT.selector));
    },
    false,
  );
}

function buildStack(m: Module): void {
  m.func("x87Store", ["i32", "i32", "i64"], [], (f, i, se, sig) => {
    const place = f.let(slot(i));
    f.store(64, place, sig);
    f.store(16, place, se, 8);
    setCell(f, CPU.ftw, cell(CPU.ftw).and(i32(3).shl(top().add(i).and(7).shl(1)).xor(-1)));
  }, false);
  m.func("x87Pop", [], [], (f) => {
    tagEmpty(f, i32(0));
    setTop(f, top().add(1));
  }, false);
  // A register that should hold a number is empty: masked response in F.se, F.sig.
  m.func("x87Underflow", [], [], (f) => {
    raise(f, EXC.invalid | EXC.stack);
    setCell(f, F.up, 0);
    setIndefinite(f);
  }, false);
}

function buildPush(m: Module): void {
  // Pushes F.se, F.sig unless an exception forbids it.
  m.func("x87Push", [], [], (f) => {
    f.if(empty(i32(7)).eqz().and(cell(F.flags).and(EXC.stack).eqz()), () => {
      f.call("x87Underflow");
      setCell(f, F.up, 1);
    });
    // Processors load a denormal even if DE is unmasked: the exception stands at the next wait.
    f.if(stopped().and(~EXC.denormal).eqz(), () => {
      setTop(f, top().sub(1));
      store(f, i32(0));
    });
    f.call("x87Finish", C1, 0);
  }, false);
}

/** `x87Summary()`: ES and B from the exceptions and their masks. */
export function buildX87Summary(m: Module): void {
  m.func("x87Summary", [], [], (f) => {
    const pending = fsw().and(cell(CPU.fcw).xor(-1)).and(0x3f);
    setCell(
      f,
      CPU.fsw,
      i32(FSW.ES | FSW.B).when(pending, i32(0)).or(fsw().and(0xffff & ~(FSW.ES | FSW.B))),
    );
    f.if(fsw().and(FSW.ES).eqz(), () => coprocessorQuiet(f));
  }, false);
}

/**
 * `x87Finish(clear, set)`: merges the exceptions, clears and sets condition codes; C1 says how the
 * result was rounded.
 */
function buildFinish(m: Module): void {
  m.func("x87Finish", ["i32", "i32"], [], (f, clear, set) => {
    const flags = f.let(cell(F.flags));
    const rounded = flags.and(EXC.precision | EXC.stack).nez().and(cell(F.up)).mul(C1);
    setCell(f, CPU.fsw, fsw().and(clear.xor(-1)).or(set).or(flags).or(rounded));
    f.if(flags.and(cell(F.masks).xor(-1)).and(0x3f), () => {
      setCell(f, CPU.fsw, fsw().or(FSW.ES | FSW.B));
      setCell(f, CPU.fop, cell(V.x87Opcode));
    });
  }, false);
  // Result of an operation into ST(d), then pops; nothing if an exception forbids it.
  m.func("x87Result", ["i32", "i32"], [], (f, d, pops) => {
    f.if(stopped().eqz(), () => {
      store(f, d);
      f.if(pops, () => f.call("x87Pop"));
    });
    f.call("x87Finish", C1, 0);
  }, false);
}

export function buildX87State(m: Module): void {
  buildStack(m);
  buildX87Summary(m);
  buildFinish(m);
  buildPush(m);
  buildBegin(m);
}
