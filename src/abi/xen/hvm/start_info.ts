/**
 * What a PVH guest finds where EBX points.
 * Source: Xen public/arch-x86/hvm/start_info.h, version 1; entry state: docs/misc/pvh.pandoc.
 *
 * @module
 */
import { struct } from "../../layout.ts";

/** `magic`: "xEn3" with bit 7 of the E set. */
export const XEN_HVM_START_MAGIC_VALUE = 0x336ec578;

export const HVM_START_INFO = struct("hvm_start_info", {
  magic: "u32",
  version: "u32",
  flags: "u32",
  nr_modules: "u32",
  modlist_paddr: "u64",
  cmdline_paddr: "u64",
  rsdp_paddr: "u64",
  memmap_paddr: "u64",
  memmap_entries: "u32",
  reserved: "u32",
});

export const HVM_MODLIST_ENTRY = struct("hvm_modlist_entry", {
  paddr: "u64",
  size: "u64",
  cmdline_paddr: "u64",
  reserved: "u64",
});

/** A memory-map entry; `type` is an E820 type. */
export const HVM_MEMMAP_TABLE_ENTRY = struct("hvm_memmap_table_entry", {
  addr: "u64",
  size: "u64",
  type: "u32",
  reserved: "u32",
});
