/** What the board announces has somebody who serves it, on every type, vendor and paging. */
import { assertEquals } from "@std/assert";
import type { Pit } from "../devices/pit.ts";
import { Hypervisor } from "../debug/hypervisor.ts";
import { multibootImage, realModeImage, runImage, WAYS } from "../debug/testing/images.ts";

/** Where {@linkcode PATIENT} waits for a signal from outside. */
const SPOTS = [0x100100, 0x100200, 0x100300] as const;
/** NMIs are counted at 7100h; results from 7110h on. */
const PATIENT = multibootImage(`
    mov esp, 0x7000
    mov edi, 0x7110
    mov dword [0x7100], 0
    mov word [0x9010], nmi - 0x100000
    mov [0x9012], cs
    mov word [0x9014], 0x8e00
    mov word [0x9016], 0x10
    push 0x9000
    push word 0x7ff
    lidt [esp]
    mov al, 0x8f                ; NMI is masked
    out 0x70, al
    jmp masked
  align 256
  masked:
    nop
    call look
    mov al, 0x0f                ; and comes when it is not
    out 0x70, al
    nop
    call look
    mov al, 8                   ; IOCHK# cleared and enabled again
    out 0x61, al
    mov al, 0
    out 0x61, al
    call look
    jmp open
  align 256
  open:
    nop
    call look
    mov al, 4
    out 0x61, al
    mov al, 0
    out 0x61, al
    mov dword [0xfee00360], 0x10400
    jmp lint
  align 256
  lint:                         ; LINT1 is masked
    nop
    call look
    mov al, 1
    out 0xf4, al
    hlt
  look:
    mov eax, [0x7100]
    stosd
    in al, 0x61
    and eax, 0xc0
    stosd
    ret
  nmi:
    inc dword [0x7100]
    iretd
`);

/** Ends with status 3 if nothing happens. */
const ends = (code: string) => multibootImage(`${code}\nmov al, 1\nout 0xf4, al\nhlt`);
const IO_APIC = (index: number, value: number) => `
  mov dword [0xfec00000], ${index}
  mov dword [0xfec00010], ${value}`;
/** IRQ 0 every millisecond, and 20 million instructions for it to come. */
const TICKS = `
  mov al, 0x34
  out 0x43, al
  mov al, 0xa9
  out 0x40, al
  mov al, 4
  out 0x40, al
  mov ecx, 10000000
again:
  dec ecx
  jnz again`;

const INITS = {
  "an IPI to its own id": ends(`
    mov dword [0xfee00310], 0
    mov dword [0xfee00300], 0x4500`),
  "an IPI to all": ends(`
    mov dword [0xfee00310], 0xff000000
    mov dword [0xfee00300], 0x4500`),
  "a pin of the IO-APIC": ends(`${IO_APIC(0x15, 0)}${IO_APIC(0x14, 0x8500)}${TICKS}`),
  "LINT0": ends(`mov dword [0xfee00350], 0x500\nmov al, 0xfe\nout 0x21, al\n${TICKS}`),
  "a pin of the IO-APIC in HLT": ends(`
    ${IO_APIC(0x15, 0)}${IO_APIC(0x14, 0x500)}
    cli
    hlt`),
};

/** Messages that leave the only processor as it is, then an IPI that comes. */
const NOBODY = ends(`
    mov esp, 0x7000
    mov dword [0xfee00310], 0x05000000
    mov dword [0xfee00300], 0x4500        ; INIT to one that is not there
    mov dword [0xfee00310], 0
    mov dword [0xfee00300], 0x8500        ; de-assert
    mov dword [0xfee00300], 0x4608        ; SIPI: it does not wait for one
    mov dword [0xfee00300], 0xc4500       ; all but itself
    mov eax, [0xfee00350]
    mov [0x7100], eax`);

/**
 * x87 in real mode with CR0.NE clear: 1/0 unmasked, FWAIT. INT 2 counts at 7100h. If nobody comes, the
 * timer's third interrupt ends it.
 */
