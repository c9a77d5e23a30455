// Writes to paging entries from outside the processor: what they drop of the TLBs, and who is told.
import { assertEquals } from "@std/assert";
import type { Machine } from "./machine.ts";
import { FRAME, FRAME_FLAG, V } from "./state.ts";
import { flatMachine } from "./testing.ts";

const DIRECTORY = 0x10_0000, TABLE = 0x10_1000, DATA = 0x10_2000, MEMORY = 2 << 20;

/** 32-bit paging over the first 4 MB; the code touches the page at 0x200000 over and over. */
function paged(entry: number): Machine {
  const machine = flatMachine(
    `
    mov ebx, 0x200000
    again: mov eax, [ebx]
    nop
    jmp again
  `,
    { memory: MEMORY },
  );
  const put = (at: number, ...words: number[]) =>
    machine.write(at, new Uint8Array(Uint32Array.from(words).buffer));
  put(DIRECTORY, TABLE | 0x67);
  put(TABLE, ...Array.from({ length: 512 }, (_, n) => n * 4096 | 0x67));
  put(TABLE + 4 * 512, entry);
  put(DATA, 1);
  put(DATA + 4096, 2);
  machine.cpu.set("cr3", BigInt(DIRECTORY));
  machine.cpu.set("cr0", 0x8000_0011n);
  machine.cpu.flushTlb();
  return machine;
}
const eax = (machine: Machine) => Number(machine.cpu.get("rax"));
const fills = (machine: Machine) => machine.cpu.i32[V.fills >> 2];
const flags = (machine: Machine, at: number) => machine.frameTable[(at >>> 12) * (FRAME.size / 4)];
const word = (value: number) => new Uint8Array(Uint32Array.of(value).buffer);

Deno.test("write() drops translations that were there, and none for an entry that was empty", () => {
  const machine = paged(DATA | 0x67);
  machine.cpu.run(30);
  assertEquals(eax(machine), 1);
  const before = fills(machine);
  machine.write(TABLE + 4 * 1000, word(DATA | 0x67));
  assertEquals(fills(machine), before);
  machine.write(TABLE + 4 * 512, word(DATA | 0x67));
  assertEquals(fills(machine), before, "the same value again");
  machine.write(TABLE + 4 * 512, word(DATA + 4096 | 0x67));
  assertEquals(fills(machine), 0);
  machine.cpu.run(30);
  assertEquals(eax(machine), 2);
});

Deno.test("writeEntry() drops translations unless the entry was empty or may be written more", () => {
  const machine = paged(DATA | 0x65);
  machine.cpu.run(30);
  const before = fills(machine), at = TABLE + 4 * 512;
  machine.writeEntry(TABLE + 4 * 1000, DATA | 0x67, 0);
  machine.writeEntry(at, DATA | 0x67, 0);
  assertEquals(fills(machine), before);
  machine.writeEntry(at, DATA | 0x65, 0);
  assertEquals(fills(machine), 0);
  machine.cpu.run(30);
  machine.writeEntry(at, DATA + 4096 | 0x67, 0);
  machine.cpu.run(30);
  assertEquals(eax(machine), 2);
});

Deno.test("markDerived(): every store to the frame is told of, once it is done", () => {
  const machine = flatMachine(
    `
    mov ebx, ${DATA}
    mov ecx, 3
    again: mov [ebx + ecx * 4], ecx
    loop again
    mov word [ebx + 0xffe], 0x1234
    mov dword [ebx + 0xffd], 0x55667788
    inc byte [ebx + 1]
    stopped: jmp stopped
  `,
    { memory: MEMORY },
  );
  const told: string[] = [];
  const note = (address: number, length: number) => {
    const bytes = machine.ram.subarray(address, address + length);
    told.push(`${(address - DATA).toString(16)} ${length} ${[...bytes].join(" ")}`);
  };
  machine.onWrite.add(note);
  // A write entry of a TLB that is there already is dropped.
  machine.cpu.run(4);
  machine.markDerived(DATA >>> 12, true);
  assertEquals(flags(machine, DATA) & FRAME_FLAG.derived, FRAME_FLAG.derived);
  machine.cpu.run(30);
  assertEquals(told, [
    "8 4 2 0 0 0",
    "4 4 1 0 0 0",
    "ffe 2 52 18",
    "ffd 1 136",
    "ffe 1 119",
    "fff 1 102",
    "1 1 1",
  ]);
  told.length = 0;
  machine.write(DATA + 16, Uint8Array.of(7, 8));
  assertEquals(told, ["10 2 7 8"]);
  machine.markDerived(DATA >>> 12, false);
  machine.write(DATA + 16, Uint8Array.of(7, 8));
  assertEquals(told.length, 1);
});
