/**
 * What a PVH guest finds where EBX points.
 * Source: Xen public/arch-x86/hvm/start_info.h, version 1; entry state: docs/misc/pvh.pandoc.
 * @module
 */
import type { BootLayout } from "./fields.ts";

/** `magic`: "xEn3" with bit 7 of the E set. */
export const HVM_START_MAGIC = 0x336ec578;

export const HVM_START_INFO = {
  magic: [0, 4],
  version: [4, 4],
  flags: [8, 4],
  nr_modules: [12, 4],
  modlist_paddr: [16, 8],
  cmdline_paddr: [24, 8],
  rsdp_paddr: [32, 8],
  memmap_paddr: [40, 8],
  memmap_entries: [48, 4],
} as const satisfies BootLayout;
export const HVM_START_INFO_SIZE = 56;

export const HVM_MODULE = {
  paddr: [0, 8],
  size: [8, 8],
  cmdline_paddr: [16, 8],
} as const satisfies BootLayout;
export const HVM_MODULE_SIZE = 32;

/** A memory-map entry; `type` is an E820 type. */
export const HVM_MEMMAP_ENTRY = {
  addr: [0, 8],
  size: [8, 8],
  type: [16, 4],
} as const satisfies BootLayout;
export const HVM_MEMMAP_ENTRY_SIZE = 24;
