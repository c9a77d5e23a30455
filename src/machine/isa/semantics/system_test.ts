import { assertEquals } from "@std/assert";
import type { WideCell } from "../../state.ts";
import { AT, gate, type Ran, runCode, S, type Setup } from "../../system/testing.ts";

const INT3: Setup["gates"] = { 3: gate(S.code, AT.stubs + 8 * 3, 0xee) };
const state = (ran: Ran, name: WideCell) => ran.machine.cpu.get(name);

/** TSS with an I/O map that allows port `allowed` alone. */
function withMap(allowed: number): Uint8Array {
  const bytes = new Uint8Array(0x90).fill(0xff);
  bytes.fill(0, 0, 0x68);
  new DataView(bytes.buffer).setUint16(0x66, 0x68, true);
  new DataView(bytes.buffer).setUint32(4, AT.stack0, true);
  new DataView(bytes.buffer).setUint16(8, S.data, true);
  bytes[0x68 + (allowed >> 3)] &= ~(1 << (allowed & 7));
  return bytes;
}
const longTask: Setup["prepare"] = ({ cpu }) =>
  cpu.setSegment(7, {
    selector: S.mainTask,
    base: BigInt(AT.tss),
    limit: 0x8f,
    attributes: 0x8b,
  });

Deno.test("the I/O permission bitmap decides above IOPL", () => {
  const run = (code: string) =>
    runCode(`${code}\nint3`, {
      cpl: 3,
      gates: INT3,
      memory: [[AT.tss, withMap(0xe9)]],
      prepare: longTask,
    });
  const allowed = run("mov al,0x41\nout 0xe9,al");
  assertEquals([allowed.vector, allowed.out], [3, "A"]);
  // Two bytes reach port EAh too; port E8h is not allowed; port 200h lies beyond the map.
  assertEquals(run("out 0xe9,ax").check, "io.denied");
  assertEquals(run("out 0xe8,al").check, "io.denied");
  const beyond = run("mov dx,0x200\nin al,dx");
  assertEquals([beyond.vector, beyond.error, beyond.check], [13, 0, "io.map"]);
});

Deno.test("REP OUTS: one instruction for each element, and it can be stopped between two", () => {
  const code = "mov esi,text\nmov ecx,5\nmov edx,0xe9\nrep outsb\nhlt\ntext: db 'hello'";
  const whole = runCode(code);
  assertEquals([whole.out, whole.reg("ecx"), whole.machine.cpu.count], ["hello", 0, 3 + 5 + 1]);
  const half = runCode(code, { budget: 3 + 2 });
  assertEquals([half.stop, half.out, half.reg("ecx")], ["budget", "he", 3]);
  assertEquals(half.machine.cpu.get("rip"), BigInt(AT.code + 15));
  const down = runCode(
    `std\nmov esi,text+1\nmov ecx,2\nmov edx,0xe9\nrep outsb\nhlt\ntext: db 'ab'`,
  );
  assertEquals(down.out, "ba");
});

Deno.test("REP INS: a fault leaves the count at what was not done", () => {
  const ran = runCode("mov ax,small\nmov es,ax\nmov edi,0xfe\nmov ecx,4\nmov edx,0x60\nrep insb");
  assertEquals([ran.vector, ran.reg("ecx"), ran.reg("edi")], [13, 2, 0x100]);
});

Deno.test("SYSENTER and SYSEXIT load flat segments", () => {
  const ran = runCode(
    `
    mov edx,0
    mov ecx,0x174
    mov eax,code
    wrmsr
    inc ecx
    mov eax,0x7700
    wrmsr
    inc ecx
    mov eax,kernel
    wrmsr
    push data3
    push stack3
    push 2
    push code3
    push user
    iret
    kernel: mov eax,cs
    mov ebx,ss
    mov ebp,esp
    mov edx,back
    mov ecx,0x5ff0
    sysexit
    user: sysenter
    back: mov esi,cs
    mov edi,ss
    int3`,
    { gates: INT3 },
  );
  assertEquals([ran.vector, ran.reg("eax"), ran.reg("ebx"), ran.reg("ebp")], [
    3,
    S.code,
    S.data,
    0x7700,
  ]);
  // SYSEXIT takes the selectors 16 and 24 above.
  assertEquals([ran.reg("esi"), ran.reg("edi")], [S.code3, S.data3]);
});

