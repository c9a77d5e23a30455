import { assertEquals } from "@std/assert";
import { CPU } from "../../state.ts";
import { AT, gate, type Ran, runCode, S, selectorOf, type Setup } from "../testing.ts";

const bytesOf = (words: readonly number[]) => new Uint8Array(Uint32Array.from(words).buffer);

/** A 32-bit task state: EIP, EFLAGS, ESP, and flat segments. */
function task(eip: number, esp: number, more: Record<number, number> = {}): Uint8Array {
  const words = new Array<number>(26).fill(0);
  words[8] = eip;
  words[9] = 2;
  words[14] = esp;
  words[18] = S.data;
  words[19] = S.code;
  for (const n of [20, 21, 22, 23]) words[n] = S.data;
  words[25] = 0x68 << 16;
  for (const [n, value] of Object.entries(more)) words[Number(n)] = value;
  return bytesOf(words);
}

Deno.test("a fault while a fault is delivered is a double fault, a third one a shutdown", () => {
  // The gate of #GP names a selector beyond the table: #GP again, so #DF.
  const bad = gate(S.beyond, 0, 0x8e);
  const double = runCode("mov ax,beyond\nmov ds,ax\nhlt", { gates: { 13: bad } });
  assertEquals([double.vector, double.error, double.check], [8, 0, "fault.double"]);
  const triple = runCode("mov ax,beyond\nmov ds,ax\nhlt", { gates: { 13: bad, 8: bad } });
  assertEquals([triple.stop, triple.check], ["shutdown", "fault.triple"]);
});

Deno.test("two page faults make a double fault, a #GP behind a #DE as well", () => {
  // With the IDT on a page that is not there every delivery is a page fault.
  const lost = runCode(`${PAGING}\nmov dword ptr [0x401234],eax`, {
    prepare: ({ cpu }) => cpu.set("idtr.base", 0x40_0000n),
  });
  assertEquals([lost.stop, lost.check], ["shutdown", "fault.triple"]);
  const bad = gate(S.beyond, 0, 0x8e);
  const divide = runCode("xor ecx,ecx\ndiv ecx", { gates: { 0: bad } });
  assertEquals([divide.vector, divide.check], [8, "fault.double"]);
});

Deno.test("a fault while a software interrupt is delivered is delivered by itself", () => {
  const ran = runCode("nop\nint 0x30\nhlt", { gates: { 0x30: gate(S.code, 0, 0x0e) } });
  // EXT is 0 and EIP is the INT itself.
  assertEquals([ran.vector, ran.error, ran.eip], [11, 0x30 * 8 + 2, AT.code + 1]);
});

Deno.test("a fault while a benign exception is delivered has EXT set", () => {
  const ran = runCode("ud2", { gates: { 6: gate(S.code, 0, 0x0e) } });
  assertEquals([ran.vector, ran.error, ran.eip], [11, 6 * 8 + 2 | 1, AT.code]);
});

Deno.test("an inner stack that does not exist is #TS, one without room #SS of its selector", () => {
  const inner = (stack: number, pointer: number) =>
    runCode("int 0x30", {
      cpl: 3,
      gates: {
        0x30: gate(S.code, 0, 0xee),
        10: gate(S.taskGate, 0, 0x85),
        12: gate(S.taskGate, 0, 0x85),
      },
      memory: [[AT.tss + 4, bytesOf([pointer, stack])]],
    });
  // Handlers would use the same stack: what is looked at is the check that ended it all.
  assertEquals(inner(0, 0x7000).stop, "shutdown");
  assertEquals(inner(S.code, 0x7000).stop, "shutdown");
  const good = runCode("int 0x30", { cpl: 3, gates: { 0x30: gate(S.code, AT.stubs, 0xee) } });
  assertEquals(good.reg("esp"), AT.stack0 - 24);
});

