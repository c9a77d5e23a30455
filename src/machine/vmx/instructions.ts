/** The VMX instructions (SDM 3 30.3): operands and flags around the operations of module S. */
import { atBit } from "../mode.ts";
import { VECTOR } from "../../abi/x86/vectors.ts";
import { EXIT_REASON } from "../../abi/x86/vmx.ts";
import { check } from "../checks.ts";
import { CPU, V } from "../state.ts";
import { cell, cell64, noteFault, setCell } from "../linkage.ts";
import { type Expr, i32, i64 } from "../wasm/expr.ts";
import type { Local } from "../wasm/module.ts";
import { ALL_FLAGS, type Meaning, type Semantics } from "../isa/semantics/meaning.ts";
import { INFORMATION } from "./intercept.ts";
import { VMXC } from "./layout.ts";
import { MODE, STATUS } from "./operations.ts";
import type { InterceptKind } from "../system/intercepts.ts";
import { ARITHMETIC, CR0, CR4, EFER } from "../../abi/x86/cr.ts";

const CHECK = {
  off: check("vmx.operation", "a VMX instruction outside VMX operation", "SDM 3 30.3"),
  mode: check(
    "vmx.mode",
    "a VMX instruction in real, virtual-8086 or compatibility mode",
    "SDM 3 30.3",
  ),
  privilege: check("vmx.privilege", "a VMX instruction at CPL {a}", "SDM 3 30.3"),
  function: check("vmx.vmfunc", "VMFUNC without VM functions enabled", "SDM 3 25.5.6.2"),
};

const { UD, GP } = VECTOR;

/** Real, virtual-8086 and compatibility mode know no VMX instructions. */
function checkMode(m: Meaning): void {
  const protectedMode = cell64(CPU.cr0).wrap().and(CR0.PE);
  const compatibility = atBit(cell64(CPU.efer), EFER.LMA).wrap()
    .and(cell(CPU["cs.attributes"]).shrU(13).not()).and(1);
  m.requireProtected(protectedMode.eqz().or(m.virtual8086()).or(compatibility), CHECK.mode);
}

function leaveGuest(m: Meaning, reason: number, form: number, exit: InterceptKind = "vmx"): void {
  m.uses({ exit });
  m.f.if(cell(CPU.vmxMode).eq(MODE.nonRoot), () => {
    m.noteInstruction();
    m.f.call("vmxInstruction", i32(reason), i32(form));
    m.abort();
  });
}

/** The checks that all but VMXON, VMCALL and VMFUNC share, and the exit from a guest. */
function guard(m: Meaning, reason: number, form = 0): void {
  m.faultIf(cell(CPU.vmxMode).eqz(), UD, undefined, CHECK.off);
  checkMode(m);
  leaveGuest(m, reason, form);
  m.requirePrivilege(CHECK.privilege);
}

/** VMsucceed, VMfailInvalid, VMfailValid (30.2). */
function setStatus(m: Meaning, status: Expr): void {
  const zero = i32(0x40).when(status.eq(STATUS.failValid), i32(0));
  m.setArithmeticFlags(ARITHMETIC, i32(1).when(status.eq(STATUS.failInvalid), zero));
}

const low = (value: Expr) => value.wrap();
const high = (value: Expr) => value.shrU(32).wrap();

/** VMCLEAR, VMPTRLD: an address in memory. */
const withPointer = (name: string, reason: number): Semantics => (m) => {
  guard(m, reason, INFORMATION.memory);
  const pa = m.read(0);
  setStatus(m, m.f.call(name, low(pa), high(pa)));
};

const vmxon: Semantics = (m) => {
  const off = check("vmx.on.vmxeClear", "VMXON with CR4.VMXE 0", "SDM 3 23.7");
  m.faultIf(cell64(CPU.cr4).and(CR4.VMXE).eqz(), UD, undefined, off);
  checkMode(m);
  leaveGuest(m, EXIT_REASON.vmxon, INFORMATION.memory);
  m.requirePrivilege(CHECK.privilege);
  const a20m = check("vmx.on.a20m", "VMXON while A20M# masks addresses", "SDM 3 30.3 VMXON");
  m.faultIf(cell(CPU.a20Mask).ne(-1), GP, 0, a20m);
  const pa = m.read(0);
  const status = m.f.call("vmxon", low(pa), high(pa));
  m.f.if(status.eq(STATUS.protection), () => {
    // The check that failed is known at run time only.
    const id = m.f.let(cell(V.check));
    const a = m.f.let(cell64(V.checkA)), b = m.f.let(cell64(V.checkB));
    noteFault(m.f, GP, 0, 0, a, b);
    setCell(m.f, V.check, id);
    m.abort();
  });
  setStatus(m, status);
};

