import { assertEquals } from "@std/assert";
import {
  CR_MOV,
  EXIT_CODE,
  exitCodeName,
  INTERCEPT1,
  INTERCEPT2,
  INTERCEPT3,
  interceptNames,
  IOIO,
} from "../../abi/x86/vmcb.ts";
import { CPU, V } from "../state.ts";
import { STUB } from "./layout.ts";
import { Bench, type Fields, PLACE } from "./testing.ts";

const b = new Bench();
const RAX = 0, RCX = 1;

interface Case {
  readonly source: string;
  readonly fields?: Fields;
  readonly code: number;
  readonly info1?: bigint | number;
  readonly info2?: bigint | number;
  /** Bytes of the instruction; undefined where nRIP is 0. */
  readonly length?: number;
  readonly setUp?: () => void;
}

const i1 = (name: keyof typeof INTERCEPT1): Fields => ({
  intercepts1: Number(INTERCEPT1[name] | INTERCEPT1.intr),
});
const i2 = (name: keyof typeof INTERCEPT2): Fields => ({
  intercepts2: INTERCEPT2[name] | INTERCEPT2.vmrun,
});
const gpr = (n: number, value: bigint | number) => () => b.setGpr(n, value);
/** User mode: CPL 3 with segments that allow it. */
const USER: Fields = { cpl: 3, csSelector: 11, csAttributes: 0xcfb, ssSelector: 19 };

/** One guest for each name of an intercept. */
const plain: Record<string, Case> = {
  hlt: { source: "hlt", code: EXIT_CODE.hlt, length: 1 },
  cpuid: { source: "cpuid", code: EXIT_CODE.cpuid, length: 2 },
  rdtsc: { source: "rdtsc", code: EXIT_CODE.rdtsc, length: 2 },
  rdpmc: { source: "rdpmc", code: EXIT_CODE.rdpmc, length: 2 },
  pushf: { source: "pushfd", code: EXIT_CODE.pushf, length: 1 },
  popf: { source: "popfd", code: EXIT_CODE.popf, length: 1 },
  rsm: { source: "rsm", code: EXIT_CODE.rsm, length: 2 },
  iret: { source: "iretd", code: EXIT_CODE.iret, length: 1 },
  intN: { source: "int 0x33", code: EXIT_CODE.intN, info1: 0x33, length: 2 },
  invd: { source: "invd", code: EXIT_CODE.invd, length: 2 },
  pause: { source: "pause", code: EXIT_CODE.pause, length: 2 },
  invlpg: { source: "invlpg [0x12345678]", code: EXIT_CODE.invlpg, info1: 0x1234_5678, length: 7 },
  invlpga: { source: "invlpga", code: EXIT_CODE.invlpga, length: 3 },
  idtrRead: { source: `sidt [${PLACE.data}]`, code: EXIT_CODE.idtrRead, length: 7 },
  gdtrRead: { source: `sgdt [${PLACE.data}]`, code: EXIT_CODE.gdtrRead, length: 7 },
  ldtrRead: { source: "sldt eax", code: EXIT_CODE.ldtrRead, length: 3 },
  trRead: { source: "str eax", code: EXIT_CODE.trRead, length: 3 },
  idtrWrite: { source: `lidt [${PLACE.data}]`, code: EXIT_CODE.idtrWrite, length: 7 },
  gdtrWrite: { source: `lgdt [${PLACE.data}]`, code: EXIT_CODE.gdtrWrite, length: 7 },
  ldtrWrite: { source: "lldt ax", code: EXIT_CODE.ldtrWrite, length: 3 },
  trWrite: { source: "ltr ax", code: EXIT_CODE.trWrite, length: 3 },
  vmrun: { source: "vmrun", code: EXIT_CODE.vmrun, length: 3 },
  vmmcall: { source: "vmmcall", code: EXIT_CODE.vmmcall, length: 3 },
  vmload: { source: "vmload", code: EXIT_CODE.vmload, length: 3 },
  vmsave: { source: "vmsave", code: EXIT_CODE.vmsave, length: 3 },
  stgi: { source: "stgi", code: EXIT_CODE.stgi, length: 3 },
  clgi: { source: "clgi", code: EXIT_CODE.clgi, length: 3 },
  rdtscp: { source: "rdtscp", code: EXIT_CODE.rdtscp, length: 3 },
  icebp: { source: "int1", code: EXIT_CODE.icebp, length: 1 },
  wbinvd: { source: "wbinvd", code: EXIT_CODE.wbinvd, length: 2 },
  monitor: { source: "monitor", code: EXIT_CODE.monitor, length: 3 },
  mwait: { source: "mwait", code: EXIT_CODE.mwait, length: 3 },
  xsetbv: {
    source: "xsetbv",
    fields: { cr4: 0x4_0000 },
    setUp: () => b.cpu.i32[0x1198 >> 2] = 0,
    code: EXIT_CODE.xsetbv,
    length: 3,
  },
  invpcid: { source: `invpcid eax, [${PLACE.data}]`, code: EXIT_CODE.invpcid, length: 9 },
};

