/**
 * Numbers of the model-specific registers (SDM vol. 4, chapter 2; APM vol. 2, appendix A).
 * @module
 */

/** MSR numbers by name. */
export const MSR = {
  P5_MC_ADDR: 0,
  P5_MC_TYPE: 1,
  TSC: 0x10,
  PLATFORM_ID: 0x17,
  APIC_BASE: 0x1b,
  EBL_CR_POWERON: 0x2a,
  FEATURE_CONTROL: 0x3a,
  TSC_ADJUST: 0x3b,
  BIOS_UPDT_TRIG: 0x79,
  BIOS_SIGN_ID: 0x8b,
  SMI_COUNT: 0x34,
  PLATFORM_INFO: 0xce,
  MTRRCAP: 0xfe,
  SYSENTER_CS: 0x174,
  SYSENTER_ESP: 0x175,
  SYSENTER_EIP: 0x176,
  MCG_CAP: 0x179,
  MCG_STATUS: 0x17a,
  MISC_ENABLE: 0x1a0,
  DEBUGCTL: 0x1d9,
  BRANCH_FROM: 0x1db,
  BRANCH_TO: 0x1dc,
  LAST_EXCEPTION_FROM: 0x1dd,
  LAST_EXCEPTION_TO: 0x1de,
  /** The first of eight base and mask pairs. */
  MTRR_PHYSBASE0: 0x200,
  MTRR_FIX64K: 0x250,
  MTRR_FIX16K_80000: 0x258,
  MTRR_FIX16K_A0000: 0x259,
  /** The first of eight. */
  MTRR_FIX4K_C0000: 0x268,
  PAT: 0x277,
  MTRR_DEF_TYPE: 0x2ff,
  VMX_BASIC: 0x480,
  TSC_DEADLINE: 0x6e0,
  X2APIC: 0x800,
  XSS: 0xda0,
  EFER: 0xc000_0080,
  STAR: 0xc000_0081,
  LSTAR: 0xc000_0082,
  CSTAR: 0xc000_0083,
  SFMASK: 0xc000_0084,
  FS_BASE: 0xc000_0100,
  GS_BASE: 0xc000_0101,
  KERNEL_GS_BASE: 0xc000_0102,
  TSC_AUX: 0xc000_0103,
  TSC_RATIO: 0xc000_0104,
  /** The first of three. */
  MC4_MISC1: 0xc000_0408,
  /** The first of four each. */
  PERF_EVTSEL0: 0xc001_0000,
  PERF_CTR0: 0xc001_0004,
  SYSCFG: 0xc001_0010,
  HWCR: 0xc001_0015,
  /** Two base and mask pairs. */
  IORR_BASE0: 0xc001_0016,
  TOP_MEM: 0xc001_001a,
  TOP_MEM2: 0xc001_001d,
  NB_CFG: 0xc001_001f,
  /** The first of six. */
  MC0_CTL_MASK: 0xc001_0044,
  /** Four traps and their control. */
  IO_TRAP0: 0xc001_0050,
  INT_PENDING: 0xc001_0055,
  MMIO_CFG_BASE: 0xc001_0058,
  PSTATE_LIMIT: 0xc001_0061,
  PSTATE_CTL: 0xc001_0062,
  PSTATE_STATUS: 0xc001_0063,
  /** The first of five. */
  PSTATE0: 0xc001_0064,
  COFVID_CTL: 0xc001_0070,
  COFVID_STATUS: 0xc001_0071,
  SMM_BASE: 0xc001_0111,
  SMM_ADDR: 0xc001_0112,
  SMM_MASK: 0xc001_0113,
  /** LS, IC, DC and BU. */
  LS_CFG: 0xc001_1020,
  DE_CFG: 0xc001_1029,
  BU_CFG2: 0xc001_102a,
  VM_CR: 0xc001_0114,
  IGNNE: 0xc001_0115,
  SMM_CTL: 0xc001_0116,
  VM_HSAVE_PA: 0xc001_0117,
  SVM_KEY: 0xc001_0118,
} as const;

/** Memory types of PAT and MTRRs (SDM vol. 3, table 12-8). */
export const MEMORY_TYPE = { UC: 0, WC: 1, WT: 4, WP: 5, WB: 6, UC_MINUS: 7 } as const;

/** Model-specific registers with names of their own: name, number. */
export const MSRS = {
  efer: 0xc000_0080,
  star: 0xc000_0081,
  lstar: 0xc000_0082,
  cstar: 0xc000_0083,
  sfmask: 0xc000_0084,
  kernelGsBase: 0xc000_0102,
  tscAux: 0xc000_0103,
  sysenterCs: 0x174,
  sysenterEsp: 0x175,
  sysenterEip: 0x176,
  pat: 0x277,
  apicBase: 0x1b,
  miscEnable: 0x1a0,
  debugctl: 0x1d9,
  mtrrDefType: 0x2ff,
  featureControl: 0x3a,
} as const satisfies Record<string, number>;

/** Bits of IA32_APIC_BASE (SDM 3A figure 11-26). */
export const APIC_BASE = { bootstrap: 0x100n, x2apic: 0x400n, enabled: 0x800n } as const;
