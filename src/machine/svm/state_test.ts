import { assertEquals } from "@std/assert";
import { attributesFromVmcb, attributesToVmcb, EXIT_CODE, INTERCEPT1 } from "../../abi/x86/vmcb.ts";
import { CPU, V } from "../state.ts";
import { Bench, type Fields, LONG, PLACE } from "./testing.ts";

const b = new Bench();
const RAX = 0, RDX = 2, RBX = 3;

Deno.test("VMLOAD and VMSAVE move what VMRUN does not", () => {
  b.reset();
  const values: Record<string, bigint> = {
    fsSelector: 0x33n,
    fsAttributes: 0xcf3n,
    fsLimit: 0xffffn,
    fsBase: 0x1234_5000n,
    gsBase: 0xffff_8000_0000_0000n,
    ldtrSelector: 0x28n,
    ldtrAttributes: 0x82n,
    trSelector: 0x18n,
    trAttributes: 0x8bn,
    kernelGsBase: 0x1111n,
    star: 0x23_0008_0000_0000n,
    lstar: 0xffff_ffff_8000_0000n,
    cstar: 0x2222n,
    sfmask: 0x4_7700n,
    sysenterCs: 8n,
    sysenterEsp: 0x3333n,
    sysenterEip: 0x4444n,
  };
  for (const [name, value] of Object.entries(values)) b.write(name, value);
  const { cpu } = b;
  assertEquals(cpu.system.vmload(PLACE.vmcb, 0), 0);
  assertEquals([cpu.get("fs.base"), cpu.get("lstar")], [0x1234_5000n, 0xffff_ffff_8000_0000n]);
  assertEquals(cpu.getSegment(4).attributes, 0xc0f3);
  for (const name of Object.keys(values)) b.write(name, 0);
  assertEquals(cpu.system.vmsave(PLACE.vmcb, 0), 0);
  for (const [name, value] of Object.entries(values)) assertEquals(b.read(name), value, name);
  // Addresses are made canonical, an absent segment is unusable.
  b.write("gsBase", 0x8000_0000_0000n);
  b.write("ldtrAttributes", 2);
  cpu.system.vmload(PLACE.vmcb, 0);
  assertEquals(cpu.get("gs.base"), 0xffff_8000_0000_0000n);
  assertEquals(cpu.getSegment(6).attributes & 0x1_0000, 0x1_0000);
  for (const a of [0xc9b, 0xcf3, 0x93, 0xa9b, 0]) {
    assertEquals(attributesToVmcb(attributesFromVmcb(a)), a);
  }
});

Deno.test("privilege comes from the CPL field, but not in real and virtual-8086 mode", () => {
  const cplIn = (fields: Fields): [number, bigint] => {
    b.reset(fields);
    b.load("jmp $");
    const { system } = b.cpu;
    system.enterGuest(PLACE.area, PLACE.vmcb);
    system.refresh();
    const cpl = b.cpu.i32[V.cpl >> 2];
    system.interruptExit(-1);
    system.leaveGuest(PLACE.area);
    return [cpl, b.read("cpl")];
  };
  assertEquals(cplIn({ cpl: 3 }), [3, 3n]);
  assertEquals(cplIn({ cpl: 0, ssAttributes: 0xcf3 }), [0, 0n]);
  assertEquals(cplIn({ cpl: 3, cr0: 0x10 }), [0, 0n]);
  assertEquals(cplIn({ cpl: 0, rflags: 0x2_0002 }), [3, 3n]);
});

Deno.test("a guest in long mode has 64 bits", () => {
  b.reset({ ...LONG, intercepts1: INTERCEPT1.hlt | INTERCEPT1.intr });
  b.longTables();
  b.load("mov rax, 0x123456789abcdef0\nhlt", 64);
  assertEquals(b.enter(4), EXIT_CODE.hlt);
  assertEquals(b.gpr(RAX), 0x1234_5678_9abc_def0n);
  // EFER.LMA follows.
  assertEquals([b.read("efer"), b.read("nextRip")], [0x1500n, BigInt(PLACE.code + 11)]);
});

Deno.test("a RIP that is not canonical is a #GP of the first fetch", () => {
  b.reset({ ...LONG, rip: 1n << 50n, exceptions: 1 << 13 });
  assertEquals(b.enter(4), EXIT_CODE.exception + 13);
});

