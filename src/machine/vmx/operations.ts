/**
 * VMX instructions as functions (SDM 3 chapter 30): what an instruction in a guest of VMX root does
 * and what the TypeScript hypervisor calls. Each gives a status; operands of 64 bits come as halves.
 */
import { VM_ERROR } from "../../abi/x86/vmx.ts";
import { check } from "../checks.ts";
import { CPU, V } from "../state.ts";
import { cell, cell64, MEMORY, setCell, setCell64 } from "../linkage.ts";
import { type Expr, i32, i64, load, type Operand } from "../wasm/expr.ts";
import type { Func, Local, Module } from "../wasm/module.ts";
import { markDirty, tooWide } from "../values.ts";
import { CR0_FIXED0, CR4_FIXED0, CR4_FIXED1 } from "./capabilities.ts";
import {
  FIELD_ENTRY,
  fieldOffset,
  GROUP,
  HEAD,
  KNOWN,
  VMCS_REVISION,
  VMCS_SIZE,
  VmcsRegion,
  VMXC,
} from "./layout.ts";

/** What a VMX instruction comes to (SDM 3 30.2), and the exceptions of VMXON. */
export const STATUS = {
  succeed: 0,
  failInvalid: 1,
  failValid: 2,
  undefined: 3,
  protection: 4,
} as const;

/** Values of CPU.vmxMode. */
export const MODE = { off: 0, root: 1, nonRoot: 2 } as const;

const CHECK = {
  vmxe: check("vmx.on.vmxe", "CR4.VMXE is 0 (CR4 is {a})", "SDM 3 23.7"),
  cr0: check("vmx.on.cr0", "CR0 {a} lacks bits that VMX operation fixes at 1: {b}", "SDM 3 23.8"),
  cr4: check("vmx.on.cr4", "CR4 {a} has bits that VMX operation fixes at 0: {b}", "SDM 3 23.8"),
  feature: check(
    "vmx.on.featureControl",
    "IA32_FEATURE_CONTROL {a} does not enable VMXON outside SMX (bit 2) under its lock (bit 0)",
    "SDM 3 23.7",
  ),
  region: check(
    "vmx.on.region",
    "VMXON region {a}: not 4-KByte aligned, too wide, or revision identifier {b} is not this processor's",
    "SDM 3 30.3 VMXON",
  ),
  error: check("vmx.instruction", "VM-instruction error {a} (operand {b})", "SDM 3 30.4"),
  noVmcs: check("vmx.noCurrentVmcs", "there is no current VMCS", "SDM 3 30.2"),
};

const wide = (low: Expr, high: Expr): Expr => low.zext().or(high.zext().shl(32));

/** `vmxFail(error, operand) -> status`: VMfailValid with its number, or VMfailInvalid. */
function buildFail(m: Module): void {
  m.func("vmxFail", ["i32", "i64"], ["i32"], (f, error, operand) => {
    setCell64(f, V.checkA, error.zext());
    setCell64(f, V.checkB, operand);
    f.if(cell64(CPU.vmcsPointer).eq(-1), () => {
      setCell(f, V.check, CHECK.noVmcs);
      f.return(i32(STATUS.failInvalid));
    });
    setCell(f, V.check, CHECK.error);
    VmcsRegion.current(f).set("instructionError", error);
    f.result(STATUS.failValid);
  });
}

const fail = (f: Func, error: number, operand: Operand = i64(0)) =>
  f.return(f.call("vmxFail", i32(error), operand));

/** Notes a check and leaves with `status`. */
function refuse(f: Func, condition: Expr, status: number, id: number, a: Expr, b: Expr = i64(0)) {
  f.if(condition, () => {
    setCell(f, V.check, id);
    setCell64(f, V.checkA, a);
    setCell64(f, V.checkB, b);
    f.return(i32(status));
  });
}

/** The revision identifier at `pa`; -1 where there is no memory. */
function revisionAt(f: Func, pa: Local): Local {
  const revision = f.let(i32(-1));
  f.if(pa.leU(cell64(V.ramSize).sub(VMCS_SIZE)), () => {
    f.set(revision, load("i32", 32, "u", pa.wrap(), HEAD.revision, MEMORY.ram));
  });
  return revision;
}

