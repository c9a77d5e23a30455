/**
 * ACPI tables: layouts and the numbers of xvm's PC.
 * Source: ACPI Specification 6.4, chapter 5.2 (tables), 4.8 (fixed hardware), 20.2 (AML).
 * @module
 */
import type { BootLayout } from "./fields.ts";

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
export const RSDP = {
  checksum: [8, 1],
  revision: [15, 1],
  rsdt: [16, 4],
  length: [20, 4],
  xsdt: [24, 8],
  extended_checksum: [32, 1],
} as const satisfies BootLayout;
export const RSDP_SIZE = 36;
/** The first part, which `checksum` covers. */
export const RSDP_V1_SIZE = 20;

/** The header every table but RSDP and FACS begins with; texts are at 0, 10, 16 and 28. */
export const ACPI_HEADER = {
  length: [4, 4],
  revision: [8, 1],
  checksum: [9, 1],
  oem_revision: [24, 4],
  creator_revision: [32, 4],
} as const satisfies BootLayout;
export const ACPI_HEADER_SIZE = 36;

/** FADT, revision 3. */
export const FADT = {
  firmware_ctrl: [36, 4],
  dsdt: [40, 4],
  preferred_pm_profile: [45, 1],
  sci_int: [46, 2],
  smi_cmd: [48, 4],
  pm1a_evt_blk: [56, 4],
  pm1a_cnt_blk: [64, 4],
  pm_tmr_blk: [76, 4],
  pm1_evt_len: [88, 1],
  pm1_cnt_len: [89, 1],
  pm_tmr_len: [91, 1],
  p_lvl2_lat: [96, 2],
  p_lvl3_lat: [98, 2],
  century: [108, 1],
  iapc_boot_arch: [109, 2],
  flags: [112, 4],
  reset_reg: [116, 1], // a generic address of 12 bytes
  reset_value: [128, 1],
  x_firmware_ctrl: [132, 8],
  x_dsdt: [140, 8],
  x_pm1a_evt_blk: [148, 1],
  x_pm1a_cnt_blk: [172, 1],
  x_pm_tmr_blk: [208, 1],
} as const satisfies BootLayout;
export const FADT_SIZE = 244;

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
export const GENERIC_ADDRESS = {
  space: [0, 1],
  bit_width: [1, 1],
  bit_offset: [2, 1],
  access: [3, 1],
  address: [4, 8],
} as const satisfies BootLayout;
/** `space`: system I/O. */
export const ACPI_SPACE_IO = 1;

/** FACS. */
export const FACS = { length: [4, 4], version: [32, 1] } as const satisfies BootLayout;
export const FACS_SIZE = 64;

/** MADT: header fields, then entries (type u8, length u8, ...). */
export const MADT = { local_apic: [36, 4], flags: [40, 4] } as const satisfies BootLayout;
export const MADT_HEADER_SIZE = 44;
export const MADT_PCAT_COMPAT = 1;
export const MADT_TYPE = { localApic: 0, ioApic: 1, override: 2, localApicNmi: 4 } as const;
/** Flags of an interrupt override or local NMI: active high, level-triggered. */
export const MPS_ACTIVE_HIGH = 0x1, MPS_LEVEL = 0xc;
