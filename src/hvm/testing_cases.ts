/**
 * What both vendors' tables have to do alike: guest code and the exit it has to raise, and the tests of
 * what is no exit. The vendors' own tests run them and add theirs.
 */
import { assert, assertEquals, assertObjectMatch, assertThrows } from "@std/assert";
import { CPU } from "../machine/state.ts";
import type { Exit } from "./exit.ts";
import { type ExitKind, exitRows, interceptsOf } from "./exit_kinds.ts";
import type { Intercepts, Stopped } from "./ops.ts";
import { GUEST, type Guest } from "./testing.ts";

/** Guest code, what is set up around it, and the exit it has to raise at the label `here`. */
export interface Case {
  readonly name: string;
  readonly code: string;
  readonly want?: Intercepts;
  readonly setUp?: (g: Guest) => void;
  readonly exit: (Partial<Exit> & { kind: ExitKind }) | Stopped;
}

export const number = (n: number): { low: number; high: number } => ({ low: n >>> 0, high: 0 });

export const commonCases: readonly Case[] = [
  {
    name: "CPUID",
    code: "mov eax, 7\nmov ecx, 3\nhere: cpuid",
    exit: { kind: "cpuid", leaf: 7, subleaf: 3, length: 2 },
  },
  {
    name: "HLT",
    code: "here: hlt",
    want: { hlt: true },
    exit: { kind: "hlt", length: 1 },
  },
  { name: "INVD", code: "here: invd", exit: { kind: "invd" } },
  { name: "WBINVD", code: "here: wbinvd", want: { wbinvd: true }, exit: { kind: "wbinvd" } },
  {
    name: "INVLPG",
    code: "mov ebx, 0x5000\nhere: invlpg [ebx+0x234]",
    want: { invlpg: true },
    exit: { kind: "invlpg", linear: number(0x5234), length: 7 },
  },
  {
    name: "RDTSC",
    code: "here: rdtsc",
    want: { rdtsc: true },
    exit: { kind: "rdtsc", aux: false },
  },
  { name: "RDPMC", code: "here: rdpmc", want: { rdpmc: true }, exit: { kind: "rdpmc" } },
  { name: "PAUSE", code: "here: pause", want: { pause: true }, exit: { kind: "pause", length: 2 } },
  {
    name: "MONITOR",
    code: "here: monitor",
    want: { monitor: true },
    exit: { kind: "monitor", length: 3 },
  },
  {
    name: "an x87 exception with CR0.NE clear",
    code: "fninit\npush 0x37b\nfldcw word ptr [esp]\nfld1\nfldz\nfdivp st(1), st(0)\nhere: fnop",
    exit: { kind: "coprocessor-error" },
    setUp: (g) => g.ops.setCr(g.v, 0, 0x11n),
  },
  { name: "MWAIT", code: "here: mwait", want: { mwait: true }, exit: { kind: "mwait" } },
  {
    name: "IN from an immediate port",
    code: "here: in al, 0x60",
    want: { ports: [[0x60, 0x60]] },
    exit: { kind: "io", write: false, port: 0x60, size: 1, string: false, rep: false },
  },
  {
    name: "OUT to DX",
    code: "mov dx, 0x8123\nmov eax, 0x12345678\nhere: out dx, ax",
    want: { ports: [[0x8124, 0x8124]] },
    exit: { kind: "io", write: true, port: 0x8123, size: 2, value: 0x5678 },
  },
  {
    name: "OUT around the end of the ports",
    code: "mov dx, 0xffff\nhere: out dx, eax",
    want: { ports: "none" },
    exit: { kind: "io", write: true, port: 0xffff, size: 4 },
  },
  {
    name: "REP INSB",
    code: "mov dx, 0x3f8\nmov edi, 0x5000\nmov ecx, 4\ncld\nhere: rep insb",
    want: { ports: "all" },
    exit: {
      kind: "io",
      write: false,
      string: true,
      rep: true,
      size: 1,
      port: 0x3f8,
      address: number(0x5000),
    },
  },
  {
    name: "OUTSD",
    code: "mov dx, 0x3f8\nmov esi, 0x5004\nhere: outsd",
    want: { ports: "all" },
    exit: { kind: "io", write: true, string: true, rep: false, size: 4, address: number(0x5004) },
  },
  {
    name: "RDMSR",
    code: "mov ecx, 0x1b\nhere: rdmsr",
    want: { msrReads: [0x1b] },
    exit: { kind: "msr", write: false, msr: 0x1b },
  },
  {
    name: "WRMSR",
    code: "mov ecx, 0xc0000082\nmov eax, 5\nmov edx, 6\nhere: wrmsr",
    want: { msrWrites: [0xc000_0082] },
    exit: { kind: "msr", write: true, msr: 0xc000_0082, value: { low: 5, high: 6 } },
  },
  {
    name: "RDMSR outside the bitmap",
    code: "mov ecx, 0x12345678\nhere: rdmsr",
    exit: { kind: "msr", write: false, msr: 0x1234_5678 },
  },
  {
    name: "MOV to CR3",
    code: "mov ebx, 0x4000\nhere: mov cr3, ebx",
    want: { crWrite: 8 },
    exit: { kind: "cr", cr: 3, write: true, access: "mov", gpr: 3, value: number(0x4000) },
  },
  {
    name: "MOV from CR3",
    code: "here: mov edx, cr3",
    want: { crRead: 8 },
    exit: { kind: "cr", cr: 3, write: false, access: "mov", gpr: 2 },
  },
  {
    name: "MOV to CR0 of a bit that is asked for",
    code: "mov eax, cr0\nor eax, 8\nmov cr0, eax\nor eax, 0x10000\nhere: mov cr0, eax",
    want: { cr0Bits: 0x1_0000 },
    exit: { kind: "cr", cr: 0, write: true, value: number(0x1_0039) },
  },
  {
    name: "CLTS",
    code: "mov eax, 0x39\nmov cr0, eax\nhere: clts",
    setUp: (g) => {
      g.ops.setCr(g.v, 0, 0x39n);
      g.want({ cr0Bits: 8 });
    },
    exit: { kind: "cr", cr: 0, write: true, access: "clts" },
  },
  {
    name: "LMSW",
    code: "mov ebx, 0x3b\nhere: lmsw bx",
    want: { cr0Bits: 8 },
    exit: { kind: "cr", cr: 0, access: "lmsw", value: number(0x3b) },
  },
  {
    name: "MOV to DR",
    code: "here: mov dr7, eax",
    want: { dr: true },
    exit: { kind: "dr", dr: 7, write: true, gpr: 0 },
  },
  {
    name: "MOV from DR",
    code: "here: mov ecx, dr3",
    want: { dr: true },
    exit: { kind: "dr", dr: 3, write: false, gpr: 1 },
  },
  ...(["sgdt", "sidt", "lgdt", "lidt"] as const).map((instruction): Case => ({
    name: instruction,
    code: `here: ${instruction} [0x5000]`,
    want: { "descriptor-table": true },
    exit: { kind: "descriptor-table", instruction },
  })),
  ...(["sldt", "str", "lldt", "ltr"] as const).map((instruction): Case => ({
    name: instruction,
    code: `here: ${instruction} ax`,
    want: { "descriptor-table": true },
    exit: { kind: "descriptor-table", instruction },
  })),
  {
    name: "an exception: #UD",
    code: "here: ud2",
    want: { exceptions: 1 << 6 },
    exit: { kind: "exception", event: { type: "exception", vector: 6 } },
  },
  {
    name: "an exception with an error code: #GP",
    code: "mov ax, 0x50\nhere: mov ds, ax",
    want: { exceptions: 1 << 13 },
    exit: { kind: "exception", event: { type: "exception", vector: 13, errorCode: 0x50 } },
  },
  {
    name: "INT3",
    code: "here: int3",
    want: { exceptions: 1 << 3 },
    exit: { kind: "exception", event: { type: "software-exception", vector: 3, length: 1 } },
  },
  {
    name: "a page fault that matches",
    code: "mov eax, cr0\nor eax, 0x80000000\nmov cr0, eax\nhere: mov [0x12345678], eax",
    setUp: (g) => {
      g.identityPage();
      g.want({ exceptions: 1 << 14, pageFault: { mask: 2, match: 2 } });
    },
    exit: {
      kind: "exception",
      event: { type: "exception", vector: 14, errorCode: 2 },
      qualification: number(0x1234_5678),
    },
  },
  {
    name: "a nested page fault by a write",
    code: "here: mov [0x200010], eax",
    exit: {
      kind: "nested-page-fault",
      gpa: 0x20_0010,
      read: false,
      write: true,
      fetch: false,
      walk: false,
      rights: 0,
      misconfigured: false,
    },
  },
  {
    name: "a nested page fault by a fetch",
    code: "jmp 8:0x300000",
    exit: { kind: "nested-page-fault", gpa: 0x30_0000, fetch: true, write: false },
  },
  {
    name: "a read-only nested page",
    code: "mov eax, [0x200010]\nhere: mov [0x200010], eax",
    setUp: (g) => g.mapLarge(1, 6 << 20, { read: true, write: false, execute: false }),
    exit: { kind: "nested-page-fault", gpa: 0x20_0010, write: true, rights: 1 },
  },
  {
    name: "a nested page that the format makes read-only",
    code: "mov eax, [0x200010]\nhere: mov [0x200010], eax",
    setUp: (g) => g.mapSmall(1, 6 << 20, { read: true, write: false, execute: true }),
    exit: { kind: "nested-page-fault", gpa: 0x20_0010, write: true, fetch: false, rights: 5 },
  },
  {
    name: "a nested page that the format makes writable, and not executable",
    code: "mov dword [0x200010], 1\njmp 8:0x200010",
    setUp: (g) => g.mapSmall(1, 6 << 20, { read: true, write: true, execute: false }),
    exit: { kind: "nested-page-fault", gpa: 0x20_0010, write: false, fetch: true, rights: 3 },
  },
  {
    name: "a triple fault",
    code: "here: ud2",
    setUp: (g) => g.ops.setDescriptorTable(g.v, "idtr", { base: 0n, limit: 0 }),
    exit: { kind: "triple-fault" },
  },
  {
    name: "a task switch by JMP",
    code: "here: jmp 24:0",
    setUp: (g) => g.write64(GUEST.gdt + 24, 0x0000_8900_3000_0067n),
    exit: { kind: "task-switch", selector: 24, source: "jmp" },
  },
  {
    name: "a task switch by CALL",
    code: "here: call 24:0",
    setUp: (g) => g.write64(GUEST.gdt + 24, 0x0000_8900_3000_0067n),
    exit: { kind: "task-switch", selector: 24, source: "call" },
  },
  {
    name: "a task switch by IRET",
    code: "push 0x4002\npopf\nhere: iret",
    setUp: (g) => {
      g.write64(GUEST.gdt + 24, 0x0000_8b00_3000_0067n);
      g.write(GUEST.tss, Uint8Array.of(24, 0));
    },
    exit: { kind: "task-switch", selector: 24, source: "iret" },
  },
  {
    name: "a task gate",
    code: "here: int 0x30",
    setUp: (g) => {
      g.write64(GUEST.gdt + 32, 0x0000_8900_3000_0067n);
      g.write64(GUEST.idt + 8 * 0x30, 0x0000_8500_0020_0000n);
    },
    exit: {
      kind: "task-switch",
      selector: 32,
      source: "gate",
      vectoring: { type: "software-interrupt", vector: 0x30, length: 2 },
    },
  },
  {
    name: "an interrupt window after STI",
    code: "cli\nsti\nnop\nhere: nop",
    setUp: (g) => g.ops.setInterruptWindow(g.v, true),
    exit: { kind: "interrupt-window" },
  },
  {
    name: "an NMI window",
    code: "here: nop",
    setUp: (g) => g.ops.setNmiWindow(g.v, true),
    exit: { kind: "nmi-window" },
  },
  {
    name: "the monitor trap",
    code: "nop\nhere: nop",
    setUp: (g) => g.ops.setSingleStep(g.v, true),
    exit: { kind: "debug" },
  },
  {
    name: "a budget",
    code: "times 5 nop\nhere: jmp here",
    exit: "budget",
  },
];

