// tests/oracle holds the whole instruction set against objdump; here are the forms by name.
import { assertEquals } from "@std/assert";
import { disassemble } from "./disassemble.ts";

function text(hex: string, mode: 16 | 32 | 64, address = 0n): string {
  const bytes = Uint8Array.fromHex(hex.replaceAll(" ", ""));
  return disassemble(bytes, 0, mode, address).text.replace(/ +/g, " ");
}

Deno.test("disassemble() prints memory operands as objdump does", () => {
  assertEquals(text("8b 44 8b 10", 32), "mov eax,DWORD PTR [ebx+ecx*4+0x10]");
  assertEquals(text("8b 44 24 fc", 32), "mov eax,DWORD PTR [esp-0x4]");
  assertEquals(text("8d 74 26 00", 32), "lea esi,[esi+eiz*1+0x0]");
  assertEquals(text("a1 78 56 34 12", 32), "mov eax,ds:0x12345678");
  assertEquals(text("64 a1 00 00 00 00", 32), "mov eax,fs:0x0");
  assertEquals(text("8b 42 fe", 16), "mov ax,WORD PTR [bp+si-0x2]");
  assertEquals(text("66 67 8b 03", 16), "mov eax,DWORD PTR [ebx]");
  assertEquals(text("48 8b 05 10 00 00 00", 64, 0x1000n), "mov rax,QWORD PTR [rip+0x10] # 0x1017");
});

Deno.test("disassemble() names what depends on the operand size", () => {
  assertEquals(text("66 98", 32), "cbw");
  assertEquals(text("98", 32), "cwde");
  assertEquals(text("48 98", 64), "cdqe");
  assertEquals(text("66 cf", 16), "iretd");
  assertEquals(text("48 cf", 64), "iretq");
  assertEquals(text("67 e3 00", 32), "jcxz 0x3");
  assertEquals(text("66 0f 01 10", 16), "lgdtd [bx+si]");
});

Deno.test("disassemble() shows prefixes that change nothing", () => {
  assertEquals(text("66 f4", 32), "data16 hlt");
  assertEquals(text("f3 a4", 32), "rep movs BYTE PTR es:[edi],BYTE PTR ds:[esi]");
  assertEquals(text("f2 ae", 32), "repnz scas al,BYTE PTR es:[edi]");
  assertEquals(text("f0 0f c7 0f", 32), "lock cmpxchg8b QWORD PTR [edi]");
  assertEquals(text("48 90", 64), "rex.W nop");
});

Deno.test("disassemble() prints system, x87 and SIMD instructions", () => {
  assertEquals(text("0f 22 d8", 32), "mov cr3,eax");
  assertEquals(text("0f 01 c1", 32), "vmcall");
  assertEquals(text("dc c1", 32), "fadd st(1),st");
  assertEquals(text("0f c2 ca 01", 32), "cmpltps xmm1,xmm2");
  assertEquals(text("66 0f 38 00 08", 64), "pshufb xmm1,XMMWORD PTR [rax]");
  assertEquals(text("d6", 32), "salc");
});

Deno.test("disassemble() puts symbols to branch targets and absolute addresses", () => {
  const symbols = (a: bigint) => a === 0xc0100020n ? "start_kernel+0x10" : undefined;
  const at = (hex: string) =>
    disassemble(Uint8Array.fromHex(hex), 0, 32, 0xc0100000n, symbols).text.replace(/ +/g, " ");
  assertEquals(at("e81b000000"), "call 0xc0100020 <start_kernel+0x10>");
  assertEquals(at("a1200010c0"), "mov eax,ds:0xc0100020 <start_kernel+0x10>");
  assertEquals(
    at("8b0485200010c0"),
    "mov eax,DWORD PTR [eax*4-0x3fefffe0]" +
      " # 0xc0100020 <start_kernel+0x10>",
  );
});

Deno.test("disassemble() takes one byte where there is no instruction", () => {
  const bytes = Uint8Array.of(0x0f, 0x0a, 0x90);
  const line = disassemble(bytes, 0, 32, 0n);
  assertEquals([line.text, line.length, [...line.bytes]], ["(bad)", 1, [0x0f]]);
  assertEquals(disassemble(bytes.subarray(0, 1), 0, 32, 0n).text, "(bad)");
});
