/**
 * The ACPI tables of a guest: RSDP, RSDT, XSDT, FADT, FACS, MADT, and the DSDT with its devices.
 *
 * @module
 */
import { type AbiWidth, fixed, offsetOf, sizeOf, View } from "../abi/layout.ts";
import {
  ACPI_ADDRESS,
  ACPI_HEADER,
  ACPI_PORT,
  ACPI_RESET_VALUE,
  ACPI_S5_TYPE,
  ACPI_SCI,
  ACPI_SPACE_IO,
  FACS,
  FADT,
  FADT_FLAG,
  GENERIC_ADDRESS,
  IAPC_8042,
  IAPC_LEGACY_DEVICES,
  MADT,
  MADT_PCAT_COMPAT,
  MADT_TYPE,
  RSDP,
  RSDP_V1_SIZE,
} from "../abi/boot/acpi.ts";
import { PC } from "../abi/boot/e820.ts";
import { checkProcessors } from "../machine/topology.ts";
import {
  device,
  eisaId,
  integer,
  ioPorts,
  irq,
  name,
  packageOf,
  resources,
  scope,
  string,
} from "./aml.ts";
import { BuilderError } from "./errors.ts";
import { checksum, ioApicId, LINT, OVERRIDES, putText } from "./interrupts.ts";
import type { GuestMemory, Region } from "./placement.ts";

/** A device that the DSDT names, so that the guest need not probe for it. */
export interface AcpiDevice {
  /** Up to four capitals or digits. */
  readonly name: string;
  /** PnP ID: `PNP0501` is a 16550 UART. */
  readonly hid: string;
  readonly uid?: number;
  /** First port and number of ports. */
  readonly ports: readonly (readonly [first: number, count: number])[];
  /** ISA interrupt line. */
  readonly irq?: number;
}

/** What the tables describe. */
export interface AcpiOptions {
  /** Processors, 1 to 16, APIC IDs 0 to n-1; 1 by default. */
  readonly processors?: number;
  /** Local APICs and an IO-APIC; without them there is no MADT. True by default. */
  readonly apic?: boolean;
  /** By default {@link PC_DEVICES}. */
  readonly devices?: readonly AcpiDevice[];
  /** SLP_TYP that switches the machine off; {@link ACPI_S5_TYPE} by default. */
  readonly s5Type?: number;
  /** Where the tables go (guest-physical); by default the firmware area at 0xE0000. */
  readonly address?: number;
}

/** The legacy devices of xvm's board. */
const PC_DEVICES: readonly AcpiDevice[] = [
  { name: "COM1", hid: "PNP0501", uid: 1, ports: [[0x3f8, 8]], irq: 4 },
  { name: "RTC0", hid: "PNP0B00", ports: [[0x70, 2]], irq: 8 },
  { name: "KBD0", hid: "PNP0303", ports: [[0x60, 1], [0x64, 1]], irq: 1 },
  { name: "MOU0", hid: "PNP0F13", ports: [], irq: 12 },
];

/** The tables of one machine, ready to be written at their addresses. */
export interface AcpiTables {
  /** Guest-physical address of the RSDP. */
  readonly rsdp: number;
  readonly tables: readonly {
    readonly name: string;
    readonly address: number;
    readonly bytes: Uint8Array;
  }[];
}

/** A table with its header (ACPI 5.2.6), checksum included. */
function table(signature: string, revision: number, body: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(sizeOf(ACPI_HEADER, 64) + body.length);
  bytes.set(body, sizeOf(ACPI_HEADER, 64));
  putText(bytes, 0, signature);
  putText(bytes, 10, "XVM   ");
  putText(bytes, 16, "XVMBOARD");
  putText(bytes, 28, "XVM ");
  const header = fixed(ACPI_HEADER, bytes);
  header.setAll({ length: bytes.length, revision, oem_revision: 1, creator_revision: 1 });
  header.set("checksum", checksum(bytes));
  return bytes;
}

