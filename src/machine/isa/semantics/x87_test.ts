import { assertEquals } from "@std/assert";
import { AT, runCode, type Setup } from "../../system/testing.ts";
import { Machine } from "../../machine.ts";
import { CPU, V } from "../../state.ts";
import { SERVICE } from "../../linkage.ts";

/** Sets bits of CR0 and CR4, and NE, before the code runs. */
const registers = (cr0: number, cr4 = 0): Setup["prepare"] => ({ cpu }) => {
  cpu.set("cr0", BigInt(0x31 | cr0));
  cpu.set("cr4", BigInt(cr4));
};
const run = (code: string, setup: Setup = {}) =>
  runCode(`${code}\nhlt`, { prepare: registers(0), ...setup });
/** FSW after `fninit` and the code. */
const status = (code: string) => run(`fninit\n${code}\nfnstsw ax`).reg("eax") & 0xffff;

Deno.test("constants, stack arithmetic and stores", () => {
  const ran = run(
    "fninit\nfld1\nfldpi\nfadd st(0),st(1)\nfstp qword ptr [0x9000]\nfistp dword ptr [0x9008]",
  );
  const view = new DataView(ran.machine.ram.buffer);
  assertEquals(view.getFloat64(0x9000, true), Math.PI + 1);
  assertEquals(ran.word(0x9008), 1);
  assertEquals(ran.machine.cpu.i32[CPU.ftw >> 2], 0xffff);
});

Deno.test("stack faults: SF, C1 tells overflow from underflow, masked responses", () => {
  const ones = "fld1\n".repeat(8);
  assertEquals(status(ones), 0);
  assertEquals(status(`${ones}fld1`), 0x3800 | 0x241);
  assertEquals(status("fld st(0)"), 0x3800 | 0x41);
  const ran = run("fninit\nfstp dword ptr [0x9000]");
  assertEquals(ran.word(0x9000), 0xffc0_0000);
  // Unmasked: nothing is stored, nothing popped, ES and B are set.
  const unmasked = run(
    "fninit\npush 0x340\nfldcw word ptr [esp]\nfstp dword ptr [0x9000]\nfnstsw ax",
  );
  assertEquals([unmasked.reg("eax") & 0xffff, unmasked.word(0x9000)], [0x80c1, 0]);
});

Deno.test("#NM by CR0.EM and CR0.TS; WAIT by CR0.MP and CR0.TS", () => {
  const vector = (code: string, cr0: number) => {
    const ran = run(code, { prepare: registers(cr0) });
    return [ran.vector, ran.check];
  };
  assertEquals(vector("fld1", 4), [7, "x87.nm"]);
  assertEquals(vector("fnstsw ax", 8), [7, "x87.nm"]);
  assertEquals(vector("fwait", 8)[0], undefined);
  assertEquals(vector("fwait", 10), [7, "x87.wait"]);
  assertEquals(vector("fwait", 4)[0], undefined);
});

/** 1 / 0 with ZE unmasked. */
const DIVIDE = "fninit\npush 0x37b\nfldcw word ptr [esp]\nfld1\nfldz\nfdivp st(1),st(0)\n";

Deno.test("#MF at the next waiting instruction; FNCLEX and FNSTSW do not wait", () => {
  const ran = run(`${DIVIDE}fnop`);
  assertEquals([ran.vector, ran.check], [16, "x87.mf"]);
  assertEquals(run(`${DIVIDE}fnstsw ax`).reg("eax") & 0xffff, 0xb084);
  assertEquals(run(`${DIVIDE}fnclex\nfnop\nfnstsw ax`).reg("eax") & 0xffff, 0x3000);
  // FOP and FIP of the division: DE F9.
  const { cpu } = run(`${DIVIDE}fnstsw ax`).machine;
  assertEquals(cpu.i32[CPU.fop >> 2], 0x6f9);
});

