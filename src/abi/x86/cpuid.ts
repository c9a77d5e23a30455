/**
 * CPUID feature bits by name (SDM vol. 2A, CPUID; APM vol. 3, appendix E). Names are those of Linux's
 * /proc/cpuinfo where it has one.
 * @module
 */

/** A register of a CPUID result. */
export type CpuidRegister = "eax" | "ebx" | "ecx" | "edx";

/** Where a feature bit stands. */
export interface FeatureBit {
  readonly leaf: number;
  readonly subleaf: number;
  readonly register: CpuidRegister;
  readonly bit: number;
}

/** Bits that follow the processor's state: of EDX and ECX of leaf 1. */
export const CPUID_APIC = 1 << 9, CPUID_OSXSAVE = 1 << 27;

/** leaf, sub-leaf, register, then names by bit from 0; "-" for bits without a name here. */
const rows: [number, number, CpuidRegister, string][] = [
  [
    1,
    0,
    "edx",
    "fpu vme de pse tsc msr pae mce cx8 apic - sep mtrr pge mca cmov pat pse36 pn clflush - dts " +
    "acpi mmx fxsr sse sse2 ss ht tm ia64 pbe",
  ],
  [
    1,
    0,
    "ecx",
    "sse3 pclmulqdq dtes64 monitor ds_cpl vmx smx est tm2 ssse3 cid sdbg fma cx16 xtpr pdcm - pcid " +
    "dca sse4_1 sse4_2 x2apic movbe popcnt tsc_deadline_timer aes xsave osxsave avx f16c rdrand " +
    "hypervisor",
  ],
  [
    7,
    0,
    "ebx",
    "fsgsbase tsc_adjust sgx bmi1 hle avx2 - smep bmi2 erms invpcid rtm - - mpx - avx512f avx512dq " +
    "rdseed adx smap avx512ifma pcommit clflushopt clwb intel_pt avx512pf avx512er avx512cd sha_ni " +
    "avx512bw avx512vl",
  ],
  [7, 0, "ecx", "prefetchwt1 avx512vbmi umip pku ospke"],
  [6, 0, "eax", "- - arat"],
  [0xd, 1, "eax", "xsaveopt xsavec xgetbv1 xsaves"],
  [
    0x8000_0001,
    0,
    "edx",
    "- - - - - - - - - - - syscall - - - - - - - mp nx - mmxext - - fxsr_opt pdpe1gb rdtscp - lm " +
    "3dnowext 3dnow",
  ],
  [
    0x8000_0001,
    0,
    "ecx",
    "lahf_lm cmp_legacy svm extapic cr8_legacy abm sse4a misalignsse 3dnowprefetch osvw - - " +
    "- - - - - - - - - - topoext",
  ],
  [0x8000_0008, 0, "ebx", "- - xsaveerptr"],
  [0x8000_0007, 0, "edx", "- - - - - - - - constant_tsc"],
  [
    0x8000_000a,
    0,
    "edx",
    "npt lbrv svm_lock nrip_save tsc_scale vmcb_clean flushbyasid decodeassists - - pausefilter - " +
    "pfthreshold",
  ],
];

/** All named feature bits. */
export const featureBits: Readonly<Record<string, FeatureBit>> = Object.fromEntries(
  rows.flatMap(([leaf, subleaf, register, names]) =>
    names.split(" ").map((name, bit) => [name, { leaf, subleaf, register, bit }] as const)
      .filter(([name]) => name !== "-")
  ),
);
