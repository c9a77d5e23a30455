import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { allChecks } from "../checks.ts";
import { CPU } from "../state.ts";
import { STUB } from "./layout.ts";
import { STATUS } from "./entry.ts";
import { Bench, type Fields, LONG, PLACE } from "./testing.ts";

const b = new Bench();
const HIGH = 1n << 40n;
const event = (info: number, code = 0) => BigInt(info >>> 0) | BigInt(code) << 32n;

type Case = readonly [check: string, fields: Fields, setUp?: () => void];

const refused: Case[] = [
  ["efer.svme", { efer: 0 }],
  ["cr0.nw", { cr0: 0x2000_0011 }],
  ["cr0.high", { cr0: 1n << 32n | 0x11n }],
  ["cr3", { cr3: HIGH }],
  ["cr3", { cr3: 1n << 52n }],
  ["cr4", { cr4: 0x2000 }],
  ["cr4", { cr4: 1n << 32n }],
  ["efer", { efer: 0x1002 }],
  ["long.pae", { ...LONG, cr4: 0 }],
  ["long.pe", { ...LONG, cr0: 0x8000_0010 }],
  ["long.cs", { ...LONG, csAttributes: 0xe9b }],
  ["dr6", { dr6: HIGH }],
  ["dr7", { dr7: HIGH }],
  ["intercept.vmrun", { intercepts2: 2 }],
  ["asid", { asid: 0 }],
  ["iopm", { iopmBase: HIGH }],
  ["iopm", { iopmBase: (1n << 36n) - 0x2000n }],
  ["msrpm", { msrpmBase: HIGH }],
  ["msrpm", { msrpmBase: (1n << 36n) - 0x1000n }],
  ["inject.type", { eventInjection: event(0x8000_0101) }],
  ["inject.type", { eventInjection: event(0x8000_0501) }],
  ["inject.type", { eventInjection: event(0x8000_0701) }],
  ["inject.vector", { eventInjection: event(0x8000_0302) }],
  ["inject.vector", { eventInjection: event(0x8000_030f) }],
  ["inject.vector", { eventInjection: event(0x8000_0320) }],
  ["inject.mode", { ...LONG, eventInjection: event(0x8000_0304) }],
  ["inject.mode", { ...LONG, eventInjection: event(0x8000_0305) }],
  ["nested.paging", { nestedControl: 1 }, () => b.cpu.set("cr0", 0x11n)],
  ["nested.cr3", { nestedControl: 1, nestedCr3: HIGH }],
  ["nested.pat", { nestedControl: 1, pat: 2 }],
  ["nested.pat", { nestedControl: 1, pat: 0x0800_0000_0000_0000n }],
  [
    "pdpte",
    { cr0: 0x8000_0011, cr4: 0x20, cr3: PLACE.tables },
    () => b.view.setBigUint64(PLACE.tables + 16, 3n, true),
  ],
];

function enter([, fields, setUp]: Case): void {
  b.reset(fields);
  setUp?.();
  b.load("jmp $");
  b.enter(1);
}

Deno.test("VMRUN refuses a VMCB by the check that it breaks, and loads nothing of it", () => {
  for (const row of refused) {
    enter(row);
    const label = `${row[0]} ${JSON.stringify(row[1], (_, v) => String(v))}`;
    assertEquals([label, b.status, b.exit(STUB.code)], [label, STATUS.left, -1]);
    assertEquals([label, b.check], [label, `svm.${row[0]}`]);
    assertEquals(b.read("exitCode"), 0xffff_ffff_ffff_ffffn);
    assertEquals([b.cpu.get("cr0") & 1n, b.cpu.i32[CPU.gif >> 2]], [1n, 0]);
  }
});

Deno.test("every consistency check of VMRUN has a VMCB that breaks it", () => {
  const tested = new Set(refused.map(([name]) => `svm.${name}`));
  const checks = allChecks().map((c) => c.name).filter((n) => n.startsWith("svm."));
  const others = /^svm\.(msr|hsave|address|off|mode|privilege|vmmcall|skinit|disabled|enabled)/;
  assertEquals(checks.filter((n) => !tested.has(n) && !others.test(n)), []);
});

Deno.test("VMRUN accepts what stands at the edge of each check", () => {
  const accepted: Fields[] = [
    { cr0: 0x6000_0011 },
    { cr0: 0x4000_0011 },
    LONG,
    { ...LONG, csAttributes: 0xc9b },
    { efer: 0x1d01 },
    // Real mode with paging, which no instruction of a guest can reach.
    { cr0: 0x8000_0010, cr3: PLACE.tables },
    { iopmBase: (1n << 36n) - 0x3000n, msrpmBase: (1n << 36n) - 0x2000n },
    { iopmBase: PLACE.iopm + 0xfff },
    { asid: 0xffff_ffff },
    { csAttributes: 0 },
    { tlbControl: 7, cleanBits: 0xffff_ffff },
    { cr0: 0x8000_0011, cr4: 0x20, cr3: PLACE.tables },
  ];
  for (const fields of accepted) {
    enter(["", fields]);
    assertNotEquals([fields, b.exit(STUB.code)], [fields, -1], b.check);
  }
});

Deno.test("VMRUN, VMLOAD and VMSAVE want memory at a page boundary", () => {
  b.reset();
  const { system } = b.cpu;
  for (const pa of [0x2008, 4 << 20, -4096]) {
    for (const name of ["vmrun", "vmload", "vmsave"]) {
      assertEquals([name, pa, system[name](pa, 0)], [name, pa, STATUS.protection]);
      assertEquals(b.check, "svm.address");
    }
  }
  assertEquals(system.vmload(PLACE.vmcb, 1), STATUS.protection);
  b.cpu.set("vmHsave", 1n << 30n);
  assertEquals(system.vmrun(PLACE.vmcb, 0), STATUS.protection);
  assertEquals(b.check, "svm.hsave");
});

/** xorshift32: the same numbers each time. */
function random(seed: number): () => number {
  let x = seed;
  return () => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return x >>> 0;
  };
}

Deno.test("whatever a VMCB holds, VMRUN runs it or refuses it by a check", () => {
  b.reset();
  const next = random(20261126);
  let ran = 0, refusals = 0;
  const words = new Uint32Array(b.machine.ram.buffer, PLACE.vmcb, 1024);
  for (let round = 0; round < 1500; round++) {
    // Every other one is sound but for a few words, so that it gets in.
    b.reset(round % 4 < 2 ? { cr0: next(), rflags: next(), csAttributes: next() & 0xfff } : {});
    b.load("mov eax, [ebx]\npush eax\nint 3\npop ds\nin al, 0x60\nhlt\njmp $");
    const broken = round % 4 === 0 ? 1024 : next() % 6;
    for (let i = 0; i < broken; i++) {
      const at = broken === 1024 ? i : next() % 0x300;
      words[at] = next() & next();
    }
    if (round % 2) {
      for (const [name, value] of [["intercepts2", 1], ["asid", 1]] as const) b.write(name, value);
    }
    b.enter(20);
    if (b.exit(STUB.code) === -1) {
      refusals++;
      assert(b.check.startsWith("svm."), b.check);
    } else ran++;
    assertEquals(b.cpu.get("efer") & 0x1000n, 0x1000n);
  }
  assert(ran > 300 && refusals > 300, `${ran} ran, ${refusals} were refused`);
});
