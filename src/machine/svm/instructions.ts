/** The SVM instructions (APM 3): checks and operands around the operations of module S. */
import { VECTOR } from "../../abi/x86/vectors.ts";
import { check } from "../checks.ts";
import { CR0, EFER } from "../../abi/x86/cr.ts";
import { CPU, V } from "../state.ts";
import { cell, cell64, noteFault, setCell } from "../linkage.ts";
import { type Expr, i32, i64 } from "../wasm/expr.ts";
import type { Local } from "../wasm/module.ts";
import { ALL_FLAGS, type Meaning, type Semantics } from "../isa/semantics/meaning.ts";
import { STATUS } from "./entry.ts";
import { INSTRUCTION } from "./intercept.ts";

const CHECK = {
  off: check("svm.off", "an SVM instruction with EFER.SVME 0", "APM 2 15.4"),
  mode: check("svm.mode", "an SVM instruction in real or virtual-8086 mode", "APM 3"),
  privilege: check("svm.privilege", "an SVM instruction at CPL {a}", "APM 3"),
  vmmcall: check("svm.vmmcall", "VMMCALL that no hypervisor intercepts", "APM 3 VMMCALL"),
  skinit: check(
    "svm.skinit",
    "SKINIT: this processor has no secure initialization",
    "APM 3 SKINIT",
  ),
};

const { UD, GP } = VECTOR, RAX = 0, RCX = 1;

/** What all but VMMCALL share: #UD and #GP, then the intercept. */
function guard(m: Meaning, name: keyof typeof INSTRUCTION): void {
  m.faultIf(cell64(CPU.efer).and(EFER.SVME).eqz(), UD, undefined, CHECK.off);
  const real = cell(CPU.cr0).and(CR0.PE).eqz().or(m.virtual8086());
  m.requireProtected(real, CHECK.mode);
  m.requirePrivilege(CHECK.privilege);
  m.intercept("svm", i64(INSTRUCTION[name]));
}

/** rAX in the width of the address size. */
const address = (m: Meaning): Local => m.f.let(m.pointer(RAX, m.addressMask()));

const low = (value: Expr) => value.wrap();
const high = (value: Expr) => value.shrU(32).wrap();

/** #GP by a check that is known at run time only. */
function protectionFault(m: Meaning): void {
  const id = m.f.let(cell(V.check));
  const a = m.f.let(cell64(V.checkA)), b = m.f.let(cell64(V.checkB));
  noteFault(m.f, GP, 0, 0, a, b);
  setCell(m.f, V.check, id);
  m.abort();
}

const move = (name: "vmload" | "vmsave"): Semantics => (m) => {
  guard(m, name);
  const pa = address(m);
  m.f.if(m.f.call(name, low(pa), high(pa)), () => protectionFault(m));
  m.finish();
};

const vmrun: Semantics = (m) => {
  guard(m, "vmrun");
  const pa = address(m);
  // The host goes on behind the instruction.
  m.advance();
  m.uses({ written: ALL_FLAGS });
  const status = m.f.call("vmrun", low(pa), high(pa));
  m.f.if(status.eq(STATUS.protection), () => {
    protectionFault(m);
  });
  m.serialize();
};

const setGif = (value: 0 | 1): Semantics => (m) => {
  guard(m, value ? "stgi" : "clgi");
  m.f.call("setGif", i32(value));
  m.finish();
};

const invlpga: Semantics = (m) => {
  guard(m, "invlpga");
  const linear = address(m);
  m.f.call("invlpga", low(linear), high(linear), m.gprU(RCX, 32));
  m.finish();
};

const semantics: Record<string, Semantics> = {
  vmrun,
  vmload: move("vmload"),
  vmsave: move("vmsave"),
  stgi: setGif(1),
  clgi: setGif(0),
  invlpga,
  // CPUID does not show it: undefined before anybody can intercept it.
  skinit: (m) => m.fault(UD, undefined, CHECK.skinit),
  // In a guest it leaves whatever the mode and privilege.
  vmmcall: (m) => {
    m.intercept("hypercall");
    m.fault(UD, undefined, CHECK.vmmcall);
  },
};

/** The group of the SVM instructions. */
export const svmGroup = { semantics };
