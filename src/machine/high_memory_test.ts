// Memory up to the end of what 32 bits address: no address, frame or place is taken as signed.
import { assert, assertEquals } from "@std/assert";
import { assemble } from "./isa/encode.ts";
import { Machine } from "./machine.ts";
import { stateText } from "./testing.ts";
import {
  WINDOW,
  windowAddress,
  windowBits,
  type WindowMode,
  windowProgram,
  windowTables,
  windowText,
} from "./testing_window.ts";

const MEMORY = 3 * 2 ** 30, LINE = 2 ** 31;
/** Windows with the line of 2 GiB at their beginning, and at pages of every use; and the last one. */
const BASES = [1, 2, 3, 5, 9, 11, 0].map((page) => LINE - page * 4096)
  .concat(MEMORY - WINDOW.size);

/** A machine whose processor is about to run the window's program. */
function windowMachine(mode: WindowMode, base: number, hot: boolean): Machine {
  const machine = new Machine({ memory: MEMORY }), { cpu } = machine, bits = windowBits(mode);
  cpu.hot = hot;
  cpu.set("cr0", 0x11n);
  cpu.set("cr4", 0x200n);
  const place = mode.startsWith("segments")
    ? { base: BigInt(base), limit: 0xffff }
    : { base: 0n, limit: 0xffff_ffff };
  const big = bits === 32 ? 0xc000 : 0;
  const granular = mode.startsWith("segments") ? big & 0x4000 : big;
  for (const n of [0, 2, 3, 4, 5]) {
    cpu.setSegment(n, { selector: 0x10, attributes: 0x93 | granular, ...place });
  }
  const code = bits === 64 ? 0xa09b : 0x9b | granular;
  cpu.setSegment(1, { selector: 8, attributes: code, ...place });
  if (bits === 64) cpu.set("efer", 0x500n);
  machine.write(base + WINDOW.entry, windowProgram(mode, base));
  if (/level|PAE/.test(mode)) {
    const { at, bytes } = windowTables(mode, base);
    machine.write(at, bytes);
    cpu.set("cr3", BigInt(at));
    if (mode !== "2-level") cpu.set("cr4", 0x220n);
    if (mode === "PAE") cpu.set("pdpte0", BigInt(at + 4096 + 1));
    cpu.set("cr0", 0x8001_0011n);
  }
  cpu.set("rip", BigInt(windowAddress(mode, base) + WINDOW.entry));
  return machine;
}

/** What the program leaves in registers and memory. */
function outcome(mode: WindowMode, base: number, hot: boolean): string {
  const machine = windowMachine(mode, base, hot), { cpu } = machine;
  assertEquals(cpu.run(1_000_000), "halt", Deno.inspect(cpu.lastFault));
  assertEquals(cpu.lastFault, undefined);
  const segments = ["es", "cs", "ss", "ds", "fs", "gs"].map((s) => `${s}.base`);
  const state = stateText(machine, ["rip", "fip", "fdp", "cr3", "pdpte0", ...segments]);
  return `${cpu.count}\n${state}\n${windowText(machine.ram.subarray(base, base + WINDOW.size))}`;
}

for (
  const mode of [
    "segments16",
    "segments32",
    "flat32",
    "2-level",
    "PAE",
    "flat64",
    "4-level",
  ] as const
) {
  Deno.test(`code, stack, tables and data are the same about 2 GiB and below 3 GiB (${mode})`, () => {
    const expected = outcome(mode, 0x20_0000, true);
    assert(expected.length > 5000);
    assertEquals(outcome(mode, 0x20_0000, false), expected);
    for (const base of BASES) {
      assertEquals(outcome(mode, base, true), expected, `0x${base.toString(16)}`);
    }
    for (const base of [LINE - 4096, LINE - 0x3000]) {
      assertEquals(outcome(mode, base, false), expected, `0x${base.toString(16)}, not hot`);
    }
  });
}

Deno.test("writes from outside to high memory reach code and what is derived from it", () => {
  const machine = new Machine({ memory: 2 ** 32 }), { cpu } = machine, at = 2 ** 32 - 4096;
  cpu.set("cr0", 0x11n);
  const flat = { base: 0n, limit: 0xffff_ffff };
  cpu.setSegment(1, { selector: 8, attributes: 0xc09b, ...flat });
  const told: [number, number][] = [];
  machine.onWrite.add((address, length) => told.push([address, length]));
  for (const value of [0x11, 0x22]) {
    machine.write(at, assemble(`mov eax, ${value}\nhlt`, { mode: 32, origin: at }).bytes);
    cpu.set("rip", BigInt(at));
    cpu.i32[0] = 0;
    assertEquals(cpu.run(1), "budget");
    assertEquals(cpu.get("rax"), BigInt(value));
    machine.markDerived(at / 4096, true);
  }
  assertEquals(told, [[at, 6]]);
  machine.write(2 ** 32 - 2, Uint8Array.of(0xaa, 0xbb));
  assertEquals([machine.ram[2 ** 32 - 2], machine.ram[2 ** 32 - 1]], [0xaa, 0xbb]);
});
