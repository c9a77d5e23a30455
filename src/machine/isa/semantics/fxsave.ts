/**
 * FXSAVE, FXRSTOR (SDM 1 10.5, table 10-2), LDMXCSR and STMXCSR. XMM registers and MXCSR take part
 * only with CR4.OSFXSR; without it their places in the image are left alone.
 */
import { CR0, CR4 } from "../../../abi/x86/cr.ts";
import { VECTOR } from "../../../abi/x86/vectors.ts";
import { FCW, FSW, FXSAVE, MXCSR } from "../../../abi/x86/float.ts";
import { check } from "../../checks.ts";
import { CPU, V } from "../../state.ts";
import { cell, cell64, noteFault, setCell, setCell64 } from "../../linkage.ts";
import { asAmd } from "../../vendors.ts";
import { type Expr, i32, i64, load } from "../../wasm/expr.ts";
import type { Func, Module } from "../../wasm/module.ts";
import type { Meaning, Semantics } from "./meaning.ts";
import { buildPartAt, partAccess } from "./parts.ts";
import { begin, buildSseBegin } from "./sse_access.ts";
import { stateArea } from "./state_area.ts";
import { buildX87Summary, signExponent, significand, slot } from "./x87_state.ts";
import { each, xmmCount } from "./x87_loops.ts";
import { buildXsave, xsaveSemantics } from "./xsave.ts";

const CHECK = {
  notAvailable: check(
    "fxsave.nm",
    "FXSAVE or FXRSTOR with CR0.EM or CR0.TS: CR0 = {a}",
    "SDM 3 2.5",
  ),
  alignment: check("fxsave.alignment", "address {a} is not a multiple of 16", "SDM 2 FXSAVE"),
  reserved: check(
    "mxcsr.reserved",
    "MXCSR = {a} has reserved bits, its mask is {b}",
    "SDM 1 10.2.3",
  ),
};

/** Bits of MXCSR that exist, as FXSAVE reports them (with DAZ). */
const mxcsrMask = (): Expr =>
  i32(0xffff).or(
    i32(MXCSR.MM).when(asAmd("sse.misaligned").and(cell(V.noMisaligned).eqz()), i32(0)),
  );
const cr0 = (): Expr => load("i32", 32, "u", 0, CPU.cr0);
const cr4 = (): Expr => load("i32", 32, "u", 0, CPU.cr4);
const osfxsr = (): Expr => cr4().and(CR4.OSFXSR);

/** `fxPut(linear, offset, value)`, `fxGet(linear, offset)`: eight bytes of the image. */
function buildPieces(m: Module): void {
  m.func("fxPut", ["i64", "i32", "i64"], [], (f, linear, offset, value) => {
    f.if(cell(V.abort), () => f.return());
    f.call("st64", f.call("partAt", linear, offset), partAccess(), value);
  }, false);
  m.func("fxGet", ["i64", "i32"], ["i64"], (f, linear, offset) => {
    f.if(cell(V.abort), () => f.return(0));
    f.result(f.call("ld64", f.call("partAt", linear, offset), partAccess()));
  }, false);
}

/** `fxSaveX87(linear, wide)`, `fxSaveMxcsr(linear)`, `fxSaveXmm(linear)`: parts of an image. */
function buildSaveParts(m: Module): void {
  m.func("fxSaveX87", ["i64", "i32"], [], (f, linear, wide) => {
    const put = (offset: number | Expr, value: Expr) => f.call("fxPut", linear, offset, value);
    // What the image has of the last instruction's opcode and pointers.
    const hidden = asAmd("x87.pointers").and(cell(CPU.fsw).and(FSW.ES).eqz());
    const shown = f.let(i64(0).when(hidden, i64(-1)));
    // Abridged tag word: a one for each register that is not empty.
    const tags = f.let(i32(0));
    each(f, i32(8), (i) => {
      const full = cell(CPU.ftw).shrU(i.shl(1)).and(3).ne(3);
      f.set(tags, tags.or(full.shl(i)));
    });
    put(
      FXSAVE.fcw,
      cell(CPU.fcw).or(cell(CPU.fsw).shl(8 * FXSAVE.fsw)).zext()
        .or(tags.zext().shl(8 * FXSAVE.tags))
        .or(cell(CPU.fop).and(0x7ff).zext().shl(8 * FXSAVE.fop).and(shown)),
    );
    const pointer = (value: number, selector: number) =>
      cell64(value).when(
        wide,
        cell64(value).and(0xffff_ffffn).or(cell(selector).zext().shl(32)),
      ).and(shown);
    put(FXSAVE.fip, pointer(CPU.fip, CPU.fcs));
    put(FXSAVE.fdp, pointer(CPU.fdp, CPU.fds));
    each(f, i32(8), (i) => {
      const place = f.let(slot(i)), offset = i.shl(4).add(FXSAVE.st);
      put(offset, significand(place));
      put(offset.add(8), signExponent(place).zext());
    });
  }, false);
  m.func("fxSaveMxcsr", ["i64"], [], (f, linear) => {
    const value = cell(CPU.mxcsr).zext().or(mxcsrMask().zext().shl(32));
    f.call("fxPut", linear, i32(FXSAVE.mxcsr), value);
  }, false);
  m.func("fxSaveXmm", ["i64"], [], (f, linear) => {
    each(f, xmmCount().shl(1), (i) => {
      const offset = i.shl(3).add(FXSAVE.xmm);
      f.call("fxPut", linear, offset, load("i64", 64, "u", i.shl(3), CPU.xmm0));
    });
  }, false);
}

