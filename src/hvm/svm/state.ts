/** Guest state that takes more than one field: segments, control registers, MSRs, reset. */
import { CR0, DR7, EFER } from "../../abi/x86/cr.ts";
import { MSR } from "../../abi/x86/msr.ts";
import { attributesFromVmcb, attributesToVmcb, VMCB_ATTRIBUTE } from "../../abi/x86/vmcb.ts";
import { V, type WideCell } from "../../machine/state.ts";
import { GUEST, type Segment, type SegmentRegister, segmentRegisters } from "../ops.ts";
import { guestWord } from "../shadow.ts";
import { F, OWN, type SvmVcpu } from "./cpu.ts";
import { shadowControl, visible } from "./shadow.ts";
import { resetFloat } from "../switched.ts";

const PG = BigInt(CR0.PG), SVME = BigInt(EFER.SVME), LME = BigInt(EFER.LME), LMA = BigInt(EFER.LMA);

/** In 64-bit mode now. */
export function is64(v: SvmVcpu): boolean {
  return (v.words[F.efer >> 2] & EFER.LMA) !== 0 &&
    (v.read16(F.csAttributes) & VMCB_ATTRIBUTE.long) !== 0;
}

/** Made once: where a vCPU stands is noted at the end of each of its turns. */
const SEGMENT_FIELDS = Object.fromEntries(segmentRegisters.map((name) => [name, {
  selector: F[`${name}Selector`],
  base: F[`${name}Base`],
  limit: F[`${name}Limit`],
  attributes: F[`${name}Attributes`],
}])) as Record<SegmentRegister, Record<keyof Segment, number>>;

export function getSegment(v: SvmVcpu, name: SegmentRegister): Segment {
  const fields = SEGMENT_FIELDS[name];
  let attributes = attributesFromVmcb(v.read16(fields.attributes));
  // The privilege level has a field of its own, and SS's follows it; a null SS has nothing else.
  if (name === "ss") attributes = attributes & ~0x60 | v.read8(F.cpl) << 5;
  return {
    selector: v.read16(fields.selector),
    base: v.read64(fields.base),
    limit: v.read(fields.limit) >>> 0,
    attributes,
  };
}

export function setSegment(v: SvmVcpu, name: SegmentRegister, value: Segment): void {
  const fields = SEGMENT_FIELDS[name];
  v.write16(fields.selector, value.selector);
  v.write64(fields.base, BigInt.asUintN(64, value.base));
  v.write(fields.limit, value.limit | 0);
  v.write16(fields.attributes, attributesToVmcb(value.attributes));
  if (name === "ss") v.write8(F.cpl, value.attributes >>> 5 & 3);
}

/** CR0, CR2, CR3, CR4 or CR8 as the guest sees it: the hypervisor's only under shadow paging. */
export function getControlRegister(v: SvmVcpu, n: 0 | 2 | 3 | 4 | 8): bigint {
  if (v.shadowed) {
    if (n === 3) return guestWord(v, GUEST.cr3);
    if (n === 0 || n === 4) return BigInt(visible(v, n) >>> 0);
  }
  return n === 8 ? BigInt(v.read(F.virtualInterrupt) & 0xf) : v.read64(F[`cr${n}`]);
}

/** Sets it, and what follows from it. */
export function setControlRegister(v: SvmVcpu, n: 0 | 2 | 3 | 4 | 8, value: bigint): void {
  if (n === 8) {
    const others = v.read(F.virtualInterrupt) & ~0xf, { cpu } = v.on;
    // Amid an instruction that is emulated the processor has it, and its exit writes the VMCB.
    if (cpu.i32[V.nonRoot >> 2]) cpu.set("cr8", value & 0xfn);
    return v.write(F.virtualInterrupt, others | Number(value & 0xfn));
  }
  if (v.shadowed && n !== 2) return shadowControl.set(v, n, value);
  v.write64(F[`cr${n}`], value);
  if (n === 0) setLongMode(v, (value & PG) !== 0n);
  // The guest's translations may be other ones now.
  if (n !== 2) v.flush();
}

