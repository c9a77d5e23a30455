import { assertEquals } from "@std/assert";
import { EXIT_CODE, INTERCEPT1 } from "../../abi/x86/vmcb.ts";
import { CPU } from "../state.ts";
import { SERVICE } from "../linkage.ts";
import { STUB } from "./layout.ts";
import { Bench, type Fields, LONG, PLACE } from "./testing.ts";

const b = new Bench();
const RAX = 0, RBX = 3;
const VALID = 0x8000_0000, ERROR = 0x800;
const TYPE = { intr: 0, nmi: 2, exception: 3, software: 4 } as const;
const event = (type: keyof typeof TYPE, vector: number, code?: number) =>
  BigInt((VALID | TYPE[type] << 8 | vector | (code === undefined ? 0 : ERROR)) >>> 0) |
  BigInt(code ?? 0) << 32n;

/** The handler of `vector` notes the top of its stack in EAX, EBX, ECX and stops. */
function handler(vector: number, at = PLACE.code + 0x800): void {
  b.load("mov eax, [esp]\nmov ebx, [esp + 4]\nmov ecx, [esp + 8]\nstop: jmp stop", 32, at);
  b.gate(vector, at);
}

Deno.test("EVENTINJ delivers its event before the first instruction", () => {
  const inject = (info: bigint, vector: number, fields: Fields = {}): bigint[] => {
    b.reset({ eventInjection: info, nextRip: PLACE.code + 2, ...fields });
    b.load("inc edx\njmp $");
    handler(vector);
    assertEquals(b.enter(4), EXIT_CODE.intr);
    assertEquals(b.read("eventInjection"), 0n);
    assertEquals(b.gpr(2), 0n);
    return [b.gpr(RAX), b.gpr(RBX)];
  };
  const ip = BigInt(PLACE.code), cs = 8n;
  // IF and shadows of the guest do not matter.
  assertEquals(inject(event("intr", 0x30), 0x30), [ip, cs]);
  assertEquals(inject(event("nmi", 2), 2), [ip, cs]);
  assertEquals(inject(event("exception", 6), 6), [ip, cs]);
  assertEquals(inject(event("exception", 13, 0x1234), 13), [0x1234n, ip]);
  // The hypervisor says whether an error code is pushed.
  assertEquals(inject(event("exception", 13), 13), [ip, cs]);
  assertEquals(inject(event("exception", 6, 5), 6), [5n, ip]);
  // Software interrupts return to nRIP, INT3 and INTO too.
  assertEquals(inject(event("software", 0x80), 0x80), [ip + 2n, cs]);
  assertEquals(inject(event("exception", 3), 3), [ip + 2n, cs]);
  // No intercept sees what is injected.
  assertEquals(inject(event("exception", 6), 6, { exceptions: 0xffff_ffff }), [ip, cs]);
});

Deno.test("what is injected is CR2's and DR6's own business", () => {
  b.reset({ eventInjection: event("exception", 14, 2), cr2: 0xdead_0000, dr6: 0xffff_0ff1 });
  b.load("jmp $");
  handler(14);
  b.enter(4);
  assertEquals([b.read("cr2"), b.gpr(RAX)], [0xdead_0000n, 2n]);
  b.reset({ eventInjection: event("exception", 1), dr6: 0xffff_4ff1, dr7: 0x2400 });
  b.load("jmp $");
  handler(1);
  b.enter(4);
  assertEquals([b.read("dr6"), b.read("dr7")], [0xffff_4ff1n, 0x2400n]);
});

Deno.test("an exit in the course of a delivery tells the event in EXITINTINFO", () => {
  // No gate for the vector: #GP while the event is delivered.
  const during = (info: bigint, fields: Fields = {}): (bigint | number)[] => {
    b.reset({
      eventInjection: info,
      exceptions: 1 << 11 | 1 << 13,
      nextRip: PLACE.code + 2,
      ...fields,
    });
    b.load("jmp $");
    const code = b.enter(4);
    return [code, b.read("exitIntInfo"), b.read("rip"), b.read("nextRip")];
  };
  const ip = BigInt(PLACE.code);
  for (
    const info of [
      event("intr", 0x30),
      event("nmi", 2),
      event("exception", 6),
      event("exception", 12, 0x18),
    ]
  ) assertEquals(during(info), [EXIT_CODE.exception + 13, info, ip, 0n]);
  const soft = event("software", 0x80), int3 = event("exception", 3);
  assertEquals(during(soft), [EXIT_CODE.exception + 13, soft, ip, ip + 2n]);
  assertEquals(during(int3), [EXIT_CODE.exception + 13, int3, ip, ip + 2n]);
  // The guest's own INT n.
  b.reset({ exceptions: 1 << 13 });
  b.load("int 0x80");
  assertEquals(b.enter(4), EXIT_CODE.exception + 13);
  assertEquals([b.read("exitIntInfo"), b.read("nextRip")], [soft, ip + 2n]);
  assertEquals(b.exit(STUB.vectoring), Number(soft & 0xffff_ffffn) | 0);
});

