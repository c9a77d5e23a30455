// Real mode under shadow paging: each program runs in hardware real mode over nested tables, and on
// shadow tables: in real mode with paging on, or, where no unrestricted guest can be, in virtual-8086
// mode and by single instructions. The exits and the state at the end are the same.
import { assert, assertEquals } from "@std/assert";
import { assemble } from "../machine/isa/encode.ts";
import { SVMC } from "../machine/svm/layout.ts";
import { VMXC } from "../machine/vmx/layout.ts";
import { wide } from "./exit.ts";
import { exitOf, GUEST, Guest } from "./testing.ts";

const guests = { intel: new Guest("intel"), amd: new Guest("amd") };

/** Real mode at 0:8000, an IVT whose vectors all lead to 0:9000 + 16 * vector. */
function reset(g: Guest, shadow: boolean): void {
  g.reset();
  const { v, ops } = g;
  const data = { selector: 0, base: 0n, limit: 0xffff, attributes: 0x93 };
  for (const s of ["es", "ss", "ds", "fs", "gs"] as const) ops.setSegment(v, s, data);
  ops.setSegment(v, "cs", { ...data, attributes: 0x9b });
  ops.setSegment(v, "tr", { selector: 0, base: 0n, limit: 0xffff, attributes: 0x8b });
  ops.setDescriptorTable(v, "idtr", { base: 0n, limit: 0x3ff });
  ops.setCr(v, 0, 0x10n);
  ops.setIntercepts(v, { hlt: true, ports: "all", msrReads: "all", msrWrites: "all" });
  for (let n = 0; n < 256; n++) {
    g.write(4 * n, new Uint8Array(Uint16Array.of(0x9000 + 16 * n, 0).buffer));
  }
  if (shadow) ops.setShadowRoot(v, g.shadowTables());
}

interface Program {
  readonly name: string;
  readonly code: string;
  /** Handlers by vector; the others end the program. */
  readonly handlers?: Readonly<Record<number, string>>;
  /** Done with the exit of that number. */
  readonly at?: Readonly<Record<number, (g: Guest) => void>>;
}

/** Stands for the vendor's hypercall. */
const END = "@end";
const HYPERCALL = { intel: "db 0x0f, 0x01, 0xc1", amd: "db 0x0f, 0x01, 0xd9" } as const;