Deno.test("control registers: ET is fixed, PE cannot be cleared by LMSW, CR4 bits by model", () => {
  const ran = runCode(`
    mov eax,cr0
    or eax,8
    mov cr0,eax
    clts
    mov ebx,cr0
    mov ax,0
    lmsw ax
    mov ecx,cr0
    smsw edx
    hlt`);
  assertEquals([ran.reg("ebx"), ran.reg("ecx"), ran.reg("edx")], [0x11, 0x11, 0x11]);
});

Deno.test("PAE: the four pointers are loaded with CR3 and checked for reserved bits", () => {
  const enable = (entry: number) => `
    mov dword ptr [0x5000],${entry}
    mov dword ptr [0x6000],0x83
    mov eax,0x5000
    mov cr3,eax
    mov eax,0x20
    mov cr4,eax
    mov eax,0x80000011
    mov cr0,eax
    mov dword ptr [0x5000],0
    mov eax,[0x8000]
    hlt`;
  const good = runCode(enable(0x6001));
  assertEquals(good.stop, "halt");
  // A store to the table does not change the registers.
  assertEquals(state(good, "pdpte0"), 0x6001n);
  const bad = runCode(enable(0x6003));
  assertEquals([bad.vector, bad.check], [13, "pdpte.reserved"]);
});

Deno.test("RDTSC counts instructions; a write shows in IA32_TSC_ADJUST", () => {
  const ran = runCode("rdtsc\nmov ebx,eax\nnop\nnop\nrdtsc\nsub eax,ebx\nhlt");
  assertEquals(ran.reg("eax"), 4);
  const written = runCode("mov ecx,0x10\nmov eax,1000\nmov edx,0\nwrmsr\nrdtsc\nhlt");
  assertEquals(written.reg("eax"), 1001);
  assertEquals(state(written, "tscAdjust"), BigInt(1000 - 4));
});

Deno.test("IA32_FEATURE_CONTROL can be locked once", () => {
  const ran = runCode("mov ecx,0x3a\nmov eax,5\nmov edx,0\nwrmsr\nmov eax,1\nwrmsr\nhlt");
  assertEquals([ran.vector, ran.check], [13, "msr.locked"]);
  assertEquals(state(ran, "featureControl"), 5n);
});

Deno.test("CPUID clears the upper halves and follows CR4", () => {
  const ran = runCode("mov eax,0\ncpuid\nhlt");
  const text = [ran.reg("ebx"), ran.reg("edx"), ran.reg("ecx")];
  const bytes = new Uint8Array(Uint32Array.from(text).buffer);
  assertEquals(new TextDecoder().decode(bytes), "GenuineIntel");
});

Deno.test("SGDT, SIDT, SLDT, STR, LGDT with 16-bit operands", () => {
  const ran = runCode(`
    sgdt [0x5000]
    sidt [0x5008]
    str eax
    sldt ebx
    mov dword ptr [0x5010],0x5678ffff
    mov word ptr [0x5014],0xff12
    db 0x66
    lgdt [0x5010]
    hlt`);
  assertEquals(ran.word(0x5000 + 2), AT.gdt);
  assertEquals(ran.word(0x5008) & 0xffff, 0x7ff);
  assertEquals([ran.reg("eax"), ran.reg("ebx")], [S.mainTask, S.localTable]);
  assertEquals(state(ran, "gdtr.base"), 0x125678n);
});

Deno.test("BOUND and UD", () => {
  const bounds = "mov dword ptr [0x5000],-2\nmov dword ptr [0x5004],5\n";
  assertEquals(runCode(`${bounds}mov eax,-2\nbound eax,[0x5000]\nhlt`).stop, "halt");
  assertEquals(runCode(`${bounds}mov eax,6\nbound eax,[0x5000]\nhlt`).vector, 5);
  assertEquals(runCode("ud2").vector, 6);
  assertEquals(runCode("db 0x0f,0xaa").vector, 6);
});

Deno.test("POPF: IF needs CPL not above IOPL, IOPL needs CPL 0", () => {
  const user = runCode("push 0x3202\npopfd\nint3", { cpl: 3, gates: INT3 });
  assertEquals(user.word(AT.stack0 - 12) & 0x3200, 0);
  const kernel = runCode("push 0x3202\npopfd\npushfd\npop eax\nhlt");
  assertEquals(kernel.reg("eax") & 0x3200, 0x3200);
});
