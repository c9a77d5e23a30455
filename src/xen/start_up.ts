/** INIT and start-up of a vCPU: the registers with which it begins (SDM 3A 9.1 and 9.4, APM 2 14.1). */
import { CR0 } from "../abi/x86/cr.ts";
import { MSR } from "../abi/x86/msr.ts";
import { gpr64 } from "../abi/x86/registers.ts";
import { type HvmOps, type HvmVcpu, segmentRegisters } from "../hvm/ops.ts";

const DATA = 0x93, LDT = 0x82, TSS32_BUSY = 0x8b, RDX = 2;
const ATTRIBUTES: Readonly<Record<string, number>> = { cs: 0x9b, ldtr: LDT, tr: TSS32_BUSY };
/** Of those that INIT sets, the ones that are not 0. */
const VALUES = { rip: 0xfff0n, rflags: 2n, dr6: 0xffff_0ff0n, dr7: 0x400n } as const;

/**
 * INIT: as after RESET, but x87, SSE and MSRs stay, and of CR0 what says how caches are used.
 *
 * @param signature EAX of CPUID leaf 1, which EDX then has
 */
export function initialize(ops: HvmOps, v: HvmVcpu, signature: number): void {
  const cr0 = ops.getCr(v, 0) & BigInt(CR0.CD | CR0.NW) | BigInt(CR0.ET);
  ops.setCr(v, 0, cr0);
  ops.setMsr(v, MSR.EFER, 0n);
  for (const n of [2, 3, 4, 8] as const) ops.setCr(v, n, 0n);
  gpr64.forEach((name, n) => ops.setRegister(v, name, n === RDX ? BigInt(signature >>> 0) : 0n));
  for (const name of ["dr0", "dr1", "dr2", "dr3"] as const) ops.setRegister(v, name, 0n);
  for (const name of ["rip", "rflags", "dr6", "dr7"] as const) {
    ops.setRegister(v, name, VALUES[name]);
  }
  for (const name of segmentRegisters) {
    const attributes = ATTRIBUTES[name] ?? DATA;
    ops.setSegment(v, name, { selector: 0, base: 0n, limit: 0xffff, attributes });
  }
  for (const table of ["gdtr", "idtr"] as const) {
    ops.setDescriptorTable(v, table, { base: 0n, limit: 0xffff });
  }
  ops.cancelEvent(v);
  ops.setActivity(v, "active");
  ops.setInterruptShadow(v, { sti: false, movSs: false, nmi: false });
  ops.setInterruptWindow(v, false);
  ops.setNmiWindow(v, false);
  ops.flushTranslations(v);
}

/** A start-up IPI: it begins in real mode at `vector` × 4 KiB. */
export function startUp(ops: HvmOps, v: HvmVcpu, vector: number): void {
  const cs = ops.getSegment(v, "cs");
  ops.setSegment(v, "cs", { ...cs, selector: vector << 8, base: BigInt(vector << 12) });
  ops.setRegister(v, "rip", 0n);
}