/** EFER.LMA follows CR0.PG and EFER.LME. */
function setLongMode(v: SvmVcpu, paging: boolean): void {
  const efer = v.read64(F.efer), long = paging && (efer & LME) !== 0n;
  v.write64(F.efer, long ? efer | LMA : efer & ~LMA);
}

/** MSRs of a vCPU: a field of the VMCB, or the name of what stays in the processor. */
const MSR_HOMES: Readonly<Record<number, number | WideCell>> = {
  [MSR.SYSENTER_CS]: F.sysenterCs,
  [MSR.SYSENTER_ESP]: F.sysenterEsp,
  [MSR.SYSENTER_EIP]: F.sysenterEip,
  [MSR.DEBUGCTL]: "debugctl",
  [MSR.PAT]: F.pat,
  [MSR.EFER]: F.efer,
  [MSR.STAR]: F.star,
  [MSR.LSTAR]: F.lstar,
  [MSR.CSTAR]: F.cstar,
  [MSR.SFMASK]: F.sfmask,
  [MSR.FS_BASE]: F.fsBase,
  [MSR.GS_BASE]: F.gsBase,
  [MSR.KERNEL_GS_BASE]: F.kernelGsBase,
  [MSR.TSC_AUX]: "tscAux",
};

export function getMsr(v: SvmVcpu, msr: number): bigint | undefined {
  const home = MSR_HOMES[msr >>> 0];
  if (home === undefined) return undefined;
  if (typeof home === "string") return v.on.cpu.get(home);
  if (home === F.efer && v.shadowed) return guestWord(v, GUEST.efer);
  const value = v.read64(home);
  // VMRUN wants EFER.SVME; the guest does not see it.
  return home === F.efer ? value & ~SVME : value;
}

export function setMsr(v: SvmVcpu, msr: number, value: bigint): boolean {
  const home = MSR_HOMES[msr >>> 0];
  if (home === undefined) return false;
  if (typeof home === "string") v.on.cpu.set(home, value);
  else if (home === F.efer && v.shadowed) shadowControl.setEfer(v, value);
  else if (home === F.efer) {
    v.write64(home, value | SVME);
    v.flush();
  } else v.write64(home, BigInt.asUintN(64, value));
  return true;
}

/** State after RESET (APM 2 14.1.3), all registers. */
export function resetGuest(v: SvmVcpu): void {
  const { cpu } = v.on;
  v.gprs.fill(0);
  // EDX identifies the processor.
  v.gprs[4] = 0x600;
  const data = { selector: 0, base: 0n, limit: 0xffff, attributes: 0x93 };
  for (const s of ["es", "ss", "ds", "fs", "gs"] as const) setSegment(v, s, data);
  setSegment(v, "cs", { ...data, selector: 0xf000, base: 0xffff_0000n });
  setSegment(v, "ldtr", { ...data, attributes: 0x82 });
  setSegment(v, "tr", { ...data, attributes: 0x8b });
  for (const s of ["gdtr", "idtr"]) {
    v.write64(F[`${s}Base`], 0n);
    v.write(F[`${s}Limit`], 0xffff);
  }
  for (const [name, value] of RESET) v.write64(F[name], value);
  for (const name of ["dr0", "dr1", "dr2", "dr3", "tscAux", "debugctl"] as const) cpu.set(name, 0n);
  cpu.set("xcr0", 1n);
  resetFloat(cpu);
  for (let word = 0; word < OWN.words; word++) v.setOwn(word, 0);
  v.flush();
}

const RESET: readonly (readonly [string, bigint])[] = [
  ["rip", 0xfff0n],
  ["rsp", 0n],
  ["rax", 0n],
  ["rflags", 2n],
  ["cr0", 0x6000_0010n],
  ["cr2", 0n],
  ["cr3", 0n],
  ["cr4", 0n],
  ["dr6", 0xffff_0ff0n],
  ["dr7", BigInt(DR7.fixed)],
  ["efer", SVME],
  ["pat", 0x0007_0406_0007_0406n],
  ["star", 0n],
  ["lstar", 0n],
  ["cstar", 0n],
  ["sfmask", 0n],
  ["kernelGsBase", 0n],
  ["sysenterCs", 0n],
  ["sysenterEsp", 0n],
  ["sysenterEip", 0n],
];