const other: Case[] = [
  // Control registers.
  { source: "mov eax, cr0", fields: { crReads: 1 }, code: 0, info1: CR_MOV, length: 3 },
  { source: "mov ebx, cr3", fields: { crReads: 8 }, code: 3, info1: CR_MOV | 3n, length: 3 },
  { source: "mov cr2, ecx", fields: { crWrites: 4 }, code: 0x12, info1: CR_MOV | 1n, length: 3 },
  { source: "mov cr4, edi", fields: { crWrites: 0x10 }, code: 0x14, info1: CR_MOV | 7n, length: 3 },
  { source: "mov cr0, eax", fields: { crWrites: 1 }, code: 0x10, info1: CR_MOV, length: 3 },
  { source: "smsw ax", fields: { crReads: 1 }, code: 0, info1: 0, length: 4 },
  { source: "lmsw ax", fields: { crWrites: 1 }, code: 0x10, info1: 0, length: 3 },
  { source: "clts", fields: { crWrites: 1 }, code: 0x10, info1: 0, length: 2 },
  {
    source: "mov cr0, eax",
    fields: i1("cr0Selective"),
    setUp: gpr(RAX, 0x31),
    code: EXIT_CODE.cr0Selective,
    info1: CR_MOV,
    length: 3,
  },
  // The unconditional intercept comes first.
  {
    source: "mov cr0, eax",
    fields: { ...i1("cr0Selective"), crWrites: 1 },
    setUp: gpr(RAX, 0x31),
    code: 0x10,
    info1: CR_MOV,
    length: 3,
  },
  { source: "lmsw ax", fields: i1("cr0Selective"), code: EXIT_CODE.cr0Selective, length: 3 },
  // Debug registers.
  { source: "mov edx, dr3", fields: { drReads: 8 }, code: 0x23, info1: 2, length: 3 },
  { source: "mov dr7, esi", fields: { drWrites: 0x80 }, code: 0x37, info1: 6, length: 3 },
  // Exceptions.
  { source: "ud2", fields: { exceptions: 1 << 6 }, code: 0x46 },
  { source: "int3", fields: { exceptions: 1 << 3 }, code: 0x43, length: 1 },
  { source: "int1", fields: { exceptions: 1 << 1 }, code: 0x41, length: 1 },
  {
    source: "mov ds, eax",
    setUp: gpr(RAX, 0x48),
    fields: { exceptions: 1 << 13 },
    code: 0x4d,
    info1: 0x48,
  },
  { source: "div ecx", fields: { exceptions: 1 }, code: 0x40 },
  // Ports.
  {
    source: "in al, 0x60",
    fields: i1("io"),
    setUp: () => b.view.setUint8(PLACE.iopm + 0xc, 1),
    code: EXIT_CODE.io,
    info1: 0x60 << 16 | IOIO.in | IOIO.size8 | IOIO.address32,
    info2: PLACE.code + 2,
    length: 2,
  },
  {
    source: "out dx, eax",
    fields: i1("io"),
    // The last of the four ports is the one in the map.
    setUp: () => {
      b.setGpr(2, 0x3fd);
      b.view.setUint8(PLACE.iopm + 0x80, 1);
    },
    code: EXIT_CODE.io,
    info1: 0x3fd << 16 | IOIO.size32 | IOIO.address32,
    info2: PLACE.code + 1,
    length: 1,
  },
  {
    source: "out dx, ax",
    fields: i1("io"),
    setUp: () => {
      b.setGpr(2, 0xffff);
      b.view.setUint8(PLACE.iopm + 0x2000, 1);
    },
    code: EXIT_CODE.io,
    info1: BigInt.asUintN(32, BigInt(0xffff << 16 | IOIO.size16 | IOIO.address32)),
    info2: PLACE.code + 2,
    length: 2,
  },
  {
    source: "rep outsb",
    fields: i1("io"),
    setUp: () => {
      b.setGpr(2, 0x80);
      b.setGpr(RCX, 3);
      b.view.setUint8(PLACE.iopm + 0x10, 1);
    },
    code: EXIT_CODE.io,
    info1: 0x80 << 16 | IOIO.string | IOIO.rep | IOIO.size8 | IOIO.address32 | 3 << 10,
    info2: PLACE.code + 2,
    length: 2,
  },
  // MSRs: two bits each, in three ranges; the rest leaves always.
  {
    source: "rdmsr",
    fields: i1("msr"),
    setUp: () => {
      b.setGpr(RCX, 0x10);
      b.view.setUint8(PLACE.msrpm + 4, 1);
    },
    code: EXIT_CODE.msr,
    length: 2,
  },
  {
    source: "wrmsr",
    fields: i1("msr"),
    setUp: () => {
      b.setGpr(RCX, 0xc000_0082);
      b.view.setUint8(PLACE.msrpm + 0x800 + 0x20, 1 << 5);
    },
    code: EXIT_CODE.msr,
    info1: 1,
    length: 2,
  },
  {
    source: "rdmsr",
    fields: i1("msr"),
    setUp: () => {
      b.setGpr(RCX, 0xc001_0114);
      b.view.setUint8(PLACE.msrpm + 0x1000 + 0x45, 1);
    },
    code: EXIT_CODE.msr,
    length: 2,
  },
  {
    source: "rdmsr",
    fields: i1("msr"),
    setUp: gpr(RCX, 0x4000_0000),
    code: EXIT_CODE.msr,
    length: 2,
  },
  // VMMCALL leaves from any privilege; a triple fault is a shutdown.
  { source: "vmmcall", fields: { ...USER, ...i2("vmmcall") }, code: EXIT_CODE.vmmcall, length: 3 },
  { source: "ud2", fields: { idtrLimit: 0 }, code: EXIT_CODE.shutdown },
];

