/** Control and debug registers, and the flags that decide about interrupts (SDM 2, SDM 3 20.3). */
import { VECTOR } from "../../../abi/x86/vectors.ts";
import { CPU, debugRegister, INTERRUPTIBILITY, V } from "../../state.ts";
import { cell, cell64, setCell, setCell64 } from "../../linkage.ts";
import { check } from "../../checks.ts";
import { type Expr, i32, i64 } from "../../wasm/expr.ts";
import type { Local } from "../../wasm/module.ts";
import { CR0, CR4, DR6, DR7, RFLAGS } from "../../../abi/x86/cr.ts";
import { FLAGS_ALWAYS } from "../../system/segmentation/iret.ts";
import type { Meaning, Semantics } from "./meaning.ts";
import { eventsWait, undefinedIf } from "./system_helpers.ts";
import { protectedMode } from "../../mode.ts";

const CHECK = {
  iopl: check("iopl", "CPL {a} is above IOPL {b}", "SDM 2 CLI, STI"),
  v86: check(
    "v86.iopl",
    "virtual-8086 mode: the instruction needs IOPL 3, it is {a}",
    "SDM 3 20.2.7",
  ),
  vip: check(
    "vme.vip",
    "the new flags {a} enable virtual interrupts while VIP is set",
    "SDM 3 20.3.3",
  ),
  tf: check("vme.tf", "the new flags {a} set TF with CR4.VME and IOPL below 3", "SDM 2 IRET, POPF"),
  detect: check("dr7.gd", "an access to a debug register while DR7.GD is set", "SDM 3 17.2.4"),
  high: check("dr.high", "MOV to DR{a}: {b} sets bits above 31", "SDM 2 MOV DR"),
};

const wide = (m: Meaning, value: Expr, i: number) => m.type(i) === "i64" ? value : value.wrap();

/** What a guest sees of CR0 and CR4: its host may show something else. */
function shown(m: Meaning, n: Expr, value: Local): void {
  if (!m.f.module.has("crShadow")) return;
  m.f.if(cell(V.nonRoot), () => m.f.set(value, m.f.call("crShadow", n, value)));
}
/** What a guest may write of CR0 and CR4: the host's bits stay. */
function allowed(m: Meaning, n: Expr, old: Expr, value: Local): void {
  if (!m.f.module.has("crMasked")) return;
  m.f.if(cell(V.nonRoot), () => m.f.set(value, m.f.call("crMasked", n, old, value)));
}

const REGISTERS = [0, 2, 3, 4, 8] as const;

function checkNumber(m: Meaning, n: Local): void {
  const known = REGISTERS.reduce<number>((set, r) => set | 1 << r, 0);
  undefinedIf(m, i32(known).shrU(n).and(1).eqz());
}

function readControl(m: Meaning): void {
  const n = m.f.let(m.number(1));
  checkNumber(m, n);
  m.requirePrivilege();
  m.intercept("cr", n.or(0x10).or(m.registerNumber(0).shl(8)).zext());
  const value = m.f.local("i64");
  for (const r of REGISTERS) m.f.if(n.eq(r), () => m.f.set(value, cell64(CPU[`cr${r}`])));
  shown(m, n, value);
  m.write(0, wide(m, value, 0));
}

function writeControl(m: Meaning): void {
  const f = m.f, n = f.let(m.number(0));
  checkNumber(m, n);
  m.requirePrivilege();
  m.intercept("cr", n.or(m.registerNumber(1).shl(8)).zext());
  const value = f.let(m.readU(1).zext());
  f.if(n.eqz(), () => allowed(m, n, cell64(CPU.cr0), value));
  f.if(n.eq(4), () => allowed(m, n, cell64(CPU.cr4), value));
  f.if(n.eq(2), () => setCell64(f, CPU.cr2, value));
  for (const r of [0, 3, 4, 8]) f.if(n.eq(r), () => f.call(`writeCr${r}`, value));
  m.abortIfSet();
  m.finish();
}

/** DR4 and DR5 are DR6 and DR7 unless CR4.DE says that they do not exist (SDM 3 17.2.2). */
function debugNumber(m: Meaning, i: number): Local {
  const n = m.f.let(m.number(i));
  const alias = n.and(0xe).eq(4);
  undefinedIf(m, n.gtU(7));
  m.requirePrivilege();
  undefinedIf(m, alias.and(cell(CPU.cr4).and(CR4.DE).nez()));
  return n;
}
function generalDetect(m: Meaning): void {
  m.f.if(cell64(CPU.dr7).and(BigInt(DR7.GD)).nez(), () => {
    setCell64(m.f, CPU.pendingDebug, cell64(CPU.pendingDebug).or(DR6.BD));
    m.fault(VECTOR.DB, undefined, CHECK.detect);
  });
}
const DEBUG = [0, 1, 2, 3, 6, 7] as const;

