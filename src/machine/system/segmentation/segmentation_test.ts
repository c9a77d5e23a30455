import { assertEquals } from "@std/assert";
import { AT, gate, runCode, S, selectorOf, type Setup } from "../testing.ts";

/** name, code, expected vector, error code, check; the code starts at AT.code. */
type Fault = [name: string, code: string, vector: number, error: number, check: string, x?: Setup];

const FAULTS: Fault[] = [
  ["SS null", "mov ax,0\nmov ss,ax", 13, 0, "ss.null"],
  ["SS read-only", `mov ax,readOnly\nmov ss,ax`, 13, S.readOnly, "ss.type"],
  ["SS with RPL 3", "mov ax,data3\nmov ss,ax", 13, 0x20, "ss.privilege"],
  ["DS beyond the table", "mov ax,beyond\nmov ds,ax", 13, S.beyond, "selector.limit"],
  ["DS execute-only", "mov ax,executeOnly\nmov ds,ax", 13, S.executeOnly, "segment.type"],
  ["DS absent", "mov ax,absent\nmov ds,ax", 11, S.absent, "segment.present"],
  ["DS too privileged", "mov ax,data\nmov ds,ax", 13, S.data, "segment.privilege", { cpl: 3 }],
  [
    "DS with an RPL above its DPL",
    "mov ax,data1\nor ax,3\nmov ds,ax",
    13,
    0xa0,
    "segment.privilege",
  ],
  ["LDT beyond", "mov ax,0x1c\nmov ds,ax", 13, 0x1c, "selector.limit"],
  ["use of a null DS", "mov ax,0\nmov ds,ax\nmov eax,[0]", 13, 0, "segment.unusable"],
  ["limit", "mov ax,small\nmov ds,ax\nmov eax,[0xfd]", 13, 0, "segment.limit"],
  ["expand-down below", "mov ax,expandDown\nmov ds,ax\nmov al,[0xfff]", 13, 0, "segment.limit"],
  ["far jump to null", "jmp 0:0x8000", 13, 0, "far.null"],
  ["far jump to data", "jmp data:0x8000", 13, S.data, "far.type"],
  ["far jump absent LDT", "jmp 0x14:0x8000", 13, 0x14, "far.type"],
  ["far jump out of limit", "jmp code16:0x10000", 13, 0, "far.limit"],
  ["far jump outward", "jmp code3:0x8000", 13, 0x18, "far.privilege"],
  ["absent gate", "call absentGate:0", 11, 0xb0, "gate.absent", { cpl: 3 }],
  ["LLDT with a TSS", "mov ax,otherTask\nlldt ax", 13, S.otherTask, "ldt.type"],
  ["LTR busy", "mov ax,mainTask\nltr ax", 13, S.mainTask, "tr.type"],
  ["LTR null", "mov ax,0\nltr ax", 13, 0, "tr.null"],
  ["jump to a busy TSS", "jmp mainTask:0", 13, S.mainTask, "task.busy"],
  ["LGDT at CPL 3", "lgdt [0x8000]", 13, 0, "privilege.cpl", { cpl: 3 }],
  ["HLT at CPL 3", "hlt", 13, 0, "privilege.cpl", { cpl: 3 }],
  ["CLI at CPL 3", "cli", 13, 0, "iopl", { cpl: 3 }],
  ["IN at CPL 3", "in al,0x60", 13, 0, "io.map", { cpl: 3 }],
  ["SGDT with UMIP", "sgdt [0x8000]", 13, 0, "umip", { cpl: 3, cr4: 0x800 }],
  ["RDTSC with TSD", "rdtsc", 13, 0, "cr4.tsd", { cpl: 3, cr4: 4 }],
  ["CR0 PG without PE", "mov eax,0x80000000\nmov cr0,eax", 13, 0, "cr0.combination"],
  ["CR4 reserved", "mov eax,0x80000000\nmov cr4,eax", 13, 0, "cr4.reserved"],
  ["RDMSR unknown", "mov ecx,0x12345\nrdmsr", 13, 0, "msr.unknown"],
  ["WRMSR PAT", "mov ecx,0x277\nmov eax,2\nmov edx,0\nwrmsr", 13, 0, "msr.memoryType"],
  ["INT n of DPL 0", "int 0x40", 13, 0x40 * 8 + 2, "idt.privilege", { cpl: 3 }],
  ["INT n beyond", "int 0x80", 13, 0x80 * 8 + 2, "idt.limit", { idtLimit: 0x3ff }],
];

