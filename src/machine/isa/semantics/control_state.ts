/** Control registers and EFER: what may be written, and what follows (SDM 3 2.5, 4.1, 9.8.5). */
import { CPU, pdpte, V } from "../../state.ts";
import { cell, cell64, SERVICE, setCell64 } from "../../system.ts";
import { check } from "../../checks.ts";
import { type Expr, i32, i64, load } from "../../wasm/expr.ts";
import type { Module } from "../../wasm/module.ts";
import {
  attributesAt,
  callChecked,
  CS,
  failIf,
  leaveIfAborted,
  LINK,
  longMode,
} from "../../segmentation/descriptor.ts";
import { is64 } from "../../segmentation/linear.ts";
import { CR0, CR4, EFER } from "../../../abi/x86/cr.ts";

const CHECK = {
  cr0: check(
    "cr0.combination",
    "MOV to CR0: {a} has PG without PE, or NW without CD",
    "SDM 2 MOV CR",
  ),
  cr0Reserved: check("cr0.reserved", "MOV to CR0: {a} sets reserved bits above 31", "SDM 2 MOV CR"),
  pae: check(
    "cr0.pae",
    "CR0.PG is set with EFER.LME, but CR4 {a} has no PAE or CS.L is set",
    "SDM 2 MOV CR",
  ),
  leave64: check(
    "cr0.leave",
    "MOV to CR0: {a} clears PG in 64-bit mode or with CR4.PCIDE",
    "SDM 2 MOV CR",
  ),
  cr4Reserved: check(
    "cr4.reserved",
    "MOV to CR4: {a} sets bits that are reserved, of {b}",
    "SDM 2 MOV CR",
  ),
  cr4Pae: check("cr4.pae", "MOV to CR4: {a} clears PAE in IA-32e mode", "SDM 2 MOV CR"),
  cr4Pcide: check(
    "cr4.pcide",
    "MOV to CR4: {a} sets PCIDE outside IA-32e mode or with CR3[11:0] not 0",
    "SDM 2 MOV CR",
  ),
  cr3: check(
    "cr3.reserved",
    "MOV to CR3: {a} sets bits above the physical-address width",
    "SDM 2 MOV CR",
  ),
  pdpte: check("pdpte.reserved", "PAE: PDPTE {a} = {b} has a reserved bit set", "SDM 3 4.4.1"),
  cr8: check("cr8.reserved", "MOV to CR8: {a} sets bits above 3", "SDM 2 MOV CR"),
  efer: check(
    "efer.reserved",
    "WRMSR EFER: {a} sets bits that are reserved, of {b}",
    "SDM 3 2.2.1",
  ),
  lme: check("efer.lme", "WRMSR EFER: {a} changes LME while paging is on", "SDM 3 2.2.1"),
};

/** Bits of CR4 the machine knows; a processor model may have fewer (LINK.cr4Valid). */
const CR4_KNOWN = CR4.VME | CR4.PVI | CR4.TSD | CR4.DE | CR4.PSE | CR4.PAE | CR4.MCE | CR4.PGE |
  CR4.PCE | CR4.OSFXSR | CR4.OSXMMEXCPT | CR4.UMIP | CR4.VMXE | CR4.FSGSBASE | CR4.PCIDE |
  CR4.OSXSAVE | CR4.SMEP | CR4.SMAP;
const EFER_KNOWN = EFER.SCE | EFER.LME | EFER.LMA | EFER.NXE | EFER.SVME | EFER.LMSLE | EFER.FFXSR;

const valid = (at: number, known: number): Expr => cell64(at).when(cell64(at).nez(), i64(known));
/** Bits of CR4 and of EFER that can be set on this processor, as i64. */
export const cr4Allowed = (): Expr => valid(LINK.cr4Valid, CR4_KNOWN);
export const eferAllowed = (): Expr => valid(LINK.eferValid, EFER_KNOWN);

/** Paging with PAE outside IA-32e mode: CR3 points to four PDPTEs held in registers. */
const paePaging = (cr0: Expr, cr4: Expr): Expr =>
  cr0.shrU(31).and(cr4.shrU(5)).and(1).and(longMode().eqz()).and(cell(V.pdptesInMemory).eqz());

