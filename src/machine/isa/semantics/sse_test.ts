import { assert, assertEquals } from "@std/assert";
import { runCode, type Setup } from "../../system/testing.ts";
import { CPU } from "../../state.ts";
import { encodings } from "../encodings.ts";
import { groupOf, groups } from "../../interpreter/groups.ts";
import { sseGroup } from "./sse.ts";

// In case the list of groups does not have it (yet).
groups.sse ??= sseGroup;

const OSFXSR = 0x200, OSXMMEXCPT = 0x400;
const prepared = (cr0: number, cr4: number): Setup["prepare"] => ({ cpu }) => {
  cpu.set("cr0", BigInt(0x31 | cr0));
  cpu.set("cr4", BigInt(cr4));
};
const run = (code: string, cr0 = 0, cr4 = OSFXSR | OSXMMEXCPT, memory: Setup["memory"] = []) =>
  runCode(`${code}\nhlt`, { prepare: prepared(cr0, cr4), memory });

/** Result of `name xmm0,xmm1` on doubles, with the exception flags it raised. */
function doubles(name: string, a: number[], b: number[], mxcsr = 0x1f80): [number[], number] {
  const ran = run(
    `push ${mxcsr}\nldmxcsr [esp]\nmovapd xmm0,[0x9000]\nmovapd xmm1,[0x9010]
    ${name}\nmovapd [0x9020],xmm0\nstmxcsr [0x9030]`,
    0,
    undefined,
    [[0x9000, new Uint8Array(Float64Array.from([...a, ...b]).buffer)]],
  );
  const view = new DataView(ran.machine.ram.buffer);
  return [[view.getFloat64(0x9020, true), view.getFloat64(0x9028, true)], ran.word(0x9030) & 0x3f];
}

Deno.test("every row of SSE to SSE4.2 has a meaning", () => {
  const rows = encodings.filter((e) => /^s?sse/.test(e.attributes.feature));
  assert(rows.length > 200);
  assertEquals(rows.filter((e) => groupOf(e.key) === undefined).map((e) => e.key), []);
});

Deno.test("arithmetic by soft float and by Wasm's give the same", () => {
  const values = [1, 1 / 3, -7.25e10, 1e-300, 1.5e300, -0, 2 ** -1022, Number.MAX_VALUE, 5e-324];
  const pairs = values.flatMap((x) => values.flatMap((y) => [x, y]));
  const all = (name: string, mxcsr: number) => {
    const ran = run(
      `mov ecx,${pairs.length / 2}\nmov esi,0x9010\nmov edi,0xa000
      next: ldmxcsr [0x9000]\nmovsd xmm0,[esi]\n${name} xmm0,[esi+8]\nmovsd [edi],xmm0
      stmxcsr [edi+8]\nadd esi,16\nadd edi,16\ndec ecx\njnz next`,
      0,
      undefined,
      [[0x9000, new Uint8Array(Uint32Array.of(mxcsr).buffer)], [
        0x9010,
        new Uint8Array(Float64Array.from(pairs).buffer),
      ]],
    );
    return new BigUint64Array(ran.machine.ram.buffer, 0xa000, pairs.length);
  };
  for (const name of ["addsd", "subsd", "mulsd", "divsd"]) {
    const soft = all(name, 0x1f80), fast = all(name, 0x1fa0);
    // PE was set before in one of them.
    assertEquals(fast, soft.map((v, i) => i & 1 ? v | 0x20n : v), name);
    assert(soft.some((v, i) => (i & 1) === 1 && !(v & 0x20n)));
  }
});

Deno.test("MXCSR: flags, rounding, DAZ and FTZ", () => {
  const third = (mode: number) => doubles("divpd xmm0,xmm1", [1, 1], [3, -3], 0x1f80 | mode << 13);
  assertEquals(third(0), [[1 / 3, -1 / 3], 0x20]);
  assertEquals(third(1), [[1 / 3, -0.33333333333333337], 0x20]);
  assertEquals(third(2), [[0.33333333333333337, -1 / 3], 0x20]);
  assertEquals(doubles("divpd xmm0,xmm1", [1, 0], [0, 0]), [[Infinity, NaN], 5]);
  assertEquals(doubles("mulpd xmm0,xmm1", [1e-200, 1], [1e-200, 2]), [[0, 2], 0x30]);
  assertEquals(doubles("addpd xmm0,xmm1", [5e-324, 1], [0, 2]), [[5e-324, 3], 2]);
  assertEquals(doubles("addpd xmm0,xmm1", [5e-324, 1], [0, 2], 0x1fc0), [[0, 3], 0]);
  const small = [2 ** -1022, 1], half = [0.5, 1];
  assertEquals(doubles("mulpd xmm0,xmm1", small, half), [[2 ** -1023, 1], 0]);
  assertEquals(doubles("mulpd xmm0,xmm1", small, half, 0x9f80), [[0, 1], 0x30]);
  assertEquals(doubles("minpd xmm0,xmm1", [0, NaN], [-0, 1])[0], [-0, 1]);
});

