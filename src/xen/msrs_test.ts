// MSRs of the families that processors say they are: what is read and what a write does, on the bare
// processor and in a domain; all others are #GP.
import { assertEquals } from "@std/assert";
import type { CpuidModel } from "../machine/cpuid.ts";
import { AT, type Way, WayGuest, wayName } from "../debug/testing/ways.ts";

const GP = 13n, NONE = 0x55n;

/** EDX:EAX of RDMSR, "fault" for #GP. */
function read(g: WayGuest, number: number): bigint | "fault" {
  g.enter("flat32", `rdmsr\nmov ebx, ${NONE}\nhlt`, {
    regs: { rsp: BigInt(AT.stack), rbx: 0n, rcx: BigInt(number) },
  });
  assertEquals(g.run(), "blocked");
  if (g.reg("rbx") === GP) return "fault";
  return (g.reg("rdx") & 0xffff_ffffn) << 32n | g.reg("rax") & 0xffff_ffffn;
}
/** True: WRMSR went through. */
function write(g: WayGuest, number: number, value: bigint): boolean {
  g.enter("flat32", `wrmsr\nmov ebx, ${NONE}\nhlt`, {
    regs: {
      rsp: BigInt(AT.stack),
      rbx: 0n,
      rcx: BigInt(number),
      rax: value & 0xffff_ffffn,
      rdx: value >> 32n,
    },
  });
  assertEquals(g.run(), "blocked");
  return g.reg("rbx") === NONE;
}

/** number, value of family 0Fh, of family 10h (undefined: #GP), whether it can be written. */
const amd: readonly (readonly [number, bigint | undefined, bigint | undefined, boolean])[] = [
  [0xc000_0408, undefined, 0n, true],
  [0xc000_040a, undefined, 0n, true],
  [0xc001_0010, 0n, 0n, true],
  [0xc001_0015, 0n, 1n << 24n, true],
  [0xc001_0016, 0n, 0n, true],
  [0xc001_0019, 0n, 0n, true],
  [0xc001_001a, 0n, 0n, true],
  [0xc001_001d, 0n, 0n, true],
  [0xc001_001f, 0n, 0n, true],
  [0xc001_0044, 0n, 0n, true],
  [0xc001_0049, 0n, 0n, true],
  [0xc001_0050, 0n, 0n, true],
  [0xc001_0055, 0n, 0n, true],
  [0xc001_0058, undefined, 0n, true],
  [0xc001_0061, undefined, 0n, false],
  [0xc001_0062, undefined, 0n, true],
  [0xc001_0063, undefined, 0n, false],
  [0xc001_0064, undefined, 1n << 63n | 0x44n, true],
  [0xc001_0068, undefined, 0n, true],
  [0xc001_0071, undefined, 0x44n, false],
  [0xc001_0111, 0x3_0000n, 0x3_0000n, true],
  [0xc001_0112, 0n, 0n, true],
  [0xc001_1023, 0n, 0n, true],
  [0xc001_1029, undefined, 2n, true],
  [0xc001_102a, undefined, 0n, true],
];
const intel = [[0x34, 0n, false], [0xce, 0xa00n, false]] as const;
/** Performance counters: the bare processor's; a domain's hold nothing. */
const counters = Array.from({ length: 8 }, (_, n) => 0xc001_0000 + n);
/** Of nobody: numbers beside those that are there. */
const nobody = [0xc1, 0x186, 0x38f, 0xc001_0020, 0xc001_102b, 0xc001_0069, 0x1234_5678];

const models: readonly (readonly ["intel" | "amd", CpuidModel])[] = [
  ["amd", "amd"],
  ["amd", "opteron"],
  ["amd", "phenom"],
  ["intel", "intel"],
  ["intel", "nehalem"],
  ["intel", "goldmont"],
];

for (const [cpu, model] of models) {
  for (const type of ["bare", "hvm"] as const) {
    const way: Way = { cpu, type, paging: "hap" };
    Deno.test(`the MSRs of a processor's family are there, and no others (${wayName(way)}, ${model})`, async () => {
      const g = await WayGuest.make(way, { model });
      const old = model === "opteron", name = (n: number) => `0x${n.toString(16)}`;
      for (const [number, of0f, of10, writable] of amd) {
        const value = cpu === "intel" ? undefined : old ? of0f : of10;
        assertEquals([name(number), read(g, number)], [name(number), value ?? "fault"]);
        const done = write(g, number, value ?? 0n);
        assertEquals([name(number), done], [name(number), value !== undefined && writable]);
      }
      for (const [number, value, writable] of intel) {
        const there = cpu === "intel";
        assertEquals([name(number), read(g, number)], [name(number), there ? value : "fault"]);
        assertEquals([name(number), write(g, number, value)], [name(number), there && writable]);
      }
      for (const number of counters) {
        const there = cpu === "amd";
        assertEquals([name(number), read(g, number)], [name(number), there ? 0n : "fault"]);
        assertEquals([name(number), write(g, number, 0n)], [name(number), there]);
      }
      // Fast strings are on at reset.
      assertEquals([read(g, 0x1a0), write(g, 0x1a0, 0n)], [1n, true]);
      for (const number of nobody) {
        assertEquals([name(number), read(g, number)], [name(number), "fault"]);
        assertEquals([name(number), write(g, number, 0n)], [name(number), false]);
      }
    });
  }
}

for (const cpu of ["intel", "amd"] as const) {
  for (const type of ["bare", "hvm"] as const) {
    const way: Way = { cpu, type, paging: "hap" };
    Deno.test(`memory types that there are not are refused by PAT and MTRRs (${wayName(way)})`, async () => {
      const g = await WayGuest.make(way);
      const cases: readonly (readonly [number, bigint, boolean])[] = [
        [0x277, 0x0007_0406_0007_0406n, true],
        [0x277, 0x0007_0406_0007_0402n, false],
        [0x277, 0x0307_0406_0007_0406n, false],
        [0x277, 0x0907_0406_0007_0406n, false],
        [0x250, 0x0606_0606_0606_0606n, true],
        [0x250, 0x0606_0606_0606_0706n, false],
        [0x26f, 0x0206_0606_0606_0606n, false],
        [0x2ff, 0xc06n, true],
        [0x2ff, 0xc03n, false],
      ];
      for (const [number, value, allowed] of cases) {
        const what = `0x${number.toString(16)} <- 0x${value.toString(16)}`;
        assertEquals([what, write(g, number, value)], [what, allowed]);
      }
    });
  }
}
