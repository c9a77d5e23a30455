// Shadow paging as both vendors' tables offer it: what the guest sees of its control registers, and
// what becomes of page faults.
import { assertEquals, assertObjectMatch } from "@std/assert";
import { exitOf, GUEST, Guest } from "./testing.ts";
import type { Exit } from "./exit.ts";
import { GUEST as PLACE, type RegisterName } from "./ops.ts";

for (const g of [new Guest("intel"), new Guest("amd")]) {
  const { ops } = g;
  const test = (name: string, body: () => void) =>
    Deno.test(`shadow paging, ${ops.name}: ${name}`, () => {
      g.reset();
      ops.setShadowRoot(g.v, g.shadowTables());
      ops.setIntercepts(g.v, { hlt: true });
      body();
    });
  const registers = (...names: RegisterName[]) => names.map((n) => ops.getRegister(g.v, n));
  /** Gives CR0 or CR4 what the exit says, as the hypervisor would. */
  const write = (exit: Exit) => {
    if (exit.kind !== "cr") throw new Error(`MOV to a control register was expected: ${exit.kind}`);
    ops.setCr(g.v, exit.cr as 0 | 4, BigInt(exit.value.low));
    ops.advance(g.v, exit.length);
  };

  test("the guest reads its own CR0 and CR4, by whatever instruction", () => {
    g.load("mov eax, cr0\nmov ebx, cr4\nsmsw ecx\nsmsw [0x5000]\nmov esp, cr0\nhlt");
    assertEquals(g.run().kind, "hlt");
    assertEquals(registers("rax", "rbx", "rcx", "rsp"), [0x31n, 0n, 0x31n, 0x31n]);
    assertEquals(g.read32(0x5000), 0x31);
    assertEquals([ops.getCr(g.v, 0), ops.getCr(g.v, 4)], [0x31n, 0n]);
  });

  test("writes that make CR0 what the hardware has already leave", () => {
    g.load("mov eax, 0x8001003b\nmov cr0, eax\nhlt");
    assertObjectMatch(g.run(), { kind: "cr", cr: 0, write: true, value: { low: 0x8001_003b } });
  });

  test("bits that are the guest's alone change without an exit", () => {
    g.load(
      "mov eax, cr0\nor al, 8\nmov cr0, eax\nmov ebx, cr0\nclts\nsmsw ecx\nmov eax, 0x200\n" +
        "mov cr4, eax\nmov edx, cr4\nhlt",
    );
    assertEquals(g.run().kind, "hlt");
    assertEquals(registers("rbx", "rcx", "rdx"), [0x39n, 0x31n, 0x200n]);
    assertEquals([ops.getCr(g.v, 0), ops.getCr(g.v, 4)], [0x31n, 0x200n]);
  });

  test("paging that is turned on shows, and CR3 is the guest's", () => {
    g.load(
      "mov eax, 0x10\nmov cr4, eax\nmov eax, 0x80000031\nmov cr0, eax\nmov ebx, cr0\n" +
        "mov ecx, cr4\nmov edx, cr3\nhlt",
    );
    ops.setCr(g.v, 3, 0x4000n);
    write(g.run());
    write(g.run());
    assertObjectMatch(g.run(), { kind: "cr", cr: 3, write: false, gpr: 2 });
    assertEquals(registers("rbx", "rcx"), [0x8000_0031n, 0x10n]);
    assertEquals(ops.getCr(g.v, 3), 0x4000n);
  });

  test("every page fault leaves, and may be dealt with out of sight", () => {
    g.load("here: mov eax, [0x12345678]\nhlt");
    const { code } = GUEST, linear = { low: 0x1234_5678, high: 0 };
    const fault = { kind: "exception", event: { vector: 14, errorCode: 0 }, qualification: linear };
    assertObjectMatch(g.run(), fault);
    const seen: number[] = [];
    const pageFault = (low: number, high: number, errorCode: number) => {
      seen.push(low, high, errorCode);
      return seen.length < 9;
    };
    assertObjectMatch(exitOf(ops.enter(g.v, { budget: 10, pageFault })), fault);
    assertEquals(seen, [0x1234_5678, 0, 0, 0x1234_5678, 0, 0, 0x1234_5678, 0, 0]);
    assertEquals(registers("rip"), [BigInt(code)]);
  });

  const interrupt = { type: "external-interrupt", vector: 0x30 } as const;
  for (const injected of [false, true]) {
    const what = injected ? "an injected interrupt" : "INT n";
    test(`${what} whose delivery faults goes in again once the fault is dealt with`, () => {
      g.load(injected ? "nop" : "int 0x30");
      g.gate(0x30, 0x9000);
      g.write(0x9000, Uint8Array.of(0xf4));
      ops.setRegister(g.v, "rsp", 0x20_0008n);
      ops.setRegister(g.v, "rflags", 0x202n);
      if (injected) ops.inject(g.v, interrupt);
      let faults = 0;
      const pageFault = (low: number) => {
        faults++;
        assertEquals(low, 0x20_0004);
        ops.setRegister(g.v, "rsp", BigInt(GUEST.stack));
        return true;
      };
      assertEquals(exitOf(ops.enter(g.v, { budget: 10, pageFault })).kind, "hlt");
      assertEquals([faults, ...registers("rip")], [1, 0x9000n]);
      // The return address is behind INT n.
      assertEquals(g.read32(GUEST.stack - 12), GUEST.code + (injected ? 0 : 2));
    });
  }

  test("no-execute in the hardware's tables counts, whatever the guest's EFER", () => {
    const directory = g.frames.allocate(), pointers = g.frames.allocate();
    g.machineWrite64(pointers, BigInt(directory) | 1n);
    g.machineWrite64(directory, BigInt(GUEST.machine) | 1n << 63n | 0xe7n);
    ops.setShadowRoot(g.v, pointers);
    g.load("nop");
    const event = { type: "exception", vector: 14, errorCode: 0x11 };
    assertObjectMatch(g.run(), { kind: "exception", event });
    assertEquals(ops.getMsr(g.v, 0xc000_0080), 0n);
  });

  test("the emulator gives the guest its own page faults", () => {
    g.load("mov eax, [0x40000000]");
    g.gate(14, 0x9000);
    g.write(0x9000, Uint8Array.of(0xf4));
    g.identityPage();
    ops.setCr(g.v, 0, 0x8000_0031n);
    assertEquals(ops.enter(g.v, { budget: 1, emulate: true }), "stopped");
    assertEquals(registers("cr2", "rip"), [0x4000_0000n, 0x9000n]);
    // They leave again on the shadow tables.
    g.write(0x9000, Uint8Array.of(0xa1, 0, 0, 0, 0x40));
    assertObjectMatch(g.run(), { kind: "exception", event: { vector: 14 } });
  });

  test("SMEP and SMAP wait for the guest's paging", () => {
    g.load("mov eax, [0x5000]\nhlt");
    ops.setCr(g.v, 4, 0x30_0000n);
    assertEquals(g.run().kind, "hlt");
    assertEquals(ops.getCr(g.v, 4), 0x30_0000n);
  });

  test("the emulator's MOV to CR3 loads the pointers of PAE paging", () => {
    g.write64(0x4000, 0x5001n);
    g.write64(0x5000, 0x83n);
    g.write64(0x6000, 0x5001n);
    g.write64(0x6008, 0x7001n);
    g.load("mov cr3, eax");
    ops.setRegister(g.v, "rax", 0x6000n);
    ops.setCr(g.v, 3, 0x4000n);
    ops.setCr(g.v, 4, 0x20n);
    ops.setCr(g.v, 0, 0x8000_0031n);
    const pointers = () => [...g.v.guest.subarray(PLACE.pdptes, PLACE.pdptes + 8)];
    assertEquals(pointers(), [0x5001, 0, 0, 0, 0, 0, 0, 0]);
    assertEquals(ops.enter(g.v, { budget: 1, emulate: true }), "budget");
    assertEquals(ops.getCr(g.v, 3), 0x6000n);
    assertEquals(pointers(), [0x5001, 0, 0x7001, 0, 0, 0, 0, 0]);
  });

  test("the emulator runs on the guest's own tables", () => {
    // 0x40000000 is the guest's first 4 MBytes; its shadow tables have nothing there.
    g.write64(0x4000, 0x83n);
    g.write64(0x4400, 0x83n);
    g.load("mov eax, [0x40008000]\nhlt");
    ops.setCr(g.v, 3, 0x4000n);
    ops.setCr(g.v, 4, 0x10n);
    ops.setCr(g.v, 0, 0x8000_0031n);
    assertEquals(g.run().kind, "exception");
    assertEquals(ops.enter(g.v, { budget: 1, emulate: true }), "budget");
    assertEquals(registers("rax"), [BigInt(g.read32(GUEST.code) >>> 0)]);
    assertEquals(ops.getCr(g.v, 0), 0x8000_0031n);
    // The accessed bit is in the guest's entry.
    assertEquals(g.read32(0x4400), 0xa3);
    assertEquals(g.run().kind, "hlt");
  });

  test("page faults leave again behind an emulated instruction", () => {
    g.write64(0x4000, 0x83n);
    g.write64(0x4400, 0x83n);
    g.load("mov eax, [0x40008000]\nmov ebx, [0x40008000]\nhlt");
    ops.setCr(g.v, 3, 0x4000n);
    ops.setCr(g.v, 4, 0x10n);
    ops.setCr(g.v, 0, 0x8000_0031n);
    const fault = {
      kind: "exception",
      event: { vector: 14 },
      qualification: { low: 0x4000_8000, high: 0 },
    };
    assertObjectMatch(g.run(), fault);
    assertEquals(ops.enter(g.v, { budget: 1, emulate: true }), "budget");
    // The guest's own tables have it; those the processor walks have not.
    assertObjectMatch(g.run(), fault);
    assertEquals(registers("rip"), [BigInt(GUEST.code) + 5n]);
  });

  test("MOV to CR3 leaves", () => {
    g.load("mov eax, 0x5000\nmov cr3, eax\nhlt");
    assertObjectMatch(g.run(), { kind: "cr", cr: 3, write: true, gpr: 0, value: { low: 0x5000 } });
  });

  test("steps count instructions that the hypervisor completes", () => {
    g.load("mov eax, cr0\nmov ebx, cr4\nnop\nhlt");
    ops.setSingleStep(g.v, true);
    const at: bigint[] = [];
    for (let n = 0; n < 3; n++) {
      assertEquals(g.run().kind, "debug");
      at.push(...registers("rip"));
    }
    assertEquals(at, [3n, 6n, 7n].map((n) => BigInt(GUEST.code) + n));
  });

  test("the page-attribute table is not the host's", () => {
    const { cpu } = g.machine, host = cpu.get("pat");
    g.load("mov ecx, 0x277\nmov eax, 0x06060606\nmov edx, eax\nwrmsr\nhlt");
    const exit = g.run();
    if (exit.kind === "msr") ops.setMsr(g.v, exit.msr, 0x0606_0606_0606_0606n);
    assertEquals(cpu.get("pat"), host);
    assertEquals(ops.getMsr(g.v, 0x277), 0x0606_0606_0606_0606n);
  });

  test("nested paging again, with what the guest has in its registers", () => {
    g.load("mov eax, cr0\nmov ebx, cr4\nhlt");
    g.identityPage();
    ops.setCr(g.v, 0, 0x8000_0031n);
    ops.setShadowRoot(g.v, undefined);
    assertEquals([ops.getCr(g.v, 0), ops.getCr(g.v, 3), ops.getCr(g.v, 4)], [
      0x8000_0031n,
      0x4000n,
      0x10n,
    ]);
    assertEquals(g.run().kind, "hlt");
    assertEquals(registers("rax", "rbx"), [0x8000_0031n, 0x10n]);
  });
}