Deno.test("trap gates leave IF, interrupt gates clear it; 16-bit gates push words", () => {
  const trap = runCode("int 0x30", { flags: 0x202, gates: { 0x30: gate(S.code, AT.stubs, 0x8f) } });
  assertEquals(Number(trap.machine.cpu.get("rflags")) & 0x200, 0x200);
  const interrupt = runCode("int 0x30", { flags: 0x202 });
  assertEquals(Number(interrupt.machine.cpu.get("rflags")) & 0x200, 0);
  const small = runCode("int 0x30", { gates: { 0x30: gate(S.code, AT.stubs, 0x86) } });
  assertEquals(small.reg("esp"), AT.stack0 - 6 - 4);
});

Deno.test("faults push RF, INT3 and INTO do not", () => {
  const image = (ran: Ran, at: number) => ran.word(ran.reg("esp") + at);
  assertEquals(image(runCode("ud2"), 12) & 0x1_0000, 0x1_0000);
  const trap = runCode("int3");
  assertEquals([trap.vector, trap.eip, image(trap, 12) & 0x1_0000], [3, AT.code + 1, 0]);
});

const PAGING = `
  mov eax,0x83
  mov dword ptr [0x5000],eax
  mov eax,0x5000
  mov cr3,eax
  mov eax,0x10
  mov cr4,eax
  mov eax,0x80000011
  mov cr0,eax
`;

Deno.test("a page fault writes CR2 and pushes its error code", () => {
  const ran = runCode(`${PAGING}\nmov dword ptr [0x401234],eax\nhlt`);
  assertEquals([ran.vector, ran.error], [14, 2]);
  assertEquals(ran.machine.cpu.get("cr2"), 0x401234n);
  assertEquals(ran.check, "page.present");
});

Deno.test("single step: the trap comes after the instruction, DR6.BS is set, TF is cleared", () => {
  const ran = runCode(`
    pushfd
    or dword ptr [esp],0x100
    popfd
    nop
    nop`);
  assertEquals([ran.vector, ran.eip], [1, AT.code + 1 + 7 + 1 + 1]);
  assertEquals(ran.machine.cpu.get("dr6"), 0xffff_4ff0n);
});

Deno.test("MOV SS suppresses the trap behind it; INT leaves none in its handler", () => {
  const shadowed = runCode(`
    mov eax,ss
    pushfd
    or dword ptr [esp],0x100
    popfd
    mov ss,ax
    mov ebx,1
    mov ebx,2`);
  assertEquals([shadowed.vector, shadowed.reg("ebx")], [1, 1]);
  const handler = runCode("pushfd\nor dword ptr [esp],0x100\npopfd\nint 0x30");
  assertEquals(handler.vector, 0x30);
});

Deno.test("DR7.GD: a #DB before the access, DR6.BD set and GD cleared", () => {
  const ran = runCode("mov eax,0x2000\nmov dr7,eax\nmov dr0,eax\nhlt");
  assertEquals([ran.vector, ran.check], [1, "dr7.gd"]);
  assertEquals(ran.machine.cpu.get("dr6"), 0xffff_2ff0n);
  assertEquals(ran.machine.cpu.get("dr7"), 0x400n);
});

Deno.test("a breakpoint on a port traps behind the instruction, with CR4.DE only", () => {
  // DR1: port 61h, R/W = 10, LEN = 00, enabled by G1.
  const code = "mov eax,0x61\nmov dr1,eax\nmov eax,0x200008\nmov dr7,eax\nin al,0x61\nnop\nhlt";
  const ran = runCode(code, { cr4: 8 });
  assertEquals([ran.vector, ran.eip], [1, AT.code + 5 + 3 + 5 + 3 + 2]);
  assertEquals(ran.machine.cpu.get("dr6"), 0xffff_0ff2n);
  assertEquals(runCode(code).stop, "halt");
});

