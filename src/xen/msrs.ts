/** Model-specific registers of a guest in a hardware virtual machine. */
import { MSR } from "../abi/x86/msr.ts";
import { msrRow } from "../machine/msrs.ts";
import type { HvmEngine } from "./hvm.ts";

/** What RDMSR gives the guest; undefined: #GP(0). */
export function readMsr(e: HvmEngine, number: number): bigint | undefined {
  if (number === MSR.TSC) return BigInt(e.domain.now) + (e.msrs.get(MSR.TSC_ADJUST) ?? 0n);
  const own = e.ops.getMsr(e.vcpu, number);
  if (own !== undefined) return own;
  const apic = e.domain.platform.readMsr(number);
  if (apic !== undefined) return apic;
  const row = msrRow(number);
  if (!row || number === MSR.FEATURE_CONTROL) return undefined;
  return row.home === undefined ? row.fixed : e.msrs.get(number) ?? 0n;
}

/** What WRMSR does; false: #GP(0). */
export function writeMsr(e: HvmEngine, number: number, value: bigint): boolean {
  if (number === MSR.TSC || number === MSR.TSC_ADJUST) {
    const adjust = number === MSR.TSC ? value - BigInt(e.domain.now) : value;
    e.msrs.set(MSR.TSC_ADJUST, BigInt.asUintN(64, adjust));
    e.setTsc();
    return true;
  }
  const row = msrRow(number);
  if (row) {
    if (number === MSR.FEATURE_CONTROL) return false;
    if (row.write === "ignore") return true;
    if (row.write === "fault" || value & ~row.valid) return false;
    if (row.rule === "canonical" && BigInt.asIntN(48, value) !== BigInt.asIntN(64, value)) {
      return false;
    }
    if (number === MSR.EFER && value & ~BigInt(e.cpuid.eferValid >>> 0)) return false;
  }
  if (e.ops.setMsr(e.vcpu, number, value)) return true;
  if (e.domain.platform.writeMsr(number, value)) return true;
  if (!row) return false;
  e.msrs.set(number, value);
  return true;
}
