/**
 * What a write to CR0 or CR4 must not do (SDM 2 MOV to control registers; 3 4.4.1): the processor's
 * checks, for the writes that the hypervisor completes.
 */
import { CR0, CR4, EFER } from "../abi/x86/cr.ts";
import { MSR } from "../abi/x86/msr.ts";
import type { HvmEngine } from "./hvm.ts";

const PG = 1n << 31n, CACHE = 0x6000_0000n;
/** Bits of CR4 whose change loads the PDPTEs again. */
const LOADS = BigInt(CR4.PAE | CR4.PGE | CR4.PSE | CR4.SMEP);
const PAE = BigInt(CR4.PAE), PCIDE = BigInt(CR4.PCIDE);
const CODE_LONG = 0x2000;
/** Bits of a present PDPTE that are reserved below MAXPHYADDR, and all above 52. */
const PDPTE_RESERVED = 0xfff0_0000_0000_01e6n;
const PHYSICAL = 1n << 36n;

/** Whether writing `value` to CR0 is #GP(0). */
export function badCr0(e: HvmEngine, value: bigint): boolean {
  const { ops, vcpu } = e;
  const nw = (value & 1n << 29n) !== 0n, cd = (value & 1n << 30n) !== 0n;
  if (value >> 32n || (value & PG && !(value & BigInt(CR0.PE))) || nw && !cd) return true;
  const old = ops.getCr(vcpu, 0), cr4 = ops.getCr(vcpu, 4);
  const efer = ops.getMsr(vcpu, MSR.EFER) ?? 0n;
  const code = ops.getSegment(vcpu, "cs").attributes & CODE_LONG;
  const lme = (efer & BigInt(EFER.LME)) !== 0n, lma = (efer & BigInt(EFER.LMA)) !== 0n;
  if (!(value & PG)) return (old & PG) !== 0n && (lma && code !== 0 || (cr4 & PCIDE) !== 0n);
  if (!(old & PG) && lme) return !(cr4 & PAE) || code !== 0;
  const loads = (old ^ value) & (PG | CACHE);
  return loads !== 0n && !lme && (cr4 & PAE) !== 0n && badPdptes(e);
}

/** Whether writing `value` to CR4 is #GP(0); bits that CPUID does not show are reserved. */
export function badCr4(e: HvmEngine, value: bigint): boolean {
  const { ops, vcpu } = e;
  if (value & ~BigInt(e.cpuid.cr4Valid >>> 0)) return true;
  const old = ops.getCr(vcpu, 4), lma = (ops.getMsr(vcpu, MSR.EFER) ?? 0n) & BigInt(EFER.LMA);
  if (lma && !(value & PAE)) return true;
  if (value & ~old & PCIDE && (!lma || ops.getCr(vcpu, 3) & 0xfffn)) return true;
  const loads = (old ^ value) & LOADS;
  return loads !== 0n && !lma && (value & PAE) !== 0n && (ops.getCr(vcpu, 0) & PG) !== 0n &&
    badPdptes(e);
}

/** Whether a present one of the four entries that CR3 points to has a reserved bit set. */
function badPdptes(e: HvmEngine): boolean {
  const at = Number(e.ops.getCr(e.vcpu, 3) & 0xffff_ffe0n);
  const { memory } = e.domain;
  if (memory.machineAddress(at) < 0) return false;
  const view = new DataView(memory.read(at, 32).buffer);
  return [0, 8, 16, 24].some((offset) => {
    const entry = view.getBigUint64(offset, true);
    return (entry & 1n) !== 0n &&
      ((entry & PDPTE_RESERVED) !== 0n || (entry & 0x000f_ffff_ffff_ffffn) >= PHYSICAL);
  });
}
