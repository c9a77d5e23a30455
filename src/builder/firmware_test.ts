/** What a kernel finds of the firmware that has run before it, on every type, vendor and paging. */
import { assertEquals } from "@std/assert";
import { realModeImage, romImage, runImage, WAYS } from "../debug/testing/images.ts";

/** Results go to 7100h; it ends in real mode, waiting for a timer interrupt. */
const LOOK_AROUND = realModeImage(
  `
    int 0x11
    mov [0x7104], ax
    int 0x12
    mov [0x7106], ax
    clc
    mov ax, 0xe820
    int 0x15
    setc [0x7108]
    mov [0x7109], ah
    int 0x55
    sti
    hlt
    cli
    mov eax, [0x46c]
    mov [0x710c], eax
    mov al, 5
    out 0xf4, al
    hlt`,
  { before: "fnstcw [0x7100]\nfnstenv [0x7140]" },
);

for (const way of WAYS) {
  Deno.test(`a kernel finds BIOS data, vectors, chips and x87 as firmware leaves them, ${way.join(" ")}`, async () => {
    const { dom, end } = await runImage(LOOK_AROUND, way);
    assertEquals(end, "exit (status 11)");
    const word = (at: number) => dom.memory.u16(at);
    assertEquals([word(0x40e), word(0x413), word(0x400)], [0x9fc0, 639, 0x3f8]);
    assertEquals(dom.memory.u8(0x9fc00), 1);
    // FCW, and the tag word of the environment: all empty.
    assertEquals([word(0x7100), word(0x7148)], [0x37f, 0xffff]);
    // Equipment by INT 11h, memory by INT 12h, no E820 by INT 15h: carry, and AH 86h.
    assertEquals([word(0x7104), word(0x7106), word(0x7108)], [0x226, 639, 0x8601]);
    // 10:00, and the tick that ended HLT.
    assertEquals(dom.memory.u32(0x710c), Math.floor(36000 * 1193182 / 65536) + 1);
  });
}

/**
 * As SeaBIOS begins: it looks for its log, takes the memory's size from CMOS and the map from fw_cfg.
 * Results at 7100h.
 */
const BEGIN = romImage(`
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov edi, 0x7100
    fnstcw [di]             ; nobody has run FNINIT
    add di, 4
    mov dx, 0x402
    in al, dx
    stosb
    mov al, 0x48
    out dx, al
    mov al, 0x69
    out dx, al
    mov cx, 8
    mov bx, 0xf000
    mov ds, bx
    mov si, registers
  cmos:
    lodsb
    out 0x70, al
    in al, 0x71
    stosb
    loop cmos
    mov dx, 0x510
    mov ax, 0x19            ; the directory: one file
    out dx, ax
    inc dx
    mov cx, 68
    rep insb
    dec dx
    mov ax, 0x20            ; and its contents
    out dx, ax
    inc dx
    mov cx, 20
    rep insb
    mov al, 1
    out 0xf4, al
    hlt
  registers:
    db 0x15, 0x16, 0x17, 0x18, 0x34, 0x35, 0x5b, 0x5f`);

for (const way of WAYS) {
  Deno.test(`a ROM finds its log, the memory's size and the map, ${way.join(" ")}`, async () => {
    const { dom, end } = await runImage(BEGIN, way);
    assertEquals(end, "exit (status 3)");
    assertEquals(dom.console.text, "Hi");
    const bytes = dom.memory.read(0x7100, 128);
    assertEquals([...bytes.subarray(0, 2), bytes[4]], [0x40, 0, 0xe9]);
    // 640 KB, 7 MB from 1 MB on, nothing from 16 MB or 4 GB on, one processor.
    assertEquals([...bytes.subarray(5, 13)], [0x80, 2, 0, 0x1c, 0, 0, 0, 0]);
    const directory = bytes.subarray(13, 81);
    assertEquals([...directory.subarray(0, 12)], [0, 0, 0, 1, 0, 0, 0, 140, 0, 0x20, 0, 0]);
    assertEquals(new TextDecoder().decode(directory.subarray(12)).replace(/\0+$/, ""), "etc/e820");
    // 0 to 9FC00h is RAM.
    assertEquals([...bytes.subarray(81, 101)], [
      ...[0, 0, 0, 0, 0, 0, 0, 0],
      ...[0, 0xfc, 9, 0, 0, 0, 0, 0],
      ...[1, 0, 0, 0],
    ]);
    // It is the firmware: nothing was left for it.
    assertEquals([dom.memory.u32(0), dom.memory.u16(0x40e), dom.memory.u16(0x413)], [0, 0, 0]);
  });
}
