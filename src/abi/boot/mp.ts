/**
 * Intel's MultiProcessor tables: a floating pointer and a configuration table.
 * Source: MultiProcessor Specification 1.4, chapter 4.
 * @module
 */
import type { BootLayout } from "./fields.ts";

/** The floating pointer; "_MP_" is at 0. Lengths of it in paragraphs of 16 bytes. */
export const MP_POINTER = {
  table: [4, 4],
  length: [8, 1],
  revision: [9, 1],
  checksum: [10, 1],
  /** 0: there is a configuration table, and not one of the default configurations. */
  features1: [11, 1],
  /** Bit 7: interrupts go past the APICs by an IMCR. Clear: virtual wire. */
  features2: [12, 1],
} as const satisfies BootLayout;
export const MP_POINTER_SIZE = 16;

/** The configuration table's header; texts are at 0 ("PCMP"), 8 and 16. */
export const MP_TABLE = {
  length: [4, 2],
  revision: [6, 1],
  checksum: [7, 1],
  oem_table: [28, 4],
  oem_table_size: [32, 2],
  entries: [34, 2],
  local_apic: [36, 4],
  extended_length: [40, 2],
  extended_checksum: [42, 1],
} as const satisfies BootLayout;
export const MP_TABLE_SIZE = 44;
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
export const MP_PROCESSOR = {
  type: [0, 1],
  apic_id: [1, 1],
  apic_version: [2, 1],
  flags: [3, 1],
  /** EAX and EDX of CPUID leaf 1. */
  signature: [4, 4],
  features: [8, 4],
} as const satisfies BootLayout;
export const MP_PROCESSOR_SIZE = 20;
/** `flags`: usable; the bootstrap processor. */
export const MP_PROCESSOR_ENABLED = 1, MP_PROCESSOR_BOOTSTRAP = 2;

/** A bus; its name, six characters, is at 2. */
export const MP_BUS = { type: [0, 1], id: [1, 1] } as const satisfies BootLayout;
export const MP_BUS_SIZE = 8;

/** An I/O APIC. */
export const MP_IO_APIC = {
  type: [0, 1],
  id: [1, 1],
  version: [2, 1],
  flags: [3, 1],
  address: [4, 4],
} as const satisfies BootLayout;
export const MP_IO_APIC_SIZE = 8;

/** An interrupt of a bus, at a pin of an I/O APIC or of local APICs. */
export const MP_INTERRUPT = {
  type: [0, 1],
  /** One of {@linkcode MP_INTERRUPT_TYPE}. */
  kind: [1, 1],
  /** Polarity and trigger, as in ACPI; 0: the bus's. */
  flags: [2, 2],
  bus: [4, 1],
  line: [5, 1],
  /** FFh: all of them. */
  apic: [6, 1],
  pin: [7, 1],
} as const satisfies BootLayout;
export const MP_INTERRUPT_SIZE = 8;
export const MP_INTERRUPT_TYPE = { vectored: 0, nmi: 1, smi: 2, extInt: 3 } as const;
export const MP_ALL_APICS = 0xff;