function buildPdptes(m: Module): void {
  // readPdptes(cr3): the four entries into V.pdptes; #GP(0) for a reserved bit in a present one.
  m.func("readPdptes", ["i64"], [], (f, cr3) => {
    const table = f.let(cr3.and(0xffff_ffe0n));
    // Bits 1, 2, 5 to 8 and those above MAXPHYADDR are reserved.
    const reserved = f.let(cell64(V.reservedHigh).or(0xfff0_0000_0000_01e6n));
    for (let n = 0; n < 4; n++) {
      const at = f.call("nested", table.add(8 * n), i32(0), i64(-1));
      leaveIfAborted(f);
      const entry = f.call("physicalLoad64", at);
      leaveIfAborted(f);
      const bad = entry.and(1).nez().and(entry.and(reserved).nez());
      failIf(f, bad, 13, 0, CHECK.pdpte, i64(n), entry);
      setCell64(f, V.pdptes + 8 * n, entry);
    }
  });
  m.func("setPdptes", [], [], (f) => {
    for (let n = 0; n < 4; n++) setCell64(f, pdpte(n), cell64(V.pdptes + 8 * n));
  });
  // For a task switch: checks before its point of no return; loadCr3 does the rest.
  m.func("checkPdptes", ["i64"], [], (f, cr3) => {
    const pae = paePaging(cell(CPU.cr0), cell(CPU.cr4));
    f.if(pae, () => f.call("readPdptes", cr3));
  });
  m.func("loadCr3", ["i64"], [], (f, cr3) => {
    f.if(paePaging(cell(CPU.cr0), cell(CPU.cr4)), () => f.call("setPdptes"));
    setCell64(f, CPU.cr3, cr3);
    f.call("flushTlb");
  });
}

function buildCr0(m: Module): void {
  m.func("writeCr0", ["i64"], [], (f, value) => {
    const low = f.let(value.wrap()), old = f.let(cell(CPU.cr0)), cr4 = f.let(cell(CPU.cr4));
    failIf(f, is64().and(value.shrU(32).nez()), 13, 0, CHECK.cr0Reserved, value);
    const pg = low.shrU(31), pe = low.and(1);
    const wrong = pg.and(pe.eqz()).or(low.shrU(29).and(1).and(low.shrU(30).and(1).eqz()));
    failIf(f, wrong, 13, 0, CHECK.cr0, value);
    // ET is fixed to 1; undefined bits read as 0.
    const now = f.let(low.and(0xe005_003f | 0).or(CR0.ET));
    const efer = f.let(cell(CPU.efer));
    const paging = f.let(now.shrU(31).sub(old.shrU(31)));
    const lme = efer.shrU(8).and(1);
    f.if(paging.eq(1), () => {
      f.if(lme, () => {
        const bad = cr4.and(CR4.PAE).eqz().or(attributesAt(CS).shrU(13).and(1));
        failIf(f, bad, 13, 0, CHECK.pae, cr4);
      }, () => {
        const inRegisters = cr4.and(CR4.PAE).nez().and(cell(V.pdptesInMemory).eqz());
        f.if(inRegisters, () => callChecked(f, "readPdptes", cell64(CPU.cr3)));
      });
    });
    f.if(paging.eq(-1), () => {
      const bad = is64().or(cr4.shrU(17).and(1));
      failIf(f, bad, 13, 0, CHECK.leave64, value);
    });
    // Changes of CD, NW and PG load the PDPTEs again (SDM 3 4.4.1).
    const reload = f.let(
      paging.eqz().and(now.shrU(31)).and(old.xor(now).and(0x6000_0000).nez()).and(
        paePaging(now, cr4),
      ),
    );
    f.if(reload, () => callChecked(f, "readPdptes", cell64(CPU.cr3)));
    const pae = f.let(
      cr4.and(CR4.PAE).nez().and(lme.eqz()).and(cell(V.pdptesInMemory).eqz()),
    );
    f.if(reload.or(paging.eq(1).and(pae)), () => f.call("setPdptes"));
    f.if(paging.eq(1).and(lme), () => setCell64(f, CPU.efer, cell64(CPU.efer).or(EFER.LMA)));
    f.if(paging.eq(-1), () => setCell64(f, CPU.efer, cell64(CPU.efer).and(~BigInt(EFER.LMA))));
    setCell64(f, CPU.cr0, now.zext());
    f.if(old.xor(now).and(0x8001_0001 | 0), () => f.call("flushTlb"));
  });
}

