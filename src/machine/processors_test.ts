// Several processors on one memory: what one derives from memory goes when another changes that.
import { assert, assertEquals, assertThrows } from "@std/assert";
import { CR0 } from "../abi/x86/cr.ts";
import type { Cpu } from "./cpu.ts";
import { assemble } from "./isa/encode.ts";
import { Machine } from "./machine.ts";
import { ACTIVITY, architecturalFields, CPU, PROCESSORS } from "./state.ts";

const MEMORY = 4 << 20, ORIGIN = 0x1000, ROUTINES = 0x8000;
/** Each processor has a directory and a table of its own, or all have one; each changes those of all. */
const TABLES = 0x10_0000, directory = (n: number) => TABLES + 0x2000 * n;
const table = (n: number) => directory(n) + 0x1000;
/** Pages whose entries change, and the frames that they lead to: data, and that of the routines. */
const WINDOW = 0x20_0000, WINDOWS = 6, FRAMES = [0x18_0000, 0x18_1000, 0x18_2000, ROUTINES];
const entryOf = (n: number, window: number) => table(n) + 4 * ((WINDOW >>> 12) + window);
/** Routine `n` adds its immediate operand, which lies at byte 2, to a sum of its processor. */
const routine = (n: number) => ROUTINES + 16 * n;

/** Processors in flat 32-bit code with paging, each at the start of its program. */
function processors(programs: readonly string[], hot: boolean, shared: boolean): Machine {
  const machine = new Machine({ memory: MEMORY, cpus: programs.length });
  const put = (at: number, ...words: number[]) =>
    machine.write(at, new Uint8Array(Uint32Array.from(words).buffer));
  for (let n = 0; n < 4; n++) {
    machine.write(routine(n), assemble(`add ebp, ${0x1234 + n}\n ret`, { mode: 32 }).bytes);
  }
  programs.forEach((program, n) => {
    const origin = ORIGIN + 0x2000 * n;
    machine.write(origin, assemble(program, { mode: 32, origin }).bytes);
    put(directory(n), table(n) | 0x67);
    put(table(n), ...Array.from({ length: 1024 }, (_, page) => page * 4096 | 0x67));
    for (let w = 0; w < WINDOWS; w++) put(entryOf(n, w), FRAMES[w % FRAMES.length] | 0x67);
    start(machine.cpus[n], origin, 0x8_0000 + 0x1000 * n, directory(shared ? 0 : n));
    machine.cpus[n].hot = hot;
  });
  return machine;
}

function start(cpu: Cpu, entry: number, stack: number, root: number): void {
  const flat = { base: 0n, limit: 0xffff_ffff };
  for (const n of [0, 2, 3, 4, 5]) {
    cpu.setSegment(n, { selector: 0x10, attributes: 0xc093, ...flat });
  }
  cpu.setSegment(1, { selector: 8, attributes: 0xc09b, ...flat });
  cpu.set("cr3", BigInt(root));
  cpu.set("cr0", 0x8000_0011n);
  cpu.set("rip", BigInt(entry));
  cpu.set("rsp", BigInt(stack));
  cpu.flushTlb();
}

/** Numbers below a bound, by a seed. */
function random(seed: number): (below: number) => number {
  let x = Math.imul(seed + 1, 0x9e3779b1) >>> 0 || 1;
  return (below) => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % below;
  };
}

/** Loads, stores, calls; stores to entries of the page table and into code, straight or through a window. */
function program(draw: (below: number) => number, count: number): string {
  const lines = ["again:"], place = () => WINDOW + 4096 * draw(WINDOWS) + 4 * draw(16) + 0x200;
  for (let n = 0; n < 120; n++) {
    const value = draw(2 ** 31);
    lines.push(
      ...[
        () => [
          `mov dword [${entryOf(draw(count), draw(WINDOWS))}], ${
            FRAMES[draw(FRAMES.length)] | 0x67
          }`,
        ],
        () => [`mov dword [${routine(draw(4)) + 2}], ${value}`],
        // Where the routines are, if the window leads to them.
        () => [
          `mov dword [${WINDOW + 4096 * draw(WINDOWS) + (routine(draw(4)) & 4095) + 2}], ${value}`,
        ],
        () => [`mov eax, ${routine(draw(4))}`, "call eax"],
        () => [`add ebp, [${place()}]`],
        () => [`add [${place()}], ebp`],
        () => [`xor dword [${place()}], ${value}`],
      ][draw(7)](),
    );
  }
  return [...lines, "jmp again"].join("\n ");
}

