/**
 * XSAVE, XSAVEOPT, XSAVEC, XSAVES, XRSTOR and XRSTORS with two state components: x87 (0) and SSE (1)
 * (SDM 1 13). The legacy region of an area is FXSAVE's image; the header behind it says what is there.
 */
import { RAX, RCX, RDX } from "../../../abi/x86/registers.ts";
import { VECTOR } from "../../../abi/x86/vectors.ts";
import { CR0, CR4 } from "../../../abi/x86/cr.ts";
import { COMPONENT, FLOAT_INIT, XSAVE } from "../../../abi/x86/float.ts";
import { check } from "../../checks.ts";
import { coprocessorQuiet } from "../../system/exceptions/coprocessor.ts";
import { CPU, V } from "../../state.ts";
import { cell, cell64, noteFault, setCell, setCell64 } from "../../linkage.ts";
import { type Expr, i32, i64, load } from "../../wasm/expr.ts";
import type { Func, Local, Module } from "../../wasm/module.ts";
import type { Meaning, Semantics } from "./meaning.ts";
import { undefinedIf } from "./system_helpers.ts";
import { stateArea } from "./state_area.ts";
import { each, xmmCount } from "./x87_loops.ts";

const CHECK = {
  switched: check("xsave.nm", "an XSAVE instruction with CR0.TS set: CR0 = {a}", "SDM 1 13.7"),
  alignment: check("xsave.alignment", "address {a} is not a multiple of 64", "SDM 2 XSAVE"),
  header: check(
    "xrstor.header",
    "XRSTOR: XSTATE_BV {a} and XCOMP_BV {b} do not go together, or not with XCR0",
    "SDM 1 13.8.1, 13.8.2",
  ),
  reserved: check("xrstor.reserved", "XRSTOR: bytes {a} of the header are not 0", "SDM 1 13.4.2"),
  xcr: check("xcr.number", "there is no extended control register {a}", "SDM 2 XGETBV"),
  xcr0: check("xcr0.value", "XCR0 cannot be {a}", "SDM 2 XSETBV"),
  format: check("xrstors.format", "XRSTORS: XCOMP_BV {a} has bit 63 clear", "SDM 1 13.12"),
};

const { x87: X87, sse: SSE } = COMPONENT;
/** What a save does besides saving: leaves out what is in its initial state; the compacted format. */
const OPTIMIZED = 1, COMPACTED = 2;

const has = (set: Expr, component: bigint): Expr => set.and(component).nez();

function buildInUse(m: Module): void {
  // `xinuse() -> components that are not in their initial state` (SDM 1 13.6).
  m.func("xinuse", [], ["i64"], (f) => {
    const used = f.let(
      cell(CPU.fcw).xor(FLOAT_INIT.fcw).or(cell(CPU.fsw)).or(cell(CPU.ftw).xor(FLOAT_INIT.ftw))
        .or(cell(CPU.fop)).or(cell(CPU.fcs)).or(cell(CPU.fds)).zext()
        .or(cell64(CPU.fip)).or(cell64(CPU.fdp)),
    );
    each(f, i32(8), (i) => {
      const place = f.let(i.shl(4).add(CPU.fpr0));
      f.set(used, used.or(load("i64", 64, "u", place)).or(load("i64", 16, "u", place, 8)));
    });
    const xmm = f.let(i64(0));
    each(f, xmmCount().shl(1), (i) => f.set(xmm, xmm.or(load("i64", 64, "u", i.shl(3), CPU.xmm0))));
    f.result(i64(X87).when(used.nez(), i64(0)).or(i64(SSE).when(xmm.nez(), i64(0))));
  }, false);
}

