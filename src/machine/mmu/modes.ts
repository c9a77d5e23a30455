/**
 * The paging modes (SDM 3 4.3 to 4.5, APM 2 5.2 and 5.3), described once: the processor's walks are
 * generated from this, the hypervisor's walk of a guest's tables and the shell's maps follow it.
 */
import { CR0, CR4, EFER } from "../../abi/x86/cr.ts";

/** Bits of an entry that all modes share. */
export const ENTRY = { P: 1, W: 2, U: 4, A: 0x20, D: 0x40, PS: 0x80 } as const;
/** Physical address in an entry of 8 bytes, and of 4. */
export const ADDRESS = 0x000f_ffff_ffff_f000n, ADDRESS32 = 0xffff_f000n;
/** Where CR3 has the page-directory pointers of PAE paging (SDM 3 4.4.1). */
export const POINTER_TABLE = 0xffff_ffe0n;

export interface PagingFormat {
  readonly name: "none" | "32-bit" | "PAE" | "4-level";
  /** Bytes of an entry, and bits of a linear address that choose one in a table. */
  readonly bytes: 4 | 8;
  readonly indexBits: 9 | 10;
  /** Levels that are read from memory; level 1 maps pages of 4 KiB. */
  readonly levels: 0 | 2 | 4;
  /** Above them: page-directory pointers, in registers. */
  readonly pointers: boolean;
  /** By level, from 0: low bits of a large page's entry that must be 0; 0 where there are no large pages. */
  readonly large: readonly [0, 0, number, number, 0];
}

/** The modes, and their numbers. */
export const PAGING = { none: 0, twoLevel: 1, pae: 2, fourLevel: 3 } as const;
export type Paging = typeof PAGING[keyof typeof PAGING];

const PAGE_2M = 0x1f_e000, PAGE_1G = 0x3fff_e000;
/** By {@linkcode PAGING}. */
export const MODES = [
  { name: "none", bytes: 4, indexBits: 10, levels: 0, pointers: false, large: [0, 0, 0, 0, 0] },
  {
    name: "32-bit",
    bytes: 4,
    indexBits: 10,
    levels: 2,
    pointers: false,
    large: [0, 0, 0x20_0000, 0, 0],
  },
  { name: "PAE", bytes: 8, indexBits: 9, levels: 2, pointers: true, large: [0, 0, PAGE_2M, 0, 0] },
  {
    name: "4-level",
    bytes: 8,
    indexBits: 9,
    levels: 4,
    pointers: false,
    large: [0, 0, PAGE_2M, PAGE_1G, 0],
  },
] as const satisfies readonly PagingFormat[];

/**
 * Reserved bits of a page-directory pointer, beside those above the address width: 1, 2, 5 to 8, 52 to
 * 63 (SDM 3 table 4-8).
 */
export const PDPTE_RESERVED = 0xfff0_0000_0000_01e6n;

/** Large pages that a processor may lack: their bits are reserved then (SDM 3 4.1.4). */
export const PAGES_ABSENT = { gigabyte: 1, pse36: 2 } as const;

/** PSE-36: these bits of a 4-MByte page's entry are address bits 32 to 39 (SDM 3 4.3). */
export const PSE36 = { shift: 13, mask: 0xff } as const;

/** The mode that words of the control registers select (SDM 3 4.1.1). */
export function pagingOf(cr0: number, cr4: number, efer: number): Paging {
  if (!(cr0 & CR0.PG)) return PAGING.none;
  if (efer & EFER.LMA) return PAGING.fourLevel;
  return cr4 & CR4.PAE ? PAGING.pae : PAGING.twoLevel;
}

/** The lowest bit of a linear address that chooses an entry of a level: its pages have so many bits. */
export const shiftOf = ({ indexBits }: PagingFormat, level: number): number =>
  12 + indexBits * (level - 1);

/** Which entry of a table of a level is a linear address's, given in words. */
export function indexOf(mode: PagingFormat, level: number, low: number, high: number): number {
  const shift = shiftOf(mode, level);
  const bits = shift < 32 ? low >>> shift | high << 32 - shift : high >>> shift - 32;
  return bits & (1 << mode.indexBits) - 1;
}

/** Number of the 4-KiB frame that the last entry of a walk and the linear address lead to, given in words. */
export function frameOf(
  mode: PagingFormat,
  level: number,
  low: number,
  high: number,
  linear: number,
): number {
  const within = (1 << mode.indexBits * (level - 1)) - 1, page = linear >>> 12 & within;
  if (mode.bytes === 8) return ((low >>> 12 | (high & 0xf) << 20) & ~within) + page;
  const above = level === 2 ? (low >>> PSE36.shift & PSE36.mask) * 2 ** 20 : 0;
  return (low >>> 12 & ~within) + above + page;
}
