// AMD's performance counters: what is counted is exact, whatever the run is cut into.
import { assertEquals } from "@std/assert";
import { EVENT, EVENT_SELECT as B } from "./counters.ts";
import type { Machine } from "./machine.ts";
import { CPU } from "./state.ts";
import { flatMachine, register } from "./testing.ts";

const SELECT = 0xc001_0000, COUNTER = 0xc001_0004;
const ALL = B.enable | B.user | B.system;

const wrmsr = (number: number, low: number, high = 0) =>
  `mov ecx, ${number}\nmov eax, ${low >>> 0}\nmov edx, ${high}\nwrmsr\n`;
const rdpmc = (n: number, to: string) => `mov ecx, ${n}\nrdpmc\nmov ${to}, eax\n`;

function machine(program: string, memory = 1 << 20, hot = true): Machine {
  return flatMachine(`${program}\nend: hlt`, { cpu: "amd", memory, hot });
}
/** Runs to HLT in pieces of at most `piece` instructions. */
function halt(m: Machine, piece = 1000): void {
  for (let n = 0; n < 100_000; n++) {
    const stop = m.cpu.run(piece);
    if (stop === "halt") return;
    assertEquals(stop, "budget");
  }
  throw new Error("the program does not end");
}
const value = (m: Machine, n: number) => m.cpu.u64[(CPU.perfCtr0 >> 3) + n];

Deno.test("a counter of retired instructions counts each once, between two of RDPMC or RDMSR", () => {
  const loop = "mov ebp, 300\nagain: add edx, eax\ndec ebp\njnz again\n";
  const program = wrmsr(SELECT, ALL | EVENT.instructions) + rdpmc(0, "esi") + loop +
    rdpmc(0, "edi") + `mov ecx, ${COUNTER}\nrdmsr\nmov ebx, eax\n`;
  for (const hot of [true, false]) {
    for (const piece of [1, 2, 7, 1000]) {
      const m = machine(program, undefined, hot);
      halt(m, piece);
      const [esi, edi, ebx] = (["rsi", "rdi", "rbx"] as const).map((r) => register(m, r));
      // From behind WRMSR: MOV, and RDPMC has not retired when it reads.
      assertEquals(esi, 1, `pieces of ${piece}`);
      // RDPMC, MOV; the loop; MOV.
      assertEquals(edi - esi, 2 + 1 + 3 * 300 + 1);
      assertEquals(ebx - edi, 3);
      // RDMSR, MOV, HLT.
      assertEquals(value(m, 0), BigInt(ebx + 3));
    }
  }
});

Deno.test("clocks are nanoseconds that the processor does not wait", () => {
  const m = machine(wrmsr(SELECT + 1, ALL | EVENT.clocks) + "nop\nnop\nhlt\nnop\nnop\nnop");
  halt(m);
  assertEquals(value(m, 1), 3n);
  m.cpu.skipTo(m.cpu.now + 12_345);
  m.cpu.i32[CPU.activity >> 2] = 0;
  halt(m);
  assertEquals(value(m, 1), 3n + 4n);
  // A device makes the processor wait: that is time, not a halt.
  const out = machine(wrmsr(SELECT, ALL | EVENT.clocks) + "out 0x80, al\nnop");
  out.bus = { ...out.bus, ioWrite: () => void (out.cpu.idle += 500) };
  halt(out);
  assertEquals(value(out, 0), 3n + 500n);
});

Deno.test("counters have 48 bits; what is reserved is not kept; a write holds from the next instruction", () => {
  const program = wrmsr(SELECT, ALL | EVENT.instructions | 1 << 21, 0xffff_fff0 | 0) +
    wrmsr(COUNTER, 100, 0x1234_5678) + "nop\n" + wrmsr(COUNTER + 3, -1, -1) + "nop";
  const m = machine(program);
  halt(m);
  assertEquals(m.cpu.get("perfEvtSel0"), BigInt((ALL | EVENT.instructions) >>> 0) | 0x300n << 32n);
  assertEquals(value(m, 3), 0xffff_ffff_ffffn);
  // With host and guest asked for, and SVM off, it does not count.
  assertEquals(value(m, 0), 0x5678_0000_0064n);
});