function buildSaves(m: Module): void {
  // `xsave(linear, requested components, wide, how)`: the place was probed.
  m.func("xsave", ["i64", "i64", "i32", "i32"], [], (f, linear, rfbm, wide, how) => {
    const used = f.let(f.call("xinuse")), compacted = f.let(how.and(COMPACTED).nez());
    // In the compacted format MXCSR belongs to SSE altogether.
    f.if(compacted.and(cell(CPU.mxcsr).ne(FLOAT_INIT.mxcsr)), () => f.set(used, used.or(SSE)));
    const saved = f.let(rfbm.and(used).when(how.and(OPTIMIZED | COMPACTED), rfbm));
    f.if(has(saved, X87), () => f.call("fxSaveX87", linear, wide));
    f.if(has(saved, SSE), () => f.call("fxSaveXmm", linear));
    f.if(has(saved.when(compacted, rfbm), SSE), () => f.call("fxSaveMxcsr", linear));
    const present = f.let(rfbm.and(used));
    f.if(compacted, () => {
      f.call("fxPut", linear, XSAVE.xstateBv, present);
      f.call("fxPut", linear, XSAVE.xcompBv, rfbm.or(XSAVE.compacted));
    }, () => {
      const old = f.call("fxGet", linear, XSAVE.xstateBv);
      f.call("fxPut", linear, XSAVE.xstateBv, old.and(rfbm.not()).or(present));
    });
  }, false);
}

/** x87 and SSE registers as INIT leaves them. */
function initX87(f: Func): void {
  setCell(f, CPU.fcw, FLOAT_INIT.fcw);
  setCell(f, CPU.ftw, FLOAT_INIT.ftw);
  for (const place of [CPU.fsw, CPU.fop, CPU.fcs, CPU.fds]) setCell(f, place, 0);
  for (const place of [CPU.fip, CPU.fdp]) setCell64(f, place, 0);
  each(f, i32(8), (i) => {
    const place = f.let(i.shl(4).add(CPU.fpr0));
    f.store(64, place, i64(0));
    f.store(16, place, i32(0), 8);
  });
  coprocessorQuiet(f);
}
function initXmm(f: Func): void {
  each(f, xmmCount().shl(1), (i) => f.store(64, i.shl(3), i64(0), CPU.xmm0));
}

function buildRestores(m: Module): void {
  // `xrstorCheck(linear, supervisor)`: the header; its XSTATE_BV and format go to V.xstateBv and V.xstateCompacted.
  m.func("xrstorCheck", ["i64", "i32"], [], (f, linear, supervisor) => {
    const bv = f.let(f.call("fxGet", linear, XSAVE.xstateBv));
    const comp = f.let(f.call("fxGet", linear, XSAVE.xcompBv));
    const fault = (condition: Expr, id: number, a: Expr, b: Expr) =>
      f.if(condition, () => {
        noteFault(f, VECTOR.GP, 0, id, a, b);
        f.return();
      });
    const compacted = f.let(comp.shrU(63).wrap());
    fault(supervisor.and(compacted.eqz()), CHECK.format, comp, bv);
    const allowed = f.let(cell64(CPU.xcr0));
    const components = f.let(comp.and(~XSAVE.compacted));
    const wrong = components.and(allowed.not()).or(bv.and(components.not())).nez().when(
      compacted,
      comp.nez().or(bv.and(allowed.not()).nez()),
    );
    fault(wrong, CHECK.header, bv, comp);
    // The standard form looks at eight bytes more, the compacted at all the rest.
    const end = f.let(i32(XSAVE.size).when(compacted, i32(XSAVE.reserved + 8)));
    const at = f.let(i32(XSAVE.reserved));
    f.while(() => at.ltU(end), () => {
      fault(f.call("fxGet", linear, at).nez(), CHECK.reserved, at.zext(), i64(0));
      f.set(at, at.add(8));
    });
    setCell64(f, V.xstateBv, bv);
    setCell(f, V.xstateCompacted, compacted);
  }, false);
  // `xrstor(linear, requested components, wide)`: nothing changes if it faults.
  m.func("xrstor", ["i64", "i64", "i32"], [], (f, linear, rfbm, wide) => {
    const bv = f.let(cell64(V.xstateBv)), compacted = f.let(cell(V.xstateCompacted));
    // MXCSR of the standard format is restored whether SSE is there or not.
    const mxcsr = f.let(has(rfbm, SSE).and(compacted.eqz().or(has(bv, SSE))));
    f.if(mxcsr, () => {
      f.call("fxCheckMxcsr", linear);
      f.if(cell(V.abort), () => f.return());
      f.call("fxRestoreMxcsr", linear);
    }, () => f.if(has(rfbm, SSE), () => setCell(f, CPU.mxcsr, FLOAT_INIT.mxcsr)));
    f.if(has(rfbm, X87), () => {
      f.if(has(bv, X87), () => f.call("fxRestoreX87", linear, wide), () => initX87(f));
    });
    f.if(has(rfbm, SSE), () => {
      f.if(has(bv, SSE), () => f.call("fxRestoreXmm", linear), () => initXmm(f));
    });
  }, false);
}