function run(c: Case, intercepts: Fields = {}): void {
  b.reset({ ...c.fields, ...intercepts });
  c.setUp?.();
  b.load(`${c.source}\njmp $`);
  b.enter(3);
}

function expectExit(c: Case, label: string): void {
  const next = c.length === undefined ? 0n : BigInt(PLACE.code + c.length);
  assertEquals(
    [label, exitCodeName(b.exit(STUB.code)), b.read("exitInfo1"), b.read("exitInfo2")],
    [label, exitCodeName(c.code), BigInt(c.info1 ?? 0), BigInt(c.info2 ?? 0)],
  );
  assertEquals([label, b.read("rip"), b.read("nextRip")], [label, BigInt(PLACE.code), next]);
  assertEquals([label, b.exit(STUB.length)], [label, c.length ?? 0]);
}

Deno.test("SKINIT, which there is not, is #UD before its intercept", () => {
  run({ source: "skinit", fields: USER, code: 0 }, {
    intercepts2: INTERCEPT2.skinit | INTERCEPT2.vmrun,
    exceptions: 1 << 6,
  });
  assertEquals(b.exit(STUB.code), EXIT_CODE.exception + 6);
});

Deno.test("exceptions of INT3, INTO and BOUND have an nRIP, others have none", () => {
  const next = (source: string, vector: number) => {
    run({ source, code: 0, setUp: gpr(RAX, 9) }, { exceptions: 1 << vector });
    assertEquals([source, b.exit(STUB.code)], [source, EXIT_CODE.exception + vector]);
    return Number(b.read("nextRip"));
  };
  assertEquals(next("int3", 3), PLACE.code + 1);
  assertEquals(next(`bound eax, [${PLACE.data}]`, 5), PLACE.code + 6);
  assertEquals(next("div ecx", 0), 0);
  assertEquals(next("ud2", 6), 0);
});

Deno.test("each instruction intercept makes its instruction leave, and no other bit does", () => {
  const vectors = Object.entries(interceptNames) as [keyof typeof interceptNames, object][];
  for (const [vector, names] of vectors) {
    const all = Object.values(names).reduce((sum, bit) => (sum | bit) >>> 0, 0);
    for (const [name, bit] of Object.entries(names)) {
      const c = plain[name];
      if (!c) continue;
      const least = vector === "intercepts2" ? INTERCEPT2.vmrun : 0;
      run(c, { [vector]: bit | INTERCEPT1.intr * +(vector === "intercepts1") | least });
      expectExit(c, name);
      if (name === "vmrun") continue;
      run(c, { [vector]: (all & ~bit | least) >>> 0 });
      assertEquals([name, b.exit(STUB.code) === c.code], [name, false]);
    }
  }
});

Deno.test("every intercept of an instruction has a guest here", () => {
  const names = Object.values(interceptNames).flatMap((n) => Object.keys(n));
  const events = ["intr", "nmi", "smi", "init", "vintr", "ferrFreeze", "shutdown"];
  const below = ["cr0Selective", "io", "msr", "taskSwitch", "mwaitArmed", "skinit"];
  const missing = names.filter((n) => !plain[n] && !events.includes(n) && !below.includes(n));
  assertEquals(missing, []);
  assertEquals(INTERCEPT3.invpcid, 4);
});

