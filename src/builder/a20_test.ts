/** The A20 gate: closed, no address has bit 20, on every type, vendor and paging. */
import { assertEquals } from "@std/assert";
import { Hypervisor } from "../debug/hypervisor.ts";
import { multibootImage, runImage, WAYS } from "../debug/testing/images.ts";

/** Code and data in the third megabyte, results from 7100h on. Its aliases are in the fourth. */
const GATE = multibootImage(
  `
    mov esp, 0x7000
    mov edi, 0x7100
    mov dword [0x2e0000], 0x22222222
    mov dword [0x3e0000], 0x33333333
    mov dword [0x2e0004], 0
    mov dword [0x3e0004], 0
    call look               ; open

    mov bl, 0               ; closed by port 92h
    call fast
    call look
    mov dword [0x3e0004], 7 ; it is the even one's
    call (aliased + 0x100000)
    mov byte [0x1b8000], 0x5a
    mov al, 0xd0            ; the keyboard controller sees it
    out 0x64, al
    in al, 0x60
    and eax, 2
    stosd

    mov bl, 0xdf            ; opened by the keyboard controller
    call slow
    call look
    mov al, [0xb8000]
    and eax, 0xff
    stosd

    mov bl, 0xdd            ; closed by it, opened by port 92h
    call slow
    call look
    mov bl, 2
    call fast
    call look

    ; Paging: the directory at 2E1000h, its first 4 MB as they are, 800000h is 3E0000h.
    mov dword [0x2e1000], 0x83
    mov dword [0x2e1008], 0x2e2003
    mov dword [0x2e2000], 0x3e0003
    mov dword [0x3e1000], 0
    mov eax, cr4
    or eax, 0x10
    mov cr4, eax
    mov bl, 0
    call fast
    mov eax, 0x3e1000       ; that is 2E1000h now
    mov cr3, eax
    mov eax, cr0
    or eax, 0x80000000
    mov cr0, eax
    mov eax, [0x800000]
    stosd
    mov dword [0x3e2000], 0x7003 ; the page table, under its other address
    invlpg [0x800000]
    mov eax, [0x800100]
    stosd
    mov dword [0x2e2000], 0x3e0003
    invlpg [0x800000]
    mov eax, 0x2e1000
    mov cr3, eax
    mov bl, 2
    call fast
    mov eax, [0x800000]
    stosd
    mov al, 1
    out 0xf4, al
    hlt

  look:                     ; what is read at both addresses, and what port 92h says
    mov eax, [0x2e0000]
    stosd
    mov eax, [0x3e0000]
    stosd
    mov eax, [0x3e0004]
    stosd
    in al, 0x92
    and eax, 2
    stosd
    ret
  fast:
    in al, 0x92
    and al, 0xfd
    or al, bl
    out 0x92, al
    ret
  slow:
    mov al, 0xd1
    out 0x64, al
    mov al, bl
    out 0x60, al
    ret
  aliased:
    mov eax, 0x600d
    stosd
    ret`,
  0x200000,
);

for (const way of WAYS) {
  Deno.test(`the A20 gate masks addresses, ${way.join(" ")}`, async () => {
    const { dom, end } = await runImage(GATE, way);
    assertEquals(end, "exit (status 3)");
    const words = new Uint32Array(dom.memory.read(0x7100, 4 * 26).slice().buffer);
    const even = 0x22222222, odd = 0x33333333;
    assertEquals([...words], [
      ...[even, odd, 0, 2],
      ...[even, even, 0, 0],
      ...[0x600d, 0],
      ...[even, odd, 0, 2],
      0x5a,
      ...[even, even, 7, 0],
      ...[even, odd, 0, 2],
      ...[even, even, odd],
    ]);
  });
}

/** Closes the gate, works for a while, and says what is at 3E0000h. */
const CLOSE = multibootImage(
  `
    mov dword [0x2e0000], 2
    mov dword [0x3e0000], 3
    in al, 0x92
    and al, 0xfd
    out 0x92, al
    mov ecx, 1000
  wait:
    loop wait
    mov eax, [0x3e0000]
    out 0xf4, al
    hlt`,
  0x200000,
);

for (const [cpu, type, paging] of WAYS) {
  Deno.test(`a closed A20 gate is saved and loaded, ${cpu} ${type} ${paging}`, async () => {
    const made = async () => {
      const hv = await Hypervisor.start({ cpu, memory: "64M" });
      const dom = await hv.createDomain({ type, paging, kernel: CLOSE, memory: "8M" });
      return { hv, dom };
    };
    const one = await made(), other = await made();
    await one.dom.vcpus[0].step(100);
    other.hv.load(one.hv.save());
    for (const { dom } of [one, other]) {
      await dom.unpause();
      assertEquals((await dom.ended).detail, "status 5");
    }
    assertEquals(other.dom.stateHash(), one.dom.stateHash());
  });
}