const vmptrst: Semantics = (m) => {
  guard(m, EXIT_REASON.vmptrst, INFORMATION.memory);
  m.f.call("vmptrst");
  m.write(0, cell64(VMXC.value));
  setStatus(m, i32(STATUS.succeed));
};

/** A field encoding: bits above 31 of a 64-bit register name no field. */
function encodingOf(m: Meaning, value: Local): Expr {
  if (value.type === "i32") return value;
  return m.f.let(value.wrap().when(value.shrU(32).eqz(), i32(-1)));
}

const vmread: Semantics = (m) => {
  guard(m, EXIT_REASON.vmread, INFORMATION.two);
  const status = m.f.call("vmread", encodingOf(m, m.readU(1)));
  m.f.if(status.eqz(), () => {
    const value = m.f.let(cell64(VMXC.value));
    m.write(0, m.form.sizes[0] === 64 ? value : value.wrap());
  });
  setStatus(m, status);
};

const vmwrite: Semantics = (m) => {
  guard(m, EXIT_REASON.vmwrite, INFORMATION.two);
  const value = m.f.let(m.readU(1).zext());
  setStatus(m, m.f.call("vmwrite", encodingOf(m, m.readU(0)), low(value), high(value)));
};

const entry = (launch: 0 | 1): Semantics => (m) => {
  guard(m, launch ? EXIT_REASON.vmlaunch : EXIT_REASON.vmresume);
  m.advance();
  m.uses({ written: ALL_FLAGS });
  const status = m.f.call("vmentry", i32(launch));
  // Entered, or entered and left: RIP and all else is where it should be. Else the flags say why.
  m.f.if(status.eq(STATUS.failInvalid).or(status.eq(STATUS.failValid)), () => {
    setStatus(m, status);
  });
  m.serialize();
};

const vmxoff: Semantics = (m) => {
  guard(m, EXIT_REASON.vmxoff);
  m.f.call("vmxoff");
  setStatus(m, i32(STATUS.succeed));
};

/** In a guest it leaves whatever the mode and privilege; in root there is no SMM monitor to call. */
const vmcall: Semantics = (m) => {
  m.faultIf(cell(CPU.vmxMode).eqz(), UD, undefined, CHECK.off);
  leaveGuest(m, EXIT_REASON.vmcall, 0, "hypercall");
  checkMode(m);
  m.requirePrivilege(CHECK.privilege);
  setStatus(m, m.f.call("vmxFail", i32(1), i64(0)));
};

const vmfunc: Semantics = (m) => m.fault(UD, undefined, CHECK.function);

/** INVEPT, INVVPID: a type in a register, a descriptor of 16 bytes in memory. */
const invalidation = (name: string, reason: number): Semantics => (m) => {
  guard(m, reason, INFORMATION.two);
  const type = m.f.let(m.readU(0).zext());
  const linear = m.addressOf(1, 16, false);
  const first = m.loadLinear(64, linear);
  m.abortIfSet();
  const second = m.loadLinear(64, m.f.let(linear.add(8)));
  m.abortIfSet();
  setStatus(m, m.f.call(name, type, first, second));
};

const semantics: Record<string, Semantics> = {
  vmcall,
  vmfunc,
  vmxon,
  vmxoff,
  vmclear: withPointer("vmclear", EXIT_REASON.vmclear),
  vmptrld: withPointer("vmptrld", EXIT_REASON.vmptrld),
  vmptrst,
  vmread,
  vmwrite,
  vmlaunch: entry(1),
  vmresume: entry(0),
  invept: invalidation("invept", EXIT_REASON.invept),
  invvpid: invalidation("invvpid", EXIT_REASON.invvpid),
};

/** The group of the VMX instructions. */
export const vmxGroup = { semantics };
