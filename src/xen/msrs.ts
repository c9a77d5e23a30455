/** Model-specific registers of a guest in a hardware virtual machine. */
import { MSR } from "../abi/x86/msr.ts";
import { msrRow } from "../machine/msrs.ts";
import type { HvmEngine } from "./hvm.ts";

/** Registers that are there only with a feature of CPUID. */
const FEATURE: Readonly<Record<number, string>> = {
  [MSR.TSC_ADJUST]: "tsc_adjust",
  [MSR.TSC_AUX]: "rdtscp",
  [MSR.XSS]: "xsaves",
};
function hidden(e: HvmEngine, number: number): boolean {
  const feature = FEATURE[number];
  return feature !== undefined && !e.cpuid.has(feature);
}

/** What RDMSR gives the guest; undefined: #GP(0). */
export function readMsr(e: HvmEngine, number: number): bigint | undefined {
  if (number === MSR.TSC) return BigInt(e.domain.now) + (e.msrs.get(MSR.TSC_ADJUST) ?? 0n);
  if (hidden(e, number)) return undefined;
  const own = e.ops.getMsr(e.vcpu, number);
  if (own !== undefined) return own;
  const apic = e.domain.platform.readMsr(number);
  if (apic !== undefined) return apic;
  const row = msrRow(number, e.cpuid.vendor);
  if (!row || number === MSR.FEATURE_CONTROL) return undefined;
  return row.home === undefined ? row.fixed : e.msrs.get(number) ?? 0n;
}

/** What WRMSR does; false: #GP(0). */
export function writeMsr(e: HvmEngine, number: number, value: bigint): boolean {
  if (hidden(e, number)) return false;
  if (number === MSR.TSC || number === MSR.TSC_ADJUST) {
    const adjust = number === MSR.TSC ? value - BigInt(e.domain.now) : value;
    e.msrs.set(MSR.TSC_ADJUST, BigInt.asUintN(64, adjust));
    e.setTsc();
    e.domain.platform.tscChanged();
    return true;
  }
  const row = msrRow(number, e.cpuid.vendor);
  if (row) {
    if (number === MSR.FEATURE_CONTROL) return false;
    if (row.write === "ignore") return true;
    if (row.write === "fault" || value & ~row.valid) return false;
    if (row.rule === "canonical" && BigInt.asIntN(48, value) !== BigInt.asIntN(64, value)) {
      return false;
    }
    if (number === MSR.EFER) return writeEfer(e, value);
  }
  if (e.ops.setMsr(e.vcpu, number, value)) return true;
  if (e.domain.platform.writeMsr(number, value)) return true;
  if (!row) return false;
  e.msrs.set(number, value);
  return true;
}

const LME = 0x100n, LMA = 0x400n, PG = 0x8000_0000n;

/** LME stays while paging is on; LMA is the processor's own (SDM 3 2.2.1). */
function writeEfer(e: HvmEngine, value: bigint): boolean {
  if (value & ~BigInt(e.cpuid.eferValid >>> 0)) return false;
  const old = e.ops.getMsr(e.vcpu, MSR.EFER)!;
  if ((old ^ value) & LME && e.ops.getCr(e.vcpu, 0) & PG) return false;
  return e.ops.setMsr(e.vcpu, MSR.EFER, value & ~LMA | old & LMA);
}
