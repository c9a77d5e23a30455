/** What a kernel finds of the firmware that has run before it, on every type, vendor and paging. */
import { assertEquals } from "@std/assert";
import { multibootImage, runImage, WAYS } from "./testing_images.ts";

/** Results go to 7100h; it ends in real mode, waiting for a timer interrupt. */
const LOOK_AROUND = multibootImage(`
    fnstcw [0x7100]
    fnstenv [0x7140]
    mov esi, real
    mov edi, 0x8000
    mov ecx, end - real
    rep movsb
    lgdt [gdtr]
    jmp 8:0x8000
  align 8
  gdt:
    dq 0, 0x00009b000000ffff, 0x000093000000ffff
  gdtr:
    dw 23
    dd gdt
  real:
    bits 16
    mov ax, 0x10
    mov ds, ax
    mov ss, ax
    mov eax, cr0
    and al, 0xfe
    mov cr0, eax
    jmp 0:(0x8000 + flat - real)
  flat:
    xor ax, ax
    mov ds, ax
    mov ss, ax
    mov sp, 0x7000
    lidt [0x8000 + idtr - real]
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
    hlt
  idtr:
    dw 0x3ff
    dd 0
  end:`);

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