/** What can be seen of it all. */
const seen = (machine: Machine) =>
  machine.cpus.map((cpu) => {
    cpu.system.materialize();
    return (["rax", "rbp", "rsp", "rip", "rflags"] as const).map((name) =>
      cpu.get(name).toString(16)
    ).join(
      " ",
    );
  });
/** Memory as it was written; accessed and dirty bits depend on what was derived when. */
const memory = (machine: Machine) => {
  const words = machine.words.slice();
  for (let at = TABLES >> 2; at < directory(PROCESSORS) >> 2; at++) words[at] &= ~0x60;
  return words;
};

for (const hot of [true, false]) {
  Deno.test(`processors see what others write: tables, code, data (hot handlers ${hot})`, () => {
    for (let seed = 0; seed < 10; seed++) {
      const draw = random(seed), count = 2 + seed % 3;
      const programs = Array.from({ length: count }, () => program(draw, count));
      const machines = [1, 2].map(() => processors(programs, hot, seed % 4 === 1));
      for (let turn = 0; turn < 400; turn++) {
        const who = draw(count), length = 1 + draw(turn % 2 ? 3 : 40);
        const flush = draw(16), reset = draw(40);
        for (const [n, machine] of machines.entries()) {
          // The second has nothing but memory to go by.
          for (const cpu of machine.cpus) {
            if (n === 1 || flush === cpu.id) cpu.flushTlb();
            if (n === 1 || reset === cpu.id) cpu.predecoder.reset();
          }
          assertEquals(machine.cpus[who].run(length), "budget");
        }
        const [one, other] = machines.map(seen);
        assertEquals(one, other, `seed ${seed}, turn ${turn}, processor ${who}`);
      }
      const [one, other] = machines.map(memory);
      assert(one.every((word, n) => word === other[n]), `memory, seed ${seed}`);
    }
  });
}

Deno.test("a machine has 1 to 8 processors", () => {
  for (const cpus of [0, PROCESSORS + 1, 2.5, NaN]) {
    assertThrows(
      () => new Machine({ memory: MEMORY, cpus }),
      RangeError,
      `cpus: a whole number from 1 to 8 was expected, ${cpus} was given`,
    );
  }
});

/** Two processors, the second waiting for a start-up IPI; `real` lies at 0x8000, in real mode. */
function starting(real: string, cpu: "intel" | "amd" = "intel"): Machine {
  const machine = new Machine({ memory: MEMORY, cpus: 2, cpu });
  machine.write(0x8000, assemble(real, { mode: 16, origin: 0 }).bytes);
  const [, second] = machine.cpus;
  second.set("apicBase", 0xfee0_0800n);
  second.raiseInit();
  assertEquals(second.run(1), "halt");
  return machine;
}

Deno.test("a processor takes INIT, waits for a start-up IPI, and begins there in real mode", () => {
  const machine = starting("mov word [0x500], cs\n hlt");
  const [, cpu] = machine.cpus;
  assertEquals(cpu.i32[CPU.activity >> 2], ACTIVITY.waitForSipi);
  assertEquals(cpu.run(100), "halt");
  assertEquals(cpu.count, 0);
  cpu.startUp(8);
  assertEquals(cpu.run(100), "halt");
  assertEquals([cpu.i32[CPU.activity >> 2], cpu.count], [ACTIVITY.hlt, 2]);
  assertEquals(machine.ram.slice(0x500, 0x502), Uint8Array.of(0x00, 0x08));
  // It runs: another one says nothing to it.
  cpu.startUp(9);
  assertEquals(cpu.get("cs.base"), 0x8000n);
});

