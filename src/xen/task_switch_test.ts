// Task switches under PAE paging, whose page-directory pointers are loaded with the task's CR3.
import { assertEquals } from "@std/assert";
import { AT, WayGuest, wayName, WAYS } from "../debug/testing/ways.ts";

/** Guest-physical place of the new task's state, and its selector. */
const TASK = 0x1_1000, SELECTOR = 48;
const CODE = 8, DATA = 16;

for (const way of WAYS) {
  for (const mode of ["pae", "flat32"] as const) {
    Deno.test(`a task switch loads all of a task, in mode ${mode} (${wayName(way)})`, async () => {
      const guest = await WayGuest.make(way), jump = [0xea, 0, 0, 0, 0, SELECTOR, 0];
      const next = guest.assemble(
        mode,
        `nop
        mov [0x8800], es
        mov [0x8804], cs
        mov [0x8808], ss
        mov [0x880c], ds
        mov [0x8810], fs
        mov [0x8814], gs
        mov ebx, 99
        hlt`,
      );
      guest.enter(mode, Uint8Array.of(...jump, ...next));
      // An available TSS of 32 bits.
      guest.write64(AT.gdt + SELECTOR, 0x0000_8901_1000_0067n);
      const words = new Uint32Array(26);
      words.set([AT.root, AT.code + jump.length, 2, 1, 2, 3, 4, AT.stack, 6, 7, 8], 7);
      // ES, CS, SS, DS, FS, GS.
      words.set([DATA, CODE, DATA, DATA, 0, DATA], 18);
      guest.write(TASK, new Uint8Array(words.buffer));
      assertEquals([guest.run(), guest.reg("rbx")], ["blocked", 99n]);
      const selectors = new Uint32Array(guest.domain.memory.read(0x8800, 24).buffer);
      assertEquals([...selectors].map((word) => word & 0xffff), [DATA, CODE, DATA, DATA, 0, DATA]);
      const registers = ["rax", "rcx", "rdx", "rsp", "rbp", "rsi", "rdi"] as const;
      assertEquals(registers.map((name) => Number(guest.reg(name))), [1, 2, 3, AT.stack, 6, 7, 8]);
    });
  }
}
