import { assertEquals } from "@std/assert";
import type { Machine } from "../../machine.ts";
import { CPU } from "../../state.ts";
import { flatMachine } from "../../testing.ts";

const AREA = 0x4000;
const OSFXSR = 0x200n, OSXSAVE = 0x40000n;

/** 64-bit code at CPL 0 with XCR0 = 3, registers that hold something, and its area at RSI. */
function run(code: string, prepare: (machine: Machine) => void = () => {}) {
  const machine = flatMachine(`${code}\nhlt`, { long: true });
  const { cpu } = machine;
  cpu.set("cr4", OSFXSR | OSXSAVE);
  cpu.set("xcr0", 3n);
  cpu.set("rsi", BigInt(AREA));
  cpu.set("rax", 3n);
  cpu.set("xmm1", 0x1111_2222_3333_4444n);
  cpu.set("xmm15", 0xffffn);
  cpu.i32[CPU.fcw >> 2] = 0x27f;
  cpu.i32[CPU.ftw >> 2] = 0xffff;
  cpu.i32[CPU.mxcsr >> 2] = 0x1f80;
  prepare(machine);
  cpu.hooks.fault = () => true;
  cpu.system.refresh();
  const stop = cpu.run(100);
  const view = new DataView(machine.ram.buffer);
  const word = (at: number) => view.getBigUint64(AREA + at, true);
  return { machine, cpu, word, stop, vector: stop === "fault" ? cpu.lastFault?.vector : undefined };
}
const noise = (machine: Machine) => machine.write(AREA, new Uint8Array(576).fill(0xcc));

Deno.test("XSAVE writes what is asked for, and notes in XSTATE_BV what is in use", () => {
  const all = run("xsave [rsi]", noise);
  assertEquals([all.word(0) & 0xffffn, all.word(160 + 16)], [0x27fn, 0x1111_2222_3333_4444n]);
  assertEquals(all.word(160 + 240), 0xffffn);
  // The old bits above RFBM stay, XCOMP_BV is not written.
  assertEquals([all.word(512), all.word(520)], [0xcccc_cccc_cccc_cccfn, 0xcccc_cccc_cccc_ccccn]);
  const x87 = run("mov eax,1\nxsave [rsi]", noise);
  assertEquals([x87.word(160 + 16), x87.word(24)], [
    0xcccc_cccc_cccc_ccccn,
    0xcccc_cccc_cccc_ccccn,
  ]);
  const init = run("xsave [rsi]", (m) => {
    noise(m);
    m.cpu.i32[CPU.fcw >> 2] = 0x37f;
    m.cpu.set("xmm1", 0n);
    m.cpu.set("xmm15", 0n);
  });
  // Saved all the same, but not in use.
  assertEquals([init.word(160 + 16), init.word(512) & 3n], [0n, 0n]);
});

Deno.test("XSAVEOPT leaves out what is in its initial state, but for MXCSR", () => {
  const ran = run("xsaveopt [rsi]", (m) => {
    noise(m);
    m.cpu.set("xmm1", 0n);
    m.cpu.set("xmm15", 0n);
  });
  assertEquals([ran.word(160 + 16), ran.word(24)], [0xcccc_cccc_cccc_ccccn, 0xffff_0000_1f80n]);
  assertEquals(ran.word(512) & 3n, 1n);
});

Deno.test("XSAVEC and XSAVES write the compacted format; MXCSR counts as SSE", () => {
  for (const name of ["xsavec", "xsaves"]) {
    const ran = run(`${name} [rsi]`, (m) => {
      noise(m);
      m.cpu.i32[CPU.fcw >> 2] = 0x37f;
      m.cpu.set("xmm1", 0n);
      m.cpu.set("xmm15", 0n);
      m.cpu.i32[CPU.mxcsr >> 2] = 0x1fa0;
    });
    assertEquals([ran.word(512), ran.word(520)], [2n, 0x8000_0000_0000_0003n], name);
    assertEquals(ran.word(24), 0xffff_0000_1fa0n, name);
    assertEquals(ran.word(0), 0xcccc_cccc_cccc_ccccn, name);
  }
});