function buildOnOff(m: Module): void {
  m.func("vmxon", ["i32", "i32"], ["i32"], (f, low, high) => {
    const pa = f.let(wide(low, high));
    const cr0 = cell64(CPU.cr0), cr4 = cell64(CPU.cr4);
    refuse(f, cr4.and(CR4_FIXED0).eqz(), STATUS.undefined, CHECK.vmxe, cr4);
    f.if(cell(CPU.vmxMode), () => fail(f, VM_ERROR.vmxonInRoot, pa));
    refuse(
      f,
      cr0.and(CR0_FIXED0).ne(CR0_FIXED0),
      STATUS.protection,
      CHECK.cr0,
      cr0,
      i64(CR0_FIXED0),
    );
    const without = ~BigInt(CR4_FIXED1);
    refuse(f, cr4.and(without).nez(), STATUS.protection, CHECK.cr4, cr4, i64(without));
    const control = cell64(CPU.featureControl);
    refuse(f, control.and(5).ne(5), STATUS.protection, CHECK.feature, control);
    const bad = f.let(pa.and(VMCS_SIZE - 1).nez().or(tooWide(pa)));
    refuse(f, bad, STATUS.failInvalid, CHECK.region, pa);
    const revision = revisionAt(f, pa);
    refuse(
      f,
      revision.ne(VMCS_REVISION),
      STATUS.failInvalid,
      CHECK.region,
      pa,
      revision.zext(),
    );
    setCell64(f, CPU.vmxonPointer, pa);
    setCell64(f, CPU.vmcsPointer, -1);
    f.call("vmxCurrent");
    setCell(f, CPU.vmxMode, MODE.root);
    setCell(f, VMXC.contextValid, 0);
    f.result(STATUS.succeed);
  });
  m.func("vmxoff", [], ["i32"], (f) => {
    setCell64(f, CPU.vmcsPointer, -1);
    setCell64(f, CPU.vmxonPointer, -1);
    setCell(f, CPU.vmxMode, MODE.off);
    f.result(STATUS.succeed);
  });
}

/** Leaves with `address` or `vmxonPointer` if `pa` cannot be a VMCS pointer. */
function checkPointer(f: Func, pa: Local, address: number, vmxonPointer: number): void {
  f.if(pa.and(VMCS_SIZE - 1).nez().or(tooWide(pa)), () => fail(f, address, pa));
  f.if(pa.eq(cell64(CPU.vmxonPointer)), () => fail(f, vmxonPointer, pa));
}

const knownPlaces = Array.from(
  { length: KNOWN.entries },
  (_, n) => VMXC.known + n * KNOWN.size,
);

function buildPointers(m: Module): void {
  // Cells that follow from the current-VMCS pointer; also after state was loaded from outside.
  m.func("vmxCurrent", [], [], (f) => {
    f.call("vmxTables");
    setCell(f, VMXC.base, cell64(CPU.vmcsPointer).wrap());
    setCell(f, VMXC.passed, 0);
    setCell(f, VMXC.hostBlockOf, -1);
    for (const at of knownPlaces) setCell(f, at + KNOWN.base, -1);
  });
  // vmxForget(base): nothing is known of the VMCS.
  m.func("vmxForget", ["i32"], [], (f, base) => {
    for (const at of knownPlaces) {
      f.if(cell(at + KNOWN.base).eq(base), () => setCell(f, at + KNOWN.base, -1));
    }
  });
  // vmxRemember(): what the current VMCS has passed, before another becomes current.
  m.func("vmxRemember", [], [], (f) => {
    const base = f.let(cell(VMXC.base));
    f.call("vmxForget", base);
    const slot = f.let(cell(VMXC.nextKnown).and(KNOWN.entries - 1));
    setCell(f, VMXC.nextKnown, slot.add(1));
    const at = f.let(slot.mul(KNOWN.size).add(VMXC.known));
    f.store(32, at, base, KNOWN.base);
    f.store(32, at, cell(VMXC.passed), KNOWN.passed);
  });
  m.func("vmclear", ["i32", "i32"], ["i32"], (f, low, high) => {
    const pa = f.let(wide(low, high));
    checkPointer(f, pa, VM_ERROR.vmclearAddress, VM_ERROR.vmclearVmxonPointer);
    f.if(pa.leU(cell64(V.ramSize).sub(VMCS_SIZE)), () => {
      new VmcsRegion(f, pa.wrap()).setHead(HEAD.launched, 0);
      f.call("vmxForget", pa.wrap());
      f.if(cell(VMXC.hostBlockOf).eq(pa.wrap()), () => setCell(f, VMXC.hostBlockOf, -1));
      markDirty(f, pa.wrap());
    });
    f.if(pa.eq(cell64(CPU.vmcsPointer)), () => setCell64(f, CPU.vmcsPointer, -1));
    f.result(STATUS.succeed);
  });
  m.func("vmptrld", ["i32", "i32"], ["i32"], (f, low, high) => {
    const pa = f.let(wide(low, high));
    checkPointer(f, pa, VM_ERROR.vmptrldAddress, VM_ERROR.vmptrldVmxonPointer);
    f.if(revisionAt(f, pa).ne(VMCS_REVISION), () => fail(f, VM_ERROR.vmptrldRevision, pa));
    f.if(pa.eq(cell64(CPU.vmcsPointer)), () => f.return(i32(STATUS.succeed)));
    f.if(cell64(CPU.vmcsPointer).ne(-1), () => f.call("vmxRemember"));
    setCell64(f, CPU.vmcsPointer, pa);
    setCell(f, VMXC.base, pa.wrap());
    setCell(f, VMXC.passed, 0);
    for (const at of knownPlaces) {
      f.if(cell(at + KNOWN.base).eq(pa.wrap()), () => {
        setCell(f, VMXC.passed, cell(at + KNOWN.passed));
      });
    }
    f.result(STATUS.succeed);
  });
  m.func("vmptrst", [], [], (f) => setCell64(f, VMXC.value, cell64(CPU.vmcsPointer)));
}