Deno.test("control and debug registers, exceptions, ports, MSRs: information by the manual", () => {
  other.forEach((c, n) => {
    run(c);
    expectExit(c, `${n} ${c.source}`);
  });
});

Deno.test("what is not intercepted runs on", () => {
  const none: Case[] = [
    { source: "mov cr0, eax", fields: i1("cr0Selective"), setUp: gpr(RAX, 0x1b), code: 0 },
    { source: "clts", fields: i1("cr0Selective"), code: 0 },
    {
      source: "in al, 0x61",
      fields: i1("io"),
      code: 0,
      setUp: () => b.view.setUint8(PLACE.iopm + 0xc, 1),
    },
    {
      source: "rdmsr",
      fields: i1("msr"),
      code: 0,
      setUp: () => {
        b.setGpr(RCX, 0x10);
        b.view.setUint8(PLACE.msrpm + 4, 2);
      },
    },
    { source: "mov eax, dr3", fields: { drReads: 0xf7, drWrites: 0xff }, code: 0 },
    { source: "mov eax, cr2", fields: { crReads: 0xfb, crWrites: 0xffff }, code: 0 },
  ];
  for (const c of none) {
    run(c);
    assertEquals([c.source, b.exit(STUB.code)], [c.source, EXIT_CODE.intr]);
  }
});

Deno.test("exceptions of the instruction come before its intercept, where the manual says so", () => {
  const before: [string, Fields, number][] = [
    ["hlt", i1("hlt"), 13],
    ["invlpg [0]", i1("invlpg"), 13],
    ["mov eax, cr0", { crReads: 1 }, 13],
    ["mov eax, dr0", { drReads: 1 }, 13],
    ["rdmsr", i1("msr"), 13],
    ["vmload", i2("vmload"), 13],
    ["invd", i1("invd"), 13],
    ["lgdt [0]", i1("gdtrWrite"), 13],
    ["rdtsc", { ...i1("rdtsc"), cr4: 4 }, 13],
    ["rdpmc", i1("rdpmc"), 13],
    ["in al, 0x60", i1("io"), 13],
    ["monitor", i2("monitor"), 6],
  ];
  for (const [source, fields, vector] of before) {
    run({ source, code: 0 }, { ...USER, ...fields, exceptions: 1 << vector });
    assertEquals([source, b.exit(STUB.code)], [source, EXIT_CODE.exception + vector]);
  }
  // These leave before any exception.
  const v86 = { rflags: 0x2_0002 };
  const after: [string, Fields, number][] = [
    ["pushf", { ...i1("pushf"), ...v86 }, EXIT_CODE.pushf],
    ["popf", { ...i1("popf"), ...v86 }, EXIT_CODE.popf],
    ["iret", { ...i1("iret"), ...v86 }, EXIT_CODE.iret],
    ["int 0x20", { ...i1("intN"), ...v86 }, EXIT_CODE.intN],
    ["rsm", { ...USER, ...i1("rsm") }, EXIT_CODE.rsm],
  ];
  for (const [source, fields, code] of after) {
    run({ source, code }, { ...fields, exceptions: 0xffff_ffff });
    assertEquals([source, b.exit(STUB.code)], [source, code]);
  }
});

Deno.test("the PAUSE filter counts, and starts anew after a pause between PAUSEs", () => {
  const pauses = (filter: Fields, source: string): bigint => {
    b.reset({ ...i1("pause"), ...filter });
    b.load(source);
    assertEquals(b.enter(10_000), EXIT_CODE.pause);
    return b.gpr(RAX);
  };
  const close = "xor eax, eax\nagain: pause\ninc eax\njmp again";
  assertEquals(pauses({}, close), 0n);
  assertEquals(pauses({ pauseFilterCount: 5 }, close), 5n);
  assertEquals(pauses({ pauseFilterCount: 5, pauseFilterThreshold: 10 }, close), 5n);
  // Twice 20 NOPs in between: the count begins again each time.
  const far = `xor eax, eax
    again: pause\ninc eax\n${"nop\n".repeat(20)}cmp eax, 20\njb again
    close: pause\ninc eax\njmp close`;
  assertEquals(pauses({ pauseFilterCount: 5, pauseFilterThreshold: 10 }, far), 25n);
});

Deno.test("while the hypervisor has an instruction emulated, nothing is intercepted", () => {
  b.reset({ ...i1("cpuid") });
  b.load("cpuid\njmp $");
  b.cpu.i32[V.emulating >> 2] = 1;
  assertEquals(b.enter(1), EXIT_CODE.intr);
  b.cpu.i32[V.emulating >> 2] = 0;
  assertEquals(b.read("rip"), BigInt(PLACE.code + 2));
  assertEquals(b.cpu.i32[CPU.svmMode >> 2], 0);
});
