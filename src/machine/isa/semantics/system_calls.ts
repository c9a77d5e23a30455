/** SYSENTER, SYSEXIT, SYSCALL, SYSRET, SWAPGS (SDM 2, SDM 3 5.8.7, 5.8.8; APM 2 6.1). */
import { RCX, RDX, RSP } from "../../../abi/x86/registers.ts";
import { VECTOR } from "../../../abi/x86/vectors.ts";
import { CPU, SEGMENT, V } from "../../state.ts";
import { cell, cell64, setCell, setCell64 } from "../../linkage.ts";
import { check } from "../../checks.ts";
import { asAmd } from "../../vendors.ts";
import { type Expr, i32, i64 } from "../../wasm/expr.ts";
import { EFER, RFLAGS } from "../../../abi/x86/cr.ts";
import { CS, setSegment, SS } from "../../system/segmentation/descriptor.ts";
import type { Meaning, Semantics } from "./meaning.ts";
import { undefinedIf } from "./system_helpers.ts";
import { is64, isCanonical, longMode, protectedMode } from "../../mode.ts";

const R11 = 11;

const CHECK = {
  disabled: check(
    "syscall.disabled",
    "SYSCALL or SYSRET with EFER.SCE clear or in real mode",
    "SDM 2 SYSCALL",
  ),
  real: check("sysenter.mode", "SYSENTER or SYSEXIT in real mode", "SDM 2 SYSENTER"),
  selector: check("sysenter.cs", "IA32_SYSENTER_CS {a} is null", "SDM 2 SYSENTER"),
  canonical: check(
    "sysexit.canonical",
    "the address to return to, {a}, is not canonical",
    "SDM 2 SYSEXIT",
  ),
};

/** Attributes of the flat segments these instructions load. */
const ATTRIBUTES = { code32: 0xc09b, code64: 0xa09b, data: 0xc093 } as const;

function setFlat(m: Meaning, place: number, selector: Expr, attributes: Expr): void {
  setSegment(m.f, i32(place), m.f.let(selector), i64(0), i32(-1), attributes);
}
function setCodeAndStack(
  m: Meaning,
  code: Expr,
  stack: Expr,
  level: 0 | 3,
  long: Expr,
): void {
  const dpl = level << 5;
  const attributes = i32(ATTRIBUTES.code64 | dpl).when(long, i32(ATTRIBUTES.code32 | dpl));
  setFlat(m, CS, code, m.f.let(attributes));
  setFlat(m, SS, stack, i32(ATTRIBUTES.data | dpl));
}

const notInLongMode = (m: Meaning) => undefinedIf(m, asAmd("sysenter.long").and(longMode()));

function sysenter(m: Meaning): void {
  notInLongMode(m);
  m.requireProtected(protectedMode().eqz(), CHECK.real);
  const f = m.f, selector = f.let(cell(CPU.sysenterCs).and(0xfffc));
  m.faultIf(selector.eqz(), VECTOR.GP, 0, CHECK.selector, selector);
  const long = f.let(longMode());
  m.commit();
  const mask = f.let(i64(-1).when(long, i64(0xffff_ffffn)));
  setCodeAndStack(m, selector, selector.add(8), 0, long);
  m.setGpr(RSP, 64, cell64(CPU.sysenterEsp).and(mask));
  m.resumeAt(cell64(CPU.sysenterEip).and(mask));
  m.setSystemFlags(0, RFLAGS.VM | RFLAGS.IF | RFLAGS.RF);
  m.serialize();
}

function sysexit(m: Meaning): void {
  m.requireProtected(protectedMode().eqz(), CHECK.real);
  m.requirePrivilege();
  notInLongMode(m);
  const f = m.f, selector = f.let(cell(CPU.sysenterCs).and(0xfffc));
  m.faultIf(selector.eqz(), VECTOR.GP, 0, CHECK.selector, selector);
  const long = m.form.operandSize === 64;
  const ip = f.let(m.gpr(RDX, 64)), stack = f.let(m.gpr(RCX, 64));
  if (long) {
    m.faultIf(isCanonical(ip).eqz(), VECTOR.GP, 0, CHECK.canonical, ip);
    m.faultIf(isCanonical(stack).eqz(), VECTOR.GP, 0, CHECK.canonical, stack);
  }
  m.commit();
  const code = selector.add(long ? 32 : 16).or(3);
  setCodeAndStack(m, code, selector.add(long ? 40 : 24).or(3), 3, i32(long ? 1 : 0));
  const mask = long ? -1n : 0xffff_ffffn;
  m.setGpr(RSP, 64, stack.and(mask));
  m.resumeAt(ip.and(mask));
  m.serialize();
}

