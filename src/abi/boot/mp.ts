/**
 * Intel's MultiProcessor tables: a floating pointer and a configuration table.
 * Source: MultiProcessor Specification 1.4, chapter 4.
 * @module
 */
import { placed } from "../layout.ts";

/** The floating pointer; "_MP_" is at 0. Lengths of it in paragraphs of 16 bytes. */
export const MP_POINTER = placed("mp_pointer", {
  table: [4, "u32"],
  length: [8, "u8"],
  revision: [9, "u8"],
  checksum: [10, "u8"],
  /** 0: there is a configuration table, and not one of the default configurations. */
  features1: [11, "u8"],
  /** Bit 7: interrupts go past the APICs by an IMCR. Clear: virtual wire. */
  features2: [12, "u8"],
}, 16);

/** The configuration table's header; texts are at 0 ("PCMP"), 8 and 16. */
export const MP_TABLE = placed("mp_table", {
  length: [4, "u16"],
  revision: [6, "u8"],
  checksum: [7, "u8"],
  oem_table: [28, "u32"],
  oem_table_size: [32, "u16"],
  entries: [34, "u16"],
  local_apic: [36, "u32"],
  extended_length: [40, "u16"],
  extended_checksum: [42, "u8"],
}, 44);
/** Of the specification: 1.4. */
export const MP_REVISION = 4;

/** First byte of an entry; they stand in this order. */
export const MP_ENTRY = {
  processor: 0,
  bus: 1,
  ioApic: 2,
  interrupt: 3,
  localInterrupt: 4,
} as const;

/** A processor. */
export const MP_PROCESSOR = placed("mp_processor", {
  type: [0, "u8"],
  apic_id: [1, "u8"],
  apic_version: [2, "u8"],
  flags: [3, "u8"],
  /** EAX and EDX of CPUID leaf 1. */
  signature: [4, "u32"],
  features: [8, "u32"],
}, 20);
/** `flags`: usable; the bootstrap processor. */
export const MP_PROCESSOR_ENABLED = 1, MP_PROCESSOR_BOOTSTRAP = 2;

/** A bus; its name, six characters, is at 2. */
export const MP_BUS = placed("mp_bus", { type: [0, "u8"], id: [1, "u8"] }, 8);

/** An I/O APIC. */
export const MP_IO_APIC = placed("mp_io_apic", {
  type: [0, "u8"],
  id: [1, "u8"],
  version: [2, "u8"],
  flags: [3, "u8"],
  address: [4, "u32"],
}, 8);

/** An interrupt of a bus, at a pin of an I/O APIC or of local APICs. */
export const MP_INTERRUPT = placed("mp_interrupt", {
  type: [0, "u8"],
  /** One of {@linkcode MP_INTERRUPT_TYPE}. */
  kind: [1, "u8"],
  /** Polarity and trigger, as in ACPI; 0: the bus's. */
  flags: [2, "u16"],
  bus: [4, "u8"],
  line: [5, "u8"],
  /** FFh: all of them. */
  apic: [6, "u8"],
  pin: [7, "u8"],
}, 8);
export const MP_INTERRUPT_TYPE = { vectored: 0, nmi: 1, smi: 2, extInt: 3 } as const;
export const MP_ALL_APICS = 0xff;
