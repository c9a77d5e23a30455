import { assert, assertEquals } from "@std/assert";
import { CR0, CR4, EFER } from "../abi/x86/cr.ts";
import { checkById } from "../machine/checks.ts";
import { Machine } from "../machine/machine.ts";
import { ENTRY, MODES, pagingOf } from "../machine/mmu/modes.ts";
import { ABORT, ACCESS, V } from "../machine/state.ts";
import { readLinear } from "./guest_memory.ts";
import { nptFormat } from "./svm/paging.ts";

const MEMORY = 8 << 20, TABLES = 64;
const PAGED = CR0.PE | CR0.PG;
const REGISTERS = [
  { cr0: CR0.PE, cr4: 0, efer: 0 },
  { cr0: PAGED, cr4: 0, efer: 0 },
  { cr0: PAGED, cr4: CR4.PSE, efer: 0 },
  { cr0: PAGED, cr4: CR4.PAE, efer: EFER.NXE },
  { cr0: PAGED, cr4: CR4.PAE, efer: EFER.LME | EFER.LMA },
];

/** Numbers below a bound, always the same ones. */
function numbers(seed: number): (bound: number) => number {
  return (bound) => {
    seed = Math.imul(seed, 1_664_525) + 1_013_904_223 | 0;
    return Math.floor((seed >>> 0) / 2 ** 32 * bound);
  };
}

Deno.test("a look at a guest's memory finds what the processor's own walk does, in every mode", () => {
  const machine = new Machine({ memory: MEMORY }), { cpu, words } = machine;
  const any = numbers(1);
  for (const { cr0, cr4, efer } of REGISTERS) {
    const mode = MODES[pagingOf(cr0, cr4, efer)];
    // Tables that lead to each other, to pages, to large ones and nowhere.
    for (let at = 0; at < TABLES * 1024; at += mode.bytes / 4) {
      const frame = any(8) ? any(TABLES) : any(MEMORY / 4096), present = any(8) ? ENTRY.P : 0;
      const large = any(4) ? 0 : ENTRY.PS;
      words[at] = (large ? frame & ~(mode.bytes === 8 ? 511 : 1023) : frame) << 12 | large |
        present;
      if (mode.bytes === 8) words[at + 1] = any(64) ? 0 : 1;
    }
    for (let at = TABLES * 1024; at < words.length; at++) words[at] = at;
    const paging = { cr0: BigInt(cr0), cr3: 0x3000n, cr4: BigInt(cr4), efer: BigInt(efer) };
    cpu.reset();
    cpu.setAll(paging);
    cpu.loadPdptes(Number(paging.cr3));
    const found = new Map<string, number>();
    for (let n = 0; n < 4000; n++) {
      const offset = any(2 ** 32), above = mode.name === "4-level" ? any(2 ** 15) : 0;
      const linear = BigInt(above) << 32n | BigInt(mode.levels ? offset : offset % MEMORY);
      cpu.flushTlb();
      cpu.system.refresh();
      cpu.i32[V.abort >> 2] = ABORT.none;
      const place = Number(cpu.system.walk(linear, ACCESS.probe));
      const fault = cpu.i32[V.abort >> 2] !== ABORT.none;
      const check = fault ? checkById(cpu.i32[V.check >> 2]).name : "page";
      found.set(check, (found.get(check) ?? 0) + 1);
      // Rights, and with them reserved bits, are not looked at.
      if (fault && check !== "page.present") continue;
      const memory = { memory: machine, format: nptFormat, root: undefined };
      const length = Math.min(8, 4096 - Number(linear & 4095n));
      const expected = fault || place >= MEMORY
        ? new Uint8Array()
        : machine.ram.slice(place, place + length);
      const bytes = readLinear(memory, paging, linear, length);
      assertEquals(bytes, expected, `${mode.name}, 0x${linear.toString(16)}: ${check}`);
    }
    assert((found.get("page") ?? 0) > 50, `${mode.name}: ${JSON.stringify([...found])}`);
  }
});
