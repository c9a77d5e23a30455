import { assertEquals } from "@std/assert";
import { multibootImage, runImage, WAYS } from "../debug/testing/images.ts";

/** Where the guest's results lie. */
const AT = { count: 0x8000, eip: 0x8004, status: 0x8008, ticks: 0x800c, after: 0x8010 };

/**
 * A guest of the 386's time: CR0.NE is clear, and the handler of IRQ 13 does as SDM 1 appendix D says.
 * It divides by zero three times with one FDIV; then once with IRQ 13 masked, where the processor must
 * wait for the timer's interrupt, whose handler clears the exception.
 */
const GUEST = multibootImage(`
  mov esp, 0x7000
  mov edi, ${AT.count}
  mov ecx, 16
  xor eax, eax
  rep stosd
  mov eax, cr0
  and eax, 0xffffffd3
  or al, 2
  mov cr0, eax
  mov edi, 0x9000
  mov eax, timer
  mov ebx, 0x20
  call gate
  mov eax, error
  mov ebx, 0x2d
  call gate
  push 0x9000
  push word 0x7ff
  lidt [esp]
  mov al, 0x11
  out 0x20, al
  out 0xa0, al
  mov al, 0x20
  out 0x21, al
  mov al, 0x28
  out 0xa1, al
  mov al, 4
  out 0x21, al
  mov al, 2
  out 0xa1, al
  mov al, 1
  out 0x21, al
  out 0xa1, al
  mov al, 0xfb
  out 0x21, al
  mov al, 0xdf
  out 0xa1, al
  fninit
  push 0x37b
  fldcw word ptr [esp]
  sti
  mov esi, 3
again:
  fld1
  fldz
  fdivp st(1), st(0)
wait_here:
  fnop
  fstp st(0)
  fstp st(0)
  dec esi
  jnz again
  cli
  mov al, 0xff
  out 0xa1, al
  mov al, 0xfe
  out 0x21, al
  mov al, 0x34
  out 0x43, al
  mov al, 0x50
  out 0x40, al
  mov al, 1
  out 0x40, al
  fld1
  fldz
  fdivp st(1), st(0)
  sti
  fnop
  cli
  fnstsw word ptr [${AT.after}]
  mov al, 0
  out 0xf4, al
  hlt

; EBX: a vector, EAX: its handler.
gate:
  mov [edi + 8 * ebx], ax
  mov [edi + 8 * ebx + 2], cs
  mov word ptr [edi + 8 * ebx + 4], 0x8e00
  shr eax, 16
  mov [edi + 8 * ebx + 6], ax
  ret

error:
  push eax
  inc dword ptr [${AT.count}]
  mov eax, [esp + 4]
  sub eax, wait_here
  mov [${AT.eip}], eax
  out 0xf0, al
  ; Waiting instructions, which IGNNE# lets by.
  fstp st(0)
  fldpi
  fnstsw word ptr [${AT.status}]
  fnclex
  mov al, 0x20
  out 0xa0, al
  out 0x20, al
  pop eax
  iretd

timer:
  push eax
  inc dword ptr [${AT.ticks}]
  fnclex
  mov al, 0x20
  out 0x20, al
  pop eax
  iretd
`);

for (const way of WAYS) {
  Deno.test(`CR0.NE clear: an x87 exception is IRQ 13 before the next waiting instruction (${way.join()})`, async () => {
    const { dom, end } = await runImage(GUEST, way);
    const word = (at: number) => new DataView(dom.memory.read(at, 4).buffer).getUint32(0, true);
    // ZE, ES and B; two registers in use.
    assertEquals(
      [end, word(AT.count), word(AT.eip), word(AT.status), word(AT.ticks) > 0, word(AT.after)],
      ["exit (status 1)", 3, 0, 0xb084, true, 0x3000],
    );
  });
}