for (const [name, code, vector, error, check, setup] of FAULTS) {
  Deno.test(`fault: ${name}`, () => {
    const ran = runCode(`${code}\nhlt`, setup);
    assertEquals([ran.vector, ran.error, ran.check], [vector, error, check]);
  });
}

Deno.test("limits hold to the last byte, expand-down ones from the first", () => {
  const access = (segment: "small" | "expandDown", code: string) => {
    const ran = runCode(`mov ax,${segment}\nmov ds,ax\n${code}\nhlt`);
    return ran.vector ?? ran.stop;
  };
  // Offsets 0 to 0xff.
  for (const [bytes, register] of [[1, "al"], [2, "ax"], [4, "eax"]] as const) {
    assertEquals(access("small", `mov ${register},[${0x100 - bytes}]`), "halt", register);
    assertEquals(access("small", `mov ${register},[${0x101 - bytes}]`), 13, register);
    assertEquals(access("small", `mov [${0x101 - bytes}],${register}`), 13, register);
  }
  // Offsets above 0xfff, to 4 GiB.
  assertEquals(access("expandDown", "mov al,[0xfff]"), 13);
  assertEquals(access("expandDown", "mov eax,[0xffe]"), 13);
  assertEquals(access("expandDown", "mov eax,[0x1000]"), "halt");
  assertEquals(access("expandDown", "mov eax,[0xfffffffd]"), 13);
});

Deno.test("faults name the faulting instruction and leave registers as they were", () => {
  const ran = runCode("mov esp,0x6f00\nmov ax,absent\npush eax\npop ds\nhlt");
  assertEquals(ran.vector, 11);
  // push at 0x8009, pop at 0x800a
  assertEquals(ran.eip, 0x800a);
  // Error, EIP, CS, EFLAGS and the vector lie below the selector that was not popped.
  assertEquals(ran.reg("esp"), 0x6f00 - 4 - 20);
  assertEquals(selectorOf(ran.machine, 3), S.data);
});

Deno.test("undefined opcodes: MOV CS, LLDT in virtual-8086 mode", () => {
  assertEquals(runCode("db 0x8e,0xc8\nhlt").vector, 6);
});

Deno.test("a load sets the accessed bit and takes base and limit from the LDT", () => {
  const ran = runCode("mov ax,local\nmov fs,ax\nmov eax,[fs:0]\nhlt", {
    memory: [[0x10000, [1, 2, 3, 4]]],
  });
  assertEquals(ran.reg("eax"), 0x04030201);
  assertEquals(ran.machine.ram[AT.ldt + 8 + 5], 0x93);
});

Deno.test("LAR, LSL, VERR, VERW, ARPL", () => {
  const ran = runCode(`
    mov ecx,small
    lar eax,cx
    lsl ebx,cx
    mov ecx,executeOnly
    verr cx
    setz dl
    verw cx
    setz dh
    mov ecx,readOnly
    verr cx
    setz cl
    hlt`);
  assertEquals(ran.reg("eax"), 0x0040_9200);
  assertEquals(ran.reg("ebx"), 0xff);
  assertEquals(ran.reg("edx") & 0xffff, 0);
  assertEquals(ran.reg("ecx") & 0xff, 1);
});

Deno.test("POP SS moves the stack pointer in the old width; PUSH of a selector writes a word", () => {
  const ran = runCode(`
    mov dword ptr [esp-4],0xdeadbeef
    push ds
    mov eax,[esp]
    mov dword ptr [esp],data16
    pop ss
    mov ebx,esp
    hlt`);
  assertEquals(ran.reg("eax"), 0xdead_0010);
  assertEquals(ran.reg("ebx"), AT.stack0);
  assertEquals(selectorOf(ran.machine, 2), S.data16);
});