function readDebug(m: Meaning): void {
  const n = debugNumber(m, 1);
  m.intercept("dr", n.or(0x10).or(m.registerNumber(0).shl(8)).zext());
  generalDetect(m);
  const value = m.f.local("i64");
  m.f.set(n, n.or(n.shrU(1).and(2)));
  for (const r of DEBUG) m.f.if(n.eq(r), () => m.f.set(value, cell64(debugRegister(r))));
  m.write(0, wide(m, value, 0));
}

function writeDebug(m: Meaning): void {
  const f = m.f, n = debugNumber(m, 0);
  m.intercept("dr", n.or(m.registerNumber(1).shl(8)).zext());
  generalDetect(m);
  const value = f.let(m.readU(1).zext());
  f.set(n, n.or(n.shrU(1).and(2)));
  const high = n.gtU(3).and(value.shrU(32).nez());
  m.faultIf(high, VECTOR.GP, 0, CHECK.high, n, value);
  f.if(n.eq(6), () => f.set(value, value.and(0xe00f).or(BigInt(DR6.fixed))));
  f.if(n.eq(7), () => f.set(value, value.and(0xffff_23ffn).or(DR7.fixed)));
  for (const r of DEBUG) f.if(n.eq(r), () => setCell64(f, debugRegister(r), value));
  m.finish();
}

function storeStatusWord(m: Meaning): void {
  m.requireGuard();
  // A read of CR0 that is no MOV: bit 7.
  m.intercept("cr", i64(0x90));
  const value = m.f.let(cell64(CPU.cr0));
  shown(m, i32(0), value);
  m.write(0, wide(m, value, 0));
}

/** What of CR0 LMSW writes; PE can be set, not cleared. */
const STATUS_WORD = CR0.PE | CR0.MP | CR0.EM | CR0.TS;

function loadStatusWord(m: Meaning): void {
  m.requirePrivilege();
  const f = m.f, source = f.let(m.readU(0).and(0xffff));
  const memory = m.isMemory(0) ? 0x40 : 0;
  m.intercept("cr", source.shl(16).or(0x30 | memory).zext());
  const old = f.let(cell64(CPU.cr0));
  const value = f.let(
    old.and(BigInt(~(CR0.MP | CR0.EM | CR0.TS))).or(source.and(STATUS_WORD).zext()),
  );
  allowed(m, i32(0), old, value);
  m.callChecked("writeCr0", value);
  m.finish();
}

function clearTaskSwitched(m: Meaning): void {
  m.requirePrivilege();
  m.intercept("cr", i64(0x20));
  const value = m.f.let(cell64(CPU.cr0).and(~BigInt(CR0.TS)));
  allowed(m, i32(0), cell64(CPU.cr0), value);
  m.commit();
  setCell64(m.f, CPU.cr0, value);
  m.finish();
}

// --- CLI, STI ---

/** Which flag the instruction may change: runs `real` for IF, `virtual` for VIF, or faults. */
function interruptFlag(m: Meaning, real: () => void, virtual: () => void): void {
  const f = m.f, vm = f.let(protectedMode().and(m.virtual8086()));
  const level = f.let(m.iopl()), cpl = f.let(cell(V.cpl));
  f.if(protectedMode().eqz().or(cpl.leU(level)), real, () => {
    const vme = cell(CPU.cr4).and(CR4.VME).nez(), pvi = cell(CPU.cr4).and(CR4.PVI).nez();
    const isVirtual = vme.when(vm, pvi.and(cpl.eq(3)));
    f.if(isVirtual, virtual, () => m.fault(VECTOR.GP, 0, CHECK.iopl, cpl, level));
  });
}

function clearInterrupts(m: Meaning): void {
  interruptFlag(m, () => m.setSystemFlags(0, RFLAGS.IF), () => m.setSystemFlags(0, RFLAGS.VIF));
  m.commit();
}

