import { assertEquals } from "@std/assert";
import { vmcsFields } from "../../abi/x86/vmcs.ts";
import { toWide, wideToBigInt } from "../exit.ts";
import { GUEST, Guest } from "../testing.ts";
import { type Case, commonCases, number, testCases, testTable } from "../testing_cases.ts";
import { vmxOps as ops } from "./ops.ts";

const g = new Guest("intel");

const cases: Case[] = [
  ...commonCases,
  { name: "VMCALL", code: "here: vmcall", exit: { kind: "hypercall", length: 3 } },
  {
    name: "VMREAD",
    code: "here: vmread eax, ebx",
    exit: { kind: "virtualization-instruction", instruction: "vmread" },
  },
  {
    name: "VMXON",
    code: "here: vmxon [0x1000]",
    // CR4.VMXE is the host's and set, so a guest's VMXON leaves.
    exit: { kind: "virtualization-instruction", instruction: "vmxon" },
  },
  {
    name: "VMLAUNCH",
    code: "here: vmlaunch",
    exit: { kind: "virtualization-instruction", instruction: "vmlaunch" },
  },
  {
    name: "INVEPT",
    code: "here: invept eax, [0x1000]",
    exit: { kind: "virtualization-instruction", instruction: "invept" },
  },
  {
    name: "MOV to CR0 of a bit the host owns",
    code: "mov eax, cr0\nor eax, 0x40000000\nhere: mov cr0, eax",
    exit: { kind: "cr", cr: 0, write: true, value: number(0x4000_0031) },
  },
  {
    name: "MOV to CR4 of VMXE",
    code: "mov eax, 0x2000\nhere: mov cr4, eax",
    exit: { kind: "cr", cr: 4, write: true, value: number(0x2000) },
  },
  {
    name: "a nested page fault, which tells the linear address",
    code: "here: mov [0x200010], eax",
    exit: { kind: "nested-page-fault", gpa: 0x20_0010, linear: number(0x20_0010) },
  },
  {
    name: "a nested page fault by a walk",
    code: "mov eax, 0x400000\nmov cr3, eax\nmov eax, cr0\nor eax, 0x80000000\nmov cr0, eax\nnop",
    exit: { kind: "nested-page-fault", walk: true, read: true },
  },
  {
    name: "a misconfigured nested entry",
    code: "here: mov eax, [0x200010]",
    setUp: (g) => g.machineWrite64(g.l2 + 8, 2n),
    exit: { kind: "nested-page-fault", gpa: 0x20_0010, misconfigured: true },
  },
  {
    name: "the preemption timer",
    code: "times 32 nop\nhere: nop",
    setUp: (g) => ops.setPreemptionTimer(g.v, 32),
    exit: { kind: "preemption-timer" },
  },
  {
    name: "a state that is not allowed",
    code: "nop",
    setUp: (g) => ops.writeRaw(g.v, "guestCr3", 1n << 40n),
    exit: { kind: "entry-failure", what: "guest-state", check: "vmx.guest.cr3", code: 33 },
  },
  {
    name: "controls that are not allowed",
    code: "nop",
    setUp: (g) => ops.writeRaw(g.v, "cr3TargetCount", 5n),
    exit: { kind: "entry-failure", what: "controls", check: "vmx.controls.cr3Targets", code: 7 },
  },
  {
    name: "a host state that is not allowed",
    code: "nop",
    setUp: (g) => ops.writeRaw(g.v, "hostCr4", 0n),
    exit: { kind: "entry-failure", what: "host-state", check: "vmx.host.cr4", code: 8 },
  },
];

testCases(g, cases, "VMX: ");
testTable(g, "VMX: ");

Deno.test("every kind of exit that VMX has is raised by a case or a test below", () => {
  const below = [
    "shadow-write",
    "external-interrupt",
    "nmi",
    "xsetbv",
    "invpcid",
    "rdrand",
    "rdseed",
    "tpr",
  ];
  const seen = new Set([
    ...cases.map(({ exit }) => typeof exit === "string" ? exit : exit.kind),
    ...below,
    "unknown",
  ]);
  assertEquals(ops.exitKinds.filter((k) => !seen.has(k)), []);
});