/** An exit has the fields that its row says, with values that they can have. */
function isAsItsRow(exit: Exit): void {
  const { raw, fields } = exitRows[exit.kind];
  const has = Object.entries(raw ?? fields).filter(([, { made }]) => !made);
  const values = exit as unknown as Record<string, unknown>;
  for (const [key, { is, min = 0, max = 0, of, optional }] of has) {
    const value = values[key], what = `${exit.kind} ${key}: ${value}`;
    if (value === undefined) assert(optional, what);
    else if (is === "number") assert((value as number) >= min && (value as number) <= max, what);
    else if (is === "choice") assert(of!.includes(value as string), what);
    else if (is === "flag") assertEquals(typeof value, "boolean", what);
  }
  const known = ["kind", "length", "vectoring", ...has.map(([key]) => key)];
  assertEquals(Object.keys(exit).filter((key) => !known.includes(key)), []);
}

/** Tests of the cases; `label` stands before their names. */
export function testCases(g: Guest, cases: readonly Case[], label = ""): void {
  const { ops } = g;
  for (const one of cases) {
    Deno.test(`${label}enter() leaves by ${one.name}`, () => {
      g.reset();
      const symbols = g.load(one.code);
      if (one.want) g.want(one.want);
      one.setUp?.(g);
      const exit = g.enter(typeof one.exit === "string" ? 5 : 1000);
      if (typeof one.exit === "string") assertEquals(exit, one.exit);
      else assertObjectMatch(exit as unknown as Record<string, unknown>, one.exit);
      const here = symbols.get("here");
      if (here !== undefined) assertEquals(ops.getRegister(g.v, "rip"), here, "RIP at the exit");
      if (typeof exit !== "string") isAsItsRow(exit);
    });
    if (typeof one.exit === "string") continue;
    const { kind } = one.exit;
    if (!one.want || !exitRows[kind].intercept) continue;
    Deno.test(`${label}what the row of ${kind} asks for makes it leave by ${one.name}`, () => {
      g.reset();
      g.load(one.code);
      g.want(interceptsOf([[kind, {}]]));
      one.setUp?.(g);
      assertEquals(g.run().kind, kind);
    });
  }
}