Deno.test("nothing but a start-up IPI ends the wait for one: no interrupt, no NMI", () => {
  const [, cpu] = starting("hlt").cpus;
  cpu.bus = { ...cpu.bus, interruptPending: () => true, acknowledge: () => 0x20 };
  cpu.raiseNmi();
  cpu.set("rflags", 0x202n);
  assertEquals([cpu.events.wakes, cpu.run(10)], [false, "halt"]);
  assertEquals(cpu.i32[CPU.activity >> 2], ACTIVITY.waitForSipi);
});

Deno.test("INIT keeps x87, XMM, MSRs, the time, and CR0's CD and NW; the rest is as after RESET", () => {
  const machine = starting("hlt"), [, cpu] = machine.cpus;
  const reset = Object.fromEntries(
    architecturalFields.map(({ name, at, width }) => [name, cpu.u8.slice(at, at + width)]),
  );
  for (const { at, width } of architecturalFields) cpu.u8.fill(0x5a, at, at + width);
  cpu.set("cr0", 0x8000_0033n | BigInt(CR0.CD));
  cpu.i32[CPU.vmxMode >> 2] = 0;
  cpu.set("apicBase", 0xfee0_0800n);
  cpu.takeInit();
  const kept = architecturalFields.filter(({ name, at, width }) =>
    !/^(flag|cr0|rip$)|[pP]ad2?$/.test(name) &&
    cpu.u8.slice(at, at + width).every((byte) => byte === 0x5a)
  ).map(({ name }) => name.replace(/\d+$/, ""));
  assertEquals(
    [...new Set(kept)],
    [
      ...["xcr", "xss", "star", "lstar", "cstar", "sfmask", "kernelGsBase"],
      ...["tscAux", "tscOffset", "tscAdjust", "sysenterCs", "sysenterEsp", "sysenterEip", "pat"],
      ...["miscEnable", "featureControl", "mtrrDefType", "mtrrVariable", "mtrrFixed", "a20Mask"],
      ...["fpr", "fcw", "fsw", "ftw", "fop", "fip", "fdp", "fcs", "fds", "mxcsr", "xmm"],
      ...["vmcsPointer", "vmxonPointer", "gif", "svmMode", "vmHsave", "vmCr", "vmcb"],
      ...["tscRatio", "branchFrom", "branchTo", "lastExceptionFrom", "lastExceptionTo"],
      ...["perfEvtSel", "perfCtr"],
    ],
  );
  assertEquals(cpu.get("cr0"), BigInt(CR0.CD | CR0.ET));
  for (
    const name of ["rax", "rdx", "rflags", "cr4", "efer", "dr6", "dr7", "cs.base", "tr.attributes"]
  ) {
    const { at, width } = architecturalFields.find((field) => field.name === name)!;
    assertEquals(cpu.u8.slice(at, at + width), reset[name], name);
  }
});

Deno.test("the bootstrap processor begins anew after INIT; GIF and VMX operation hold it back", () => {
  const machine = new Machine({ memory: MEMORY, cpus: 2 }), { cpu } = machine;
  cpu.set("rip", 0x1234n);
  for (const [name, value, open] of [["gif", 0n, 1n], ["vmxMode", 1n, 0n]] as const) {
    cpu.i32[CPU[name] >> 2] = Number(value);
    cpu.raiseInit();
    assertEquals([cpu.events.boundary(), cpu.get("rip")], [undefined, 0x1234n], name);
    cpu.i32[CPU[name] >> 2] = Number(open);
  }
  assertEquals(cpu.events.boundary(), "delivered");
  assertEquals([cpu.get("rip"), cpu.i32[CPU.activity >> 2]], [0xfff0n, ACTIVITY.active]);
});