Deno.test("a TPR shadow answers for CR8, and leaves below its threshold", () => {
  g.reset();
  // CR8 can be named in 64-bit mode alone.
  g.longMode();
  const page = g.frames.allocate();
  const primary = ops.readRaw(g.v, "processorBasedControls");
  ops.writeRaw(g.v, "virtualApicAddress", BigInt(page));
  ops.writeRaw(g.v, "processorBasedControls", primary | 1n << 21n);
  const code = "mov eax, 5\nmov cr8, rax\nmov rbx, cr8\nmov eax, 2\nmov cr8, rax\nhere: nop";
  const symbols = g.load(code, 64);
  assertEquals(g.enter(3), "budget");
  assertEquals([g.machine.ram[page + 0x80], ops.getRegister(g.v, "rbx")], [0x50, 5n]);
  ops.writeRaw(g.v, "tprThreshold", 3n);
  assertEquals(g.run().kind, "tpr");
  assertEquals(g.machine.ram[page + 0x80], 0x20);
  assertEquals(ops.getRegister(g.v, "rip"), symbols.get("here"));
});

/** Runs an IRET with NMIs blocked; `stack` is where it finds its frame. */
function returns(stack: bigint, prepare = () => {}): Record<string, unknown> {
  g.reset();
  g.load("iret");
  for (const [n, value] of [0x9000, 0x51, 2].entries()) {
    g.write(GUEST.stack + 4 * n, Uint8Array.of(value & 0xff, value >> 8, 0, 0));
  }
  ops.setRegister(g.v, "rsp", stack);
  ops.setInterruptShadow(g.v, { sti: false, movSs: false, nmi: true });
  prepare();
  const { kind } = g.run();
  const raw = (field: string) => (ops.readRaw(g.v, field) & 0x1000n) !== 0n;
  const nmi = ops.interruptShadow(g.v).nmi;
  return { kind, event: raw("exitInterruptionInformation"), access: raw("exitQualification"), nmi };
}

Deno.test("an IRET that leaves tells that it has unblocked NMIs, which are blocked for its repetition", () => {
  const told = { kind: "exception", event: true, access: false, nmi: true };
  // Selector 0x51 is outside the GDT.
  assertEquals(returns(BigInt(GUEST.stack), () => g.want({ exceptions: 1 << 13 })), told);
  const nested = { kind: "nested-page-fault", event: false, access: true, nmi: true };
  assertEquals(returns(0x20_0000n), nested);
  const open = () => ops.setInterruptShadow(g.v, { sti: false, movSs: false, nmi: false });
  assertEquals(returns(0x20_0000n, open), { ...nested, access: false, nmi: false });
  // A fault the guest handles itself: NMIs are open for its handler.
  const handled = () => {
    g.gate(13, 0xa000);
    g.write(0xa000, Uint8Array.of(0x0f, 0x01, 0xc1));
  };
  const own = { kind: "hypercall", event: false, access: false, nmi: false };
  assertEquals(returns(BigInt(GUEST.stack), handled), own);
});

Deno.test("MOV from CR0 and CR4 shows the guest its own bits", () => {
  g.reset();
  g.load("mov eax, cr0\nmov ebx, cr4\nsmsw ecx\nvmcall");
  ops.setCr(g.v, 0, 0x11n);
  ops.setCr(g.v, 4, 0x10n);
  assertEquals(g.run().kind, "hypercall");
  // NE and VMXE are the host's, and set.
  assertEquals(["rax", "rbx", "rcx"].map((n) => ops.getRegister(g.v, n as "rax")), [
    0x11n,
    0x10n,
    0x11n,
  ]);
  assertEquals(ops.readRaw(g.v, "guestCr4") & 0x2010n, 0x2010n);
});

Deno.test("dump() names every field, and control words by their bits", () => {
  g.reset();
  const fields = ops.dump(g.v);
  assertEquals(fields.map((f) => f.name), vmcsFields.map((f) => f.name));
  const pin = fields.find((f) => f.name === "pinBasedControls")!;
  assertEquals(pin.set?.includes("externalInterrupt"), true);
});

Deno.test("wide values join and split", () => {
  const value = 0x8000_0001_ffff_fffen;
  assertEquals(wideToBigInt(toWide(value)), value);
});