/**
 * Makes the ACPI tables of xvm's PC: RSDP, RSDT and XSDT, FADT, FACS, DSDT and, with APICs, MADT.
 *
 * The fixed hardware is at {@link ACPI_PORT}; the machine is always in ACPI mode (SMI_CMD is 0).
 * With APICs, IRQ 0 arrives at global interrupt 2 and the SCI is level-triggered.
 *
 * @throws {BuilderError} When the tables do not fit below 1 MB.
 * @throws {RangeError} For a number of processors that no guest has.
 */
export function makeAcpi(options: AcpiOptions = {}): AcpiTables {
  const processors = options.processors ?? 1;
  checkProcessors(processors);
  let next = options.address ?? PC.bios;
  if (next % 64 !== 0) throw bad("address", `${next}`, "a multiple of 64");
  const tables: { name: string; address: number; bytes: Uint8Array }[] = [];
  const add = (name: string, bytes: Uint8Array) => {
    tables.push({ name, address: next, bytes });
    next = Math.ceil((next + bytes.length) / 64) * 64;
    return tables.at(-1)!.address;
  };
  // The RSDP first, where a guest that searches finds it at once; its contents come last.
  const rsdp = new Uint8Array(sizeOf(RSDP, 64));
  add("RSDP", rsdp);
  const facs = add("FACS", makeFacs());
  const dsdt = add("DSDT", table("DSDT", 2, makeDsdt(options)));
  const listed = [add("FADT", makeFadt(facs, dsdt))];
  if (options.apic ?? true) listed.push(add("MADT", makeMadt(processors)));
  const rsdt = add("RSDT", table("RSDT", 1, addresses(listed, 32)));
  const xsdt = add("XSDT", table("XSDT", 1, addresses(listed, 64)));
  fillRsdp(rsdp, rsdt, xsdt);
  if (next > PC.highMemory && tables[0].address < PC.highMemory) {
    throw bad("tables", `up to ${next}`, "an end below 1 MB");
  }
  return { rsdp: tables[0].address, tables };
}

function bad(field: string, given: string, expected: string): BuilderError {
  return new BuilderError({ file: "ACPI", field, given, expected });
}

/** Writes the tables into a guest's memory. */
export function writeAcpi(memory: GuestMemory, acpi: AcpiTables): Region[] {
  return acpi.tables.map(({ name, address, bytes }) => {
    memory.write(address, bytes);
    return { what: `ACPI ${name}`, start: address, end: address + bytes.length };
  });
}

function fillRsdp(bytes: Uint8Array, rsdt: number, xsdt: number): void {
  putText(bytes, 0, "RSD PTR ");
  putText(bytes, 9, "XVM   ");
  const rsdp = fixed(RSDP, bytes);
  rsdp.setAll({ revision: 2, rsdt, length: sizeOf(RSDP, 64), xsdt });
  rsdp.set("checksum", checksum(bytes.subarray(0, RSDP_V1_SIZE)));
  rsdp.set("extended_checksum", checksum(bytes));
}

function addresses(list: readonly number[], width: AbiWidth): Uint8Array {
  const each = sizeOf(ACPI_ADDRESS, width), bytes = new Uint8Array(list.length * each);
  list.forEach((at, i) => new View(ACPI_ADDRESS, width, bytes, i * each).set("at", at));
  return bytes;
}

function makeFacs(): Uint8Array {
  const bytes = new Uint8Array(sizeOf(FACS, 64));
  putText(bytes, 0, "FACS");
  fixed(FACS, bytes).setAll({ length: sizeOf(FACS, 64), version: 1 });
  return bytes;
}

