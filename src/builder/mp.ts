/** Intel's MultiProcessor tables, for kernels that do not read ACPI's. */
import {
  type FieldValues,
  fixed,
  sizeOf,
  type StructFields,
  type StructOf,
} from "../abi/layout.ts";
import { PC } from "../abi/boot/e820.ts";
import {
  MP_ALL_APICS,
  MP_BUS,
  MP_ENTRY,
  MP_INTERRUPT,
  MP_INTERRUPT_TYPE,
  MP_IO_APIC,
  MP_POINTER,
  MP_PROCESSOR,
  MP_PROCESSOR_BOOTSTRAP,
  MP_PROCESSOR_ENABLED,
  MP_REVISION,
  MP_TABLE,
} from "../abi/boot/mp.ts";
import { ioApicVersion } from "../machine/apic/io.ts";
import { localApicVersion } from "../machine/apic/registers.ts";
import { checkProcessors } from "../machine/topology.ts";
import { checksum, ioApicId, LINT, OVERRIDES, putText } from "./interrupts.ts";
import type { GuestMemory, Region } from "./placement.ts";

/** What the tables describe. */
export interface MpOptions {
  /** 1 to 16, APIC ids 0 to n-1. */
  readonly processors: number;
  /** EAX and EDX of CPUID leaf 1. */
  readonly signature: number;
  readonly features: number;
}

/** An entry: its layout's fields, and a text. */
function entry<F extends StructFields>(type: StructOf<F>, values: FieldValues<F>): Uint8Array {
  return fixed(type).setAll(values).raw;
}

const interrupt = (values: FieldValues<typeof MP_INTERRUPT["fields"]>): Uint8Array =>
  entry(MP_INTERRUPT, values);

/** The only bus: ISA. */
const ISA = 0;
const ISA_LINES = Array.from({ length: 16 }, (_, line) => line);
/** The 8259s' cascade: nothing comes by it. */
const CASCADE = 2;

/** In the order of their types. */
function entries({ processors, signature, features }: MpOptions): Uint8Array[] {
  const list = Array.from(
    { length: processors },
    (_, id) =>
      entry(MP_PROCESSOR, {
        type: MP_ENTRY.processor,
        apic_id: id,
        apic_version: localApicVersion & 0xff,
        flags: MP_PROCESSOR_ENABLED | (id === 0 ? MP_PROCESSOR_BOOTSTRAP : 0),
        signature,
        features,
      }),
  );
  const bus = entry(MP_BUS, { type: MP_ENTRY.bus, id: ISA });
  putText(bus, 2, "ISA   ");
  list.push(bus);
  const apic = ioApicId(processors);
  list.push(entry(MP_IO_APIC, {
    type: MP_ENTRY.ioApic,
    id: apic,
    version: ioApicVersion & 0xff,
    flags: 1,
    address: PC.ioApic,
  }));
  for (const line of ISA_LINES) {
    if (line === CASCADE) continue;
    const { pin, flags } = OVERRIDES.find((other) => other.line === line) ??
      { pin: line, flags: 0 };
    list.push(interrupt({ type: MP_ENTRY.interrupt, flags, bus: ISA, line, apic, pin }));
  }
  const { extInt, nmi } = MP_INTERRUPT_TYPE, type = MP_ENTRY.localInterrupt;
  list.push(interrupt({ type, kind: extInt, bus: ISA, apic: 0, pin: LINT.extInt }));
  list.push(interrupt({ type, kind: nmi, bus: ISA, apic: MP_ALL_APICS, pin: LINT.nmi }));
  return list;
}

/**
 * Floating pointer and configuration table, one behind the other, for address F0000h: the pointer is
 * searched for in the BIOS's area (MP 1.4, 4.1).
 *
 * @throws {RangeError} for a number of processors that no guest has
 */
export function makeMp(options: MpOptions): Uint8Array {
  checkProcessors(options.processors);
  const list = entries(options);
  const length = list.reduce((sum, { length }) => sum + length, sizeOf(MP_TABLE, 64));
  const bytes = new Uint8Array(sizeOf(MP_POINTER, 64) + length);
  const table = bytes.subarray(sizeOf(MP_POINTER, 64));
  let at = sizeOf(MP_TABLE, 64);
  for (const each of list) {
    table.set(each, at);
    at += each.length;
  }
  putText(table, 0, "PCMP");
  putText(table, 8, "XVM     ");
  putText(table, 16, "XVMBOARD    ");
  const header = fixed(MP_TABLE, table);
  header.setAll({
    length,
    revision: MP_REVISION,
    entries: list.length,
    local_apic: PC.localApic,
  });
  header.set("checksum", checksum(table));
  const pointer = bytes.subarray(0, sizeOf(MP_POINTER, 64));
  putText(pointer, 0, "_MP_");
  const fields = fixed(MP_POINTER, pointer);
  fields.setAll({ table: PC.rom + sizeOf(MP_POINTER, 64), length: 1, revision: MP_REVISION });
  fields.set("checksum", checksum(pointer));
  return bytes;
}

/** Writes the tables into a guest's memory. */
export function writeMp(memory: GuestMemory, options: MpOptions): Region {
  const bytes = makeMp(options);
  memory.write(PC.rom, bytes);
  return { what: "MP tables", start: PC.rom, end: PC.rom + bytes.length };
}