function setInterrupts(m: Meaning): void {
  const f = m.f;
  interruptFlag(m, () => {
    f.if(m.systemFlags(RFLAGS.IF).eqz(), () => {
      m.setSystemFlags(RFLAGS.IF, 0);
      // The shadow lasts one instruction; nobody can tell unless something waits or the budget ends.
      f.if(eventsWait().or(cell(V.left).eqz()), () => {
        setCell(f, CPU.interruptibility, cell(CPU.interruptibility).or(INTERRUPTIBILITY.sti));
        m.advance();
        m.serialize();
      });
    });
  }, () => {
    const pending = f.let(m.systemFlags(RFLAGS.VIP));
    f.if(pending, () => m.fault(VECTOR.GP, 0, CHECK.vip, pending));
    m.setSystemFlags(RFLAGS.VIF, 0);
  });
  m.commit();
}

// --- PUSHF, POPF ---

/** 1 in virtual-8086 mode with IOPL below 3: PUSHF and POPF fault, or VME helps. */
function restricted(m: Meaning): Expr {
  return protectedMode().and(m.virtual8086()).and(m.iopl().ltU(3));
}

function pushFlags(m: Meaning): void {
  const f = m.f, bits = m.form.operandSize;
  m.intercept("pushf");
  const low = f.let(restricted(m));
  const vme = bits === 16 ? cell(CPU.cr4).and(CR4.VME).eqz() : i32(1);
  m.faultIf(low.and(vme), VECTOR.GP, 0, CHECK.v86, m.iopl());
  const image = f.let(m.flagsImage().and(0xfc_ffff));
  if (bits === 16) {
    const virtual = image.and(~RFLAGS.IF).or(image.shrU(10).and(RFLAGS.IF)).or(RFLAGS.IOPL);
    f.if(low, () => f.set(image, virtual));
  }
  m.push(bits, bits === 64 ? image.zext() : image);
}

function popFlags(m: Meaning): void {
  const f = m.f, bits = m.form.operandSize;
  m.intercept("popf");
  const low = f.let(restricted(m));
  const vme = bits === 16 ? cell(CPU.cr4).and(CR4.VME).eqz() : i32(1);
  m.faultIf(low.and(vme), VECTOR.GP, 0, CHECK.v86, m.iopl());
  const value = f.let(m.stackRead(bits).wrap());
  const always = bits === 16 ? FLAGS_ALWAYS : FLAGS_ALWAYS | RFLAGS.AC | RFLAGS.ID | RFLAGS.RF;
  const mask = f.let(i32(always));
  f.if(low, () => {
    const pending = value.and(RFLAGS.IF).nez().and(m.systemFlags(RFLAGS.VIP).nez());
    m.faultIf(pending, VECTOR.GP, 0, CHECK.vip, value);
    m.faultIf(value.and(RFLAGS.TF).nez(), VECTOR.GP, 0, CHECK.tf, value);
    f.set(mask, mask.or(RFLAGS.VIF));
    f.set(value, value.and(~RFLAGS.VIF).or(value.and(RFLAGS.IF).shl(10)));
  }, () => {
    f.if(cell(V.cpl).leU(m.iopl()), () => f.set(mask, mask.or(RFLAGS.IF)));
    f.if(cell(V.cpl).eqz(), () => f.set(mask, mask.or(RFLAGS.IOPL)));
  });
  const old = f.let(m.flagsImage(""));
  m.dropStack(bits / 8);
  // RF is cleared whatever was popped.
  const now = f.let(old.and(mask.not()).or(value.and(~RFLAGS.RF).and(mask)));
  m.setFlagsImage(now);
  const enabled = now.and(old.not()).and(RFLAGS.IF).nez().and(eventsWait().nez());
  const changed = old.xor(now).and(RFLAGS.TF | RFLAGS.AC | RFLAGS.RF).nez();
  m.finishIf(f.let(enabled.or(changed).or(now.and(RFLAGS.TF).nez())));
}

export const controlSemantics: Record<string, Semantics> = {
  "mov.cr": (m) => m.form.operands[0] === "n" ? writeControl(m) : readControl(m),
  "mov.dr": (m) => m.form.operands[0] === "n" ? writeDebug(m) : readDebug(m),
  smsw: storeStatusWord,
  lmsw: loadStatusWord,
  clts: clearTaskSwitched,
  cli: clearInterrupts,
  sti: setInterrupts,
  pushf: pushFlags,
  popf: popFlags,
  clac: (m) => {
    m.requirePrivilege();
    m.commit();
    m.setSystemFlags(0, RFLAGS.AC);
    m.finish();
  },
  stac: (m) => {
    m.requirePrivilege();
    m.commit();
    m.setSystemFlags(RFLAGS.AC, 0);
    m.finish();
  },
};