Deno.test("other events, edges, masks, and what is not enabled stay at their value", () => {
  const selects = [
    [ALL | EVENT.instructions & ~0xff | 0xc1],
    [ALL | B.edge | EVENT.instructions],
    [ALL | B.invert | EVENT.instructions],
    [ALL | 1 << 24 | EVENT.instructions],
    [ALL | EVENT.instructions, 1],
    [ALL & ~B.enable | EVENT.instructions],
    [B.enable | EVENT.instructions],
    [ALL | EVENT.instructions, B.guest],
    [ALL | EVENT.instructions, B.host],
  ];
  for (const [low, high] of selects) {
    const m = machine(wrmsr(COUNTER + 2, 77) + wrmsr(SELECT + 2, low, high) + "nop\nnop");
    halt(m);
    assertEquals(value(m, 2), 77n, `${low.toString(16)} ${high ?? 0}`);
  }
});

/** To CPL 3 and back by a fault: selectors 0x1b and 0x23; vector 13 goes to `back`. */
function twoLevels(program: string, user: string): Machine {
  const m = machine(`${program}
        push 0x23
        push 0x70000
        push 2
        push 0x1b
        push user
        iretd
user:   ${user}
        hlt
back:   nop
        nop`);
  const { cpu } = m;
  const view = new DataView(m.ram.buffer);
  const descriptors = [
    0n,
    0x00cf_9b00_0000_ffffn,
    0x00cf_9300_0000_ffffn,
    0x00cf_fb00_0000_ffffn,
    0x00cf_f300_0000_ffffn,
  ];
  descriptors.forEach((d, n) => view.setBigUint64(0x100 + 8 * n, d, true));
  cpu.set("gdtr.base", 0x100n);
  cpu.set("gdtr.limit", 39n);
  cpu.set("idtr.base", 0x800n);
  cpu.set("idtr.limit", 0x7ffn);
  cpu.setSegment(7, { selector: 0x28, base: 0x300n, limit: 0x67, attributes: 0x8b });
  view.setUint32(0x304, 0x60000, true);
  view.setUint32(0x308, 0x10, true);
  return m;
}
function gate(m: Machine, vector: number, handler: number): void {
  const low = BigInt(handler & 0xffff) | 8n << 16n | 0x8e00n << 32n;
  new DataView(m.ram.buffer).setBigUint64(0x800 + 8 * vector, low, true);
}
/** Where the second HLT is followed by the two NOPs of `back`. */
function findBack(m: Machine): number {
  for (let at = 0x1000;; at++) {
    if (m.ram[at] === 0xf4 && m.ram[at + 1] === 0x90 && m.ram[at + 2] === 0x90) return at + 1;
  }
}

Deno.test("user and system counters count by the privilege level, an exception where it was raised", () => {
  const program = wrmsr(SELECT, B.enable | B.user | EVENT.instructions) +
    wrmsr(SELECT + 1, B.enable | B.system | EVENT.instructions) +
    wrmsr(SELECT + 2, ALL | EVENT.instructions);
  for (const piece of [1, 3, 1000]) {
    const m = twoLevels(program, "nop\nnop\nnop\nnop\nnop");
    gate(m, 13, findBack(m));
    halt(m, piece);
    const counts = [value(m, 0), value(m, 1), value(m, 2)];
    // Five NOPs, and the #GP of HLT at CPL 3.
    assertEquals(counts[0], 6n);
    // Its own: what follows its WRMSR, to IRET (4 + 6), and three instructions of the handler.
    assertEquals(counts[1], 4n + 6n + 3n);
    assertEquals(counts[2], 6n + 6n + 3n);
  }
});

