import { assertEquals, assertObjectMatch } from "@std/assert";
import { vmcbFields } from "../../abi/x86/vmcb.ts";
import { Guest } from "../testing.ts";
import { type Case, commonCases, number, testCases, testTable } from "../testing_cases.ts";
import { svmOps as ops } from "./ops.ts";

const g = new Guest("amd");

const cases: Case[] = [
  ...commonCases,
  { name: "VMMCALL", code: "here: vmmcall", exit: { kind: "hypercall", length: 3 } },
  ...(["vmrun", "vmload", "vmsave", "stgi", "clgi", "invlpga"] as const).map((
    instruction,
  ): Case => ({
    name: instruction,
    code: `mov eax, 0x4000\nhere: ${instruction}`,
    exit: { kind: "virtualization-instruction", instruction, length: 3 },
  })),
  {
    name: "RDMSR of EFER, whatever is asked for",
    code: "mov ecx, 0xc0000080\nhere: rdmsr",
    want: { msrReads: "none" },
    exit: { kind: "msr", write: false, msr: 0xc000_0080 },
  },
  {
    name: "MOV to CR0 of TS, which is asked for",
    code: "mov eax, cr0\nor eax, 2\nmov cr0, eax\nor eax, 8\nhere: mov cr0, eax",
    want: { cr0Bits: 8 },
    exit: { kind: "cr", cr: 0, write: true, value: number(0x3b) },
  },
  {
    name: "MOV to CR4 of a bit that is asked for",
    code: "mov eax, 0x10\nmov cr4, eax\nmov eax, 0x90\nhere: mov cr4, eax",
    want: { cr4Bits: 0x80 },
    exit: { kind: "cr", cr: 4, write: true, value: number(0x90) },
  },
  { name: "PUSHF", code: "here: pushf", want: { pushf: true }, exit: { kind: "pushf" } },
  { name: "POPF", code: "push 2\nhere: popf", want: { popf: true }, exit: { kind: "popf" } },
  {
    name: "INT n",
    code: "here: int 0x80",
    want: { "software-interrupt": true },
    exit: { kind: "software-interrupt", vector: 0x80, length: 2 },
  },
  { name: "INT1", code: "here: int1", want: { icebp: true }, exit: { kind: "icebp" } },
  { name: "IRET", code: "here: iret", want: { iret: true }, exit: { kind: "iret", length: 1 } },
  { name: "RSM", code: "here: rsm", exit: { kind: "rsm" } },
  {
    name: "a nested page fault by a walk",
    code: "mov eax, 0x400000\nmov cr3, eax\nmov eax, cr0\nor eax, 0x80000000\nmov cr0, eax\nnop",
    // Walks count as writes (APM 2 15.25.5).
    exit: { kind: "nested-page-fault", walk: true, write: true },
  },
  {
    name: "a misconfigured nested entry",
    code: "here: mov eax, [0x200010]",
    setUp: (g) => g.machineWrite64(g.l2 + 8, 1n << 50n | 0x87n),
    exit: { kind: "nested-page-fault", gpa: 0x20_0010, misconfigured: true },
  },
  {
    name: "the timer",
    code: "times 33 nop\nhere: nop",
    setUp: (g) => ops.setPreemptionTimer(g.v, 33),
    exit: { kind: "preemption-timer" },
  },
  {
    name: "a state that is not allowed",
    code: "nop",
    setUp: (g) => ops.writeRaw(g.v, "dr7", 1n << 40n),
    exit: { kind: "entry-failure", what: "guest-state", code: -1 },
  },
  {
    name: "controls that are not allowed",
    code: "nop",
    setUp: (g) => ops.writeRaw(g.v, "asid", 0n),
    exit: { kind: "entry-failure", what: "controls", code: -1 },
  },
];

testCases(g, cases, "SVM: ");
testTable(g, "SVM: ");

Deno.test("every kind of exit that SVM has is raised by a case or a test below", () => {
  const below = ["shadow-write", "external-interrupt", "nmi", "xsetbv", "invpcid", "smi", "init"];
  const seen = new Set([
    ...cases.map(({ exit }) => typeof exit === "string" ? exit : exit.kind),
    ...below,
    "unknown",
  ]);
  assertEquals(ops.exitKinds.filter((k) => !seen.has(k)), []);
});

Deno.test("SVM: IRET ends an NMI, and the window opens after it, not before", () => {
  g.reset();
  const symbols = g.load("nop\nhere: jmp here");
  g.gate(2, 0x9000);
  g.write(0x9000, Uint8Array.of(0x90, 0xcf, 0x90));
  ops.inject(g.v, { type: "nmi", vector: 2 });
  assertEquals(g.enter(1), "budget");
  assertEquals(ops.interruptShadow(g.v).nmi, true);
  ops.setNmiWindow(g.v, true);
  assertEquals(g.run().kind, "nmi-window");
  assertEquals(ops.getRegister(g.v, "rip"), symbols.get("here")! - 1n);
  assertEquals(ops.interruptShadow(g.v), { sti: false, movSs: false, nmi: false });
});