Deno.test("a page fault leaves with code and address before CR2 is written", () => {
  b.reset({
    exceptions: 1 << 14,
    cr0: 0x8000_0011,
    cr4: 0x10,
    cr3: PLACE.tables,
    cr2: 0x55,
  });
  b.view.setUint32(PLACE.tables, 0x87, true);
  b.load("mov [0x12345678], al\njmp $");
  assertEquals(b.enter(4), EXIT_CODE.exception + 14);
  assertEquals(
    [b.read("exitInfo1"), b.read("exitInfo2"), b.read("cr2")],
    [2n, 0x1234_5678n, 0x55n],
  );
  // Decode assist: what the processor has fetched.
  assertEquals(b.read("instructionLength"), 15n);
  const bytes = Array.from({ length: 7 }, (_, n) => Number(b.read(`instructionByte${n}`)));
  assertEquals(bytes, [0xa2, 0x78, 0x56, 0x34, 0x12, 0xeb, 0xfe]);
});

Deno.test("a debug exception has written DR6 and DR7 when it is intercepted", () => {
  b.reset({ exceptions: 1 << 1, rflags: 0x102 });
  b.load("inc eax\njmp $");
  assertEquals(b.enter(4), EXIT_CODE.exception + 1);
  assertEquals([b.read("rip"), b.read("dr6")], [BigInt(PLACE.code + 1), 0xffff_4ff0n]);
  b.reset({ exceptions: 1 << 1, dr7: 0x2400 });
  b.load("mov eax, dr0\njmp $");
  assertEquals(b.enter(4), EXIT_CODE.exception + 1);
  assertEquals(
    [b.read("rip"), b.read("dr6"), b.read("dr7")],
    [BigInt(PLACE.code), 0xffff_2ff0n, 0x400n],
  );
});

Deno.test("a virtual interrupt waits for IF, the shadow and its priority", () => {
  const V_IRQ = 1 << 8, MASKING = 1 << 24, IGNORE = 1 << 20;
  const priority = (n: number) => n << 16;
  const run = (word: number, fields: Fields, source: string, budget = 20): number => {
    b.reset({
      ...LONG,
      virtualInterrupt: word | MASKING,
      virtualVector: 0x40,
      exceptions: 1 << 13,
      ...fields,
    });
    b.longTables();
    b.load(source, 64);
    b.enter(budget);
    return b.exit(STUB.code);
  };
  const IF = { rflags: 0x202 };
  // There is no gate: EXITINTINFO of the #GP tells that it was taken.
  const taken = () => b.read("exitIntInfo") === event("intr", 0x40);
  // Delivered at once; V_IRQ is gone.
  run(V_IRQ | priority(5), IF, "inc edx\njmp $");
  assertEquals([taken(), b.gpr(2), b.read("virtualInterrupt")], [
    true,
    0n,
    BigInt(priority(5) | MASKING),
  ]);
  // IF clear: behind STI and one more instruction.
  run(V_IRQ | priority(5), {}, "inc edx\nsti\ninc edx\ninc edx\njmp $");
  assertEquals([taken(), b.gpr(2)], [true, 2n]);
  // An interrupt shadow in the VMCB lasts one instruction.
  run(V_IRQ | priority(5), { ...IF, interruptShadow: 1 }, "inc edx\ninc edx\njmp $");
  assertEquals([taken(), b.gpr(2)], [true, 1n]);
  // The priority has to be above the virtual TPR, which CR8 is.
  run(V_IRQ | priority(5) | 5, IF, "inc edx\njmp $");
  assertEquals([taken(), b.gpr(2)], [false, 1n]);
  run(V_IRQ | priority(5) | 5 | IGNORE, IF, "inc edx\njmp $");
  assertEquals([taken(), b.gpr(2)], [true, 0n]);
  run(V_IRQ | priority(5) | 5, IF, "inc edx\nmov eax, 4\nmov cr8, rax\ninc edx\njmp $");
  assertEquals([taken(), b.gpr(2), b.read("virtualInterrupt") & 15n], [true, 1n, 4n]);
  // The intercept takes its place; the interrupt stays.
  const code = run(
    V_IRQ | priority(5),
    { intercepts1: INTERCEPT1.vintr | INTERCEPT1.intr },
    "inc edx\nsti\ninc edx\njmp $",
  );
  assertEquals([code, b.gpr(2)], [EXIT_CODE.vintr, 2n]);
  assertEquals(b.read("virtualInterrupt") & BigInt(V_IRQ), BigInt(V_IRQ));
  assertEquals(b.read("rip"), BigInt(PLACE.code + 5));
});

