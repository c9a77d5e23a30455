/** Model-specific registers of a guest in a hardware virtual machine. */
import { EFER } from "../abi/x86/cr.ts";
import { MSR } from "../abi/x86/msr.ts";
import { type MsrRow, msrRow, refusesValue } from "../machine/system/msrs.ts";
import { writeFaults } from "./control.ts";
import { writeHypercallPage, XEN_HYPERCALL_MSR } from "./hypercalls.ts";
import type { HvmEngine } from "./hvm.ts";

/** The row of a register that is there by the guest's CPUID; null: its row says that it is not. */
function rowOf({ cpuid }: HvmEngine, number: number): MsrRow | undefined | null {
  return msrRow(number, cpuid.vendor, (what) => cpuid.offers(what));
}

/**
 * The processor's performance counters are not shared out. Systems touch them without asking, because
 * all processors of the family have them; so they are there, and hold nothing: who writes one and reads
 * it back sees that there is no counter.
 */
const isCounter = (row: MsrRow | undefined | null) => row?.write === "counter";

/** What RDMSR gives the guest; undefined: #GP(0). */
export function readMsr(e: HvmEngine, number: number): bigint | undefined {
  // It can be written, and reads as zero.
  if (number === XEN_HYPERCALL_MSR && e.domain.xen) return 0n;
  const row = rowOf(e, number);
  if (row === null) return undefined;
  if (isCounter(row)) return 0n;
  if (number === MSR.TSC) return e.tsc;
  const own = e.ops.getMsr(e.hvm, number);
  if (own !== undefined) return own;
  const apic = e.port.readMsr(number);
  if (apic !== undefined) return apic;
  if (!row || number === MSR.FEATURE_CONTROL) return undefined;
  return (row.home === undefined ? undefined : e.msrs.get(number)) ?? row.fixed;
}

/** What WRMSR does; false: #GP(0). */
export function writeMsr(e: HvmEngine, number: number, value: bigint): boolean {
  if (number === XEN_HYPERCALL_MSR && e.domain.xen) return writeHypercallPage(e, value);
  const row = rowOf(e, number);
  if (row === null) return false;
  if (isCounter(row)) return true;
  if (number === MSR.TSC || number === MSR.TSC_ADJUST) {
    const adjust = number === MSR.TSC ? value - BigInt(e.domain.now) : value;
    e.msrs.set(MSR.TSC_ADJUST, BigInt.asUintN(64, adjust));
    e.setTsc();
    e.port.tscChanged();
    e.vcpu.upcall?.updateTime();
    return true;
  }
  if (row) {
    if (number === MSR.FEATURE_CONTROL) return false;
    if (row.write === "ignore") return true;
    if (row.write === "fault" || refusesValue(row, value)) return false;
    if (number === MSR.EFER) return writeEfer(e, value);
  }
  if (e.ops.setMsr(e.hvm, number, value)) return true;
  if (e.port.writeMsr(number, value)) return true;
  if (!row) return false;
  e.msrs.set(number, value);
  return true;
}

const LMA = BigInt(EFER.LMA);

/** LMA is the processor's own (SDM 3 2.2.1). */
function writeEfer(e: HvmEngine, value: bigint): boolean {
  const old = e.ops.getMsr(e.hvm, MSR.EFER)!;
  if (writeFaults(e, "efer", old, value)) return false;
  return e.ops.setMsr(e.hvm, MSR.EFER, value & ~LMA | old & LMA);
}
