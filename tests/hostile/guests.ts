/**
 * Guests that mean it badly: each does one thing for ever that costs its host what it can. They are
 * multiboot kernels of 32-bit code; a prelude gives them a stack, an interrupt table and chips.
 *
 * @module
 */
import { CR4 } from "../../src/abi/x86/cr.ts";
import { flat, gates, kernel, LOAD, pagingOn, pic } from "../../src/debug/testing/prologue.ts";

/** Vectors below 32 go on at `[resume]` with a fresh stack, interrupts are acknowledged. */
const PRELUDE = `
  mov esp, 0x90000
${flat()}
${gates(0x8000, "fault", 32)}
${gates(0x8000 + 8 * 32, "interrupt", 224)}
  lidt [idtr]
  mov dword [resume], main
${pic(0xff, 0xff)}
  jmp main
fault:
  mov esp, 0x90000
  jmp [resume]
interrupt:
  push eax
  mov al, 0x20
  out 0x20, al
  pop eax
  iretd
; EAX: a divisor for the PIT. IRQ 0 is open.
pit:
  push eax
  mov al, 0x34
  out 0x43, al
  pop eax
  out 0x40, al
  mov al, ah
  out 0x40, al
  mov al, 0xfe
  out 0x21, al
  ret
; A page directory at 0x200000 that maps 4 MB pages one to one, and itself at its last entry.
paging:
  mov edi, 0x200000
  mov eax, 0x83
.entry:
  mov [edi], eax
  add edi, 4
  add eax, 0x400000
  jnc .entry
  mov dword [0x200ffc], 0x200003
${pagingOn(0x200000, CR4.PSE)}
  ret
align 8
gdt: dq 0, 0x00cf9a000000ffff, 0x00cf92000000ffff, 0x00009a000000ffff, 0x000092000000ffff
gdtr: dw 39
  dd gdt
idtr: dw 2047
  dd 0x8000
resume: dd 0
`;

/** In real mode: `main` leaves for 1000h, where `code` was copied. */
const inRealMode = (code: string) => `
main:
  mov esi, real
  mov edi, 0x1000
  mov ecx, 512
  rep movsb
  lidt [realIdt]
  jmp 0x18:0x1000
realIdt: dw 1023
  dd 0
align 16
real:
bits 16
  mov ax, 0x20
  mov ds, ax
  mov es, ax
  mov ss, ax
  mov eax, cr0
  and al, 0xfe
  mov cr0, eax
  db 0xea
  dw 0x1000 + inReal - real, 0
inReal:
  xor ax, ax
  mov ds, ax
  mov es, ax
  mov ss, ax
  mov sp, 0x1000
${code}
times 64 db 0
bits 32
`;

/** Ports whose writes end the guest, or switch the whole machine over. */
const ENDS = [0x64, 0x92, 0xf4, 0x604, 0xcf8, 0xcf9];

