/**
 * Multiboot 1. Source: Multiboot Specification 0.6.96, sections 3.1 to 3.3.
 * @module
 */
import type { BootLayout } from "./fields.ts";

/** Magic of the header in the image, and what EAX holds at entry. */
export const MULTIBOOT_HEADER_MAGIC = 0x1badb002, MULTIBOOT_LOADER_MAGIC = 0x2badb002;
/** The header lies within this many bytes of the image, on a 4-byte boundary. */
export const MULTIBOOT_SEARCH = 8192;

/**
 * Magic of a multiboot 2 header, which lies on an 8-byte boundary within so many bytes (Multiboot2
 * Specification 2.0, 3.1.1): magic, architecture, its length, and a checksum.
 */
export const MULTIBOOT2_HEADER_MAGIC = 0xe85250d6, MULTIBOOT2_SEARCH = 32768;

/** The header; the fields from `header_addr` on count only with flag bit 16. */
export const MULTIBOOT_HEADER = {
  magic: [0, 4],
  flags: [4, 4],
  checksum: [8, 4],
  header_addr: [12, 4],
  load_addr: [16, 4],
  load_end_addr: [20, 4],
  bss_end_addr: [24, 4],
  entry_addr: [28, 4],
} as const satisfies BootLayout;

/** Header flags: modules on page boundaries, memory wanted, video wanted, address fields valid. */
const PAGE_ALIGN = 1, MEMORY_INFO = 2, VIDEO = 4;
export const MULTIBOOT_ADDRESSES = 0x10000;
/** Flags below 16 that a loader must understand or refuse. */
export const MULTIBOOT_KNOWN_FLAGS = PAGE_ALIGN | MEMORY_INFO | VIDEO;

/** The information structure that EBX points to. */
export const MULTIBOOT_INFO = {
  flags: [0, 4],
  mem_lower: [4, 4],
  mem_upper: [8, 4],
  boot_device: [12, 4],
  cmdline: [16, 4],
  mods_count: [20, 4],
  mods_addr: [24, 4],
  mmap_length: [44, 4],
  mmap_addr: [48, 4],
  boot_loader_name: [64, 4],
} as const satisfies BootLayout;
/** Bytes of the information structure. */
export const MULTIBOOT_INFO_SIZE = 116;

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
export const MULTIBOOT_MMAP_ENTRY = {
  size: [0, 4],
  base: [4, 8],
  length: [12, 8],
  type: [20, 4],
} as const satisfies BootLayout;
export const MULTIBOOT_MMAP_ENTRY_SIZE = 24;

/** A module: first byte, byte after the last, its string. */
export const MULTIBOOT_MODULE = {
  mod_start: [0, 4],
  mod_end: [4, 4],
  string: [8, 4],
} as const satisfies BootLayout;
export const MULTIBOOT_MODULE_SIZE = 16;