/** Tests of the table's other functions. */
export function testTable(g: Guest, label = ""): void {
  const { ops } = g;
  const test = (name: string, body: () => void) => Deno.test(`${label}${name}`, body);
  test("intercepts not asked for do not leave", () => {
    g.reset();
    const { cpu } = g.machine;
    g.load(`
      mov eax, cr0
      mov cr0, eax
      mov edx, cr3
      mov cr3, edx
      mov eax, dr7
      mov dr7, eax
      pause
      rdtsc
      invlpg [eax]
      wbinvd
      sgdt [0x5000]
      in al, 0x60
      mov ecx, 0xc0000081
      rdmsr
      clts
      cpuid
    `);
    cpu.hooks.msr = () => true;
    const exit = g.run();
    assertEquals(exit.kind, "cpuid");
  });

  test("advance() goes past the instruction and ends shadows", () => {
    g.reset();
    const symbols = g.load("sti\nhere: cpuid\nnext: cpuid");
    ops.setIntercepts(g.v, {});
    assertEquals(g.run().kind, "cpuid");
    ops.setInterruptShadow(g.v, { sti: true, movSs: false, nmi: false });
    ops.advance(g.v, 2);
    assertEquals(ops.getRegister(g.v, "rip"), symbols.get("next"));
    assertEquals(ops.interruptShadow(g.v).sti, false);
    assertEquals(g.run().kind, "cpuid");
  });

  test("inject() delivers every kind of event through the guest's IDT", () => {
    const events = [
      [{ type: "external-interrupt", vector: 0x21 }, 0, false],
      [{ type: "nmi", vector: 2 }, 0, false],
      [{ type: "exception", vector: 13, errorCode: 0x18 }, 0, true],
      [{ type: "exception", vector: 6 }, 0, false],
      [{ type: "software-interrupt", vector: 0x80, length: 2 }, 2, false],
      [{ type: "software-exception", vector: 3, length: 1 }, 1, false],
    ] as const;
    for (const [event, length, hasError] of events) {
      g.reset();
      g.load("nop");
      g.gate(event.vector, 0x9000);
      g.write(0x9000, new Uint8Array([0x0f, 0xa2]));
      ops.setRegister(g.v, "rflags", 0x202n);
      ops.inject(g.v, event);
      assertEquals(ops.pendingEvent(g.v), event);
      const exit = g.run();
      assertEquals([exit.kind, ops.getRegister(g.v, "rip")], ["cpuid", 0x9000n]);
      assertEquals(ops.pendingEvent(g.v), undefined);
      const frame = GUEST.stack - (hasError ? 16 : 12);
      assertEquals(ops.getRegister(g.v, "rsp"), BigInt(frame));
      if (hasError) assertEquals(g.read32(frame), 0x18);
      assertEquals(g.read32(frame + (hasError ? 4 : 0)), GUEST.code + length);
      assertEquals(ops.interruptShadow(g.v).nmi, event.type === "nmi");
    }
  });

  test("a nested page fault in the course of a delivery queues the event again", () => {
    g.reset();
    g.load("nop");
    g.gate(0x21, 0x9000);
    ops.setRegister(g.v, "rflags", 0x202n);
    ops.setRegister(g.v, "rsp", 0x20_0008n);
    const event = { type: "external-interrupt", vector: 0x21 } as const;
    ops.inject(g.v, event);
    const exit = g.run();
    assertObjectMatch(exit, { kind: "nested-page-fault", write: true, vectoring: event });
    assertEquals(ops.pendingEvent(g.v), event);
    assertEquals(ops.getRegister(g.v, "rip"), BigInt(GUEST.code));
  });

  test("INT n that is cut short is queued again, and returns behind itself", () => {
    g.reset();
    const symbols = g.load("here: int 0x30\nnext: nop");
    g.gate(0x30, 0x9000);
    g.write(0x9000, Uint8Array.of(0x0f, 0xa2));
    ops.setRegister(g.v, "rsp", 0x20_0008n);
    const event = { type: "software-interrupt", vector: 0x30, length: 2 } as const;
    const exit = g.run();
    assertObjectMatch(exit, { kind: "nested-page-fault", write: true, vectoring: event });
    assertEquals(ops.getRegister(g.v, "rip"), symbols.get("here"));
    assertEquals(ops.pendingEvent(g.v), event);
    ops.setRegister(g.v, "rsp", BigInt(GUEST.stack));
    assertEquals(g.run().kind, "cpuid");
    assertEquals(g.read32(GUEST.stack - 12), Number(symbols.get("next")));
  });

  test("CR8 is the guest's task priority", () => {
    g.reset();
    g.longMode();
    g.load("mov rbx, cr8\nmov eax, 5\nmov cr8, rax\ncpuid", 64);
    ops.setCr(g.v, 8, 9n);
    assertEquals(g.run().kind, "cpuid");
    assertEquals([ops.getRegister(g.v, "rbx"), ops.getCr(g.v, 8)], [9n, 5n]);
  });

  test("a task priority that a device sets amid an emulated access stays", () => {
    g.reset();
    g.load("mov [0x200010], eax");
    const { hooks } = g.machine.cpu;
    hooks.emulatedWrite = () => {
      ops.setCr(g.v, 8, 5n);
      return true;
    };
    assertEquals(ops.enter(g.v, { budget: 1, emulate: true }), "budget");
    hooks.emulatedWrite = undefined;
    assertEquals(ops.getCr(g.v, 8), 5n);
  });

  test("a traced instruction that the hypervisor completes leaves its trap", () => {
    g.reset();
    const symbols = g.load("here: cpuid\nnext: nop");
    g.gate(1, 0x9000);
    g.write(0x9000, Uint8Array.of(0x0f, 0xa2));
    ops.setRegister(g.v, "rflags", 0x102n);
    assertEquals(g.run().kind, "cpuid");
    ops.advance(g.v, 2);
    assertEquals(g.run().kind, "cpuid");
    assertEquals(ops.getRegister(g.v, "rip"), 0x9000n);
    assertEquals(ops.getRegister(g.v, "dr6") & 0x4000n, 0x4000n);
    assertEquals(g.read32(GUEST.stack - 12), Number(symbols.get("next")));
  });

  test("an exception in the course of a delivery is tested before it becomes a double fault", () => {
    g.reset();
    g.load("mov ax, 40\nhere: mov ds, ax");
    // #NP for a segment that is not present; its gate is empty, so #GP in the course of it.
    ops.setDescriptorTable(g.v, "gdtr", { base: BigInt(GUEST.gdt), limit: 47 });
    g.write64(GUEST.gdt + 40, 0x00cf_1300_0000_ffffn);
    g.want({ exceptions: 1 << 13 });
    const exit = g.run();
    assertObjectMatch(exit, {
      kind: "exception",
      event: { vector: 13 },
      vectoring: { type: "exception", vector: 11, errorCode: 40 },
    });
    assertEquals(ops.pendingEvent(g.v), { type: "exception", vector: 11, errorCode: 40 });
  });

  test("host interrupts leave the guest, acknowledged, whatever its IF", () => {
    g.reset();
    g.load("cli\nhere: jmp here");
    const { machine } = g;
    const bus = machine.bus;
    let pending = true;
    machine.bus = {
      ...bus,
      interruptPending: () => pending,
      acknowledge: () => {
        pending = false;
        return 0x41;
      },
      deadline: () => Infinity,
    };
    const exit = g.run();
    machine.bus = bus;
    assertObjectMatch(exit, { kind: "external-interrupt", vector: 0x41 });
  });

  test("an NMI of the host leaves the guest", () => {
    g.reset();
    g.load("here: jmp here");
    g.machine.cpu.raiseNmi();
    assertEquals(g.run().kind, "nmi");
  });

  test("the same guest gives the same state with every intercept on and with none", () => {
    const code = `
      mov ecx, 50
      again: add eax, ecx
      push eax
      mov edx, cr3
      mov cr3, edx
      mov ebx, dr7
      rdtsc
      xor eax, edx
      xor eax, eax
      xor edx, edx
      pop ebx
      loop again
      ${ops.name === "VMX" ? "vmcall" : "vmmcall"}`;
    const all = { rdtsc: true, dr: true, crRead: 8, crWrite: 8 };
    const results = [{}, all].map((want) => {
      g.reset();
      g.load(code);
      g.want(want);
      for (;;) {
        const exit = g.run(100_000);
        if (exit.kind === "hypercall") break;
        if (exit.kind === "cr" && !exit.write) {
          ops.setRegister(g.v, "rdx", ops.getCr(g.v, 3));
        } else if (exit.kind === "dr") ops.setRegister(g.v, "rbx", ops.getRegister(g.v, "dr7"));
        ops.advance(g.v, exit.length);
      }
      return ops.storeRegisters(g.v);
    });
    assertEquals(results[0], results[1]);
  });

  test("registers, segments, control registers and MSRs read back as they were set", () => {
    g.reset();
    for (const name of ["rax", "r15", "rip", "rsp", "cr2", "dr3", "dr7"] as const) {
      ops.setRegister(g.v, name, 0x1234_5678_9abcn);
      assertEquals(ops.getRegister(g.v, name), 0x1234_5678_9abcn, name);
    }
    const segment = { selector: 0x33, base: 0x1_0000n, limit: 0xf_ffff, attributes: 0x40f3 };
    ops.setSegment(g.v, "gs", segment);
    assertEquals(ops.getSegment(g.v, "gs"), segment);
    for (const [n, value] of [[0, 0x6000_0011n], [3, 0x5000n], [4, 0x90n], [8, 5n]] as const) {
      ops.setCr(g.v, n, value);
      assertEquals(ops.getCr(g.v, n), value, `CR${n}`);
    }
    for (const msr of [0x174, 0x277, 0xc000_0081, 0xc000_0102]) {
      assertEquals(ops.setMsr(g.v, msr, 0x55n), true);
      assertEquals(ops.getMsr(g.v, msr), 0x55n);
    }
    assertEquals(ops.getMsr(g.v, 0x1b), undefined);
    assertThrows(() => ops.readRaw(g.v, "guestFoo"), RangeError, "guestFoo");
  });

  test("what a guest writes into MSRs that hardware does not switch stays its own", () => {
    g.reset();
    g.load(`
      mov ecx, 0xc0000082
      mov eax, 0x1234
      xor edx, edx
      wrmsr
      mov ecx, 0xc0000084
      wrmsr
      cpuid`);
    g.want({ msrWrites: "none" });
    assertEquals(g.run().kind, "cpuid");
    const first = g.v, second = ops.createVcpu(g.on, g.frames), msrs = [0xc000_0082, 0xc000_0084];
    for (const msr of msrs) ops.setMsr(second, msr, 2n);
    assertEquals(msrs.map((msr) => ops.getMsr(first, msr)), [0x1234n, 0x1234n]);
    assertEquals(msrs.map((msr) => ops.getMsr(second, msr)), [2n, 2n]);
    ops.destroyVcpu(second, g.frames);
    ops.load(first);
  });

  test("two vCPUs on a processor keep what hardware does not switch", () => {
    g.reset();
    const first = g.v, second = ops.createVcpu(g.on, g.frames);
    const msrs = [0xc000_0081, 0xc000_0082, 0xc000_0084, 0xc000_0102, 0xc000_0103];
    for (const msr of msrs) {
      ops.setMsr(first, msr, 1n);
      ops.setMsr(second, msr, 2n);
      assertEquals([ops.getMsr(first, msr), ops.getMsr(second, msr)], [1n, 2n], msr.toString(16));
    }
    for (const name of ["cr2", "dr0", "dr6"] as const) {
      ops.setRegister(first, name, 1n);
      ops.setRegister(second, name, 2n);
      assertEquals(ops.getRegister(first, name), 1n, name);
    }
    // x87 and SSE registers, and their control words, go with the vCPU as well.
    const { cpu } = g.machine;
    const registers = [CPU.fpr0, CPU.xmm0, CPU.xmm15 + 8, CPU.mxcsr];
    const float = () => registers.map((at) => cpu.u64[at >> 3]);
    const set = (value: bigint) => {
      for (const at of [CPU.fpr0, CPU.xmm0, CPU.xmm15 + 8]) cpu.u64[at >> 3] = value;
      cpu.i32[CPU.mxcsr >> 2] = Number(value);
    };
    ops.load(first);
    set(1n);
    const own = float();
    ops.load(second);
    set(2n);
    ops.load(first);
    assertEquals(float(), own);
    ops.destroyVcpu(second, g.frames);
    ops.load(first);
  });
}