Deno.test("XRSTOR loads what is there and initializes what is not", () => {
  const put = (m: Machine, at: number, ...values: bigint[]) =>
    m.write(AREA + at, new Uint8Array(BigUint64Array.from(values).buffer));
  const both = run("xrstor [rsi]", (m) => {
    put(m, 0, 0x40n);
    put(m, 24, 0x1fbfn);
    put(m, 160, 7n);
    put(m, 512, 2n);
  });
  assertEquals([both.cpu.get("xmm0"), both.cpu.get("xmm1")], [7n, 0n]);
  assertEquals(both.cpu.i32[CPU.mxcsr >> 2], 0x1fbf);
  // x87 is not in XSTATE_BV: as FNINIT leaves it.
  assertEquals(both.cpu.i32[CPU.fcw >> 2], 0x37f);
  const none = run("xrstor [rsi]", (m) => put(m, 24, 0x1fa0n));
  assertEquals([none.cpu.get("xmm1"), none.cpu.i32[CPU.mxcsr >> 2]], [0n, 0x1fa0]);
  const compact = run("xrstors [rsi]", (m) => put(m, 520, 0x8000_0000_0000_0003n));
  assertEquals([compact.cpu.get("xmm1"), compact.cpu.i32[CPU.mxcsr >> 2]], [0n, 0x1f80]);
  const part = run("mov eax,1\nxrstor [rsi]", (m) => put(m, 512, 3n));
  assertEquals(part.cpu.get("xmm1"), 0x1111_2222_3333_4444n);
  const faults: [string, number, bigint[]][] = [
    ["xrstor", 512, [4n]],
    ["xrstor", 512, [0n, 1n]],
    ["xrstor", 512, [0n, 0n, 1n]],
    ["xrstor", 512, [3n, 0x8000_0000_0000_0001n]],
    ["xrstor", 512, [0n, 0x8000_0000_0000_0005n]],
    ["xrstor", 512, [0n, 0x8000_0000_0000_0003n, 0n, 0n, 0n, 0n, 0n, 1n]],
    ["xrstor", 24, [0x1_0000n]],
    ["xrstors", 512, [0n, 3n]],
  ];
  for (const [name, at, values] of faults) {
    const ran = run(`${name} [rsi]`, (m) => put(m, at, ...values));
    assertEquals(ran.vector, 13, `${name} ${at} ${values}`);
    assertEquals(ran.cpu.get("xmm1"), 0x1111_2222_3333_4444n);
  }
});

Deno.test("XSAVE and its kin: #UD without CR4.OSXSAVE, #NM with CR0.TS, #GP off 64 bytes", () => {
  const without = (m: Machine) => m.cpu.set("cr4", OSFXSR);
  for (const code of ["xsave [rsi]", "xrstors [rsi]", "xgetbv", "xsetbv"]) {
    assertEquals(run(code, without).vector, 6, code);
  }
  assertEquals(run("xsavec [rsi]", (m) => m.cpu.set("cr0", 0x19n)).vector, 7);
  assertEquals(run("xsave [rsi+16]").vector, 13);
});

Deno.test("XGETBV and XSETBV", () => {
  const in1 = run("mov ecx,1\nxgetbv\nmov rbx,rax\nxor ecx,ecx\nxgetbv");
  assertEquals([in1.cpu.get("rbx"), in1.cpu.get("rax"), in1.cpu.get("rdx")], [3n, 3n, 0n]);
  assertEquals(run("mov ecx,2\nxgetbv").vector, 13);
  assertEquals(run("xor ecx,ecx\nxor edx,edx\nmov eax,1\nxsetbv").cpu.get("xcr0"), 1n);
  for (const value of [0, 2, 7]) {
    assertEquals(run(`xor ecx,ecx\nxor edx,edx\nmov eax,${value}\nxsetbv`).vector, 13, `${value}`);
  }
});

Deno.test("RDRAND and RDSEED take their numbers from outside and set CF alone", () => {
  let next = 0x1111_1111;
  const ran = run("cmp rax,rax\nrdrand rax\nrdseed ebx\nrdrand cx\npushfq\npop rdx", (m) => {
    m.cpu.hooks.service = () => next += 0x1111_1111;
    m.cpu.set("rcx", 0xaaaa_aaaan);
  });
  const { cpu } = ran;
  assertEquals([cpu.get("rax"), cpu.get("rbx")], [0x3333_3333_2222_2222n, 0x4444_4444n]);
  assertEquals([cpu.get("rcx"), cpu.get("rdx") & 0x8d5n], [0xaaaa_5555n, 1n]);
});

Deno.test("SYSCALL and SYSRET trap by the TF they leave", () => {
  const prepare = (m: Machine) => {
    m.cpu.set("efer", 0x501n);
    m.cpu.set("star", 0x001b_0008_0000_0000n);
    m.cpu.set("lstar", 0x1100n);
  };
  const step = (code: string, more: (m: Machine) => void) => {
    const machine = flatMachine(code, { long: true });
    prepare(machine);
    more(machine);
    machine.cpu.system.refresh();
    machine.cpu.run(1);
    return machine.cpu.get("pendingDebug") & 0x4000n;
  };
  const sysret = (r11: bigint) => (m: Machine) => {
    m.cpu.set("rcx", 0x1200n);
    m.cpu.set("r11", r11);
  };
  assertEquals(step("db 0x48\nsysret", sysret(0x102n)), 0x4000n);
  assertEquals(step("db 0x48\nsysret", sysret(0x2n)), 0n);
  const syscall = (mask: bigint) => (m: Machine) => {
    m.cpu.set("rflags", 0x102n);
    m.cpu.set("sfmask", mask);
  };
  assertEquals(step("syscall", syscall(0x100n)), 0n);
  assertEquals(step("syscall", syscall(0n)), 0x4000n);
});
