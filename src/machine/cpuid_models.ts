/**
 * Processors by name: what CPUID says of each. A model lists the features the real processor has;
 * what this machine cannot do is left out when a guest is given it (features.ts).
 */
import type { CpuidRegister } from "../abi/x86/cpuid.ts";

/** A processor's CPUID before any edit. */
export interface CpuidModelRow {
  /** Twelve characters, as leaf 0 gives them. */
  readonly vendor: string;
  /** Whose ways it has where they differ: which leaves there are, what follows the last one. */
  readonly like: "intel" | "amd" | "none";
  readonly brand: string;
  /** Stepping 3:0, model 7:4, family 11:8, extended model 19:16, extended family 27:20. */
  readonly signature: number;
  /** Names of features, blanks between them. */
  readonly features: string;
  readonly maxLeaf: number;
  readonly maxExtended: number;
  readonly leaves?: Readonly<Record<string, Partial<Record<CpuidRegister, number>>>>;
}

/** What Intel's and AMD's processors both have, and show in the same way. */
const COMMON =
  "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 " +
  "sse3 monitor ssse3 cx16 sse4_1 sse4_2 movbe popcnt x2apic xsave rdrand fsgsbase tsc_adjust smep erms " +
  "rdseed smap clflushopt clwb umip arat xsaveopt xsavec xgetbv1 xsaves syscall nx pdpe1gb rdtscp lm " +
  "lahf_lm 3dnowprefetch constant_tsc";

const CACHES_INTEL = { "2": { eax: 0x665b_5001, edx: 0x007a_7040 } };
const CACHES_AMD = { "0x80000005": { ecx: 0x2002_0140, edx: 0x2002_0140 } };

/** "intel", "amd" and "common" are this machine's own; the others are named after real ones. */
export type CpuidModel =
  | "intel"
  | "amd"
  | "common"
  | "nehalem"
  | "goldmont"
  | "opteron"
  | "phenom";

/** The first three are this machine's own: all that it can do, by vendor and for both. */
export const MODELS = {
  intel: {
    vendor: "GenuineIntel",
    like: "intel",
    brand: "xvm processor, Intel model",
    // Family 6, model 0x2c: the last one before AVX.
    signature: 0x0002_06c2,
    features: `${COMMON} vmx pcid invpcid tsc_deadline_timer`,
    maxLeaf: 0xb,
    maxExtended: 0x8000_0008,
    leaves: CACHES_INTEL,
  },
  amd: {
    vendor: "AuthenticAMD",
    like: "amd",
    brand: "xvm processor, AMD model",
    // Family 0x10, model 0xa.
    signature: 0x0010_0fa0,
    features:
      `${COMMON} svm cr8_legacy misalignsse xsaveerptr npt lbrv nrip_save tsc_scale vmcb_clean flushbyasid ` +
      "decodeassists pausefilter pfthreshold",
    maxLeaf: 0xb,
    maxExtended: 0x8000_000a,
    leaves: CACHES_AMD,
  },
  /** Shows neither the vendor nor anything that depends on it. */
  common: {
    vendor: "XvmProcessor",
    like: "none",
    brand: "xvm processor",
    signature: 0x0000_0600,
    features: COMMON,
    maxLeaf: 0xb,
    maxExtended: 0x8000_0008,
  },
  /** 2008: the first with SSE4.2 and POPCNT, x86-64-v2. */
  nehalem: {
    vendor: "GenuineIntel",
    like: "intel",
    brand: "Intel(R) Xeon(R) CPU E5520 @ 2.27GHz",
    signature: 0x0001_06a5,
    features:
      "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx " +
      "fxsr sse sse2 ss ht sse3 monitor vmx ssse3 cx16 sse4_1 sse4_2 popcnt syscall nx rdtscp lm " +
      "lahf_lm constant_tsc",
    maxLeaf: 0xb,
    maxExtended: 0x8000_0008,
    leaves: CACHES_INTEL,
  },
  /** 2016: no AVX, and yet XSAVES, SMAP, RDSEED, x2APIC and the TSC deadline. */
  goldmont: {
    vendor: "GenuineIntel",
    like: "intel",
    brand: "Intel(R) Atom(TM) CPU C3558 @ 2.20GHz",
    signature: 0x0005_06f1,
    features:
      "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx " +
      "fxsr sse sse2 ss ht sse3 pclmulqdq monitor vmx ssse3 cx16 sse4_1 sse4_2 x2apic movbe popcnt " +
      "tsc_deadline_timer aes xsave rdrand fsgsbase tsc_adjust smep erms rdseed smap clflushopt " +
      "sha_ni arat xsaveopt xsavec xgetbv1 xsaves syscall nx pdpe1gb rdtscp lm lahf_lm 3dnowprefetch " +
      "constant_tsc",
    maxLeaf: 0x15,
    maxExtended: 0x8000_0008,
    leaves: CACHES_INTEL,
  },
  /** 2003: the first 64-bit x86, SSE2. */
  opteron: {
    vendor: "AuthenticAMD",
    like: "amd",
    brand: "AMD Opteron(tm) Processor 240",
    signature: 0x0000_0f51,
    features:
      "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx " +
      "fxsr sse sse2 syscall nx mmxext lm 3dnowext 3dnow",
    maxLeaf: 1,
    maxExtended: 0x8000_0008,
    leaves: CACHES_AMD,
  },
  /** 2009: POPCNT and 1 GB pages, but neither SSSE3 nor SSE4.1. */
  phenom: {
    vendor: "AuthenticAMD",
    like: "amd",
    brand: "AMD Phenom(tm) II X4 955 Processor",
    signature: 0x0010_0f42,
    features:
      "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx " +
      "fxsr sse sse2 ht sse3 monitor cx16 popcnt syscall nx mmxext fxsr_opt pdpe1gb rdtscp lm " +
      "3dnowext 3dnow lahf_lm svm abm sse4a misalignsse 3dnowprefetch constant_tsc npt nrip_save",
    maxLeaf: 5,
    maxExtended: 0x8000_000a,
    leaves: CACHES_AMD,
  },
} as const satisfies Record<CpuidModel, CpuidModelRow>;

/** Their names. */
export const cpuidModels: readonly CpuidModel[] = Object.keys(MODELS) as CpuidModel[];

/** Features that make no sense without another: switched off with it, not to be switched on alone. */
export const NEEDS: Readonly<Record<string, string>> = {
  sse: "fxsr",
  sse2: "sse",
  sse3: "sse2",
  ssse3: "sse3",
  sse4_1: "ssse3",
  sse4_2: "sse4_1",
  pse36: "pse",
  x2apic: "apic",
  tsc_deadline_timer: "apic",
  arat: "apic",
  xsaveopt: "xsave",
  xsavec: "xsave",
  xgetbv1: "xsave",
  xsaves: "xsavec",
  lm: "pae",
  nx: "pae",
  pdpe1gb: "lm",
  lahf_lm: "lm",
  fsgsbase: "lm",
  pcid: "lm",
  rdtscp: "tsc",
  tsc_adjust: "tsc",
  constant_tsc: "tsc",
  npt: "svm",
  lbrv: "svm",
  tsc_scale: "svm",
  vmcb_clean: "svm",
  pausefilter: "svm",
  pfthreshold: "svm",
  nrip_save: "svm",
  flushbyasid: "svm",
  decodeassists: "svm",
};
