/**
 * The model-specific registers of the machine, as a table: where each has its home and what may be
 * written (SDM 4 chapter 2). Numbers that are not here go to the host function `msr` (local APIC,
 * VMX and SVM capabilities), and are #GP if that does not know them either.
 */
import { MSR } from "../../abi/x86/msr.ts";
import { CPU, type WideCell } from "../state.ts";

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
  /** "ignore": writes have no effect; "fault": #GP; "store"; "tsc", "efer": more follows; "counter": see counters.ts. */
  readonly write: "store" | "ignore" | "fault" | "tsc" | "efer" | "counter";
  /** Value of a register without a home, and of one with a home at reset. */
  readonly fixed: bigint;
  /** Whose processors have it; both vendors' if undefined. */
  readonly vendor?: "intel" | "amd";
  /** It is there with one of these features or families, blanks between them; always if undefined. */
  readonly feature?: string;
}

const ALL = (1n << 64n) - 1n;

function row(
  number: number,
  name: string,
  home: WideCell | undefined,
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
const fixed = (
  number: number,
  name: string,
  value = 0n,
  write: MsrRow["write"] = "fault",
  feature?: string,
) => row(number, name, undefined, ALL, { fixed: value, write, feature });

/** A configuration register of processors of one vendor, and of families: "family10h". */
const config = (
  number: number,
  name: string,
  vendor: "intel" | "amd",
  feature?: string,
  more: Partial<MsrRow> = {},
): MsrRow => row(number, name, undefined, ALL, { write: "ignore", vendor, feature, ...more });

const EITHER = "family0fh family10h", TENTH = "family10h";
/** 1 GHz, the rate of the time-stamp counter: (fid + 10h) * 100 MHz / 2^did (BKDG of family 10h, 2.4.2). */
const FREQUENCY = 1n << 6n | 4n;

/** Performance counters, and what RDPMC and their registers ask for (APM 2 13.2). */
export const COUNTERS = 4, COUNTER_FAMILIES = EITHER;
/**
 * Four performance counters of 48 bits (APM 2 13.2). Reserved bits are no more than reserved there,
 * not MBZ: they are not kept.
 */
const AMD_COUNTERS: readonly MsrRow[] = ([
  [MSR.PERF_EVTSEL0, "PERF_EVTSEL", "perfEvtSel0", 0x30f_ffdf_ffffn, TENTH],
  [MSR.PERF_EVTSEL0, "PERF_EVTSEL", "perfEvtSel0", 0xffdf_ffffn, "family0fh"],
  [MSR.PERF_CTR0, "PERF_CTR", "perfCtr0", (1n << 48n) - 1n, EITHER],
] as const).map(([number, name, home, valid, feature]) =>
  row(number, name, home, valid, { count: 4, write: "counter", vendor: "amd", feature })
);

/** AMD's families 0Fh and 10h (their BKDG, chapter 3 or 14). */
const AMD_FAMILIES: readonly MsrRow[] = [
  config(MSR.MC4_MISC1, "MC4_MISC", "amd", TENTH, { count: 3 }),
  config(MSR.SYSCFG, "SYSCFG", "amd", EITHER),
  // Bit 24: the time-stamp counter runs at the rate of P-state 0.
  config(MSR.HWCR, "HWCR", "amd", TENTH, { fixed: 1n << 24n }),
  config(MSR.HWCR, "HWCR", "amd", "family0fh"),
  config(MSR.IORR_BASE0, "IORR", "amd", EITHER, { count: 4 }),
  config(MSR.TOP_MEM, "TOP_MEM", "amd", EITHER),
  config(MSR.TOP_MEM2, "TOP_MEM2", "amd", EITHER),
  config(MSR.NB_CFG, "NB_CFG", "amd", EITHER),
  config(MSR.MC0_CTL_MASK, "MC_CTL_MASK", "amd", EITHER, { count: 6 }),
  config(MSR.IO_TRAP0, "IO_TRAP", "amd", EITHER, { count: 5 }),
  config(MSR.INT_PENDING, "INT_PENDING", "amd", EITHER),
  config(MSR.MMIO_CFG_BASE, "MMIO_CFG_BASE", "amd", TENTH),
  config(MSR.PSTATE_LIMIT, "PSTATE_LIMIT", "amd", TENTH, { write: "fault" }),
  config(MSR.PSTATE_CTL, "PSTATE_CTL", "amd", TENTH),
  config(MSR.PSTATE_STATUS, "PSTATE_STATUS", "amd", TENTH, { write: "fault" }),
  // One state, the others are not enabled.
  config(MSR.PSTATE0, "PSTATE", "amd", TENTH, { fixed: 1n << 63n | FREQUENCY }),
  config(MSR.PSTATE0 + 1, "PSTATE", "amd", TENTH, { count: 4 }),
  config(MSR.COFVID_CTL, "COFVID_CTL", "amd", TENTH, { fixed: FREQUENCY }),
  config(MSR.COFVID_STATUS, "COFVID_STATUS", "amd", TENTH, { fixed: FREQUENCY, write: "fault" }),
  config(MSR.SMM_BASE, "SMM_BASE", "amd", EITHER, { fixed: 0x3_0000n }),
  config(MSR.SMM_ADDR, "SMM_ADDR", "amd", EITHER),
  config(MSR.SMM_MASK, "SMM_MASK", "amd", EITHER),
  config(MSR.IGNNE, "IGNNE", "amd", EITHER),
  config(MSR.LS_CFG, "LS_IC_DC_BU_CFG", "amd", EITHER, { count: 4 }),
  // Bit 1: LFENCE serializes.
  config(MSR.DE_CFG, "DE_CFG", "amd", TENTH, { fixed: 2n }),
  config(MSR.BU_CFG2, "BU_CFG2", "amd", TENTH),
];

/** Intel's family 6 (SDM 4 2.8, 2.17). */
const INTEL_FAMILIES: readonly MsrRow[] = [
  config(MSR.SMI_COUNT, "SMI_COUNT", "intel", "family06h", { write: "fault" }),
  // Ten times 100 MHz: the rate of the time-stamp counter.
  config(MSR.PLATFORM_INFO, "PLATFORM_INFO", "intel", "family06h", {
    fixed: 10n << 8n,
    write: "fault",
  }),
];

/** The registers, the ones that systems use most first. */
export const msrTable: readonly MsrRow[] = [
  row(MSR.FS_BASE, "FS_BASE", "fs.base", ALL, { rule: "canonical", feature: "lm" }),
  row(MSR.GS_BASE, "GS_BASE", "gs.base", ALL, { rule: "canonical", feature: "lm" }),
  row(MSR.KERNEL_GS_BASE, "KERNEL_GS_BASE", "kernelGsBase", ALL, {
    rule: "canonical",
    feature: "lm",
  }),
  row(MSR.SYSENTER_CS, "SYSENTER_CS", "sysenterCs", 0xffff_ffffn, { feature: "sep" }),
  row(MSR.SYSENTER_ESP, "SYSENTER_ESP", "sysenterEsp", ALL, { rule: "canonical", feature: "sep" }),
  row(MSR.SYSENTER_EIP, "SYSENTER_EIP", "sysenterEip", ALL, { rule: "canonical", feature: "sep" }),
  row(MSR.TSC, "TSC", undefined, ALL, { write: "tsc", feature: "tsc" }),
  row(MSR.TSC_ADJUST, "TSC_ADJUST", "tscAdjust", ALL, { feature: "tsc_adjust" }),
  row(MSR.TSC_AUX, "TSC_AUX", "tscAux", 0xffff_ffffn, { feature: "rdtscp" }),
  row(MSR.EFER, "EFER", "efer", ALL, { write: "efer", feature: "syscall nx lm svm" }),
  row(MSR.STAR, "STAR", "star", ALL, { feature: "syscall" }),
  row(MSR.LSTAR, "LSTAR", "lstar", ALL, { rule: "canonical", feature: "lm" }),
  row(MSR.CSTAR, "CSTAR", "cstar", ALL, { rule: "canonical", feature: "lm" }),
  row(MSR.SFMASK, "SFMASK", "sfmask", 0xffff_ffffn, { feature: "lm" }),
  row(MSR.PAT, "PAT", "pat", 0x0707_0707_0707_0707n, { rule: "pat", feature: "pat" }),
  // Bit 0: fast string operation is on at reset.
  row(MSR.MISC_ENABLE, "MISC_ENABLE", "miscEnable", ALL, { fixed: 1n }),
  // Lock bit, VMX inside and outside SMX.
  row(MSR.FEATURE_CONTROL, "FEATURE_CONTROL", "featureControl", 7n, { rule: "locked" }),
  // There is no supervisor state that XSAVES could save.
  row(MSR.XSS, "XSS", "xss", 0n, { feature: "xsaves" }),
  row(MSR.DEBUGCTL, "DEBUGCTL", "debugctl", 3n),
  fixed(MSR.PLATFORM_ID, "PLATFORM_ID"),
  fixed(MSR.EBL_CR_POWERON, "EBL_CR_POWERON", 0n, "ignore"),
  fixed(MSR.BIOS_UPDT_TRIG, "BIOS_UPDT_TRIG", 0n, "ignore"),
  // Software writes 0, runs CPUID and reads the microcode revision.
  fixed(MSR.BIOS_SIGN_ID, "BIOS_SIGN_ID", 1n << 32n, "ignore"),
  // Eight variable ranges, fixed ranges, write-combining.
  fixed(MSR.MTRRCAP, "MTRRCAP", 0x508n, "fault", "mtrr"),
  // The Pentium's, which later processors map to a bank (SDM 3B 15.3.3): there is no error to tell.
  fixed(MSR.P5_MC_ADDR, "P5_MC_ADDR", 0n, "ignore", "mce"),
  fixed(MSR.P5_MC_TYPE, "P5_MC_TYPE", 0n, "ignore", "mce"),
  // No bank, and neither global control nor extended state.
  fixed(MSR.MCG_CAP, "MCG_CAP", 0n, "fault", "mca"),
  fixed(MSR.MCG_STATUS, "MCG_STATUS", 0n, "ignore", "mca"),
  row(MSR.MTRR_PHYSBASE0, "MTRR_PHYS", "mtrrVariable0", 0x000f_ffff_ffff_f8ffn, {
    count: 16,
    feature: "mtrr",
  }),
  row(MSR.MTRR_FIX64K, "MTRR_FIX64K", "mtrrFixed0", ALL, { rule: "mtrrFixed", feature: "mtrr" }),
  row(MSR.MTRR_FIX16K_80000, "MTRR_FIX16K", "mtrrFixed1", ALL, {
    count: 2,
    rule: "mtrrFixed",
    feature: "mtrr",
  }),
  row(MSR.MTRR_FIX4K_C0000, "MTRR_FIX4K", "mtrrFixed3", ALL, {
    count: 8,
    rule: "mtrrFixed",
    feature: "mtrr",
  }),
  // Registers of families, as firmware and RESET leave them. What they configure is not in this
  // machine (caches, a northbridge, system management), so writes change nothing that can be seen.
  ...AMD_FAMILIES,
  ...INTEL_FAMILIES,
  ...AMD_COUNTERS,
  row(MSR.MTRR_DEF_TYPE, "MTRR_DEF_TYPE", "mtrrDefType", 0xcffn, {
    rule: "mtrrType",
    feature: "mtrr",
  }),
];

/** What rows ask of CPUID, each once: by the number of its bit in `hiddenMsrs`. */
export const msrFeatures: readonly string[] = [
  ...new Set(msrTable.flatMap((r) => r.feature ?? [])),
];
const PAT_TYPES: readonly number[] = [0, 1, 4, 5, 6, 7],
  MTRR_TYPES: readonly number[] = [0, 1, 4, 5, 6];

/** A value that WRMSR refuses with #GP: reserved bits, or what the row's rule forbids. */
export function refusesValue(r: MsrRow, value: bigint): boolean {
  if (value & ~r.valid) return true;
  const types = (allowed: readonly number[], bytes: number) =>
    Array.from({ length: bytes }, (_, n) => Number(value >> BigInt(8 * n) & 0xffn))
      .some((type) => !allowed.includes(type));
  switch (r.rule) {
    case "canonical":
      return BigInt.asIntN(48, value) !== BigInt.asIntN(64, value);
    case "pat":
      return types(PAT_TYPES, 8);
    case "mtrrFixed":
      return types(MTRR_TYPES, 8);
    case "mtrrType":
      return types(MTRR_TYPES, 1);
    default:
      return false;
  }
}

const shows = (r: MsrRow, has: (what: string) => boolean): boolean =>
  r.feature === undefined || r.feature.split(" ").some(has);
/** Bits by `msrFeatures` of what CPUID does not show. */
export const hiddenMsrs = (has: (feature: string) => boolean): number =>
  msrFeatures.reduce((bits, f, n) => f.split(" ").some(has) ? bits : bits | 1 << n, 0);

/**
 * The row that holds an MSR of a vendor's processor, undefined if it is not in the table, null if
 * what has it is not there.
 *
 * @param has tells features ("rdtscp") and families ("family10h") that are there
 *
 * @example
 * ```ts
 * import { assertEquals } from "@std/assert";
 * import { msrRow } from "./msrs.ts";
 * assertEquals(msrRow(0x203)?.name, "MTRR_PHYS");
 * assertEquals(msrRow(0x12345), undefined);
 * ```
 */
export function msrRow(
  number: number,
  vendor?: "intel" | "amd",
  has: (what: string) => boolean = () => true,
): MsrRow | undefined | null {
  const rows = msrTable.filter((r) =>
    number >= r.number && number < r.number + r.count && (!r.vendor || r.vendor === vendor)
  );
  return rows.find((r) => shows(r, has)) ?? (rows.length > 0 ? null : undefined);
}