Deno.test("with CR0.NE clear a pending exception is FERR#: the platform says whether to wait", () => {
  const asked: number[][] = [];
  const ran = (answer: number, code: string) => {
    asked.length = 0;
    return run(`${DIVIDE}${code}`, {
      prepare: ({ cpu }) => {
        cpu.set("cr0", 0x11n);
        cpu.i32[V.ferr >> 2] = 1;
        cpu.hooks.service = (...x) => (asked.push(x), answer);
      },
    });
  };
  // IGNNE#: the instruction goes on.
  assertEquals([ran(0, "fnop\nmov al, 7").reg("eax"), asked], [7, [
    [
      SERVICE.coprocessorQuiet,
      0,
    ],
    [SERVICE.coprocessorQuiet, 0],
    [SERVICE.coprocessorError, 0],
  ]]);
  // Else it waits before it, as in HLT.
  const { machine, stop } = ran(1, "fnop\nmov al, 7");
  assertEquals([stop, machine.cpu.i32[CPU.activity >> 2]], ["halt", 1]);
  assertEquals(machine.cpu.get("rip"), BigInt(AT.code + 16));
  // Instructions that do not wait find nothing; who clears the exception is heard.
  ran(1, "fnstsw ax\nfnclex");
  assertEquals(asked.at(-1), [SERVICE.coprocessorQuiet, 0]);
});

Deno.test("FNSAVE stores the tags that the contents ask for, FRSTOR brings all back", () => {
  const code = `fninit
    fldz
    fldpi
    fnsave [0x9000]
    fnstenv [0x9100]
    frstor [0x9000]
    fnstenv [0x9200]`;
  const ran = run(code);
  // ST(0) = pi is register 6, ST(1) = 0 is register 7.
  assertEquals([ran.word(0x9000), ran.word(0x9004), ran.word(0x9008)], [
    0xffff_037f,
    0xffff_3000,
    0xffff_4fff,
  ]);
  assertEquals(ran.word(0x9108), 0xffff_ffff);
  assertEquals([ran.word(0x9204), ran.word(0x9208)], [0xffff_3000, 0xffff_4fff]);
  // FIP, FCS of FLDPI: after FNINIT (DB E3) and FLDZ (D9 EE).
  assertEquals([ran.word(0x900c), ran.word(0x9010)], [0x8004, 8]);
  assertEquals(ran.word(0x901c), 0x2168_c235);
});

Deno.test("the environment has 14 bytes with the 66 prefix, linear pointers in real mode", () => {
  const machine = new Machine({ memory: 1 << 20 });
  const { cpu } = machine;
  // fninit; fld dword ptr [0x300]; fnstenv [0x400]; o32 fnstenv [0x420]; hlt
  const code = [0xdb, 0xe3, 0xd9, 6, 0, 3, 0xd9, 0x36, 0, 4, 0x66, 0xd9, 0x36, 0x20, 4, 0xf4];
  machine.write(0x12000, Uint8Array.from(code));
  for (const n of [0, 2, 3]) {
    cpu.setSegment(n, { selector: 0x2345, base: 0x23450n, limit: 0xffff, attributes: 0x93 });
  }
  cpu.setSegment(1, { selector: 0x1100, base: 0x11000n, limit: 0xffff, attributes: 0x93 });
  cpu.set("rip", 0x1000n);
  cpu.set("cr0", 0x30n);
  cpu.run(10);
  const words = (at: number) => Array.from(new Uint16Array(machine.ram.buffer, 0x23450 + at, 7));
  assertEquals(words(0x400), [0x37f, 0x3800, 0x7fff, 0x2002, 0x1000, 0x3750, 0x2000]);
  const wide = new Uint32Array(machine.ram.buffer, 0x23450 + 0x420, 7);
  assertEquals([...wide.subarray(3)], [0xffff_2002, 0x1000, 0xffff_3750, 0x2000]);
});

Deno.test("FCOMI sets EFLAGS, FCMOV reads them", () => {
  const flags = (code: string) =>
    run(`fninit\n${code}\nfcomi st(0),st(1)\npushfd\npop eax`).reg("eax") & 0x8d5;
  assertEquals(flags("fld1\nfldz"), 1);
  assertEquals(flags("fldz\nfld1"), 0);
  assertEquals(flags("fldz\nfldz"), 0x40);
  assertEquals(flags("fldz\nfldz\nfldz\nfdivp st(1),st(0)"), 0x45);
  const moved = run(
    "fninit\nfld1\nfldpi\nfldz\nfcomi st(0),st(1)\nfcmovb st(0),st(2)\nfistp dword ptr [0x9000]",
  );
  assertEquals(moved.word(0x9000), 1);
});

Deno.test("a store that faults leaves the stack as it was", () => {
  const ran = run("fninit\nfld1\nmov ds,word ptr [zero]\nfstp dword ptr [0x9000]\nzero: dd 0");
  assertEquals([ran.vector, ran.machine.cpu.i32[CPU.ftw >> 2]], [13, 0x3fff]);
});