Deno.test("a call gate copies its parameters to the inner stack; RETF releases them on both", () => {
  const ran = runCode(
    `
    push 0x11111111
    push 0x22222222
    call callGate:0
    mov ebx,esp
    mov eax,cs
    int 0x21
    hlt`,
    {
      cpl: 3,
      gates: { 0x21: gate(S.code, AT.stubs + 8 * 0x21, 0xee) },
      // mov ecx,[esp+8]; mov edx,[esp+12]; mov esi,[esp+20]; retf 8
      memory: [[0x9000, [
        ...[0x8b, 0x4c, 0x24, 0x08, 0x8b, 0x54, 0x24, 0x0c, 0x8b, 0x74, 0x24, 0x14],
        ...[0xca, 0x08, 0x00],
      ]]],
    },
  );
  assertEquals(ran.vector, 0x21);
  assertEquals(ran.reg("ecx"), 0x2222_2222);
  assertEquals(ran.reg("edx"), 0x1111_1111);
  assertEquals(ran.reg("esi"), S.data3);
  assertEquals(ran.reg("ebx"), AT.stack3);
  assertEquals(ran.reg("eax"), S.code3);
});

Deno.test("the outer level's return clears data segments it may not use", () => {
  const ran = runCode(
    `
    push data3
    push stack3
    push code3
    push target
    retf
    target: mov eax,ds
    int 0x21`,
    { gates: { 0x21: gate(S.code, AT.stubs + 8 * 0x21, 0xee) } },
  );
  assertEquals(ran.vector, 0x21);
  assertEquals(ran.reg("eax"), 0);
});

Deno.test("IRET to virtual-8086 mode; INT there goes through the IDT at IOPL 3", () => {
  const ran = runCode(
    `
    push 0x1111
    push 0x2222
    push 0x3333
    push 0x4444
    push 0x500
    push 0x1000
    push 0x23002
    push 0x900
    push 0
    iret`,
    {
      gates: { 0x21: gate(S.code, AT.stubs + 8 * 0x21, 0xee) },
      // At 0900:0000: mov ax,fs; mov [0],ax (DS = 3333h); int 21h
      memory: [[0x9000, [0x8c, 0xe0, 0xa3, 0, 0, 0xcd, 0x21]]],
    },
  );
  assertEquals(ran.vector, 0x21);
  assertEquals(ran.eip, 7);
  assertEquals(ran.word(0x33330) & 0xffff, 0x2222);
  const top = AT.stack0 - 36 - 4;
  // The frame: EIP, CS, EFLAGS, ESP, SS, ES, DS, FS, GS.
  const frame = Array.from({ length: 9 }, (_, i) => ran.word(top + 4 + 4 * i));
  assertEquals(frame, [7, 0x900, 0x23002, 0x1000, 0x500, 0x4444, 0x3333, 0x2222, 0x1111]);
  assertEquals(selectorOf(ran.machine, 3), 0);
});

Deno.test("virtual-8086 mode: CLI and INT fault below IOPL 3", () => {
  for (const code of [[0xfa], [0xcd, 0x21]]) {
    const ran = runCode(
      `
      push 0
      push 0
      push 0
      push 0
      push 0x500
      push 0x1000
      push 0x20002
      push 0x900
      push 0
      iret`,
      { memory: [[0x9000, code]] },
    );
    assertEquals([ran.vector, ran.error, ran.eip], [13, 0, 0]);
  }
});

Deno.test("a switch to a 16-bit TSS leaves ones in the upper halves of registers, zeros in EIP's", () => {
  const words = new Uint8Array(0x2c), view = new DataView(words.buffer);
  // IP, FLAGS, AX to DI, ES, CS, SS, DS, LDT.
  const values = [0x9000, 2, 1, 2, 3, 4, 0x5000, 6, 7, 8, S.data, S.code, S.data, S.data, 0];
  values.forEach((value, n) => view.setUint16(0x0e + 2 * n, value, true));
  for (const cpu of ["intel", "amd"] as const) {
    const ran = runCode("jmp smallTask:0", {
      cpu,
      memory: [[AT.tss16, words], [0x9000, [0xf4]]],
    });
    const names = ["eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi"];
    const registers = [1, 2, 3, 4, 0x5000, 6, 7, 8].map((n) => (n | 0xffff_0000) >>> 0);
    assertEquals([ran.stop, ...names.map(ran.reg), ran.reg("eip")], ["halt", ...registers, 0x9001]);
  }
});