Deno.test("SVM: single steps do not show in PUSHF, and end after deliveries", () => {
  g.reset();
  const symbols = g.load("pushf\npop eax\nint 0x30\nhere: nop");
  g.gate(0x30, 0x9000);
  g.write(0x9000, Uint8Array.of(0x90));
  ops.setSingleStep(g.v, true);
  for (let n = 0; n < 3; n++) assertEquals(g.run().kind, "debug");
  assertEquals(ops.getRegister(g.v, "rax") & 0x100n, 0n);
  assertEquals(ops.getRegister(g.v, "rip"), 0x9000n);
  ops.setRegister(g.v, "rip", symbols.get("here")!);
  ops.inject(g.v, { type: "external-interrupt", vector: 0x30 });
  assertEquals(g.run().kind, "debug");
  assertEquals(ops.getRegister(g.v, "rip"), 0x9000n);
});

Deno.test("SVM: a page fault that does not match is the guest's alone", () => {
  g.reset();
  g.load("mov eax, cr0\nor eax, 0x80000000\nmov cr0, eax\nmov eax, [0x12345678]");
  g.identityPage();
  g.gate(14, 0x9000);
  g.write(0x9000, Uint8Array.of(0x0f, 0xa2));
  g.want({ exceptions: 1 << 14, pageFault: { mask: 2, match: 2 } });
  assertEquals(g.run().kind, "cpuid");
  assertEquals(ops.getRegister(g.v, "cr2"), 0x1234_5678n);
});

Deno.test("SVM: dump() names every field, and intercepts by their bits", () => {
  g.reset();
  g.want({ hlt: true, crWrite: 8 });
  const fields = ops.dump(g.v);
  assertEquals(fields.map((f) => f.name), vmcbFields.map((f) => f.name));
  const of = (name: string) => fields.find((f) => f.name === name)!;
  assertEquals(of("intercepts1").set?.includes("hlt"), true);
  assertObjectMatch(of("crWrites"), { value: 8n, set: ["cr3"] });
});

Deno.test("SVM: a field that is written loses its clean bit, and a flush its translations", () => {
  g.reset();
  g.load("here: jmp here");
  g.enter(1);
  const clean = () => Number(ops.readRaw(g.v, "cleanBits"));
  const all = clean(), before = ops.getCr(g.v, 3);
  assertEquals(all !== 0, true);
  // Bits of the clean field (APM 2 15.15.3): intercepts, ASID, nested paging, control registers, CR2.
  const writes: [number, () => void][] = [
    [1, () => ops.setIntercepts(g.v, { hlt: true })],
    [1, () => ops.setTscOffset(g.v, 5n)],
    [1 << 4, () => ops.setNestedRoot(g.v, g.root)],
    [1 << 5, () => ops.setCr(g.v, 3, before)],
    [1 << 6, () => ops.setRegister(g.v, "dr7", 0x400n)],
    [1 << 7, () => ops.setDescriptorTable(g.v, "gdtr", ops.getDescriptorTable(g.v, "gdtr"))],
    [1 << 8, () => ops.setSegment(g.v, "ds", ops.getSegment(g.v, "ds"))],
    [1 << 9, () => ops.setRegister(g.v, "cr2", 1n)],
  ];
  for (const [bit, write] of writes) {
    g.enter(1);
    assertEquals([bit, clean()], [bit, all]);
    write();
    assertEquals([bit, clean() & bit], [bit, 0]);
  }
  g.enter(1);
  assertEquals(ops.readRaw(g.v, "tlbControl"), 0n);
  ops.flushTranslations(g.v);
  assertEquals(ops.readRaw(g.v, "tlbControl") !== 0n, true);
});

Deno.test("SVM: under shadow paging a page fault has its error code in real mode too", () => {
  g.reset();
  ops.setShadowRoot(g.v, g.shadowTables());
  ops.setCr(g.v, 0, 0x10n);
  ops.setSegment(g.v, "cs", { selector: 0, base: 0n, limit: 0xffff, attributes: 0x9b });
  ops.setSegment(g.v, "ds", { selector: 0, base: 0x1234_5000n, limit: 0xffff, attributes: 0x93 });
  g.load("mov [0x678], ax", 16);
  assertObjectMatch(g.run(), {
    kind: "exception",
    event: { vector: 14, errorCode: 2 },
    qualification: { low: 0x1234_5678 },
  });
});