Deno.test("debugMatch: lengths, kinds, and bits of what matches without being enabled", () => {
  const { machine: { cpu } } = runCode("hlt");
  const match = (address: number, bytes: number, access: number) => {
    cpu.set("pendingDebug", 0n);
    return [cpu.system.debugMatch(BigInt(address), bytes, access), cpu.get("pendingDebug")];
  };
  cpu.set("dr0", 0x1000n);
  cpu.set("dr1", 0x1003n);
  cpu.set("dr2", 0x2000n);
  // DR0: write of 4 bytes, enabled; DR1: read or write of 1, not enabled; DR2: execution, enabled.
  cpu.set("dr7", 0x003d_0421n);
  assertEquals(match(0x0ffe, 2, 1), [0, 0n]);
  assertEquals(match(0x0ffe, 4, 1), [1, 1n]);
  assertEquals(match(0x1002, 2, 1), [1, 3n]);
  assertEquals(match(0x1003, 1, 3), [0, 0n]);
  assertEquals(match(0x2000, 1, 0), [1, 4n]);
  assertEquals(match(0x2000, 1, 1), [0, 0n]);
});

Deno.test("DR4 is DR6 without CR4.DE, undefined with it", () => {
  assertEquals(runCode("mov eax,dr4\nhlt").reg("eax"), 0xffff_0ff0);
  assertEquals(runCode("mov eax,dr4\nhlt", { cr4: 8 }).vector, 6);
});

// --- task switches ---

Deno.test("JMP to a TSS saves and loads everything; busy bits move", () => {
  const ran = runCode("mov ebx,0x1234\njmp otherTask:0\nhlt", {
    memory: [[AT.tss2, task(AT.stubs + 8 * 0x99, 0x6f00, { 10: 0xabcd })]],
  });
  assertEquals([ran.vector, ran.reg("eax"), ran.reg("esp")], [0x99, 0xabcd, 0x6f00 - 4]);
  assertEquals(ran.word(AT.tss + 0x34), 0x1234);
  assertEquals(ran.word(AT.tss + 0x20), AT.code + 5 + 7);
  assertEquals([ran.machine.ram[AT.gdt + 0x2d], ran.machine.ram[AT.gdt + 0x35]], [0x89, 0x8b]);
  assertEquals(selectorOf(ran.machine, 7), S.otherTask);
  assertEquals(ran.machine.cpu.get("cr0"), 0x19n);
});

Deno.test("CALL to a TSS nests; IRET returns with NT cleared", () => {
  const ran = runCode("call otherTask:0\nmov ebx,7\nhlt", {
    // The other task returns at once.
    memory: [[0x9000, [0xcf]], [AT.tss2, task(0x9000, 0x6f00)]],
  });
  assertEquals([ran.stop, ran.reg("ebx")], ["halt", 7]);
  assertEquals(ran.word(AT.tss2) & 0xffff, S.mainTask);
  assertEquals([ran.machine.ram[AT.gdt + 0x2d], ran.machine.ram[AT.gdt + 0x35]], [0x8b, 0x89]);
  assertEquals(ran.word(AT.tss2 + 0x24) & 0x4000, 0);
  assertEquals(selectorOf(ran.machine, 7), S.mainTask);
});

Deno.test("a task gate in the IDT pushes the error code on the new task's stack", () => {
  const ran = runCode("mov ax,absent\nmov ds,ax\nhlt", {
    gates: { 11: gate(S.otherTask, 0, 0x85) },
    memory: [[0x9000, [0xf4]], [AT.tss2, task(0x9000, 0x6f00)]],
  });
  assertEquals([ran.reg("esp"), ran.word(0x6efc)], [0x6efc, S.absent]);
  // The old task's image has the faulting EIP and RF.
  assertEquals(ran.word(AT.tss + 0x20), AT.code + 4);
  assertEquals(ran.word(AT.tss + 0x24) & 0x1_0000, 0x1_0000);
});

