import { assertEquals, assertThrows } from "@std/assert";
import { decode, DecodeStatus, Instruction } from "./decode.ts";
import { disassemble } from "./disassemble.ts";
import { assemble, AssembleError, encode } from "./encode.ts";
import { encodings } from "./encodings.ts";

const hex = (source: string, mode: 16 | 32 | 64 = 32) => assemble(source, { mode }).bytes.toHex();

Deno.test("assemble() takes the shortest encoding", () => {
  assertEquals(hex("add eax, 1"), "83c001");
  assertEquals(hex("add eax, 0x12345678"), "0578563412");
  assertEquals(hex("add eax, 0xfffffff0"), "83c0f0");
  assertEquals(hex("mov eax, [ebx+ecx*4+0x10]"), "8b448b10");
  assertEquals(hex("xchg eax, ebx"), "93");
  assertEquals(hex("push 5\npush 500"), "6a0568f4010000");
  assertEquals(hex("mov rax, 1", 64), "48c7c001000000");
  assertEquals(hex("mov ax, [0x1234]", 16), "a13412");
});

Deno.test("assemble() resolves labels, local labels, equ and $", () => {
  const { bytes, symbols, lines } = assemble(`
    org 0x7c00
    bits 16
    start:  jmp 0:.next       ; far
    .next:  mov si, message
            mov cx, length
            jmp start
    message: db "hi; there", 10, 0
    length  equ $ - message
            align 4
            dd start, length
            times 510-($-$$) db 0
            dw 0xaa55
  `);
  assertEquals(bytes.length, 512);
  assertEquals(bytes.subarray(0, 13).toHex(), "ea057c0000be0d7cb90b00ebf3");
  assertEquals(symbols.get("start.next"), 0x7c05n);
  assertEquals(symbols.get("length"), 11n);
  assertEquals(lines[0], { line: 4, address: 0x7c00n, length: 5 });
  assertEquals(bytes.subarray(24, 32).toHex(), "007c00000b000000");
  assertEquals(bytes.subarray(510).toHex(), "55aa");
});

Deno.test("assemble() makes branches near only where short ones do not reach", () => {
  assertEquals(hex("a: jz a\njmp a"), "74feebfc");
  assertEquals(assemble("jz far_off\ntimes 127 nop\nfar_off:").bytes[0], 0x74);
  assertEquals(assemble("jz far_off\ntimes 128 nop\nfar_off:").bytes.length, 134);
  // The second must be near, which pushes the first one's target out of reach.
  const two = "jmp e1\njmp e2\ntimes 125 nop\ne1: times 4 nop\ne2:";
  assertEquals(assemble(two).bytes.subarray(0, 10).toHex(), "e982000000" + "e981000000");
});

Deno.test("assemble() knows 16-, 32- and 64-bit forms", () => {
  assertEquals(hex("jmp dword 8:0x12345678", 16), "66ea785634120800");
  assertEquals(hex("mov eax, [bp]\nmov ax, [eax*2]", 16), "668b4600678b044500000000");
  assertEquals(hex("mov eax, [x]\nx:", 64), "8b0500000000");
  assertEquals(hex("mov sil, 5\nmov r8, [r9+r10*8-4]", 64), "40b6054f8b44d1fc");
  assertEquals(
    hex("lgdt [0x1000]\nmov cr0, eax\niretd\npushad\nrep movsd"),
    "0f0115001000000f22c0cf60f3a5",
  );
  assertEquals(hex("fstcw [eax]\nfaddp\nfld qword [eax]"), "9bd938dec1dd00");
});

Deno.test("assemble() says what is wrong and in which line", () => {
  const fails = (source: string, message: string) =>
    assertThrows(() => assemble(source), AssembleError, message);
  fails("nop\nmov [eax], 1", "line 2: mov: the memory operand's width is not clear");
  fails("mov eax, bx", "line 1: mov: ");
  fails("foo eax", 'line 1: unknown mnemonic "foo"');
  fails("mov eax, nope", 'line 1: "nope" is not defined');
  fails("add al, 300", "300 does not fit into 8 bits");
  fails("lock add eax, [ebx]", "LOCK needs");
  fails("mov eax, [eax+bx]", "cannot mix 32- and 16-bit");
  fails("jmp short x\ntimes 200 nop\nx:", "198 bytes away");
  fails("a: nop\na: nop", 'line 2: "a" is defined twice');
  fails("push eax, ebx", "takes 1 operand, 2 given");
  fails("mov eax, 1 2", 'unexpected "2"');
  fails("swapgs", "does not exist in 32-bit mode");
  fails("foo\nbar", 'line 2: unknown mnemonic "bar"');
});

Deno.test("encode() refuses what has no encoding", () => {
  const row = (key: string) => encodings.find((e) => e.key === key)!;
  assertThrows(() => encode(row("swapgs"), {}, 32), RangeError, "does not exist in 32-bit mode");
  assertThrows(() => encode(row("add"), { rm: 9 }, 32), RangeError, "need 64-bit mode");
  assertThrows(() => encode(row("lea"), { rm: 1 }, 32), RangeError, "needs a memory operand");
  const stack = { memory: true, base: 0, index: 4 };
  assertThrows(() => encode(row("add"), stack, 32), RangeError, "cannot be an index");
});

Deno.test("assemble() reads what disassemble() prints", () => {
  const x = new Instruction();
  let seed = 99, tried = 0;
  const pick = (below: number) =>
    (seed = Math.imul(seed, 1103515245) + 12345 >>> 0) / 2 ** 32 * below | 0;
  for (const mode of [16, 32, 64] as const) {
    for (const e of encodings) {
      if (mode === 64 ? e.attributes.i64 : e.attributes.o64 || e.rexw) continue;
      const head: number[] = [];
      if (e.prefix === "66" || e.prefix === "f2" || e.prefix === "f3") {
        head.push(parseInt(e.prefix, 16));
      }
      if (e.rexw) head.push(0x48);
      if (e.map > 0) head.push(0x0f);
      if (e.map > 1) head.push(e.map === 2 ? 0x38 : 0x3a);
      const modrm = e.modrm >= 0 ? e.modrm : pick(64) | (e.digit >= 0 ? e.digit : pick(8)) << 3 &
          0x38 |
        (e.attributes.form === "reg" || pick(2) ? 0xc0 : 0x40);
      const fixed = e.digit >= 0 ? modrm & 0xc7 | e.digit << 3 : modrm;
      const body = e.attributes.form === "mem" ? fixed & 0x7f : fixed;
      const bytes = Uint8Array.from([...head, e.byte, ...(e.hasModrm ? [body] : [])].concat(
        [0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b],
      ));
      if (decode(bytes, 0, bytes.length, mode, x) !== DecodeStatus.Ok) continue;
      const line = disassemble(bytes, 0, mode, 0x1000n).text;
      const source = line.replace(/ *#.*/, "");
      if (source.includes("?")) continue; // no such segment register
      tried++;
      const again = assemble(source, { mode, origin: 0x1000 });
      const printed = disassemble(again.bytes, 0, mode, 0x1000n).text.replace(/ *#.*/, "");
      const same = (s: string) => s.replaceAll("st(0)", "st").replaceAll(/\s+/g, " ");
      if (e.key === "nop" || /^f(sub|div)r? /.test(source)) continue; // aliases of one meaning
      assertEquals(same(printed), same(source), `${mode}-bit ${bytes.toHex()}`);
    }
  }
  assertEquals(tried > 2500, true, `${tried}`);
});