Deno.test("CR8 is the virtual TPR with V_INTR_MASKING, and both without", () => {
  const source = "mov rax, cr8\nmov ebx, 7\nmov cr8, rbx\njmp $";
  const told: number[] = [];
  b.cpu.hooks.service = (number, argument) => number === SERVICE.priority ? told.push(argument) : 0;
  b.reset({ ...LONG, virtualInterrupt: 1 << 24 | 3 });
  b.longTables();
  b.cpu.set("cr8", 9n);
  b.load(source, 64);
  b.enter(4);
  assertEquals([b.gpr(RAX), b.read("virtualInterrupt") & 15n, b.cpu.get("cr8")], [3n, 7n, 9n]);
  // The local APIC has not heard of it.
  assertEquals(told, []);
  b.reset({ ...LONG, virtualInterrupt: 3 });
  b.longTables();
  b.cpu.set("cr8", 9n);
  b.load(source, 64);
  b.enter(4);
  assertEquals([b.gpr(RAX), b.read("virtualInterrupt") & 15n, b.cpu.get("cr8")], [9n, 7n, 7n]);
  assertEquals(told, [7]);
});

Deno.test("a host interrupt leaves by the host's IF with V_INTR_MASKING, by the guest's without", () => {
  const run = (fields: Fields): [number, bigint] => {
    b.reset(fields);
    b.load("inc edx\nsti\ninc edx\ninc edx\njmp $");
    const { bus } = b.machine;
    b.machine.bus = { ...bus, interruptPending: () => true, acknowledge: () => 0x99 };
    const code = b.enter(20);
    b.machine.bus = bus;
    return [code, b.gpr(2)];
  };
  assertEquals(run({ virtualInterrupt: 1 << 24 }), [EXIT_CODE.intr, 0n]);
  assertEquals(run({ virtualInterrupt: 0 }), [EXIT_CODE.intr, 2n]);
});

Deno.test("an NMI leaves by its intercept and stays pending; without it the guest takes it", () => {
  b.reset();
  b.load("jmp $");
  b.cpu.raiseNmi();
  assertEquals(b.enter(4), EXIT_CODE.nmi);
  assertEquals(b.cpu.i32[CPU.pendingNmi >> 2], 1);
  b.reset({ intercepts1: INTERCEPT1.intr });
  b.load("jmp $");
  handler(2);
  b.cpu.raiseNmi();
  assertEquals(b.enter(4), EXIT_CODE.intr);
  assertEquals([b.gpr(RBX), b.cpu.i32[CPU.pendingNmi >> 2]], [8n, 0]);
});

Deno.test("a task switch tells selector, source and error code", () => {
  const gdt = (n: number, low: bigint) => b.view.setBigUint64(PLACE.gdt + 8 * n, low, true);
  const descriptor = (base: number, type: number) =>
    0x67n | BigInt(base & 0xff_ffff) << 16n | BigInt(0x80 | type) << 40n;
  const setUp = (fields: Fields, source: string) => {
    b.reset({ intercepts1: INTERCEPT1.taskSwitch | INTERCEPT1.intr, ...fields });
    gdt(3, descriptor(PLACE.tss, 11));
    gdt(4, descriptor(PLACE.tss + 0x100, 9));
    b.view.setUint16(PLACE.tss, 0x20, true);
    // Vector 12 is a task gate.
    b.view.setBigUint64(PLACE.idt + 8 * 12, 0x20n << 16n | 0x8500n << 32n, true);
    b.load(`${source}\njmp $`);
    return b.enter(4);
  };
  const told = () => [b.read("exitInfo1"), b.read("exitInfo2"), b.read("exitIntInfo")];
  assertEquals(setUp({}, "jmp 0x20:0"), EXIT_CODE.taskSwitch);
  assertEquals(told(), [0x20n, 1n << 38n, 0n]);
  assertEquals(setUp({}, "call 0x20:0"), EXIT_CODE.taskSwitch);
  assertEquals(told(), [0x20n, 0n, 0n]);
  const injected = event("exception", 12, 0x18);
  assertEquals(setUp({ eventInjection: injected }, "nop"), EXIT_CODE.taskSwitch);
  assertEquals(told(), [0x20n, 1n << 44n | 0x18n, injected]);
});
