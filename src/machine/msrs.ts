/**
 * The model-specific registers of the machine, as a table: where each has its home and what may be
 * written (SDM 4 chapter 2). Numbers that are not here go to the host function `msr` (local APIC,
 * VMX and SVM capabilities), and are #GP if that does not know them either.
 */
import { MSR } from "../abi/x86/msr.ts";
import { CPU } from "./state.ts";

/** What is checked of a value that is written, besides its valid bits. */
export type MsrRule = "" | "canonical" | "pat" | "mtrrType" | "mtrrFixed" | "locked";

/** One register, or `count` consecutive ones in consecutive fields. */
export interface MsrRow {
  readonly number: number;
  readonly name: string;
  /** Offset in memory 0 of its 64-bit home; undefined for a fixed value. */
  readonly home?: number;
  readonly count: number;
  /** Bits that may be set; others are #GP. */
  readonly valid: bigint;
  readonly rule: MsrRule;
  /** "ignore": writes have no effect; "fault": #GP; "store"; "tsc", "efer": more follows. */
  readonly write: "store" | "ignore" | "fault" | "tsc" | "efer";
  /** Value of a register without a home. */
  readonly fixed: bigint;
  /** Whose processors have it; both vendors' if undefined. */
  readonly vendor?: "intel" | "amd";
}

const ALL = (1n << 64n) - 1n;

function row(
  number: number,
  name: string,
  home: string | undefined,
  valid: bigint = ALL,
  more: Partial<MsrRow> = {},
): MsrRow {
  return {
    number,
    name,
    home: home === undefined ? undefined : CPU[home],
    count: 1,
    valid,
    rule: "",
    write: home === undefined ? "fault" : "store",
    fixed: 0n,
    ...more,
  };
}
const fixed = (number: number, name: string, value = 0n, write: MsrRow["write"] = "fault") =>
  row(number, name, undefined, ALL, { fixed: value, write });

/** The registers, the ones that systems use most first. */
export const msrTable: readonly MsrRow[] = [
  row(MSR.FS_BASE, "FS_BASE", "fs.base", ALL, { rule: "canonical" }),
  row(MSR.GS_BASE, "GS_BASE", "gs.base", ALL, { rule: "canonical" }),
  row(MSR.KERNEL_GS_BASE, "KERNEL_GS_BASE", "kernelGsBase", ALL, { rule: "canonical" }),
  row(MSR.SYSENTER_CS, "SYSENTER_CS", "sysenterCs", 0xffff_ffffn),
  row(MSR.SYSENTER_ESP, "SYSENTER_ESP", "sysenterEsp", ALL, { rule: "canonical" }),
  row(MSR.SYSENTER_EIP, "SYSENTER_EIP", "sysenterEip", ALL, { rule: "canonical" }),
  row(MSR.TSC, "TSC", undefined, ALL, { write: "tsc" }),
  row(MSR.TSC_ADJUST, "TSC_ADJUST", "tscAdjust"),
  row(MSR.TSC_AUX, "TSC_AUX", "tscAux", 0xffff_ffffn),
  row(MSR.EFER, "EFER", "efer", ALL, { write: "efer" }),
  row(MSR.STAR, "STAR", "star"),
  row(MSR.LSTAR, "LSTAR", "lstar", ALL, { rule: "canonical" }),
  row(MSR.CSTAR, "CSTAR", "cstar", ALL, { rule: "canonical" }),
  row(MSR.SFMASK, "SFMASK", "sfmask", 0xffff_ffffn),
  row(MSR.PAT, "PAT", "pat", 0x0707_0707_0707_0707n, { rule: "pat" }),
  row(MSR.MISC_ENABLE, "MISC_ENABLE", "miscEnable"),
  // Lock bit, VMX inside and outside SMX.
  row(MSR.FEATURE_CONTROL, "FEATURE_CONTROL", "featureControl", 7n, { rule: "locked" }),
  // There is no supervisor state that XSAVES could save.
  row(MSR.XSS, "XSS", "xss", 0n),
  row(MSR.DEBUGCTL, "DEBUGCTL", "debugctl", 3n),
  fixed(MSR.PLATFORM_ID, "PLATFORM_ID"),
  fixed(MSR.EBL_CR_POWERON, "EBL_CR_POWERON", 0n, "ignore"),
  fixed(MSR.BIOS_UPDT_TRIG, "BIOS_UPDT_TRIG", 0n, "ignore"),
  // Software writes 0, runs CPUID and reads the microcode revision.
  fixed(MSR.BIOS_SIGN_ID, "BIOS_SIGN_ID", 1n << 32n, "ignore"),
  // Eight variable ranges, fixed ranges, write-combining.
  fixed(MSR.MTRRCAP, "MTRRCAP", 0x508n),
  fixed(MSR.MCG_CAP, "MCG_CAP"),
  fixed(MSR.MCG_STATUS, "MCG_STATUS", 0n, "ignore"),
  row(MSR.MTRR_PHYSBASE0, "MTRR_PHYS", "mtrrVariable0", 0x000f_ffff_ffff_f8ffn, { count: 16 }),
  row(MSR.MTRR_FIX64K, "MTRR_FIX64K", "mtrrFixed0", ALL, { rule: "mtrrFixed" }),
  row(MSR.MTRR_FIX16K_80000, "MTRR_FIX16K", "mtrrFixed1", ALL, { count: 2, rule: "mtrrFixed" }),
  row(MSR.MTRR_FIX4K_C0000, "MTRR_FIX4K", "mtrrFixed3", ALL, { count: 8, rule: "mtrrFixed" }),
  // Performance counters that every AMD processor has: they count nothing.
  row(MSR.PERF_CTL0, "PERF_CTL", undefined, ALL, { count: 8, write: "ignore", vendor: "amd" }),
  row(MSR.MTRR_DEF_TYPE, "MTRR_DEF_TYPE", "mtrrDefType", 0xcffn, { rule: "mtrrType" }),
];

/**
 * The row that holds an MSR of a vendor's processor, undefined if it is not in the table.
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { msrRow } from "./msrs.ts";
 * assertEquals(msrRow(0x203)?.name, "MTRR_PHYS");
 * assertEquals(msrRow(0x12345), undefined);
 * ```
 */
export function msrRow(number: number, vendor?: "intel" | "amd"): MsrRow | undefined {
  return msrTable.find((r) =>
    number >= r.number && number < r.number + r.count && (!r.vendor || r.vendor === vendor)
  );
}
