/**
 * The E820 memory map: types and the 20-byte entry.
 * Source: ACPI 6.4, 15.1 (INT 15h, E820h), table 15.1.
 * @module
 */
import { placed } from "../layout.ts";

/** What a range of guest-physical addresses is. */
export const E820_TYPE = {
  ram: 1,
  reserved: 2,
  acpi: 3,
  nvs: 4,
  unusable: 5,
} as const;

/** One entry. */
export const E820_ENTRY = placed("e820_entry", {
  base: [0, "u64"],
  length: [8, "u64"],
  type: [16, "u32"],
}, 20);

/** Where things lie in a PC's first megabyte and below 4 GB (bytes, guest-physical). */
export const PC = {
  /** End of conventional memory; the last kilobyte is the extended BIOS data area. */
  ebda: 0x9fc00,
  conventionalEnd: 0xa0000,
  videoEnd: 0xc0000,
  /** Firmware tables (ACPI, MP) are searched from here to 1 MB. */
  bios: 0xe0000,
  rom: 0xf0000,
  highMemory: 0x100000,
  /** RAM below 4 GB ends here at the latest; the rest goes above 4 GB. */
  lowRamEnd: 0xc0000000,
  ioApic: 0xfec00000,
  localApic: 0xfee00000,
  romAlias: 0xffff0000,
  fourGigabytes: 0x100000000,
  /** BIOS data area words: segment of the EBDA, kilobytes of conventional memory. */
  bdaEbdaSegment: 0x40e,
  bdaMemoryKilobytes: 0x413,
} as const;

/**
 * Pages at the end of the region that Xen keeps for what it shares with guests of virtual machines
 * (END_SPECIAL_REGION of xc_dom_x86): xenstore's is the fifth, the console's the eighth.
 */
export const XEN_SPECIAL = { base: 0xfeff8000, size: 0x8000 } as const;
