/**
 * What this processor's VMX can do, as software reads it from the capability MSRs (SDM 3 appendix
 * A). Everything follows from the tables of control bits in abi/x86/vmx.ts: a bit that has a name
 * there is implemented.
 */
import { vmcsFields } from "../../abi/x86/vmcs.ts";
import {
  ENTRY_CONTROL,
  EXIT_CONTROL,
  PIN,
  PRIMARY,
  SECONDARY,
  VMX_MSR,
} from "../../abi/x86/vmx.ts";
import { EFER } from "../../abi/x86/cr.ts";
import { CR4_KNOWN } from "../system/control_rules.ts";
import { VMCS_REVISION, VMCS_SIZE } from "./layout.ts";

const all = (bits: Readonly<Record<string, number>>): number =>
  Object.values(bits).reduce((sum, bit) => (sum | bit) >>> 0, 0);

/** The default1 class: reserved bits that are 1 (A.2 to A.5). */
const DEFAULT1 = { pin: 0x16, primary: 0x0401_e172, exit: 0x0003_6dff, entry: 0x11ff } as const;

/** Bits that must be 1 and bits that may be 1 of each control word. */
export const CONTROLS = {
  pin: { must: DEFAULT1.pin, may: (DEFAULT1.pin | all(PIN)) >>> 0 },
  // The TRUE capability MSRs let go of what has a name.
  primary: {
    must: (DEFAULT1.primary & ~all(PRIMARY)) >>> 0,
    may: (DEFAULT1.primary | all(PRIMARY)) >>> 0,
  },
  secondary: { must: 0, may: all(SECONDARY) },
  exit: {
    must: (DEFAULT1.exit & ~all(EXIT_CONTROL)) >>> 0,
    may: (DEFAULT1.exit | all(EXIT_CONTROL)) >>> 0,
  },
  entry: {
    must: (DEFAULT1.entry & ~all(ENTRY_CONTROL)) >>> 0,
    may: (DEFAULT1.entry | all(ENTRY_CONTROL)) >>> 0,
  },
} as const;

/** The preemption timer counts down once every 2 to this many instructions. */
export const PREEMPTION_RATE = 5;
export const CR3_TARGETS = 4;

/** CR0: NE, PE and PG must be 1 (PE and PG not for an unrestricted guest); no bit must be 0. */
export const CR0_FIXED0 = 0x8000_0021;
const CR0_FIXED1 = 0xffff_ffff;
/** CR4: VMXE must be 1; what the processor has not got must be 0. */
export const CR4_FIXED0 = 0x2000;
export const CR4_FIXED1 = CR4_KNOWN;

/** IA32_EFER bits that exist. */
export const EFER_BITS = EFER.SCE | EFER.LME | EFER.LMA | EFER.NXE;
/** IA32_DEBUGCTL bits that exist: LBR, BTF. */
export const DEBUGCTL_BITS = 3;

/** Low and high half of an MSR. */
export type Halves = readonly [low: number, high: number];

const EPT_VPID: Halves = [
  // Execute-only, walk of 4, UC, WB, 2 MByte, 1 GByte, INVEPT, accessed and dirty, both INVEPT types.
  1 | 1 << 6 | 1 << 8 | 1 << 14 | 1 << 16 | 1 << 17 | 1 << 20 | 1 << 21 | 1 << 25 | 1 << 26,
  // INVVPID and its four types.
  1 | 0xf << 8,
];

const classic = (word: { must: number; may: number }, default1: number): Halves => [
  (word.must | default1) >>> 0,
  word.may,
];
const exact = (word: { must: number; may: number }): Halves => [word.must, word.may];

const highestIndex = Math.max(...vmcsFields.map((f) => f.encoding >>> 1 & 0x1ff));

const values: Readonly<Record<number, Halves>> = {
  // Write-back, INS/OUTS information in VM exits, TRUE controls.
  [VMX_MSR.basic]: [VMCS_REVISION, VMCS_SIZE | 6 << 18 | 1 << 22 | 1 << 23],
  [VMX_MSR.pinBased]: classic(CONTROLS.pin, DEFAULT1.pin),
  [VMX_MSR.processorBased]: classic(CONTROLS.primary, DEFAULT1.primary),
  [VMX_MSR.exit]: classic(CONTROLS.exit, DEFAULT1.exit),
  [VMX_MSR.entry]: classic(CONTROLS.entry, DEFAULT1.entry),
  // LMA is stored on exit; HLT, shutdown and wait-for-SIPI; injection of length 0.
  [VMX_MSR.misc]: [
    PREEMPTION_RATE | 1 << 5 | 7 << 6 | CR3_TARGETS << 16 | 1 << 30,
    0,
  ],
  [VMX_MSR.cr0Fixed0]: [CR0_FIXED0, 0],
  [VMX_MSR.cr0Fixed1]: [CR0_FIXED1, 0],
  [VMX_MSR.cr4Fixed0]: [CR4_FIXED0, 0],
  [VMX_MSR.cr4Fixed1]: [CR4_FIXED1, 0],
  [VMX_MSR.vmcsEnum]: [highestIndex << 1, 0],
  [VMX_MSR.processorBased2]: exact(CONTROLS.secondary),
  [VMX_MSR.eptVpidCap]: EPT_VPID,
  [VMX_MSR.truePinBased]: exact(CONTROLS.pin),
  [VMX_MSR.trueProcessorBased]: exact(CONTROLS.primary),
  [VMX_MSR.trueExit]: exact(CONTROLS.exit),
  [VMX_MSR.trueEntry]: exact(CONTROLS.entry),
};

/**
 * The value of a VMX capability MSR as unsigned halves, undefined for any other number.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { vmxCapability } from "./capabilities.ts";
 * const [low, high] = vmxCapability(0x48b)!;
 * assertEquals(low, 0); // no secondary control must be 1
 * assertEquals(high & 2, 2); // EPT may be
 * ```
 */
export function vmxCapability(msr: number): Halves | undefined {
  const value = values[msr];
  return value && [value[0] >>> 0, value[1] >>> 0];
}