const PROGRAMS: readonly Program[] = [
  {
    name: "arithmetic, a stack and far calls",
    code: `mov ax, 0x700\nmov ss, ax\nmov sp, 0x100\nmov bx, 5\npush bx\npop cx
      add cx, bx\ncall 0:far\nmov [0x5000], cx\njmp over\nfar: inc cx\nretf\nover: ${END}`,
  },
  {
    name: "INT and IRET",
    code: `int 0x21\nmov dx, ax\nint3\n${END}`,
    handlers: { 0x21: "mov ax, 0x1234\niret", 3: "inc ax\niret" },
  },
  {
    name: "CLI, STI, PUSHF and POPF",
    code: `sti\nnop\npushf\npop ax\ncli\npushf\npop bx\nmov cx, 0x3202\npush cx\npopf
      pushf\npop dx\n${END}`,
  },
  {
    name: "exceptions through the IVT",
    code: `xor bx, bx\ndiv bx\nmov si, 1\ndb 0x0f, 0x0b\nmov di, 2\n${END}`,
    handlers: {
      0: "mov ax, 0xd0\nmov bp, sp\nadd word [bp], 2\niret",
      6: "mov dx, 0x06\nmov bp, sp\nadd word [bp], 2\niret",
    },
  },
  {
    name: "a word at the end of a segment",
    code: `mov bx, 0xffff\nmov ax, [bx]\nmov cx, 7\n${END}`,
    handlers: { 13: "mov dx, 13\nmov bp, sp\nadd word [bp], 2\niret" },
  },
  {
    name: "ports, HLT, CPUID and MSRs",
    code: `mov dx, 0x3f8\nmov al, 0x41\nout dx, al\nin al, 0x60\nmov eax, 1\ncpuid
      mov ecx, 0x174\nrdmsr\nhlt\nmov bx, 1\n${END}`,
  },
  {
    name: "descriptor tables, CR0 and SMSW",
    code: `sgdt [0x5000]\nsidt [0x5010]\nlgdt [0x5000]\nsmsw ax\nmov ecx, cr0\nmov edx, cr4
      lidt [0x5010]\nclts\n${END}`,
  },
  {
    name: "protected mode and back",
    code: `cli\nlgdt [table]\nmov eax, cr0\nor al, 1\nmov cr0, eax\nmov bx, 16\nmov ds, bx
      mov cx, 0x55\nmov [0x5000], cx\nmov dx, 32\nmov ds, dx\nand al, 0xfe\nmov cr0, eax
      jmp 0:real\nreal: xor bx, bx\nmov ds, bx\nmov si, [0x5000]\n${END}
      align 4\ntable: dw 39\ndd gdt
      align 8\ngdt: dq 0, 0x00009b000000ffff, 0x00cf93000000ffff, 0, 0x000093000000ffff`,
  },
  {
    name: "big real mode",
    code: `cli\nlgdt [table]\nmov eax, cr0\nor al, 1\nmov cr0, eax\nmov bx, 16\nmov ds, bx
      and al, 0xfe\nmov cr0, eax\nmov ebx, 0x123450\nmov dword [ebx], 0xdeadbeef
      mov ecx, [ebx]\nint 0x21\nxor dx, dx\nmov ds, dx\n${END}
      align 4\ntable: dw 23\ndd gdt
      align 8\ngdt: dq 0, 0x00009b000000ffff, 0x00cf93000000ffff`,
    handlers: { 0x21: "mov si, 0x77\niret" },
  },
  {
    name: "32-bit protected code from real mode",
    code: `cli\nlgdt [table]\nmov eax, cr0\nor al, 1\nmov cr0, eax\njmp 8:flat
      bits 32\nflat: mov ax, 16\nmov ds, ax\nmov ss, ax\nmov es, ax\nmov esp, 0x7000\npush eax
      pop ebx\nmov ecx, cr0\n${END}\nbits 16
      align 4\ntable: dw 23\ndd gdt
      align 8\ngdt: dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff`,
  },
  {
    name: "a traced instruction",
    code: `mov sp, 0x7000\npushf\npop ax\nor ax, 0x100\npush ax\npopf\nnop\nmov bx, 3
      pushf\npop ax\nand ax, 0xfeff\npush ax\npopf\n${END}`,
    handlers: { 1: "inc cx\niret" },
  },
  {
    name: "an interrupt that is injected, and its window",
    code: `sti\nnop\nmov dx, 0x80\nout dx, al\nmov bx, 1\nmov cx, 2\n${END}`,
    handlers: { 0x30: "mov si, 0x30\niret" },
    at: { 0: ({ ops, v }) => ops.inject(v, { type: "external-interrupt", vector: 0x30 }) },
  },
  {
    name: "shadows of STI and MOV SS",
    code: `cli\nsti\nmov ax, 0\nmov ss, ax\nmov sp, 0x7000\nmov dx, 0x80\nout dx, al\ncli\n${END}`,
  },
  {
    name: "task registers that real mode has not got, and VME in CR4",
    code: `mov eax, 1\nmov cr4, eax\nsti\npushf\npop bx\nint 0x21\nmov ecx, cr4\ndb 0x0f, 0x00, 0xd8
      ${END}`,
    handlers: { 0x21: "mov di, 1\niret", 6: "mov si, 6\nmov bp, sp\nadd word [bp], 3\niret" },
  },
];

/** Exits in words, and the state at the end; at most `turn` instructions at a time. */
function run(g: Guest, program: Program, shadow: boolean, turn = 10_000) {
  reset(g, shadow);
  const { v, ops } = g, hypercall = HYPERCALL[g.machine.cpu.model];
  for (let n = 0; n < 256; n++) {
    const source = (program.handlers?.[n] ?? END).replace(END, hypercall);
    const { bytes } = assemble(`org ${0x9000 + 16 * n}\nbits 16\n${source}`, { mode: 16 });
    g.write(0x9000 + 16 * n, bytes);
  }
  g.load(program.code.replace(END, hypercall), 16);
  ops.setRegister(v, "rsp", 0x7000n);
  const { cpu } = g.machine, start = cpu.count, exits: string[] = [];
  for (let n = 0; n < 10_000; n++) {
    const exit = ops.enter(v, { budget: Math.min(turn, 10_000 - (cpu.count - start)) });
    if (exit === "budget" && cpu.count - start < 10_000) continue;
    const rip = ops.getRegister(v, "rip").toString(16);
    // Bits of CR0 that shadow paging owns leave there, and not where the hardware has real mode.
    const kind = typeof exit === "string" ? exit : exit.kind;
    if (kind !== "cr") exits.push(`${kind} at ${rip}, ${cpu.count - start} instructions`);
    if (kind === "hypercall" || typeof exit === "string") break;
    if (exit.kind !== "cr") program.at?.[exits.length - 1]?.(g);
    if (exit.kind === "cr") {
      assert(exit.write);
      const value = BigInt(wide(exit.value.low, 0).low);
      ops.setCr(v, exit.cr as 0 | 4, value);
    }
    ops.advance(v, exit.length);
  }
  const { rip: _, ...registers } = ops.storeRegisters(v);
  const segments = (["cs", "ss", "ds", "es", "fs", "gs", "ldtr", "tr"] as const)
    .map((s) => [s, ops.getSegment(v, s)]);
  return {
    exits,
    registers,
    segments,
    crs: [0, 3, 4].map((n) => ops.getCr(v, n as 0 | 3 | 4)),
    sysenter: ops.getMsr(v, 0x174),
    activity: ops.getActivity(v),
    memory: [...g.machine.ram.slice(GUEST.machine + 0x5000, GUEST.machine + 0x5020)],
    far: g.read32(0x12_3450),
  };
}

