/**
 * Multiboot 1. Source: Multiboot Specification 0.6.96, sections 3.1 to 3.3.
 * @module
 */
import { placed, struct } from "../layout.ts";

/** Magic of the header in the image, and what EAX holds at entry. */
export const MULTIBOOT_HEADER_MAGIC = 0x1badb002, MULTIBOOT_LOADER_MAGIC = 0x2badb002;
/** The header lies within this many bytes of the image, on a 4-byte boundary. */
export const MULTIBOOT_SEARCH = 8192;

/**
 * Magic of a multiboot 2 header, which lies on an 8-byte boundary within so many bytes (Multiboot2
 * Specification 2.0, 3.1.1): magic, architecture, its length, and a checksum.
 */
export const MULTIBOOT2_HEADER_MAGIC = 0xe85250d6, MULTIBOOT2_SEARCH = 32768;

/** How a multiboot 2 header begins; the four add up to 0. */
export const MULTIBOOT2_HEADER = struct("multiboot2_header", {
  magic: "u32",
  arch: "u32",
  length: "u32",
  checksum: "u32",
});
/** How a multiboot 1 header begins, and by what it is known: the three add up to 0. */
export const MULTIBOOT_FIRST = struct("multiboot_first", {
  magic: "u32",
  flags: "u32",
  checksum: "u32",
});

/** The header; the fields from `header_addr` on count only with flag bit 16. */
export const MULTIBOOT_HEADER = placed("multiboot_header", {
  magic: [0, "u32"],
  flags: [4, "u32"],
  checksum: [8, "u32"],
  header_addr: [12, "u32"],
  load_addr: [16, "u32"],
  load_end_addr: [20, "u32"],
  bss_end_addr: [24, "u32"],
  entry_addr: [28, "u32"],
});

/** Header flags: modules on page boundaries, memory wanted, video wanted, address fields valid. */
const PAGE_ALIGN = 1, MEMORY_INFO = 2, VIDEO = 4;
export const MULTIBOOT_ADDRESSES = 0x10000;
/** Flags below 16 that a loader must understand or refuse. */
export const MULTIBOOT_KNOWN_FLAGS = PAGE_ALIGN | MEMORY_INFO | VIDEO;

/** The information structure that EBX points to. */
export const MULTIBOOT_INFO = placed("multiboot_info", {
  flags: [0, "u32"],
  mem_lower: [4, "u32"],
  mem_upper: [8, "u32"],
  boot_device: [12, "u32"],
  cmdline: [16, "u32"],
  mods_count: [20, "u32"],
  mods_addr: [24, "u32"],
  mmap_length: [44, "u32"],
  mmap_addr: [48, "u32"],
  boot_loader_name: [64, "u32"],
}, 116);

/** `flags` of the information structure: which of its parts are valid. */
export const MULTIBOOT_INFO_FLAG = {
  memory: 1 << 0,
  bootDevice: 1 << 1,
  cmdline: 1 << 2,
  modules: 1 << 3,
  mmap: 1 << 6,
  loaderName: 1 << 9,
} as const;

/** An entry of the memory map; `size` does not count itself. */
export const MULTIBOOT_MMAP_ENTRY = placed("multiboot_mmap_entry", {
  size: [0, "u32"],
  base: [4, "u64"],
  length: [12, "u64"],
  type: [20, "u32"],
}, 24);

/** A module: first byte, byte after the last, its string. */
export const MULTIBOOT_MODULE = placed("multiboot_module", {
  mod_start: [0, "u32"],
  mod_end: [4, "u32"],
  string: [8, "u32"],
}, 16);