function makeFadt(facs: number, dsdt: number): Uint8Array {
  const whole = new Uint8Array(sizeOf(FADT, 64));
  const flags = FADT_FLAG;
  fixed(FADT, whole).setAll({
    firmware_ctrl: facs,
    dsdt,
    sci_int: ACPI_SCI,
    pm1a_evt_blk: ACPI_PORT.pm1aEvent,
    pm1a_cnt_blk: ACPI_PORT.pm1aControl,
    pm_tmr_blk: ACPI_PORT.pmTimer,
    pm1_evt_len: 4,
    pm1_cnt_len: 2,
    pm_tmr_len: 4,
    p_lvl2_lat: 0xffff, // no C2 and C3
    p_lvl3_lat: 0xffff,
    century: 0x32,
    iapc_boot_arch: IAPC_LEGACY_DEVICES | IAPC_8042,
    // Power and sleep button are fixed hardware: their "control method" flags stay clear.
    flags: flags.WBINVD | flags.PROC_C1 | flags.FIX_RTC | flags.TMR_VAL_EXT |
      flags.RESET_REG_SUP,
    reset_value: ACPI_RESET_VALUE,
    x_firmware_ctrl: 0, // one of the two: the 32-bit field is it
    x_dsdt: dsdt,
  });
  const place = (field: keyof typeof FADT["fields"], bits: number, address: number) =>
    fixed(GENERIC_ADDRESS, whole, offsetOf(FADT, field, 64))
      .setAll({
        space: ACPI_SPACE_IO,
        bit_width: bits,
        access: bits === 8 ? 1 : bits / 16 + 1,
        address,
      });
  place("reset_reg", 8, ACPI_PORT.reset);
  place("x_pm1a_evt_blk", 32, ACPI_PORT.pm1aEvent);
  place("x_pm1a_cnt_blk", 16, ACPI_PORT.pm1aControl);
  place("x_pm_tmr_blk", 32, ACPI_PORT.pmTimer);
  return table("FACP", 3, whole.subarray(sizeOf(ACPI_HEADER, 64)));
}

/** ACPI 5.2.12: processors, IO-APIC, the two interrupts that are not wired one to one, LINT1. */
function makeMadt(processors: number): Uint8Array {
  const dword = (value: number) => Array.from({ length: 4 }, (_, i) => value >>> (8 * i) & 0xff);
  const overrides = OVERRIDES.map((
    { line, pin, flags },
  ) => [MADT_TYPE.override, 10, 0, line, ...dword(pin), flags, 0]);
  const local = Array.from(
    { length: processors },
    (_, id) => [MADT_TYPE.localApic, 8, id, id, ...dword(1)],
  );
  const entries = [
    ...local.flat(),
    ...[MADT_TYPE.ioApic, 12, ioApicId(processors), 0, ...dword(PC.ioApic), ...dword(0)],
    ...overrides.flat(),
    ...[MADT_TYPE.localApicNmi, 6, 0xff, 0, 0, LINT.nmi],
  ];
  const whole = new Uint8Array(sizeOf(MADT, 64) + entries.length);
  whole.set(entries, sizeOf(MADT, 64));
  fixed(MADT, whole).setAll({ local_apic: PC.localApic, flags: MADT_PCAT_COMPAT });
  return table("APIC", 3, whole.subarray(sizeOf(ACPI_HEADER, 64)));
}

/** Processor devices (ACPI 8.4), their _UID as in the MADT; one alone needs none. */
function makeProcessors(count: number): number[][] {
  if (count === 1) return [];
  return Array.from({ length: count }, (_, uid) =>
    device(
      `C${uid.toString(16).toUpperCase().padStart(3, "0")}`,
      name("_HID", string("ACPI0007")),
      name("_UID", integer(uid)),
    ));
}

function makeDsdt(options: AcpiOptions): Uint8Array {
  const s5 = integer(options.s5Type ?? ACPI_S5_TYPE);
  const devices = (options.devices ?? PC_DEVICES).map((d) =>
    device(
      d.name,
      name("_HID", eisaId(d.hid)),
      ...(d.uid === undefined ? [] : [name("_UID", integer(d.uid))]),
      name(
        "_CRS",
        resources(
          ...d.ports.map(([first, count]) => ioPorts(first, count)),
          ...(d.irq === undefined ? [] : [irq(d.irq)]),
        ),
      ),
    )
  );
  return Uint8Array.from([
    ...name("\\_S5", packageOf(s5, s5, integer(0), integer(0))),
    ...scope("\\_SB", ...makeProcessors(options.processors ?? 1), ...devices),
  ]);
}