for (const g of Object.values(guests)) {
  const { name } = g.ops;
  for (const program of PROGRAMS) {
    Deno.test(`real mode under shadow paging, ${name}: ${program.name}`, () => {
      const hardware = run(g, program, false), shadowed = run(g, program, true);
      assertEquals(shadowed, hardware);
      assertEquals(hardware.exits.at(-1)?.split(" ")[0], "hypercall");
      for (const turn of [1, 2, 5]) assertEquals(run(g, program, true, turn), hardware);
    });
  }

  Deno.test(`real mode whose segments fit does not run instruction by instruction, ${name}`, () => {
    reset(g, true);
    const { ops, v, machine: { cpu } } = g;
    g.load(`mov cx, 1000\nagain: loop again\n${HYPERCALL[cpu.model]}`, 16);
    const before = ops.getRegister(v, "rflags");
    const entries = () => cpu.i32[(cpu.model === "amd" ? SVMC : VMXC).entries >> 2];
    const from = entries();
    assertEquals(exitOf(ops.enter(v, { budget: 10_000 })).kind, "hypercall");
    assert(entries() - from < 5, `${entries() - from} entries`);
    assertEquals(ops.getRegister(v, "rflags") & 0x2_0000n, before & 0x2_0000n);
  });
}

Deno.test("emulated real mode ends with the instruction that sets CR0.PE", () => {
  const g = guests.intel, { v, ops, machine: { cpu } } = g;
  for (const set of ["mov cr0, eax", "lmsw ax"]) {
    reset(g, true);
    g.write(0x9000 + 16 * 0x21, assemble("iret", { mode: 16 }).bytes);
    const symbols = g.load(
      `int 0x21\nmov eax, cr0\nor al, 1\n${set}\nset: mov bx, 5\n${HYPERCALL.intel}`,
      16,
    );
    const before = cpu.count, exit = ops.enter(v, { budget: 10_000 });
    assertEquals([exit, cpu.count - before], ["budget", 5]);
    assertEquals(ops.getRegister(v, "rip"), symbols.get("set"));
    assertEquals(ops.getCr(v, 0) & 1n, 1n);
    assertEquals(exitOf(ops.enter(v, { budget: 10_000 })).kind, "hypercall");
  }
});

Deno.test("emulated real mode goes on as far as it may, and so does the way to protected mode", () => {
  const g = guests.intel, { v, ops, machine: { cpu } } = g;
  const entries = () => cpu.i32[VMXC.entries >> 2];
  const loop = (prepare: string) =>
    `${prepare}\nmov cx, 200\nagain: int 0x21\nloop again
    ${HYPERCALL.intel}\nalign 4\ntable: dw 23\ndd gdt\nalign 8
    gdt: dq 0, 0x00009b000000ffff, 0x00cf93000000ffff`;
  const toProtected = "lgdt [table]\nmov eax, cr0\nor al, 1\nmov cr0, eax";
  const big = `${toProtected}\nmov bx, 16\nmov ds, bx\nand al, 0xfe\nmov cr0, eax`;
  // Protected mode with the segments of real mode: INT has no table there.
  const between = loop(toProtected).replace("int 0x21", "mov bx, [0x5000]\ninc bx");
  for (const source of [loop(""), loop(big), between]) {
    reset(g, true);
    g.write(0x9000 + 16 * 0x21, assemble("iret", { mode: 16 }).bytes);
    g.load(source, 16);
    const from = entries();
    let exit = ops.enter(v, { budget: 10_000 });
    for (
      ;
      typeof exit === "string" || exit.kind === "cr";
      exit = ops.enter(v, { budget: 10_000 })
    ) {
      if (typeof exit === "string") continue;
      ops.setCr(v, 0, BigInt(wide(exit.value.low, 0).low));
      ops.advance(v, exit.length);
    }
    assertEquals(exit.kind, "hypercall");
    assertEquals(ops.getRegister(v, "rcx") & 0xffffn, 0n);
    assert(entries() - from < 20, `${entries() - from} entries`);
  }
});