const legacyAllowed = (): Expr => asAmd("syscall.legacy");

/** The single-step trap follows if TF is set at the end of the instruction, not at its start. */
const trapAfter = (m: Meaning) => setCell(m.f, V.stepping, m.systemFlags(RFLAGS.TF));

function syscall(m: Meaning): void {
  const f = m.f;
  m.requireProtected(cell(CPU.efer).and(EFER.SCE).eqz().or(protectedMode().eqz()), CHECK.disabled);
  undefinedIf(m, is64().eqz().and(legacyAllowed().eqz()));
  const star = f.let(cell64(CPU.star));
  const code = f.let(star.shrU(32).wrap().and(0xfffc));
  const flags = f.let(m.flagsImage());
  m.commit();
  const next = f.let(m.nextIp);
  f.if(longMode(), () => {
    const wide = is64();
    m.resumeAt(cell64(CPU.lstar).when(wide, cell64(CPU.cstar)));
    m.setGpr(RCX, 64, next);
    m.setGpr(R11, 64, flags.and(~RFLAGS.RF).zext());
    m.setFlagsImage(flags.and(cell(CPU.sfmask).or(RFLAGS.RF).not()).or(RFLAGS.fixed));
    setCodeAndStack(m, code, code.add(8), 0, i32(1));
  }, () => {
    m.setGpr(RCX, 32, next.wrap());
    m.resumeAt(star.and(0xffff_ffffn));
    m.setSystemFlags(0, RFLAGS.VM | RFLAGS.IF | RFLAGS.RF);
    setCodeAndStack(m, code, code.add(8), 0, i32(0));
  });
  trapAfter(m);
  m.serialize();
}

function sysret(m: Meaning): void {
  const f = m.f;
  m.requireProtected(cell(CPU.efer).and(EFER.SCE).eqz().or(protectedMode().eqz()), CHECK.disabled);
  undefinedIf(m, is64().eqz().and(legacyAllowed().eqz()));
  m.requirePrivilege();
  const long = m.form.operandSize === 64;
  const ip = f.let(m.gprU(RCX, 64));
  // AMD's return first: the fetch faults, with CPL 3.
  if (long) {
    const bad = isCanonical(ip).or(asAmd("sysret.canonical")).eqz();
    m.faultIf(bad, VECTOR.GP, 0, CHECK.canonical, ip);
  }
  const flags = f.let(m.flagsImage(""));
  m.commit();
  const base = f.let(cell64(CPU.star).shrU(48).wrap().and(0xffff));
  m.resumeAt(long ? ip : ip.and(0xffff_ffffn));
  f.if(longMode(), () => {
    m.setFlagsImage(m.gprU(R11, 64).wrap().and(0x3c_7fd7).or(RFLAGS.fixed));
  }, () => m.setFlagsImage(flags.or(RFLAGS.IF)));
  const code = base.add(long ? 16 : 0).or(3);
  // What of SS stays as it was where only the selector changes: all but DPL, which is CPL here.
  const kept = SEGMENT.attributes + SS, old = f.let(cell(kept));
  const [oldBase, oldLimit] = [f.let(cell64(SS)), f.let(cell(SS + SEGMENT.limit))];
  setCodeAndStack(m, code, base.add(8).or(3), 3, i32(long ? 1 : 0));
  f.if(asAmd("sysret.ss"), () => {
    setCell(f, kept, old.or(0x60));
    setCell64(f, SS, oldBase);
    setCell(f, SS + SEGMENT.limit, oldLimit);
  });
  trapAfter(m);
  m.serialize();
}

export const callSemantics: Record<string, Semantics> = {
  sysenter,
  sysexit,
  syscall,
  sysret,
  swapgs: (m) => {
    m.requirePrivilege();
    const old = m.f.let(cell64(CPU["gs.base"]));
    m.commit();
    setCell64(m.f, CPU["gs.base"], cell64(CPU.kernelGsBase));
    setCell64(m.f, CPU.kernelGsBase, old);
  },
};