Deno.test("levels change by SYSENTER and SYSEXIT, too, and each counts at the level where it begins", () => {
  const msrs = wrmsr(0x174, 8) + wrmsr(0x175, 0x70000) + "mov edi, system\n" +
    "mov ecx, 0x176\nmov eax, edi\nmov edx, 0\nwrmsr\n";
  const program = msrs + wrmsr(SELECT, B.enable | B.user | EVENT.instructions) +
    wrmsr(SELECT + 1, B.enable | B.system | EVENT.instructions) + "mov ebx, 10\n";
  // 10 rounds of 4 at CPL 3 and 5 at CPL 0, the last of them ends.
  const user = `around: nop
        mov ecx, esp
        mov edx, around
        sysenter
system: nop
        dec ebx
        jz back
        nop
        sysexit`;
  for (const piece of [1, 4, 1000]) {
    const m = twoLevels(program, user);
    halt(m, piece);
    assertEquals(value(m, 0), 10n * 4n);
    // MOV and six to IRET; nine rounds; three, and NOP, NOP, HLT.
    assertEquals(value(m, 1), 7n + 9n * 5n + 3n + 3n);
  }
});

Deno.test("INT n is an instruction, once; an exception is one, though its instruction is none", () => {
  const m = twoLevels(wrmsr(SELECT, ALL | EVENT.instructions) + "int 0x30\njmp end", "");
  gate(m, 0x30, findBack(m));
  halt(m);
  // INT, two NOPs, HLT.
  assertEquals(value(m, 0), 4n);
  const fault = twoLevels(wrmsr(SELECT, ALL | EVENT.instructions) + "ud2", "");
  gate(fault, 6, findBack(fault));
  halt(fault);
  assertEquals(value(fault, 0), 4n);
});

Deno.test("RDPMC: four counters on AMD's processors, at CPL 3 with CR4.PCE alone", () => {
  const faults = (user: boolean, pce: boolean, ecx: number) => {
    const code = `mov ecx, ${ecx}\nrdpmc\n`;
    const m = user ? twoLevels("", code) : twoLevels(`${code}jmp end`, "");
    gate(m, 13, findBack(m));
    m.cpu.set("cr4", pce ? 0x100n : 0n);
    halt(m);
    return m.cpu.lastFault?.check !== undefined && m.cpu.lastFault.rip < m.cpu.get("rip") &&
      m.ram[Number(m.cpu.lastFault.rip)] === 0x0f;
  };
  assertEquals(faults(false, false, 0), false);
  assertEquals(faults(false, false, 3), false);
  assertEquals(faults(false, true, 4), true);
  assertEquals(faults(true, true, 3), false);
  assertEquals(faults(true, true, 4), true);
  assertEquals(faults(true, false, 0), true);
});

Deno.test("an overflow interrupts at the instruction that overflows, and the counter goes on from 0", () => {
  for (const event of [EVENT.instructions, EVENT.clocks]) {
    for (const piece of [1, 5, 100_000]) {
      const m = machine(
        wrmsr(COUNTER, -1000, -1) + wrmsr(SELECT, ALL | B.interrupt | event) +
          "mov esi, 10000\nagain: dec esi\njnz again",
      );
      const at: number[] = [];
      m.cpu.hooks.counterOverflow = () => void at.push(m.cpu.count);
      halt(m, piece);
      assertEquals(at, [8 + 1000], `pieces of ${piece}`);
      assertEquals(value(m, 0), BigInt(m.cpu.count - 1008));
    }
  }
});

Deno.test("without INT an overflow is silent", () => {
  const m = machine(
    wrmsr(COUNTER, -3, -1) + wrmsr(SELECT, ALL | EVENT.instructions) + "nop\nnop\nnop\nnop",
  );
  m.cpu.hooks.counterOverflow = () => {
    throw new Error("nobody asked");
  };
  halt(m);
  assertEquals(value(m, 0), 2n);
});
