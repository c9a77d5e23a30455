import { assertEquals } from "@std/assert";
import { runCode } from "./system/testing.ts";

const DATA = 0x9000;
/** DR7 with G0 and the R/W and LEN fields of breakpoint 0. */
const arm = (kind: number, length: number) =>
  `mov eax, ${DATA}\nmov dr0, eax\nmov eax, ${0x402 | kind << 16 | length << 18}\nmov dr7, eax\n`;

Deno.test("a data breakpoint traps after the store, with its bit in DR6", () => {
  const r = runCode(`${arm(1, 3)}
    mov ecx, 0
    mov ebx, 0x1234
    mov [${DATA + 2}], bx
  after:
    mov ecx, 1
    hlt`);
  assertEquals(r.vector, 1);
  assertEquals(r.machine.cpu.get("dr6") & 0xfn, 1n);
  assertEquals(r.word(DATA), 0x12340000);
  assertEquals(r.reg("ecx"), 0);
});

Deno.test("a write breakpoint lets reads pass, a read-write one does not", () => {
  const load = `mov edx, 0\nmov ecx, [${DATA}]\nmov edx, 7\nhlt`;
  assertEquals(runCode(arm(1, 3) + load).vector, undefined);
  const r = runCode(arm(3, 3) + load);
  assertEquals(r.vector, 1);
  assertEquals(r.reg("edx"), 0);
});

Deno.test("bytes beside the breakpoint do not trap", () => {
  assertEquals(runCode(`${arm(1, 0)}mov byte ptr [${DATA + 1}], 1\nhlt`).vector, undefined);
  assertEquals(runCode(`${arm(1, 0)}mov byte ptr [${DATA}], 1\nhlt`).vector, 1);
});

Deno.test("an execution breakpoint faults before its instruction", () => {
  const r = runCode(`
    mov eax, target
    mov dr0, eax
    mov eax, 0x402
    mov dr7, eax
    mov ecx, 1
  target:
    mov ecx, 2
    hlt`);
  assertEquals(r.vector, 1);
  assertEquals(r.reg("ecx"), 1);
  assertEquals(r.machine.cpu.get("dr6") & 0xfn, 1n);
});
