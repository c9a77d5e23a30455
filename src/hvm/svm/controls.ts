/** Intercepts: those that are always on, and what a neutral description asks for. */
import {
  INTERCEPT1,
  INTERCEPT2,
  INTERCEPT3,
  IOPM_SIZE,
  MSRPM_SIZE,
  msrpmRanges,
  VIRTUAL_INTERRUPT,
} from "../../abi/x86/vmcb.ts";
import { CR4 } from "../../abi/x86/cr.ts";
import { MSR } from "../../abi/x86/msr.ts";
import { portBitmap, setBit } from "../bitmaps.ts";
import { GUEST, type Intercepts, SHADOW_CR0, SHADOW_CR4 } from "../ops.ts";
import { withShadow } from "../shadow.ts";
import { F, OWN, type SvmVcpu } from "./cpu.ts";

const ONE = INTERCEPT1, TWO = INTERCEPT2;
const TABLES = ONE.idtrRead | ONE.gdtrRead | ONE.ldtrRead | ONE.trRead | ONE.idtrWrite |
  ONE.gdtrWrite | ONE.ldtrWrite | ONE.trWrite;

/**
 * What leaves always: interrupts, what the hypervisor alone may do, and what the other vendor's
 * processors let no guest do either.
 */
const BASE1 = ONE.intr | ONE.nmi | ONE.smi | ONE.init | ONE.cpuid | ONE.rsm | ONE.invd |
  ONE.invlpga | ONE.io | ONE.msr | ONE.taskSwitch | ONE.ferrFreeze | ONE.shutdown;
const BASE2 = TWO.vmrun | TWO.vmmcall | TWO.vmload | TWO.vmsave | TWO.stgi | TWO.clgi |
  TWO.skinit | TWO.xsetbv;

/** TS and MP of CR0 change without the selective intercept. */
const UNSELECTIVE = 0xa;

/** Neutral wishes that are bits of the intercept vectors. */
const BITS = {
  hlt: [ONE.hlt, 0],
  invlpg: [ONE.invlpg, 0],
  monitor: [0, TWO.monitor],
  mwait: [0, TWO.mwait | TWO.mwaitArmed],
  pause: [ONE.pause, 0],
  rdpmc: [ONE.rdpmc, 0],
  rdtsc: [ONE.rdtsc, 0],
  wbinvd: [0, TWO.wbinvd],
  "descriptor-table": [TABLES, 0],
  pushf: [ONE.pushf, 0],
  popf: [ONE.popf, 0],
  "software-interrupt": [ONE.intN, 0],
  icebp: [0, TWO.icebp],
} as const;

/** Features whose instructions have an intercept of their own: where they are none, #UD follows it. */
export const INTERCEPTED: readonly string[] = ["rdtscp", "invpcid"];
export const isAbsent = (v: SvmVcpu, feature: "rdtscp" | "invpcid"): boolean =>
  (v.own[OWN.absent] >> INTERCEPTED.indexOf(feature) & 1) !== 0;

function setBits(v: SvmVcpu, field: number, mask: number, on: boolean): void {
  if (mask === 0) return;
  const old = v.words[field >> 2], value = on ? old | mask : old & ~mask;
  if (value !== old) v.write(field, value);
}

/** Controls of a fresh vCPU: nothing exits that need not. */
export function baseControls(v: SvmVcpu): void {
  v.write(F.intercepts1, BASE1 | 0);
  v.write(F.intercepts2, BASE2);
  v.write(F.asid, 1);
  v.write(F.virtualInterrupt, VIRTUAL_INTERRUPT.masking);
  applyIntercepts(v, { ports: "none", msrReads: "none", msrWrites: "none" });
}

/** Bit of RDMSR in the permission map; WRMSR has the one after it. -1: the MSR leaves always. */
function msrBit(number: number): number {
  const range = msrpmRanges.findIndex((first) => number >= first && number < first + 0x2000);
  return range < 0 ? -1 : range * 0x4000 + 2 * (number - msrpmRanges[range]);
}

/** One kind of access of the permission map: `shift` 0 for reads, 1 for writes. */
function mapMsrs(v: SvmVcpu, wanted: "all" | "none" | readonly number[], shift: 0 | 1): void {
  const { machine } = v.on.cpu, at = v.read(F.msrpmBase) >>> 0;
  const bytes = machine.ram.slice(at, at + MSRPM_SIZE);
  const mask = 0x55 << shift, all = wanted === "all" ? mask : 0;
  for (let i = 0; i < bytes.length; i++) bytes[i] = bytes[i] & ~mask | all;
  const numbers = typeof wanted === "string" ? [] : wanted;
  // The guest's EFER lacks SVME, and its PAT is the processor's only with nested paging: it never
  // gets at the real ones.
  for (const number of [...numbers, MSR.EFER, MSR.PAT]) {
    const bit = msrBit(number);
    if (bit >= 0) setBit(bytes, bit + shift);
  }
  machine.write(at, bytes);
  // The map may have been kept by the processor.
  v.write(F.msrpmBase, at);
}

function mapPorts(v: SvmVcpu, wanted: NonNullable<Intercepts["ports"]>): void {
  const at = v.read(F.iopmBase) >>> 0, map = new Uint8Array(IOPM_SIZE);
  map.set(portBitmap(wanted));
  // An access around the end of the ports leaves as it does with the other vendor.
  map[0x2000] = 7;
  v.on.cpu.machine.write(at, map);
  v.write(F.iopmBase, at);
}

