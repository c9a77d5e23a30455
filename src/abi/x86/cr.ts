/**
 * Bits of the control registers, EFER, RFLAGS and the debug registers (SDM vol. 3, 2.5, 2.2.1, 17.2).
 * @module
 */

/** CR0 (PG is bit 31: compare it unsigned). */
export const CR0 = {
  PE: 1,
  MP: 2,
  EM: 4,
  TS: 8,
  ET: 0x10,
  NE: 0x20,
  WP: 0x1_0000,
  AM: 0x4_0000,
  NW: 0x2000_0000,
  CD: 0x4000_0000,
  PG: 0x8000_0000,
} as const;

/** CR4. */
export const CR4 = {
  VME: 1,
  PVI: 2,
  TSD: 4,
  DE: 8,
  PSE: 0x10,
  PAE: 0x20,
  MCE: 0x40,
  PGE: 0x80,
  PCE: 0x100,
  OSFXSR: 0x200,
  OSXMMEXCPT: 0x400,
  UMIP: 0x800,
  LA57: 0x1000,
  VMXE: 0x2000,
  SMXE: 0x4000,
  FSGSBASE: 0x1_0000,
  PCIDE: 0x2_0000,
  OSXSAVE: 0x4_0000,
  SMEP: 0x10_0000,
  SMAP: 0x20_0000,
} as const;

/** RFLAGS (SDM vol. 1, 3.4.3); bit 1 is always set. */
export const RFLAGS = {
  CF: 1,
  fixed: 2,
  PF: 4,
  AF: 0x10,
  ZF: 0x40,
  SF: 0x80,
  TF: 0x100,
  IF: 0x200,
  DF: 0x400,
  OF: 0x800,
  IOPL: 0x3000,
  NT: 0x4000,
  RF: 0x1_0000,
  VM: 0x2_0000,
  AC: 0x4_0000,
  VIF: 0x8_0000,
  VIP: 0x10_0000,
  ID: 0x20_0000,
} as const;

/** IA32_EFER, with AMD's bits (APM vol. 2, 3.1.7). */
export const EFER = {
  SCE: 1,
  LME: 0x100,
  LMA: 0x400,
  NXE: 0x800,
  SVME: 0x1000,
  LMSLE: 0x2000,
  FFXSR: 0x4000,
} as const;

/** IA32_DEBUGCTL: last-branch records, and single steps that trap on branches only (17.4.1). */
export const DEBUGCTL = { LBR: 1, BTF: 2 } as const;

/** DR6: what reads as 1, and the causes of a debug exception. */
export const DR6 = {
  fixed: 0xffff_0ff0,
  B0: 1,
  /** B0 to B3. */
  breakpoints: 0xf,
  BD: 0x2000,
  BS: 0x4000,
  BT: 0x8000,
  /** All of them. */
  causes: 0xe00f,
} as const;
/** DR7: general detect; bit 10 reads as 1. */
export const DR7 = { fixed: 0x400, GD: 0x2000 } as const;

/** The six arithmetic flags. */
export const ARITHMETIC = RFLAGS.CF | RFLAGS.PF | RFLAGS.AF | RFLAGS.ZF | RFLAGS.SF | RFLAGS.OF;