const REAL_X87 = realModeImage(
  `
    mov word [8], 0x8000 + nmi - real
    mov [10], ax
    mov word [0x20], 0x8000 + tick - real
    mov [0x22], ax
    mov [0x7100], ax
    mov [0x7106], ax
    sti
    fninit
    mov word [0x7102], 0x37b
    fldcw word ptr [0x7102]
    fld1
    fldz
    fdivp st(1), st(0)
    fwait
    cli
    in al, 0xa1
    mov [0x7104], al
    mov al, 5
    out 0xf4, al
    hlt
  nmi:
    inc word [0x7100]
    fnclex
    iret
  tick:
    push ax
    mov al, 0x20
    out 0x20, al
    inc byte [0x7106]
    mov al, [0x7106]
    cmp al, 3
    jb early
    out 0xf4, al
  early:
    pop ax
    iret`,
  { cr0: "and al, 0xd2\nor al, 2 ; neither NE nor EM nor TS" },
);

for (const way of WAYS) {
  const name = way.join(" ");
  const [cpu, type, paging] = way;

  Deno.test(`SERR# and IOCHK# are NMIs, by port 61h, port 70h and LINT1, ${name}`, async () => {
    const hv = await Hypervisor.start({ cpu, memory: "64M" });
    const dom = await hv.createDomain({ type, paging, kernel: PATIENT, memory: "8M" });
    const pit = dom.devices.get("pit") as Pit;
    for (const [n, address] of SPOTS.entries()) {
      await dom.until("execute", { address });
      pit.check(n === 0 ? "iochk" : "serr");
    }
    await dom.unpause();
    const { reason, detail } = await dom.ended;
    assertEquals([reason, detail], ["exit", "status 3"]);
    // Masked, let through, cleared; SERR# at once; and none by a masked LINT1.
    const seen = Array.from({ length: 10 }, (_, n) => dom.memory.u32(0x7110 + 4 * n));
    assertEquals(seen, [0, 0x40, 1, 0x40, 1, 0, 2, 0x80, 2, 0x80]);
  });

  for (const [what, kernel] of Object.entries(INITS)) {
    Deno.test(`INIT by ${what} resets the only processor, ${name}`, async () => {
      assertEquals((await runImage(kernel, way)).end, "reset (INIT)");
    });
  }

  Deno.test(`INIT for others, de-assert and SIPI leave it as it is, ${name}`, async () => {
    const { dom, end } = await runImage(NOBODY, way);
    assertEquals([end, dom.memory.u32(0x7100)], ["exit (status 3)", 0x700]);
  });

  Deno.test(`firmware hands IRQ 13 on to INT 2, ${name}`, async () => {
    const { dom, end } = await runImage(REAL_X87, way);
    assertEquals([end, dom.memory.u16(0x7100), dom.memory.u8(0x7104)], [
      "exit (status 11)",
      1,
      0xcf,
    ]);
  });

  Deno.test(`the Pentium's machine-check registers are there with MCE, ${name}`, async () => {
    const { dom, end } = await runImage(
      ends(`
        mov esp, 0x7000
        mov ecx, 1
        xor eax, eax
        xor edx, edx
        wrmsr
        rdmsr
        mov ebx, eax
        dec ecx
        rdmsr
        or eax, ebx
        or eax, edx
        mov [0x7100], eax`),
      way,
    );
    assertEquals([end, dom.memory.u32(0x7100)], ["exit (status 3)", 0]);
  });

  Deno.test(`a processor without APIC has no MADT, ${name}`, async () => {
    for (const apic of [true, false]) {
      const hv = await Hypervisor.start({ cpu, memory: "64M" });
      const cpuid = { features: { apic } };
      const dom = await hv.createDomain({ type, paging, kernel: NOBODY, memory: "8M", cpuid });
      const firmware = new TextDecoder("latin1").decode(dom.memory.read(0xe0000, 0x10000));
      assertEquals([firmware.includes("FACP"), firmware.includes("APIC")], [true, apic]);
    }
  });
}
