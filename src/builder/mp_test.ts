import { assertEquals, assertThrows } from "@std/assert";
import { IoApic } from "../machine/apic/io.ts";
import { ioApicId } from "./interrupts.ts";
import { makeMp, writeMp } from "./mp.ts";
import { TestMemory } from "./testing.ts";

const made = (processors: number) =>
  makeMp({ processors, signature: 0x206c2, features: 0x9f8bfbff });
const sum = (bytes: Uint8Array) => bytes.reduce((n, b) => n + b, 0) & 0xff;
const text = (bytes: Uint8Array) => String.fromCharCode(...bytes);
const word = (bytes: Uint8Array, at: number) => bytes[at] | bytes[at + 1] << 8;
const dword = (bytes: Uint8Array, at: number) =>
  (word(bytes, at) | word(bytes, at + 2) << 16) >>> 0;

/** Bytes of an entry by its type, as the specification has them. */
const SIZES = [20, 8, 8, 8, 8];
/** As a kernel finds it: the pointer, and the entries behind the header. */
function read(memory: Uint8Array) {
  const at = Array.from({ length: 0x1000 }, (_, n) => 0xf0000 + 16 * n)
    .find((address) => text(memory.subarray(address, address + 4)) === "_MP_")!;
  const pointer = memory.subarray(at, at + 16);
  const from = dword(pointer, 4), header = memory.subarray(from, from + 44);
  const table = memory.subarray(from, from + word(header, 4));
  const entries: Uint8Array[] = [];
  for (let at = 44; at < table.length;) {
    const size = SIZES[table[at]];
    entries.push(table.subarray(at, at + size));
    at += size;
  }
  return { pointer, header, table, entries };
}

Deno.test("the MP tables are found in the BIOS's area, lead to each other, and their sums are zero", () => {
  for (let n = 1; n <= 16; n++) {
    const memory = new TestMemory(4 << 20);
    const region = writeMp(memory, { processors: n, signature: 0x206c2, features: 0x9f8bfbff });
    const { pointer, header, table, entries } = read(memory.bytes);
    assertEquals([sum(pointer), sum(table)], [0, 0]);
    assertEquals([pointer[8], pointer[9], pointer[11], pointer[12]], [1, 4, 0, 0], "virtual wire");
    assertEquals([text(header.subarray(0, 4)), header[6]], ["PCMP", 4]);
    assertEquals(word(header, 34), entries.length);
    assertEquals(dword(header, 36), 0xfee00000);
    assertEquals(entries.length, n + 1 + 1 + 15 + 2);
    assertEquals(region, {
      what: "MP tables",
      start: 0xf0000,
      end: 0xf0010 + table.length,
    });
    const types = entries.map(([type]) => type);
    assertEquals(types, types.toSorted((a, b) => a - b), "ascending by type");
  }
});

Deno.test("the MP tables list processors, the bus, the IO-APIC and its interrupts", () => {
  const memory = new TestMemory(4 << 20);
  writeMp(memory, { processors: 4, signature: 0x206c2, features: 0x9f8bfbff });
  const { entries } = read(memory.bytes);
  const of = (type: number) => entries.filter((e) => e[0] === type).map((e) => [...e]);
  assertEquals(
    entries.filter(([type]) => type === 0).map((e) => [e[1], e[2], e[3], dword(e, 4), dword(e, 8)]),
    [3, 1, 1, 1].map((flags, id) => [id, 0x14, flags, 0x206c2, 0x9f8bfbff]),
  );
  assertEquals(of(1).map(([, id, ...name]) => [id, text(Uint8Array.from(name))]), [[0, "ISA   "]]);
  const io = new IoApic({ id: ioApicId(4) });
  assertEquals(of(2), [[2, io.state.id >>> 24, io.readRegister(1) & 0xff, 1, 0, 0, 0xc0, 0xfe]]);
  for (const [, kind, flags, , bus, line, apic, pin] of of(3)) {
    assertEquals([kind, bus, apic, pin], [0, 0, 4, io.pinOf(line)]);
    assertEquals(flags, line === 9 ? 0xd : 0, "the SCI is a level, active high");
  }
  assertEquals(of(3).map((e) => e[5]), [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
  assertEquals(of(4), [
    [4, 3, 0, 0, 0, 0, 0, 0], // ExtINT: the bootstrap processor's LINT0
    [4, 1, 0, 0, 0, 0, 0xff, 1], // NMI: LINT1 of all
  ]);
});

Deno.test("makeMp() and the I/O APIC refuse what no guest has", () => {
  for (const processors of [0, 17, 2.5]) {
    assertThrows(() => made(processors), RangeError, `${processors} was given`);
  }
  assertEquals([1, 2, 15, 16].map(ioApicId), [1, 2, 15, 0]);
});
