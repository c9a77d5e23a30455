import { assertEquals } from "@std/assert";
import { runCode, type Setup } from "../../system/testing.ts";
import { CPU } from "../../state.ts";
import { groups } from "../../interpreter/groups.ts";
import { fxsaveGroup } from "./fxsave.ts";
import { mmxGroup } from "./mmx.ts";

// In case the list of groups does not have them (yet).
groups.mmx ??= mmxGroup;
groups.fxsave ??= fxsaveGroup;

const prepared = (cr0: number, cr4: number): Setup["prepare"] => ({ cpu }) => {
  cpu.set("cr0", BigInt(0x31 | cr0));
  cpu.set("cr4", BigInt(cr4));
};
const run = (code: string, cr0 = 0, cr4 = 0x200) =>
  runCode(`${code}\nhlt`, { prepare: prepared(cr0, cr4) });

/** Result of an operation on two 64-bit values, as 16 digits. */
function packed(name: string, a: bigint, b: bigint, more = ""): string {
  const ran = runCode(`movq mm0,[0x9000]\n${name} mm0,[0x9008]${more}\nmovq [0x9010],mm0\nhlt`, {
    prepare: prepared(0, 0),
    memory: [[0x9000, new Uint8Array(BigUint64Array.of(a, b).buffer)]],
  });
  const view = new DataView(ran.machine.ram.buffer);
  return view.getBigUint64(0x9010, true).toString(16).padStart(16, "0");
}

Deno.test("packed operations on MMX registers", () => {
  const a = 0x7fff_8000_00ff_1234n, b = 0x0001_8000_01ff_ffffn;
  assertEquals(packed("paddw", a, b), "8000000002fe1233");
  assertEquals(packed("paddsw", a, b), "7fff800002fe1233");
  assertEquals(packed("psubusb", a, b), "7ffe000000000000");
  assertEquals(packed("pmaddwd", a, b), "40007fff0001eacd");
  assertEquals(packed("packsswb", a, b), "01807fff7f807f7f");
  assertEquals(packed("punpcklbw", a, b), "0100ffffff12ff34");
  assertEquals(packed("pcmpgtw", a, b), "ffff00000000ffff");
  assertEquals(packed("psllq", 1n, 63n), "8000000000000000");
  assertEquals(packed("psraw", a, 99n), "0000ffff00000000");
  assertEquals(packed("pshufw", a, b, ",0x1b"), "ffff01ff80000001");
});

Deno.test("MMX makes all registers valid and TOP zero, EMMS empties them", () => {
  const code = "fninit\nfldz\nfld1\nmovd mm3,eax\n";
  const { cpu } = run(code).machine;
  assertEquals([cpu.i32[CPU.ftw >> 2], cpu.i32[CPU.fsw >> 2]], [0, 0]);
  assertEquals(cpu.u16[(CPU.fpr3 + 8) >> 1], 0xffff);
  assertEquals(run(`${code}emms`).machine.cpu.i32[CPU.ftw >> 2], 0xffff);
});

Deno.test("MMX faults: #UD by EM, #NM by TS, #MF", () => {
  const fault = (code: string, cr0: number) => {
    const ran = run(code, cr0);
    return [ran.vector, ran.check];
  };
  assertEquals(fault("pxor mm0,mm0", 4), [6, "mmx.ud"]);
  assertEquals(fault("emms", 8), [7, "mmx.nm"]);
  const divide = "fninit\npush 0x37b\nfldcw word ptr [esp]\nfld1\nfldz\nfdivp st(1),st(0)\n";
  assertEquals(fault(`${divide}emms`, 0), [16, "x87.mf"]);
  assertEquals(run("pxor xmm0,xmm0", 0, 0).check, "sse.ud");
});

Deno.test("FXSAVE and FXRSTOR: registers from the top, abridged tags, MXCSR with its mask", () => {
  const code = `fninit
    fldz
    fldpi
    movd xmm1,esp
    fxsave [0x9000]
    fninit
    pxor xmm1,xmm1
    fxrstor [0x9000]
    movd eax,xmm1`;
  const ran = run(code);
  assertEquals([ran.word(0x9000), ran.word(0x9004) & 0xff], [0x3000_037f, 0xc0]);
  assertEquals([ran.word(0x9018), ran.word(0x901c)], [0x1f80, 0xffff]);
  assertEquals([ran.word(0x9020), ran.word(0x9024), ran.word(0x9028)], [
    0x2168_c235,
    0xc90f_daa2,
    0x4000,
  ]);
  const { cpu } = ran.machine;
  assertEquals([cpu.i32[CPU.ftw >> 2], cpu.i32[CPU.fsw >> 2]], [0x0fff, 0x3000]);
  assertEquals(ran.reg("eax"), ran.reg("esp"));
  // Without CR4.OSFXSR the XMM registers and MXCSR stay out of it.
  const without = run("mov dword ptr [0x9018],0x55\nfxsave [0x9000]", 0, 0);
  assertEquals(without.word(0x9018), 0x55);
});

Deno.test("FXSAVE and LDMXCSR refuse bad addresses and reserved bits", () => {
  const fault = (code: string, cr0 = 0, cr4 = 0x200) => {
    const ran = run(code, cr0, cr4);
    return [ran.vector, ran.check];
  };
  assertEquals(fault("fxsave [0x9008]"), [13, "fxsave.alignment"]);
  assertEquals(fault("fxrstor [0x9000]", 8), [7, "fxsave.nm"]);
  assertEquals(fault("push 0x10000\nldmxcsr [esp]"), [13, "mxcsr.reserved"]);
  assertEquals(fault("ldmxcsr [esp]", 0, 0), [6, "sse.ud"]);
  assertEquals(fault("mov dword ptr [0x9018],0x10000\nfxrstor [0x9000]"), [13, "mxcsr.reserved"]);
  assertEquals(run("push 0x9fc0\nldmxcsr [esp]\nstmxcsr [0x9000]").word(0x9000), 0x9fc0);
});