Deno.test("a fault behind the point of no return belongs to the new task", () => {
  const ran = runCode("jmp otherTask:0\nhlt", {
    memory: [[AT.tss2, task(0x1111, 0x6f00, { 21: S.absent })]],
  });
  assertEquals([ran.vector, ran.error, ran.eip], [11, S.absent, 0x1111]);
  assertEquals(selectorOf(ran.machine, 7), S.otherTask);
});

Deno.test("a 16-bit TSS loads words under upper halves of ones, and clears FS and GS", () => {
  const words = new Uint16Array(22);
  words.set([0x9000, 2, 0x1234], 7);
  words[13] = 0x6f00;
  words.set([S.data, S.code, S.data, S.data], 17);
  const ran = runCode("jmp smallTask:0\nhlt", {
    memory: [[0x9000, [0xf4]], [AT.tss16, new Uint8Array(words.buffer)]],
  });
  assertEquals([ran.stop, ran.reg("eax"), ran.reg("esp")], ["halt", 0xffff_1234, 0xffff_6f00]);
  assertEquals([selectorOf(ran.machine, 4), selectorOf(ran.machine, 5)], [0, 0]);
});

// --- flags that decide about interrupts ---

const WAITING: Setup = {
  prepare: (machine) => {
    let waiting = true;
    machine.bus = {
      ...machine.bus,
      interruptPending: () => waiting,
      acknowledge: () => (waiting = false, 0x50),
    };
  },
};

Deno.test("STI and MOV SS keep interrupts off for one instruction", () => {
  const sti = runCode("sti\nmov ebx,1\nmov ebx,2\nhlt", WAITING);
  assertEquals([sti.vector, sti.reg("ebx")], [0x50, 1]);
  const loaded = runCode("mov eax,ss\nsti\nmov ss,ax\nmov ebx,1\nmov ebx,2\nhlt", WAITING);
  assertEquals([loaded.vector, loaded.reg("ebx")], [0x50, 1]);
  const popf = runCode("push 0x202\npopfd\nmov ebx,1\nhlt", WAITING);
  assertEquals([popf.vector, popf.reg("ebx")], [0x50, 0]);
});

Deno.test("an event ends the shadow it came in", () => {
  // The #UD comes in the shadow of MOV SS; its trap gate leaves IF set, so the interrupt is next.
  const trap = gate(S.code, AT.stubs + 8 * 6, 0x8f);
  const ran = runCode("mov eax,ss\nsti\nmov ss,ax\nud2", { ...WAITING, gates: { 6: trap } });
  assertEquals([ran.vector, ran.eip], [0x50, AT.stubs + 8 * 6]);
});

Deno.test("HLT ends with an interrupt; its address is the next instruction's", () => {
  const ran = runCode("sti\nhlt\nmov ebx,1\nhlt", WAITING);
  assertEquals([ran.vector, ran.eip], [0x50, AT.code + 2]);
});

Deno.test("an NMI blocks the next until IRET", () => {
  // The handler asks for another NMI; it comes behind the IRET, on the same stack.
  const ran = runCode(
    `
    jmp start
  handler: inc ebx
    mov [0x9100+ebx*4],esp
    out 0xe9,al
    nop
    nop
    iretd
  start: nop
    hlt`,
    {
      gates: { 2: gate(S.code, AT.code + 2, 0x8e) },
      prepare: (machine) => {
        const { cpu } = machine;
        let left = 2;
        const raise = () => void (cpu.i32[CPU.pendingNmi >> 2] = left-- > 0 ? 1 : 0);
        machine.bus = { ...machine.bus, ioWrite: raise };
        raise();
      },
    },
  );
  assertEquals([ran.stop, ran.reg("ebx")], ["halt", 2]);
  assertEquals([ran.word(0x9104), ran.word(0x9108)], [AT.stack0 - 12, AT.stack0 - 12]);
  assertEquals(ran.machine.cpu.i32[CPU.interruptibility >> 2] & 8, 0);
});

