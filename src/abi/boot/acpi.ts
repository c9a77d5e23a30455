/**
 * ACPI tables: layouts and the numbers of xvm's PC.
 * Source: ACPI Specification 6.4, chapter 5.2 (tables), 4.8 (fixed hardware), 20.2 (AML).
 * @module
 */
import { placed, struct } from "../layout.ts";

/** Ports and lines of the fixed hardware (PM1, timer, reset) on xvm's board. */
export const ACPI_PORT = {
  /** PM1a event block: status word, then enable word. */
  pm1aEvent: 0x600,
  /** PM1a control word: SCI_EN bit 0, SLP_TYP bits 10 to 12, SLP_EN bit 13. */
  pm1aControl: 0x604,
  /** Power-management timer, 32 bits, 3.579545 MHz. */
  pmTimer: 0x608,
  /** Reset control register. */
  reset: 0xcf9,
} as const;
/** Value written to the reset register. */
export const ACPI_RESET_VALUE = 0x06;
/** The SCI: ISA interrupt 9, level-triggered. */
export const ACPI_SCI = 9;
/** SLP_TYP of S5, soft off. */
export const ACPI_S5_TYPE = 0;
/** Fields of the PM1 control word. */
export const PM1_SCI_EN = 1 << 0, PM1_SLP_TYP_SHIFT = 10, PM1_SLP_EN = 1 << 13;

/** RSDP, revision 2. */
export const RSDP = placed("rsdp", {
  checksum: [8, "u8"],
  revision: [15, "u8"],
  rsdt: [16, "u32"],
  length: [20, "u32"],
  xsdt: [24, "u64"],
  extended_checksum: [32, "u8"],
}, 36);
/** The first part, which `checksum` covers. */
export const RSDP_V1_SIZE = 20;

/** The header every table but RSDP and FACS begins with; texts are at 0, 10, 16 and 28. */
export const ACPI_HEADER = placed("acpi_header", {
  length: [4, "u32"],
  revision: [8, "u8"],
  checksum: [9, "u8"],
  oem_revision: [24, "u32"],
  creator_revision: [32, "u32"],
}, 36);

/** What follows the header: addresses of tables, of 32 bits in an RSDT, of 64 in an XSDT. */
export const ACPI_ADDRESS = struct("acpi_address", { at: "ulong" });

/** FADT, revision 3. */
export const FADT = placed("fadt", {
  firmware_ctrl: [36, "u32"],
  dsdt: [40, "u32"],
  preferred_pm_profile: [45, "u8"],
  sci_int: [46, "u16"],
  smi_cmd: [48, "u32"],
  pm1a_evt_blk: [56, "u32"],
  pm1a_cnt_blk: [64, "u32"],
  pm_tmr_blk: [76, "u32"],
  pm1_evt_len: [88, "u8"],
  pm1_cnt_len: [89, "u8"],
  pm_tmr_len: [91, "u8"],
  p_lvl2_lat: [96, "u16"],
  p_lvl3_lat: [98, "u16"],
  century: [108, "u8"],
  iapc_boot_arch: [109, "u16"],
  flags: [112, "u32"],
  reset_reg: [116, "u8"], // a generic address of 12 bytes
  reset_value: [128, "u8"],
  x_firmware_ctrl: [132, "u64"],
  x_dsdt: [140, "u64"],
  x_pm1a_evt_blk: [148, "u8"],
  x_pm1a_cnt_blk: [172, "u8"],
  x_pm_tmr_blk: [208, "u8"],
}, 244);

/** FADT `flags`. */
export const FADT_FLAG = {
  WBINVD: 1 << 0,
  PROC_C1: 1 << 2,
  PWR_BUTTON: 1 << 4,
  SLP_BUTTON: 1 << 5,
  FIX_RTC: 1 << 6,
  TMR_VAL_EXT: 1 << 8,
  RESET_REG_SUP: 1 << 10,
} as const;
/** FADT `iapc_boot_arch`. */
export const IAPC_LEGACY_DEVICES = 1, IAPC_8042 = 2;

/** Generic address structure. */
export const GENERIC_ADDRESS = placed("generic_address", {
  space: [0, "u8"],
  bit_width: [1, "u8"],
  bit_offset: [2, "u8"],
  access: [3, "u8"],
  address: [4, "u64"],
});
/** `space`: system I/O. */
export const ACPI_SPACE_IO = 1;

/** FACS. */
export const FACS = placed("facs", { length: [4, "u32"], version: [32, "u8"] }, 64);

/** MADT: header fields, then entries (type u8, length u8, ...). */
export const MADT = placed("madt", { local_apic: [36, "u32"], flags: [40, "u32"] }, 44);
export const MADT_PCAT_COMPAT = 1;
export const MADT_TYPE = { localApic: 0, ioApic: 1, override: 2, localApicNmi: 4 } as const;
/** Flags of an interrupt override or local NMI: active high, level-triggered. */
export const MPS_ACTIVE_HIGH = 0x1, MPS_LEVEL = 0xc;