function buildSave(m: Module): void {
  // `fxSave(linear, wide)`: wide = 64-bit pointers (REX.W). The place was probed.
  m.func("fxSave", ["i64", "i32"], [], (f, linear, wide) => {
    f.call("fxSaveX87", linear, wide);
    f.if(osfxsr(), () => {
      f.call("fxSaveMxcsr", linear);
      f.call("fxSaveXmm", linear);
    });
  }, false);
}

/**
 * `fxCheckMxcsr(linear)`: #GP(0) if the image's MXCSR has reserved bits; `fxRestoreX87(linear, wide)`,
 * `fxRestoreMxcsr(linear)`, `fxRestoreXmm(linear)`.
 */
function buildRestoreParts(m: Module): void {
  const imageMxcsr = (f: Func, linear: Expr) =>
    f.let(f.call("fxGet", linear, i32(FXSAVE.mxcsr)).wrap());
  m.func("fxCheckMxcsr", ["i64"], [], (f, linear) => {
    const mxcsr = imageMxcsr(f, linear);
    f.if(mxcsr.and(mxcsrMask().xor(-1)), () => {
      noteFault(f, VECTOR.GP, 0, CHECK.reserved, mxcsr, mxcsrMask());
    });
  }, false);
  m.func("fxRestoreMxcsr", ["i64"], [], (f, linear) => {
    setCell(f, CPU.mxcsr, imageMxcsr(f, linear));
  }, false);
  m.func("fxRestoreXmm", ["i64"], [], (f, linear) => {
    each(f, xmmCount().shl(1), (i) => {
      f.store(64, i.shl(3), f.call("fxGet", linear, i.shl(3).add(FXSAVE.xmm)), CPU.xmm0);
    });
  }, false);
  m.func("fxRestoreX87", ["i64", "i32"], [], (f, linear, wide) => {
    const get = (offset: number | Expr) => f.call("fxGet", linear, offset);
    const head = get(FXSAVE.fcw), ip = get(FXSAVE.fip), dp = get(FXSAVE.fdp);
    setCell(f, CPU.fcw, head.wrap().and(FCW.exist).or(FCW.fixed));
    setCell(f, CPU.fsw, head.wrap().shrU(8 * FXSAVE.fsw));
    setCell(f, CPU.fop, head.shrU(8 * FXSAVE.fop).wrap().and(0x7ff));
    const tags = f.let(head.shrU(8 * FXSAVE.tags).wrap()), ftw = f.let(i32(0));
    each(f, i32(8), (i) => {
      f.set(ftw, ftw.or(i32(3).shl(i.shl(1)).when(tags.shrU(i).and(1).eqz(), i32(0))));
    });
    setCell(f, CPU.ftw, ftw);
    for (const [value, at, selector] of [[ip, CPU.fip, CPU.fcs], [dp, CPU.fdp, CPU.fds]] as const) {
      const canonical = value.shl(16).shrS(16);
      const whole = at === CPU.fip ? canonical : canonical.when(asAmd("x87.fdp"), value);
      setCell64(f, at, whole.when(wide, value.and(0xffff_ffffn)));
      setCell(f, selector, i32(0).when(wide, value.shrU(32).wrap().and(0xffff)));
    }
    f.call("x87Summary");
    each(f, i32(8), (i) => {
      const place = f.let(slot(i)), offset = i.shl(4).add(FXSAVE.st);
      f.store(64, place, get(offset));
      f.store(16, place, get(offset.add(8)), 8);
    });
  }, false);
}

function buildRestore(m: Module): void {
  // `fxRestore(linear, wide)`: nothing changes if it faults. The place was probed.
  m.func("fxRestore", ["i64", "i32"], [], (f, linear, wide) => {
    f.if(osfxsr(), () => {
      f.call("fxCheckMxcsr", linear);
      f.if(cell(V.abort), () => f.return());
      f.call("fxRestoreMxcsr", linear);
    });
    f.call("fxRestoreX87", linear, wide);
    f.if(osfxsr(), () => f.call("fxRestoreXmm", linear));
  }, false);
}

/**
 * #NM, then the address: not a multiple of 16 is #AC where that is checked and it is no
 * multiple of 4 either (so on Intel's), else #GP(0); then the
 * page of the last byte and that of the first, in the order of processors.
 */
function image(m: Meaning, write: boolean): Expr {
  m.faultIf(cr0().and(CR0.EM | CR0.TS), VECTOR.NM, undefined, CHECK.notAvailable, cr0());
  return stateArea(m, write, FXSAVE.size, 16, CHECK.alignment);
}

const isWide = (m: Meaning): number => m.form.operandSize === 64 ? 1 : 0;

const semantics: Record<string, Semantics> = {
  fxsave: (m) => {
    const linear = image(m, true);
    m.mayFaultLate = true;
    m.callChecked("fxSave", linear, isWide(m));
    m.commit();
  },
  fxrstor: (m) => {
    const linear = image(m, false);
    m.callChecked("fxRestore", linear, isWide(m));
    m.commit();
  },
  ldmxcsr: (m) => {
    begin(m);
    const value = m.readU(0);
    m.faultIf(value.and(mxcsrMask().xor(-1)), VECTOR.GP, 0, CHECK.reserved, value, mxcsrMask());
    m.commit();
    setCell(m.f, CPU.mxcsr, value);
  },
  stmxcsr: (m) => {
    begin(m);
    m.write(0, cell(CPU.mxcsr));
  },
};

/** FXSAVE, XSAVE and their kin: meanings by key, and the functions they call. */
export const fxsaveGroup = {
  semantics: { ...semantics, ...xsaveSemantics },
  functions(m: Module): void {
    buildPartAt(m);
    buildSseBegin(m);
    buildX87Summary(m);
    buildPieces(m);
    buildSaveParts(m);
    buildSave(m);
    buildRestoreParts(m);
    buildRestore(m);
    buildXsave(m);
  },
};