export function buildXsave(m: Module): void {
  buildInUse(m);
  buildSaves(m);
  buildRestores(m);
}

/** The address, and the pages of the area: the last byte's first, as FXSAVE does. */
function area(m: Meaning, write: boolean): Local {
  return stateArea(m, write, XSAVE.size, XSAVE.alignment, CHECK.alignment);
}
function available(m: Meaning): void {
  undefinedIf(m, cell(CPU.cr4).and(CR4.OSXSAVE).eqz());
  m.faultIf(cell(CPU.cr0).and(CR0.TS), VECTOR.NM, undefined, CHECK.switched, cell(CPU.cr0));
}
const pair = (m: Meaning): Expr => m.gprU(RDX, 32).zext().shl(32).or(m.gprU(RAX, 32).zext());
/** The components asked for in EDX:EAX, of those that XCR0 has. */
const requested = (m: Meaning): Local => m.f.let(pair(m).and(cell64(CPU.xcr0)));
const wide = (m: Meaning): number => m.form.operandSize === 64 ? 1 : 0;

function save(how: number, supervisor = false): Semantics {
  return (m) => {
    available(m);
    if (supervisor) {
      m.mayBeAbsent("xsaves");
      m.requirePrivilege();
      m.intercept("xsaves", i64(0));
    }
    const linear = area(m, true);
    m.mayFaultLate = true;
    m.callChecked("xsave", linear, requested(m), wide(m), how);
    m.commit();
  };
}
function restore(supervisor = false): Semantics {
  return (m) => {
    available(m);
    if (supervisor) {
      m.mayBeAbsent("xsaves");
      m.requirePrivilege();
      m.intercept("xsaves", i64(1));
    }
    const linear = area(m, false);
    m.callChecked("xrstorCheck", linear, supervisor ? 1 : 0);
    m.callChecked("xrstor", linear, requested(m), wide(m));
    m.commit();
  };
}

function getExtendedControl(m: Meaning): void {
  undefinedIf(m, cell(CPU.cr4).and(CR4.OSXSAVE).eqz());
  const n = m.f.let(m.gprU(RCX, 32));
  m.faultIf(n.gtU(1), VECTOR.GP, 0, CHECK.xcr, n);
  // XCR1 is what of XCR0 is in use.
  const value = m.f.let(cell64(CPU.xcr0));
  m.f.if(n, () => m.f.set(value, value.and(m.f.call("xinuse"))));
  m.setGpr(RAX, 32, value.wrap());
  m.setGpr(RDX, 32, value.shrU(32).wrap());
}

function setExtendedControl(m: Meaning): void {
  undefinedIf(m, cell(CPU.cr4).and(CR4.OSXSAVE).eqz());
  m.requirePrivilege();
  m.intercept("xsetbv");
  const n = m.f.let(m.gprU(RCX, 32)), value = m.f.let(pair(m));
  m.faultIf(n.nez(), VECTOR.GP, 0, CHECK.xcr, n);
  // x87 always, SSE if wanted, nothing more.
  m.faultIf(value.and(~SSE).ne(X87), VECTOR.GP, 0, CHECK.xcr0, value);
  m.commit();
  setCell64(m.f, CPU.xcr0, value);
  m.finish();
}

/** The meanings. */
export const xsaveSemantics: Record<string, Semantics> = {
  xsave: save(0),
  xsaveopt: save(OPTIMIZED),
  xsavec: save(COMPACTED),
  xsaves: save(COMPACTED, true),
  xrstor: restore(),
  xrstors: restore(true),
  xgetbv: getExtendedControl,
  xsetbv: setExtendedControl,
};
