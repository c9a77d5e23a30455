import { assertEquals } from "@std/assert";
import { EXIT_CODE } from "../../abi/x86/vmcb.ts";
import { CPU } from "../state.ts";
import { Bench, HOST, PLACE } from "./testing.ts";
import { STATUS } from "./entry.ts";
import { STUB } from "./layout.ts";

const b = new Bench();
const RAX = 0, RBX = 3;

Deno.test("VMRUN runs a guest until its budget ends, and #VMEXIT saves it", () => {
  b.reset();
  b.load("mov eax, 0x1234\nmov ebx, 5\ninc ebx\njmp $");
  b.setGpr(RBX, 77);
  assertEquals(b.enter(3), EXIT_CODE.intr);
  assertEquals([b.gpr(RAX), b.gpr(RBX), b.read("rax")], [0x1234n, 6n, 0x1234n]);
  assertEquals(b.read("rip"), BigInt(PLACE.code + 11));
  assertEquals([b.read("nextRip"), b.exit(STUB.length)], [0n, 0]);
  const { cpu } = b;
  assertEquals([cpu.get("cr0"), cpu.get("cr4"), cpu.get("efer")], [HOST.cr0, HOST.cr4, HOST.efer]);
  assertEquals(cpu.i32[CPU.gif >> 2], 0);
});

Deno.test("an instruction that is intercepted leaves with its nRIP", () => {
  b.reset();
  b.set("intercepts1", 1 << 18);
  b.load("mov eax, 1\ncpuid\njmp $");
  assertEquals(b.enter(), EXIT_CODE.cpuid);
  assertEquals(b.read("rip"), BigInt(PLACE.code + 5));
  assertEquals([b.read("nextRip"), b.exit(STUB.length)], [BigInt(PLACE.code + 7), 2]);
  b.cpu.system.advanceGuest(2);
  assertEquals(b.enter(5), EXIT_CODE.intr);
});

/** Two values of each register that lies in the VMCB, both of which a guest may have. */
const REGISTERS = {
  cr0: [0x6000_0031n, 0x11n],
  cr2: [0x1234_5678n, 0x9abc_def0n],
  cr3: [0x7000n, 0x9000n],
  cr4: [0x610n, 0x200n],
  efer: [0x1801n, 0x1001n],
  dr6: [0xffff_0ff5n, 0xffff_4ff8n],
  dr7: [0x701n, 0x5_0404n],
  rip: [BigInt(PLACE.code), 0x1111n],
  rsp: [0x2222n, 0x3333n],
  rax: [0x4444n, 0x5555n],
  rflags: [0x246n, 0x893n],
} as const;
const NAMES = Object.keys(REGISTERS) as (keyof typeof REGISTERS)[];
const SEGMENTS = ["es", "cs", "ss", "ds"] as const, TABLES = ["gdtr", "idtr"] as const;

Deno.test("VMRUN loads every field of the guest's state", () => {
  b.reset(Object.fromEntries(Object.entries(REGISTERS).map(([name, [one]]) => [name, one])));
  b.setGpr(RAX, REGISTERS.rax[0]);
  SEGMENTS.forEach((name, n) => {
    b.write(`${name}Selector`, 0x40 + 8 * n);
    b.write(`${name}Base`, 0x1000 * (n + 1));
    b.write(`${name}Limit`, 0x1_0fff + 0x1000 * n);
  });
  TABLES.forEach((name, n) => {
    b.write(`${name}Base`, 0xb000 + 0x1000 * n);
    b.write(`${name}Limit`, 0x77 + n);
  });
  const { cpu } = b, { system } = cpu;
  assertEquals(system.enterGuest(PLACE.area, PLACE.vmcb), STATUS.entered);
  const loaded = NAMES.map((name) => [name, cpu.get(name)]);
  const segments = SEGMENTS.map((_, n) => cpu.getSegment(n));
  const tables = TABLES.map((name) => [cpu.get(`${name}.base`), cpu.get(`${name}.limit`)]);
  system.interruptExit(-1);
  system.leaveGuest(PLACE.area);
  assertEquals(loaded, Object.entries(REGISTERS).map(([name, [one]]) => [name, one]));
  segments.forEach((s, n) => {
    assertEquals(
      [s.selector, s.base, s.limit, s.attributes],
      [0x40 + 8 * n, BigInt(0x1000 * (n + 1)), 0x1_0fff + 0x1000 * n, n === 1 ? 0xc09b : 0xc093],
    );
  });
  assertEquals(tables, [[0xb000n, 0x77n], [0xc000n, 0x78n]]);
});

Deno.test("#VMEXIT saves whatever of its state the guest has changed", () => {
  b.reset();
  const { cpu } = b, { system } = cpu;
  assertEquals(system.enterGuest(PLACE.area, PLACE.vmcb), STATUS.entered);
  for (const name of NAMES) cpu.set(name, REGISTERS[name][1]);
  SEGMENTS.forEach((_, n) =>
    cpu.setSegment(n, {
      selector: 8 * n,
      base: 0x111n * BigInt(n),
      limit: 0xfff + n,
      attributes: 0x93,
    })
  );
  TABLES.forEach((name, n) => {
    cpu.set(`${name}.base`, 0x2000n + BigInt(n));
    cpu.set(`${name}.limit`, 0x55n + BigInt(n));
  });
  system.interruptExit(-1);
  system.leaveGuest(PLACE.area);
  const saved = Object.keys(REGISTERS).map((name) => [name, b.read(name)]);
  assertEquals(saved, Object.entries(REGISTERS).map(([name, [, other]]) => [name, other]));
  SEGMENTS.forEach((name, n) => {
    const of = (what: string) => b.read(`${name}${what}`);
    assertEquals(
      [name, of("Selector"), of("Base"), of("Limit"), of("Attributes")],
      [name, BigInt(8 * n), 0x111n * BigInt(n), BigInt(0xfff + n), 0x93n],
    );
  });
  TABLES.forEach((name, n) => {
    assertEquals([b.read(`${name}Base`), b.read(`${name}Limit`)], [
      0x2000n + BigInt(n),
      0x55n + BigInt(n),
    ]);
  });
});
