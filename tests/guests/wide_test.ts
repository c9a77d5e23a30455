// Small programs on the bare processor and in a hardware virtual machine: both say the same.
import { assert, assertEquals } from "@std/assert";
import { Hypervisor } from "../../src/debug/hypervisor.ts";
import { assemble } from "../../src/machine/isa/encode.ts";
import { TO_FLAT } from "../../src/machine/testing.ts";

/** A ROM: real mode to flat protected mode; #GP writes "G" and goes on at EBP; then the body. */
function rom(body: string): Uint8Array {
  const source = `
bits 16
org 0
  cli
  xor ax, ax
  mov ss, ax
  mov sp, 0x7000
${TO_FLAT}
  mov esp, 0x7000
  mov edi, 0x1000
  mov ecx, 256
gates:
  mov eax, 0xf0000 + other
  and eax, 0xffff
  or eax, 0x80000
  mov [edi], eax
  mov dword [edi + 4], 0xf8e00
  add edi, 8
  loop gates
  mov eax, 0xf0000 + general
  and eax, 0xffff
  or eax, 0x80000
  mov [0x1000 + 13 * 8], eax
  mov eax, 0xf0000 + timer
  and eax, 0xffff
  or eax, 0x80000
  mov [0x1000 + 0x40 * 8], eax
  mov word [0x900], 0x7ff
  mov dword [0x902], 0x1000
  lidt [0x900]
${body}
stop:
  cli
  hlt
say:
  out 0xe9, al
  ret
; EAX in hexadecimal
number:
  mov ecx, 8
digit:
  rol eax, 4
  push eax
  and al, 15
  cmp al, 10
  sbb al, 0x69
  das
  out 0xe9, al
  pop eax
  loop digit
  mov al, ' '
  out 0xe9, al
  ret
other:
  mov al, '?'
  out 0xe9, al
  jmp stop
general:
  mov al, 'G'
  out 0xe9, al
  add esp, 4
  mov [esp], ebp
  iretd
timer:
  push eax
  push ecx
  push edx
  mov al, 'T'
  out 0xe9, al
  mov ecx, 0x80b
  xor eax, eax
  xor edx, edx
  wrmsr
  pop edx
  pop ecx
  pop eax
  iretd
align 8
gdt:
  dq 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
gdtr:
  dw 23
  dd 0xf0000 + gdt
`;
  const { bytes } = assemble(source, { mode: 16 });
  const image = new Uint8Array(0x10000);
  image.set(bytes);
  image.set([0xea, 0, 0, 0, 0xf0], 0xfff0);
  return image;
}

/** Runs a body on both kinds of domain; they write the same. */
async function both(body: string, cpuid = "host"): Promise<string> {
  const texts: string[] = [];
  for (const type of ["bare", "hvm"] as const) {
    await using hv = await Hypervisor.start({ memory: type === "bare" ? "16M" : "64M" });
    const dom = await hv.createDomain({ type, kernel: rom(body), memory: "16M", cpuid });
    const end = await dom.continue();
    assert(end === null || end.kind === "end", `${type}: ${end}`);
    texts.push(dom.console.text);
  }
  assertEquals(texts[1], texts[0]);
  return texts[0];
}

Deno.test("CR0 that turns PAE paging on over a bad page-directory pointer is #GP, with CD too", async () => {
  const text = await both(`
  mov dword [0x5000], 0x6003
  mov dword [0x5004], 0
  mov eax, 0x5000
  mov cr3, eax
  mov eax, 0x20
  mov cr4, eax
  lea ebp, [0xf0000 + one]
  mov eax, 0x80000011
  mov cr0, eax
one:
  lea ebp, [0xf0000 + two]
  mov eax, 0xc0000011
  mov cr0, eax
two:
  mov eax, cr0
  call number
`);
  assertEquals(text, "GG60000011 ");
});

Deno.test("x2APIC: its registers are MSRs, and the TSC deadline interrupts once", async () => {
  const body = `
  mov ecx, 0x1b
  rdmsr
  or eax, 0xc00
  wrmsr
  mov ecx, 0x80f
  mov eax, 0x1ff
  xor edx, edx
  wrmsr
  mov ecx, 0x832
  mov eax, 0x40040
  wrmsr
  rdtsc
  add eax, 5000
  adc edx, 0
  mov ecx, 0x6e0
  wrmsr
  mov edi, 2000
  sti
wait:
  dec edi
  jnz wait
  cli
  mov ecx, 0x6e0
  rdmsr
  call number
  mov ecx, 0x808
  mov eax, 0x30
  xor edx, edx
  wrmsr
  rdmsr
  call number
  lea ebp, [0xf0000 + last]
  mov ecx, 0x80e
  rdmsr
last:
`;
  // The loop is shorter than the deadline in instructions: the rest are what lies before it.
  const text = await both(body.replace("mov edi, 2000", "mov edi, 4000"));
  assertEquals(text, "T00000000 00000030 G");
});

Deno.test("without x2apic and tsc_deadline_timer in CPUID their MSRs do not exist", async () => {
  const body = `
  lea ebp, [0xf0000 + one]
  mov ecx, 0x1b
  rdmsr
  or eax, 0xc00
  wrmsr
one:
  lea ebp, [0xf0000 + two]
  mov ecx, 0x6e0
  rdmsr
two:
  mov al, 'x'
  call say
`;
  assertEquals(await both(body, "host,x2apic=0,tsc_deadline=0"), "GGx");
});

Deno.test("RDRAND gives the same numbers bare and in HVM, by the host's seed", async () => {
  const text = await both(`
  rdrand eax
  call number
  rdseed eax
  call number
`);
  const [first, second] = text.trim().split(" ");
  assert(/^[0-9A-F]{8}$/.test(first) && first !== second, text);
});

Deno.test("bits of CR4 that CPUID does not show are reserved", async () => {
  const body = `
  lea ebp, [0xf0000 + one]
  mov eax, 0x200000
  mov cr4, eax
one:
  mov eax, cr4
  call number
`;
  assertEquals(await both(body), "00200000 ");
  assertEquals(await both(body, "host,smap=0"), "G00000000 ");
});
