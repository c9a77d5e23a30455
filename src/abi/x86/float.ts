/**
 * The registers of x87 and SSE: what they are after RESET and INIT, and the areas that FXSAVE and XSAVE
 * keep them in.
 * @module
 */

/** The registers, in words of the manuals; the tags as FSTENV has them, two bits each. */
export const FLOAT_REGISTERS: readonly string[] = [
  ...Array.from({ length: 16 }, (_, n) => `xmm${n}`),
  ...Array.from({ length: 8 }, (_, n) => `fpr${n}`),
  ...["fcw", "fsw", "ftw", "fop", "fip", "fdp", "mxcsr"],
];

/** What is not 0 after RESET, and after FNINIT (SDM 3 table 10-1). */
export const FLOAT_RESET = { fcw: 0x40, ftw: 0x5555, mxcsr: 0x1f80 } as const;
export const FLOAT_INIT = { fcw: 0x37f, ftw: 0xffff, mxcsr: 0x1f80 } as const;

/** Bits of the x87 control word: those that exist, and one that reads as 1 (SDM 1 8.1.5). */
export const FCW = { exist: 0x1f3f, fixed: 0x40 } as const;
/** Bits of the x87 status word above the exceptions, and where TOP begins (SDM 1 8.1.3). */
export const FSW = {
  ES: 0x80,
  C0: 0x100,
  C1: 0x200,
  C2: 0x400,
  TOP: 0x3800,
  C3: 0x4000,
  B: 0x8000,
  top: 11,
} as const;
/** Bits of MXCSR beside the exceptions, and where its fields begin (SDM 1 10.2.3). */
export const MXCSR = {
  DAZ: 0x40,
  UM: 0x800,
  FTZ: 0x8000,
  /** Operands in memory need not be aligned (AMD). */
  MM: 0x2_0000,
  masks: 7,
  rounding: 13,
} as const;

/** Bytes of FXSAVE's image and places in it (SDM 1 table 10-2); `tags` is abridged, a bit each. */
export const FXSAVE = {
  fcw: 0,
  fsw: 2,
  tags: 4,
  fop: 6,
  /** With 32-bit pointers the selector stands 4 bytes behind. */
  fip: 8,
  fdp: 16,
  /** Its mask stands 4 bytes behind. */
  mxcsr: 24,
  /** ST(0) to ST(7), 16 bytes each. */
  st: 32,
  /** XMM0 to XMM15. */
  xmm: 160,
  size: 512,
} as const;

/** State components (SDM 1 13.1). */
export const COMPONENT = { x87: 1n, sse: 2n } as const;
/** XSAVE's area: the legacy region is FXSAVE's image, the header follows (SDM 1 13.4). */
export const XSAVE = {
  xstateBv: 512,
  xcompBv: 520,
  reserved: 528,
  size: 576,
  alignment: 64,
  /** Bit of XCOMP_BV: the compacted format. */
  compacted: 1n << 63n,
} as const;