function buildCr3(m: Module): void {
  m.func("writeCr3", ["i64"], [], (f, value) => {
    const pcide = cell(CPU.cr4).shrU(17).and(1);
    const clean = f.let(value.and(~(1n << 63n)).when(pcide, value));
    f.if(longMode(), () => {
      const high = clean.and(cell64(V.reservedHigh).or(~0xf_ffff_ffff_ffffn));
      failIf(f, high.nez(), 13, 0, CHECK.cr3, value);
    });
    f.if(paePaging(cell(CPU.cr0), cell(CPU.cr4)), () => callChecked(f, "readPdptes", clean));
    f.call("loadCr3", clean);
  });
}

function buildCr4(m: Module): void {
  m.func("writeCr4", ["i64"], [], (f, value) => {
    const allowed = f.let(cr4Allowed());
    const old = f.let(cell(CPU.cr4)), now = f.let(value.wrap());
    const reserved = value.and(allowed.not()).nez();
    failIf(f, reserved, 13, 0, CHECK.cr4Reserved, value, allowed);
    failIf(f, longMode().and(now.and(CR4.PAE).eqz()), 13, 0, CHECK.cr4Pae, value);
    const pcide = now.and(old.not()).and(CR4.PCIDE).nez();
    const low = cell64(CPU.cr3).and(0xfff).nez();
    failIf(f, pcide.and(longMode().eqz().or(low)), 13, 0, CHECK.cr4Pcide, value);
    const changed = f.let(old.xor(now));
    const reload = f.let(
      changed.and(CR4.PAE | CR4.PGE | CR4.PSE | CR4.SMEP).nez().and(paePaging(cell(CPU.cr0), now)),
    );
    f.if(reload, () => {
      callChecked(f, "readPdptes", cell64(CPU.cr3));
      f.call("setPdptes");
    });
    setCell64(f, CPU.cr4, value);
    const flushing = CR4.PSE | CR4.PAE | CR4.PGE | CR4.PCIDE | CR4.SMEP | CR4.SMAP;
    f.if(changed.and(flushing), () => f.call("flushTlb"));
  });
  m.func("writeCr8", ["i64"], [], (f, value) => {
    failIf(f, value.gtU(15), 13, 0, CHECK.cr8, value);
    setCell64(f, CPU.cr8, value);
    // A guest of SVM may have a virtual priority.
    if (m.has("priorityIsVirtual")) f.if(f.call("priorityIsVirtual"), () => f.return());
    // The local APIC's task priority, where the processor is the guest's own.
    f.call("service", SERVICE.priority, value.wrap());
  });
}

function buildEfer(m: Module): void {
  m.func("writeEfer", ["i64"], [], (f, value) => {
    const allowed = f.let(eferAllowed());
    failIf(f, value.and(allowed.not()).nez(), 13, 0, CHECK.efer, value, allowed);
    const old = f.let(cell64(CPU.efer));
    const changed = f.let(old.xor(value).wrap());
    const paging = cell(CPU.cr0).shrU(31);
    failIf(f, paging.and(changed.shrU(8)).and(1), 13, 0, CHECK.lme, value);
    // LMA is the processor's own.
    setCell64(f, CPU.efer, value.and(~BigInt(EFER.LMA)).or(old.and(EFER.LMA)));
    f.if(changed.and(EFER.NXE), () => f.call("flushTlb"));
  });
}

/** Functions `writeCr0/3/4/8(value)`, `writeEfer(value)`, `loadCr3`, `checkPdptes`. */
export function buildControlState(m: Module): void {
  buildPdptes(m);
  buildCr0(m);
  buildCr3(m);
  buildCr4(m);
  buildEfer(m);
}

/**
 * The time-stamp counter: instructions retired and IA32_TSC_ADJUST, for a guest by the ratio in force
 * (8.32 bits, APM 2 15.30.5) and with its offset.
 */
export function timeStamp(): Expr {
  const host = hostTimeStamp();
  const ratio = cell64(V.tscRatio), fraction = ratio.and(0xffff_ffffn);
  const scaled = host.mul(ratio.shrU(32)).add(host.shrU(32).mul(fraction))
    .add(host.and(0xffff_ffffn).mul(fraction).shrU(32));
  return scaled.when(ratio.nez(), host).add(cell64(CPU.tscOffset));
}

/** The counter itself, as it is without a guest's ratio and offset. */
export function hostTimeStamp(): Expr {
  const retired = load("i64", 32, "u", i32(0), V.slice).sub(load("i64", 32, "u", i32(0), V.left));
  return cell64(V.countBase).add(retired).add(cell64(CPU.tscAdjust));
}
