/** Guest state that takes more than one field: reset, control registers, MSRs. */
import { MSR } from "../../abi/x86/msr.ts";
import { CR0, CR4, EFER } from "../../abi/x86/cr.ts";
import { ENTRY_CONTROL } from "../../abi/x86/vmx.ts";
import { POINTER_TABLE } from "../../machine/mmu/modes.ts";
import type { WideCell } from "../../machine/state.ts";
import { F, type VmxVcpu } from "./cpu.ts";
import { guestMachine } from "./paging.ts";
import { resetFloat } from "../switched.ts";
import { OWN_CR4 } from "./controls.ts";
import { loadsPdptes } from "../shadow.ts";
import { shadowControl, visible } from "./shadow.ts";

const PG = BigInt(CR0.PG), PAE = BigInt(CR4.PAE), NE = BigInt(CR0.NE);
const LME = BigInt(EFER.LME), LMA = BigInt(EFER.LMA);
/** Bits of CR0 that VM entry does not load: NW and CD. */
const CACHE = BigInt(CR0.NW | CR0.CD);

/** MSRs of a vCPU: a field of the VMCS, or the name of what stays in the processor. */
export const MSR_FIELDS: Readonly<Record<number, number | WideCell>> = {
  [MSR.SYSENTER_CS]: F.guestSysenterCs,
  [MSR.SYSENTER_ESP]: F.guestSysenterEsp,
  [MSR.SYSENTER_EIP]: F.guestSysenterEip,
  [MSR.DEBUGCTL]: F.guestDebugctl,
  [MSR.PAT]: F.guestPat,
  [MSR.EFER]: F.guestEfer,
  [MSR.STAR]: "star",
  [MSR.LSTAR]: "lstar",
  [MSR.CSTAR]: "cstar",
  [MSR.SFMASK]: "sfmask",
  [MSR.FS_BASE]: F.guestFsBase,
  [MSR.GS_BASE]: F.guestGsBase,
  [MSR.KERNEL_GS_BASE]: "kernelGsBase",
  [MSR.TSC_AUX]: "tscAux",
};

/** State after RESET (SDM 3 table 9-1), all registers; nested paging makes real mode possible. */
export function resetGuest(v: VmxVcpu): void {
  const { on } = v, { cpu } = on;
  v.gprs.fill(0);
  // EDX identifies the processor.
  v.gprs[4] = 0x600;
  for (const s of ["Es", "Cs", "Ss", "Ds", "Fs", "Gs", "Ldtr", "Tr"]) {
    on.write(F[`guest${s}Selector`], 0, 0);
    on.write(F[`guest${s}Base`], 0, 0);
    on.write(F[`guest${s}Limit`], 0xffff, 0);
    on.write(F[`guest${s}AccessRights`], s === "Ldtr" ? 0x82 : s === "Tr" ? 0x8b : 0x93, 0);
  }
  on.write(F.guestCsSelector, 0xf000, 0);
  on.write(F.guestCsBase, 0xffff_0000, 0);
  for (const s of ["Gdtr", "Idtr"]) {
    on.write(F[`guest${s}Base`], 0, 0);
    on.write(F[`guest${s}Limit`], 0xffff, 0);
  }
  for (const [name, value] of RESET) on.write64(F[name], value);
  setControlRegister(v, 0, 0x6000_0010n);
  setControlRegister(v, 4, 0n);
  for (const name of ["cr2", "cr8", "dr0", "dr1", "dr2", "dr3"] as const) cpu.set(name, 0n);
  for (const name of ["star", "lstar", "cstar", "sfmask", "kernelGsBase", "tscAux"] as const) {
    cpu.set(name, 0n);
  }
  cpu.set("dr6", 0xffff_0ff0n);
  cpu.set("xcr0", 1n);
  resetFloat(cpu);
}

const RESET: readonly (readonly [string, bigint])[] = [
  ["vmcsLinkPointer", -1n],
  ["guestRip", 0xfff0n],
  ["guestRsp", 0n],
  ["guestRflags", 2n],
  ["guestCr3", 0n],
  ["guestEfer", 0n],
  ["guestDr7", 0x400n],
  ["guestDebugctl", 0n],
  ["guestPat", 0x0007_0406_0007_0406n],
  ["guestSysenterCs", 0n],
  ["guestSysenterEsp", 0n],
  ["guestSysenterEip", 0n],
  ["guestActivity", 0n],
  ["guestInterruptibility", 0n],
  ["guestPendingDebug", 0n],
  ["entryInterruptionInformation", 0n],
];

/** Sets CR0, CR2, CR3, CR4 or CR8 as the guest is to see it, and what follows from it. */
export function setControlRegister(v: VmxVcpu, n: 0 | 2 | 3 | 4 | 8, value: bigint): void {
  const { on } = v;
  if (n === 2 || n === 8) return on.cpu.set(`cr${n}`, value);
  if (v.shadowed) return shadowControl.set(v, n, value);
  const old = n === 3 ? 0 : visible(v, n);
  if (n === 0) {
    on.write64(F.cr0ReadShadow, value);
    on.write64(F.guestCr0, value & ~CACHE | NE);
    setLongMode(v, (value & PG) !== 0n);
  } else if (n === 4) {
    on.write64(F.cr4ReadShadow, value);
    on.write64(F.guestCr4, value | BigInt(OWN_CR4));
  } else on.write64(F.guestCr3, value);
  if (loadsPdptes(n, old, Number(BigInt.asIntN(32, value)))) loadPdptes(v);
  // The guest's translations may be other ones now; entry compares what it can, not all.
  on.flush();
}

/** EFER.LMA follows CR0.PG and EFER.LME. */
function setLongMode(v: VmxVcpu, paging: boolean): void {
  const { on } = v;
  const efer = on.read64(F.guestEfer), long = paging && (efer & LME) !== 0n;
  on.write64(F.guestEfer, long ? efer | LMA : efer & ~LMA);
  const entry = on.read(F.entryControls);
  const bit = ENTRY_CONTROL.ia32eGuest;
  on.write(F.entryControls, long ? entry | bit : entry & ~bit, 0);
}

/** With PAE paging the page-directory pointers are loaded like a register. */
function loadPdptes(v: VmxVcpu): void {
  const { on } = v;
  const paging = on.read64(F.guestCr0) & PG, pae = on.read64(F.guestCr4) & PAE;
  if (!paging || !pae || on.read64(F.guestEfer) & LMA) return;
  const at = guestMachine(v, Number(on.read64(F.guestCr3) & POINTER_TABLE), 32);
  if (at < 0) return;
  const view = new DataView(on.cpu.machine.ram.buffer);
  for (let i = 0; i < 4; i++) on.write64(F[`guestPdpte${i}`], view.getBigUint64(at + 8 * i, true));
}