Deno.test("paged real mode: PG without PE translates", () => {
  b.reset({ cr0: 0x8000_0010, cr3: PLACE.tables, intercepts1: INTERCEPT1.hlt | INTERCEPT1.intr });
  const { view } = b, table = PLACE.tables + 0x1000;
  view.setUint32(PLACE.tables, table | 3, true);
  // Page 8 is the code's, page 9 is the data's.
  view.setUint32(table + 4 * 8, PLACE.code | 3, true);
  view.setUint32(table + 4 * 9, PLACE.data | 3, true);
  for (const s of ["cs", "ss", "ds"]) {
    b.write(`${s}Selector`, 0x800);
    b.write(`${s}Base`, 0x8000);
    b.write(`${s}Limit`, 0xffff);
    b.write(`${s}Attributes`, 0x93);
  }
  b.write("rip", 0);
  b.load("mov byte [0x1000], 0x5a\nmov al, [0x1000]\nhlt", 16);
  assertEquals(b.enter(4), EXIT_CODE.hlt);
  assertEquals([b.gpr(RAX) & 0xffn, view.getUint8(PLACE.data)], [0x5an, 0x5a]);
  assertEquals(view.getUint32(table + 4 * 9, true), PLACE.data | 0x63);
});

Deno.test("TSC offset and ratio are in force in the guest alone", () => {
  const read = (offset: bigint, ratio: bigint): bigint => {
    b.reset({ tscOffset: offset });
    b.cpu.set("tscRatio", ratio);
    b.load("rdtsc\njmp $");
    b.cpu.count = 1000;
    b.cpu.idle = 0;
    b.enter(1);
    assertEquals(b.cpu.get("tscOffset"), 0n);
    return b.gpr(RDX) << 32n | b.gpr(RAX);
  };
  const ONE = 1n << 32n;
  const plain = read(0n, ONE);
  assertEquals(read(5n, ONE), plain + 5n);
  assertEquals(read(7n, 3n * ONE), 3n * plain + 7n);
  assertEquals(read(0n, ONE / 2n), plain / 2n);
  assertEquals(read(-1000n, ONE * 5n / 4n), plain * 5n / 4n - 1000n);
  b.cpu.set("tscRatio", ONE);
});

Deno.test("debug controls and branch records are the guest's with LBR virtualization alone", () => {
  const records = ["branchFrom", "branchTo", "lastExceptionFrom", "lastExceptionTo"];
  const fields = Object.fromEntries(records.map((name, n) => [name, 0x100 + n]));
  const run = (lbrControl: number): bigint[] => {
    b.reset({ ...fields, debugctl: 1, lbrControl });
    b.cpu.set("branchFrom", 0x999n);
    b.load("mov ecx, 0x1db\nrdmsr\nmov ebx, eax\nmov ecx, 0x1d9\nrdmsr\njmp $");
    b.enter(5);
    return [b.gpr(RBX), b.gpr(RAX), b.cpu.get("branchFrom"), b.cpu.get("debugctl")];
  };
  assertEquals(run(1), [0x100n, 1n, 0x999n, 0n]);
  assertEquals(run(0), [0x999n, 0n, 0x999n, 0n]);
});

Deno.test("the TLBs are emptied only when the translation context changes", () => {
  const slot = 0x4000 >> 3, { cpu } = b;
  const around = (change: () => void): boolean => {
    b.enter(1);
    cpu.u64[slot] = 0x1234_5000n;
    cpu.i32[V.fills >> 2] = 1 << 20;
    change();
    b.cpu.system.enterGuest(PLACE.area, PLACE.vmcb);
    const kept = cpu.u64[slot] === 0x1234_5000n;
    b.cpu.system.interruptExit(-1);
    b.cpu.system.leaveGuest(PLACE.area);
    return kept;
  };
  b.reset();
  b.load("jmp $");
  assertEquals(around(() => {}), true);
  assertEquals(around(() => b.write("asid", 2)), true);
  assertEquals(around(() => b.write("cr3", 0x7000)), false);
  assertEquals(around(() => b.write("cr4", 0x10)), false);
  assertEquals(around(() => b.write("tlbControl", 1)), false);
  b.write("tlbControl", 0);
  assertEquals(around(() => b.identityNested()), false);
  assertEquals(around(() => {}), true);
  // Another root with the same entry in it.
  const other = PLACE.nested + 0x8000;
  b.view.setBigUint64(other, b.view.getBigUint64(PLACE.nested, true), true);
  assertEquals(around(() => b.write("nestedCr3", other)), false);
});

Deno.test("a budget ends at exactly its instruction, wherever that is", () => {
  for (let budget = 1; budget < 12; budget++) {
    b.reset({ rflags: 0x202 });
    b.load("xor eax, eax\nsti\nmov ecx, 3\nagain: inc eax\nloop again\nmov ss, edx\npushfd\njmp $");
    const before = b.cpu.count;
    b.setGpr(RDX, 16);
    assertEquals(b.enter(budget), EXIT_CODE.intr);
    assertEquals(b.cpu.count - before, budget);
    // MOV SS leaves its shadow in the VMCB.
    assertEquals(b.read("interruptShadow"), budget === 10 ? 1n : 0n);
  }
  assertEquals(b.cpu.i32[CPU.interruptibility >> 2], 0);
});