Deno.test("an unmasked exception is #XM, or #UD by CR4; nothing is written but MXCSR", () => {
  const code = "push 0x1d80\nldmxcsr [esp]\nmov eax,1\ncvtsi2sd xmm0,eax\nxorps xmm1,xmm1\n" +
    "divsd xmm0,xmm1";
  const ran = run(code);
  assertEquals([ran.vector, ran.check], [19, "sse.xm"]);
  assertEquals(ran.machine.cpu.u64[CPU.xmm0 >> 3], 0x3ff0_0000_0000_0000n);
  assertEquals(ran.machine.cpu.i32[CPU.mxcsr >> 2], 0x1d84);
  assertEquals([run(code, 0, OSFXSR).vector, run(code, 0, OSFXSR).check], [6, "sse.xm.ud"]);
});

Deno.test("SSE faults: #UD by EM and OSFXSR, #NM by TS, #GP by alignment", () => {
  const fault = (code: string, cr0 = 0, cr4 = OSFXSR) => {
    const ran = run(code, cr0, cr4);
    return [ran.vector, ran.check];
  };
  assertEquals(fault("addps xmm0,xmm1", 4), [6, "sse.ud"]);
  assertEquals(fault("addps xmm0,xmm1", 0, 0), [6, "sse.ud"]);
  assertEquals(fault("addps xmm0,xmm1", 8), [7, "sse.nm"]);
  assertEquals(fault("movaps xmm0,[0x9008]"), [13, "sse.alignment"]);
  assertEquals(fault("movaps [0x9008],xmm0"), [13, "sse.alignment"]);
  assertEquals(fault("addps xmm0,[0x9004]"), [13, "sse.alignment"]);
  assertEquals(run("movups xmm0,[0x9001]\naddss xmm0,[0x9005]").vector, undefined);
});

Deno.test("an operand beyond the stack segment is #GP where it is not aligned, and #SS where it is", () => {
  const fault = (code: string) => {
    const prepare: Setup["prepare"] = (machine) => {
      prepared(0, OSFXSR)!(machine);
      const { cpu } = machine;
      cpu.setSegment(2, { ...cpu.getSegment(2), limit: 0xffff, attributes: 0x4093 });
    };
    return runCode(`mov ebp,0x20000\n${code}\nhlt`, { prepare }).vector;
  };
  for (const name of ["addps", "paddb", "pshufb", "pxor"]) {
    assertEquals([name, fault(`${name} xmm0,[ebp+8]`)], [name, 13]);
    assertEquals([name, fault(`${name} xmm0,[ebp+16]`)], [name, 12]);
  }
});

Deno.test("conversions: rounding, truncation, integer indefinite", () => {
  const convert = (name: string, value: number) => {
    const ran = run(`${name} eax,qword ptr [0x9000]`, 0, undefined, [
      [0x9000, new Uint8Array(Float64Array.of(value).buffer)],
    ]);
    return ran.reg("eax") | 0;
  };
  assertEquals(convert("cvtsd2si", 2.5), 2);
  assertEquals(convert("cvtsd2si", -3.5), -4);
  assertEquals(convert("cvttsd2si", -3.9), -3);
  assertEquals(convert("cvttsd2si", 2 ** 31), -0x8000_0000);
  assertEquals(convert("cvtsd2si", NaN), -0x8000_0000);
});

Deno.test("PCMPISTRI finds, PTEST and COMISD set flags", () => {
  const text = (s: string) => new TextEncoder().encode(s.padEnd(16, "\0"));
  const strings: Setup["memory"] = [[0x9000, text("aeiou")], [0x9010, text("xyz, one")]];
  const code = "movdqa xmm0,[0x9000]\npcmpistri xmm0,[0x9010],0\npushfd\npop eax";
  const ran = run(code, 0, undefined, strings);
  assertEquals(ran.reg("ecx"), 5);
  assertEquals(ran.reg("eax") & 0x8d5, 0xc1); // both strings end, found, not at the start
  const flags = (c: string) => run(`${c}\npushfd\npop eax`).reg("eax") & 0x8d5;
  assertEquals(flags("pxor xmm0,xmm0\nptest xmm0,xmm0"), 0x41);
  assertEquals(flags("pcmpeqd xmm0,xmm0\npxor xmm1,xmm1\ncomisd xmm0,xmm1"), 0x45);
});