/** Virtual-8086 code at 0900:0000 under CR4.VME with IOPL 0; `map` fills the redirection bitmap. */
function virtual(code: readonly number[], map = 0): Ran {
  const state = new Uint8Array(0x100);
  new DataView(state.buffer).setUint16(0x66, 0x88, true);
  state.fill(map, 0x68, 0x88);
  return runCode(
    `
    mov dword ptr [0x84],0x09000010
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
    {
      cr4: 1,
      gates: { 3: gate(S.code, AT.stubs + 8 * 3, 0xee) },
      memory: [[0x9000, code], [AT.tss, state], [AT.tss + 4, bytesOf([AT.stack0, S.data])]],
      prepare: ({ cpu }) => {
        cpu.setSegment(7, {
          selector: S.mainTask,
          base: BigInt(AT.tss),
          limit: 0xff,
          attributes: 0x8b,
        });
      },
    },
  );
}

Deno.test("VME: CLI and STI change VIF, PUSHF shows it as IF with IOPL 3", () => {
  // sti; pushf; pop ax; mov bx,ax; cli; pushf; pop cx; int3
  const ran = virtual([0xfb, 0x9c, 0x58, 0x89, 0xc3, 0xfa, 0x9c, 0x59, 0xcc]);
  assertEquals(ran.vector, 3);
  assertEquals(ran.reg("ebx") & 0x3200, 0x3200);
  assertEquals(ran.reg("ecx") & 0x3200, 0x3000);
});

Deno.test("VME: INT n is redirected to the task's own table where the bitmap has 0", () => {
  // int 21h; its entry at 0:84h leads to 0900:0010: int3
  const code = new Array<number>(17).fill(0x90);
  code[0] = 0xcd;
  code[1] = 0x21;
  code[16] = 0xcc;
  const ran = virtual(code);
  assertEquals([ran.vector, ran.eip], [3, 0x11]);
  const faulting = virtual(code, 0xff);
  assertEquals([faulting.vector, faulting.error, faulting.eip], [13, 0, 0]);
});

Deno.test("PVI: CLI and STI at CPL 3 below IOPL change VIF; VIP makes STI fault", () => {
  const ran = runCode("sti\nint3", { cpl: 3, cr4: 2, gates: { 3: gate(S.code, AT.stubs, 0xee) } });
  assertEquals(ran.word(AT.stack0 - 12) & 0x8_0000, 0x8_0000);
  const pending = runCode("sti", { cpl: 3, cr4: 2, flags: 0x10_0002 });
  assertEquals([pending.vector, pending.check], [13, "vme.vip"]);
});

Deno.test("real mode: INT, IRET, and a vector beyond the table", () => {
  const real: Setup["prepare"] = ({ cpu }) => {
    cpu.set("cr0", 0x10n);
    cpu.set("idtr.base", 0n);
    cpu.set("idtr.limit", 0x3ffn);
    for (let n = 0; n < 6; n++) {
      cpu.setSegment(n, { selector: 0, base: 0n, limit: 0xffff, attributes: 0x93 });
    }
  };
  // At 0:8000: int 21h; hlt. Its handler at 0:9000: inc bx; iret
  const ran = runCode("db 0xcd,0x21,0xf4", {
    prepare: real,
    memory: [[0x84, [0, 0x90, 0, 0]], [0x9000, [0x43, 0xcf]]],
  });
  assertEquals([ran.stop, ran.reg("ebx"), ran.reg("esp")], ["halt", 1, AT.stack0]);
  const beyond = runCode("db 0xcd,0x21,0xf4", {
    prepare: (machine) => {
      real(machine);
      machine.cpu.set("idtr.limit", 0x7fn);
    },
    memory: [[0x34, [0, 0x90, 0, 0]], [0x9000, [0xf4]]],
  });
  assertEquals([beyond.stop, beyond.check], ["halt", "idt.limit"]);
});