/** Gives the vCPU the exits that are wanted. */
export function applyIntercepts(v: SvmVcpu, asked: Intercepts): void {
  const wanted = v.shadowed ? withShadow(asked) : asked;
  for (const name of Object.keys(BITS) as (keyof typeof BITS)[]) {
    const value = wanted[name];
    if (value === undefined) continue;
    setBits(v, F.intercepts1, BITS[name][0], value);
    setBits(v, F.intercepts2, BITS[name][1], value);
  }
  if (wanted.absent) {
    const bits = INTERCEPTED.map((name, n) => wanted.absent!.includes(name) ? 1 << n : 0);
    v.setOwn(OWN.absent, bits.reduce((a, b) => a | b));
  }
  const readsAux = (v.words[F.intercepts1 >> 2] & ONE.rdtsc) !== 0 || isAbsent(v, "rdtscp");
  setBits(v, F.intercepts2, TWO.rdtscp, readsAux);
  if (wanted.invlpg !== undefined) v.setOwn(OWN.invlpg, +wanted.invlpg);
  if (wanted.dr !== undefined) {
    for (const field of [F.drReads, F.drWrites]) v.write16(field, wanted.dr ? 0xffff : 0);
  }
  if (wanted.iret !== undefined) v.setOwn(OWN.iret, +wanted.iret);
  interceptIret(v);
  controlRegisters(v, wanted);
  interceptControls(v);
  if (asked.exceptions !== undefined) v.kept.asked = asked.exceptions;
  if (wanted.exceptions !== undefined) v.write(F.exceptions, wanted.exceptions);
  if (wanted.pageFault) {
    v.setOwn(OWN.pageFaultMask, wanted.pageFault.mask);
    v.setOwn(OWN.pageFaultMatch, wanted.pageFault.match);
  }
  if (wanted.ports !== undefined) mapPorts(v, wanted.ports);
  if (wanted.msrReads !== undefined) mapMsrs(v, wanted.msrReads, 0);
  if (wanted.msrWrites !== undefined) mapMsrs(v, wanted.msrWrites, 1);
}

function controlRegisters(v: SvmVcpu, wanted: Intercepts): void {
  if (wanted.cr0Bits !== undefined) v.setOwn(OWN.cr0Bits, wanted.cr0Bits);
  if (wanted.cr4Bits !== undefined) v.setOwn(OWN.cr4Bits, wanted.cr4Bits);
  if (wanted.crRead !== undefined) v.write16(F.crReads, wanted.crRead & 0x108);
  if (wanted.crWrite !== undefined) v.write16(F.crWrites, wanted.crWrite & 0x108);
}

/** Bits 0 and 4: CR0 and CR4 that the guest sees are not the hardware's. */
function hiddenControls({ shadowed, guest, words }: SvmVcpu): number {
  if (!shadowed) return 0;
  const cr0 = (words[F.cr0 >> 2] ^ guest[GUEST.cr0]) & SHADOW_CR0;
  const cr4 = (words[F.cr4 >> 2] ^ guest[GUEST.cr4]) & SHADOW_CR4;
  return (cr0 ? 1 : 0) | (cr4 ? 0x10 : 0);
}

/**
 * Writes of CR0 and CR4 leave if a bit is asked for that may change, reads of what is hidden; the
 * exit is then looked at. INVPCID leaves like INVLPG, or if the guest has PCIDs the hardware has not.
 */
export function interceptControls(v: SvmVcpu): void {
  const cr0 = v.own[OWN.cr0Bits], cr4 = v.own[OWN.cr4Bits], hidden = hiddenControls(v);
  const reads = v.read16(F.crReads), writes = v.read16(F.crWrites);
  const wanted = hidden | (cr0 & UNSELECTIVE ? 1 : 0) | (cr4 ? 0x10 : 0);
  if ((reads & 0x11) !== hidden) v.write16(F.crReads, reads & 0x108 | hidden);
  if ((writes & 0x11) !== wanted) v.write16(F.crWrites, writes & 0x108 | wanted);
  setBits(v, F.intercepts1, ONE.cr0Selective, cr0 !== 0 && !(wanted & 1));
  const pcids = v.shadowed && (v.guest[GUEST.cr4] & CR4.PCIDE) !== 0;
  const leaves = v.own[OWN.invlpg] !== 0 || pcids || isAbsent(v, "invpcid");
  setBits(v, F.intercepts3, INTERCEPT3.invpcid, leaves);
}

/** IRET leaves if somebody wants to see it, or while it would end an NMI. */
export function interceptIret(v: SvmVcpu): void {
  setBits(v, F.intercepts1, ONE.iret, (v.own[OWN.iret] | v.own[OWN.nmiBlocked]) !== 0);
}

/** A virtual interrupt of the highest priority that leaves where it would be taken. */
export function setInterruptWindow(v: SvmVcpu, on: boolean): void {
  const { irq, priority, ignoreTpr } = VIRTUAL_INTERRUPT;
  setBits(v, F.intercepts1, ONE.vintr, on);
  setBits(v, F.virtualInterrupt, irq | priority | ignoreTpr, on);
}