/** What each does, by its name. */
const BODIES: Readonly<Record<string, string>> = {
  "every port written": `main:
  xor edx, edx
next:
${ENDS.map((port) => `  cmp dx, ${port}\n  je skip`).join("\n")}
  cmp dx, 0x600
  jb fine
  cmp dx, 0x60f
  jbe skip
fine:
  mov eax, edx
  out dx, al
  not al
  out dx, al
skip:
  inc dx
  jmp next`,
  "every port read": `main:
  inc edx
  in al, dx
  in ax, dx
  in eax, dx
  jmp main`,
  "every address of the devices": `main:
  mov esi, places
again:
  lodsd
  test eax, eax
  jz main
  mov ebx, eax
  mov ecx, 1024
each:
  mov eax, [ebx]
  mov [ebx], ecx
  mov [ebx], cl
  mov ax, [ebx]
  add ebx, 4
  loop each
  jmp again
places: dd 0xa0000, 0xb0000, 0xb8000, 0xbf000, 0xfec00000, 0xfee00000, 0`,
  "REP OUTSB to COM1": `main:
  mov esi, 0x300000
  mov ecx, 0x100000
  mov dx, 0x3f8
  rep outsb
  jmp main`,
  "bytes to COM1": `main:
  mov dx, 0x3f8
again:
  inc al
  out dx, al
  jmp again`,
  "lines to the debug console": `main:
  mov al, 'x'
  mov ecx, 70
again:
  out 0xe9, al
  loop again
  mov al, 10
  out 0xe9, al
  jmp main`,
  "POST codes": `main:
  inc al
  out 0x80, al
  jmp main`,
  "exits at every instruction": `main:
  xor eax, eax
  cpuid
  in al, 0x71
  mov ecx, 0x1b
  rdmsr
  mov ecx, 0x12345
  mov dword [resume], next
  rdmsr
next:
  mov eax, cr4
  xor eax, 0x80
  mov cr4, eax
  mov eax, cr0
  xor eax, 0x8
  mov cr0, eax
  invd
  wbinvd
  rdtsc
  mov al, [0xfee00020]
  jmp main`,
  "exceptions at every instruction": `main:
  mov dword [resume], a
  ud2
a:
  mov dword [resume], b
  xor ecx, ecx
  div ecx
b:
  mov dword [resume], c
  mov ax, 0xfff8
  mov gs, ax
c:
  mov dword [resume], main
  int 0x20
  int3
  jmp main`,
  "single steps": `main:
  mov dword [resume], main
  pushfd
  or dword [esp], 0x100
  popfd
  nop
  jmp main`,
  "an exception without end": `main:
  mov word [0x8000 + 6 * 8], bad - ${LOAD}
  mov word [0x8000 + 6 * 8 + 6], ${LOAD >> 16}
bad:
  mov esp, 0x90000
  ud2
  jmp main`,
  "self-modifying code": `main:
  mov ebx, patch + 1
again:
  inc byte [ebx]
patch:
  mov eax, 0x11
  inc byte [ebx + 1]
  jmp again`,
  "self-modifying code in real mode": inRealMode(`again:
  mov bx, 0x1000 + patch - real
  inc byte [bx + 1]
patch:
  mov ax, 0x11
  inc byte [bx + 2]
  jmp again`),
  "interrupts through the table in real mode": inRealMode(`  mov word [0x180], 0x1000 + serve - real
  mov word [0x182], 0
again:
  int 0x60
  cli
  sti
  pushf
  popf
  jmp again
serve:
  iret`),
  "PIT at its maximum rate": `main:
  mov eax, 1
  call pit
  sti
again:
  inc eax
  jmp again`,
  "sleep with the timer masked": `main:
  mov eax, 1000
  call pit
  mov al, 0xff
  out 0x21, al
  sti
again:
  hlt
  jmp again`,
  "nested interrupts": `main:
  mov dword [0x8000 + 32 * 8], 0x80000 + nested - ${LOAD}
  mov word [0x8000 + 32 * 8 + 6], ${LOAD >> 16}
  mov eax, 20
  call pit
  sti
again:
  int 0x20
  jmp again
nested:
  mov al, 0x20
  out 0x20, al
  cmp esp, 0x20000
  ja deeper
  mov esp, 0x90000
deeper:
  sti
  nop
  int 0x20
  jmp main`,
  "the local APIC's timer and IPIs to itself": `main:
  mov dword [0xfee000f0], 0x1ff
  mov dword [0xfee00320], 0x20040
  mov dword [0xfee003e0], 0xb
  mov dword [0xfee00380], 1
  mov dword [0x8000 + 64 * 8], 0x80000 + apic - ${LOAD}
  mov word [0x8000 + 64 * 8 + 6], ${LOAD >> 16}
  sti
again:
  mov dword [0xfee00300], 0x44040
  jmp again
apic:
  mov dword [0xfee000b0], 0
  iretd`,
  "tables that map themselves": `main:
  call paging
  mov ebx, 0xfffff000
again:
  mov eax, [ebx + 0x10]
  mov [ebx + 0x10], eax
  xor dword [ebx + 0x10], 0x20
  mov ecx, [0x1000000]
  xor dword [ebx + 0x14], 0x2
  invlpg [0x1400000]
  mov eax, cr3
  mov cr3, eax
  jmp again`,
  "a flush at every access": `main:
  call paging
again:
  add ebx, 0x1000
  and ebx, 0xfff000
  mov eax, [ebx]
  invlpg [ebx]
  mov ecx, cr3
  mov cr3, ecx
  jmp again`,
  "misses at every access": `main:
  call paging
again:
${
    Array.from(
      { length: 64 },
      () => "  add ebx, 0x11000\n  and ebx, 0xfff000\n  mov eax, [ebx]\n  mov [ebx + 8], eax",
    ).join("\n")
  }
  jmp again`,
  "transcendental functions": `main:
  fninit
again:
  fldpi
  fsin
  fptan
  fpatan
  fyl2x
  f2xm1
  fldl2t
  fcos
  fldpi
  fscale
  fprem
  fbstp [0x300000]
  fninit
  jmp again`,
  "long repeats": `main:
  cld
  mov edi, 0x400000
  mov esi, 0x800001
  mov ecx, 0x300000
  rep movsb
  std
  mov edi, 0x7ffffc
  mov ecx, 0x100000
  rep stosd
  cld
  mov ecx, 0xffffffff
  xor edi, edi
  mov al, 0x5a
  mov dword [resume], main
  mov edi, 0x400000
  mov ecx, 0x400000
  repne scasb
  jmp main`,
  "strings from and to ports": `main:
  mov edi, 0x400000
  mov ecx, 0x10000
  mov dx, 0x3fd
  rep insb
  mov esi, 0x400000
  mov ecx, 0x10000
  mov dx, 0x80
  rep outsd
  jmp main`,
  "the keyboard controller's commands": `main:
  mov al, 0xd2
  out 0x64, al
  out 0x60, al
  mov al, 0xd4
  out 0x64, al
  mov al, 0xf2
  out 0x60, al
  mov al, 0xf2
  out 0x60, al
  mov al, 0xee
  out 0x60, al
  mov al, 0x20
  out 0x64, al
  jmp main`,
  "breakpoints of its own": `main:
  mov eax, 0x300000
  mov dr0, eax
  mov eax, patch
  mov dr1, eax
  mov eax, 0xd0007
  mov dr7, eax
  mov dword [resume], again
again:
  mov [0x300000], eax
patch:
  nop
  mov eax, 0xd0005
  mov dr7, eax
  jmp main`,
  "virtualization instructions": `main:
  mov dword [resume], a
  vmcall
a:
  mov dword [resume], b
  vmmcall
b:
  mov dword [resume], c
  xor eax, eax
  vmrun
c:
  mov dword [resume], d
  mov ecx, 0xc0000080
  rdmsr
  or eax, 0x1000
  wrmsr
d:
  mov dword [resume], main
  vmxoff
  jmp main`,
};

/** The guests by name. */
export const guests: Readonly<Record<string, () => Uint8Array>> = Object.fromEntries(
  Object.entries(BODIES).map(([name, body]) => [
    name,
    () => kernel(`${PRELUDE}\n${body}\n`),
  ]),
);