/** The table entry of an encoding; leaves the function with error 12 if there is no such field. */
function lookUp(f: Func, field: Local): Local {
  f.if(cell64(CPU.vmcsPointer).eq(-1), () => fail(f, VM_ERROR.unsupportedField, field.zext()));
  const slot = field.shrU(13).and(3).shl(7).or(field.shrU(10).and(3).shl(5)).or(
    field.shrU(1).and(31),
  );
  const entry = f.let(load("i32", 32, "u", slot.shl(2), VMXC.fields));
  const width = entry.shrU(FIELD_ENTRY.width).and(3);
  const bad = entry.eqz().or(field.and(~0x6c3f).nez()).or(field.and(1).and(width.ne(1)));
  f.if(bad, () => fail(f, VM_ERROR.unsupportedField, field.zext()));
  return entry;
}

function buildFields(m: Module): void {
  m.func("vmread", ["i32"], ["i32"], (f, field) => {
    const entry = lookUp(f, field);
    const where = f.let(cell(VMXC.base).add(entry.and(0xfff)));
    f.if(field.and(1), () => {
      setCell64(f, VMXC.value, load("i64", 32, "u", where, 4, MEMORY.ram));
      f.return(i32(STATUS.succeed));
    });
    const full = load("i64", 64, "u", where, 0, MEMORY.ram);
    setCell64(
      f,
      VMXC.value,
      full.when(entry.shrU(FIELD_ENTRY.width).and(1), full.and(0xffff_ffffn)),
    );
    f.result(STATUS.succeed);
  });
  m.func("vmwrite", ["i32", "i32", "i32"], ["i32"], (f, field, low, high) => {
    const entry = lookUp(f, field);
    f.if(entry.and(FIELD_ENTRY.readOnly), () => fail(f, VM_ERROR.readOnlyField, field.zext()));
    const where = f.let(cell(VMXC.base).add(entry.and(0xfff)));
    const width = f.let(entry.shrU(FIELD_ENTRY.width).and(3));
    const passed = (groups: Expr) => setCell(f, VMXC.passed, cell(VMXC.passed).and(groups.not()));
    const old = f.let(load("i32", 32, "u", where, 0, MEMORY.ram));
    const oldHigh = f.let(load("i32", 32, "u", where, 4, MEMORY.ram));
    f.if(field.and(1), () => {
      f.set(high, low);
      f.set(low, old);
    });
    f.if(width.and(1), () => f.store(32, where, high, 4, MEMORY.ram), () => {
      f.set(high, oldHigh);
      f.if(width.eqz(), () => f.set(low, low.and(0xffff)));
    });
    f.store(32, where, low, 0, MEMORY.ram);
    f.if(low.ne(old).or(high.ne(oldHigh)), () => {
      passed(entry.shrU(FIELD_ENTRY.groups).and(0xf));
      // Virtual-8086 mode asks for other segments.
      const rflags = entry.and(0xfff).eq(fieldOffset("guestRflags"));
      f.if(rflags.and(low.xor(old).shrU(17)), () => passed(i32(GROUP.guest)));
      markDirty(f, where);
    });
    f.result(STATUS.succeed);
  });
}

function buildInvalidation(m: Module): void {
  const accept = (f: Func) => {
    f.call("flushTlb");
    f.return(i32(STATUS.succeed));
  };
  // Types of INVEPT: 1 single context, 2 all. The TLBs hold one context: all of it goes.
  m.func("invept", ["i64", "i64", "i64"], ["i32"], (f, type, eptp, _reserved) => {
    f.if(type.eq(2), () => accept(f));
    f.if(type.eq(1).and(f.call("eptpValid", eptp)), () => accept(f));
    f.result(f.call("vmxFail", i32(VM_ERROR.invalidation), type));
  });
  // Types of INVVPID: 0 address, 1 single context, 2 all contexts, 3 single, globals kept.
  m.func("invvpid", ["i64", "i64", "i64"], ["i32"], (f, type, vpid, linear) => {
    const one = f.let(type.eqz().or(type.eq(1)).or(type.eq(3)));
    const named = f.let(vpid.ne(0).and(vpid.shrU(16).eqz()));
    const canonical = linear.shl(16).shrS(16).eq(linear);
    f.if(type.eq(2), () => accept(f));
    f.if(one.and(named).and(type.nez().or(canonical)), () => accept(f));
    f.result(f.call("vmxFail", i32(VM_ERROR.invalidation), type));
  });
}

/** The operations; `eptpValid` is that of the entry checks. */
export function buildOperations(m: Module): void {
  buildFail(m);
  buildPointers(m);
  buildOnOff(m);
  buildFields(m);
  buildInvalidation(m);
}
