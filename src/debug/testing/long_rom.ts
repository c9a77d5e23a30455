/**
 * A guest in long mode for tests of the debugger: interrupts, system calls, code at level 3, its own
 * debug registers and traces, devices, ports and page tables. It keeps the log of testing_rom.ts and
 * ends through the exit device.
 */
import { CR0, CR4 } from "../../abi/x86/cr.ts";
import { pic, type Rom, romOf, romStart, set, setCr3, timer } from "./prologue.ts";
import { LOG } from "./rom.ts";

/**
 * End of the log, traps left of a trace, what the handler adds to RFLAGS, interrupts, system calls;
 * what the handler puts into DEBUGCTL if that is not zero, and all that it has found there.
 */
const CELLS = LOG - 4096;
/** In the 32-bit part an absolute address, in the 64-bit one from R8. */
const cell = (n: number, base = "r8") => `[${base} + ${4 * n}]`;

const START = `${romStart}
  mov edi, 0x100000
  xor eax, eax
  mov ecx, 5120
  rep stosd
  ; the first 2 MBytes as they are, but for page 60h; and the devices at the top
  mov dword [0x100000], 0x101007
  mov dword [0x101000], 0x102007
  mov dword [0x101018], 0x103007
  mov dword [0x102000], 0x104007
  mov dword [0x103fb0], 0xfec00087
  mov dword [0x103fb8], 0xfee00087
  mov edi, 0x104000
  mov eax, 7
  mov ecx, 512
table:
  mov [edi], eax
  add eax, 4096
  add edi, 8
  dec ecx
  jnz table
  mov dword [0x104300], 0
  ; gates of 16 bytes; #PF on a stack of its own
  mov edi, 0x21000
  xor ecx, ecx
gates:
  mov eax, ecx
  shl eax, 4
  add eax, 0xf0000 + stubs
  and eax, 0xffff
  or eax, 0x80000
  mov [edi], eax
  mov dword [edi + 4], 0xfee00
  add edi, 16
  inc ecx
  cmp ecx, 48
  jb gates
  mov dword [0x210e4], 0xfee01
  mov word [0x22000], 767
  mov dword [0x22002], 0x21000
  mov esi, 0xf0000 + descriptors
  mov edi, 0x22100
  mov ecx, 16
  rep movsd
  mov dword [0x23004], 0x17000
  mov dword [0x23024], 0x16000
  mov dword [0x23064], 0x680000
  mov word [0x22010], 63
  mov dword [0x22012], 0x22100
  lidt [0x22000]
  lgdt [0x22010]
  mov dword [${CELLS}], ${LOG}
${setCr3(0x100000)}
${set("cr4", CR4.PAE | CR4.DE)}
  mov ecx, 0xc0000080
  rdmsr
  or eax, 0x101
  wrmsr
${set("cr0", CR0.PG)}
  db 0xea
  dd 0xf0000 + long
  dw 8
align 8
gdt:
descriptors:
  dq 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff, 0x00cff3000000ffff, 0x00affb000000ffff
  dq 0x0000890230000067, 0
gdtr:
  dw 23
  dd 0xf0000 + flat_gdt
align 8
flat_gdt:
  dq 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
text:
  db "strings out "
bits 64
handler:
  push rax
  push rbx
  push rdi
  mov ebx, ${CELLS}
  mov eax, [rsp + 24]
  cmp eax, 32
  jae interrupt
  cmp eax, 14
  jne logged
  mov edi, 0x104300
  mov dword [rdi], 0x60007
logged:
  mov edi, [rbx]
  mov [rdi], eax
  mov rax, [rsp + 40]
  mov [rdi + 4], eax
  mov rax, [rsp + 56]
  mov [rdi + 8], eax
  mov rax, dr6
  mov [rdi + 12], eax
  mov eax, 0xffff0ff0
  mov dr6, rax
  add dword [rbx], 16
  ; the last of so many traps ends a trace
  cmp dword ${cell(5, "rbx")}, 0
  je counted
  push rcx
  push rdx
  mov ecx, 0x1d9
  rdmsr
  or ${cell(6, "rbx")}, eax
  mov eax, ${cell(5, "rbx")}
  xor edx, edx
  wrmsr
  pop rdx
  pop rcx
counted:
  dec dword ${cell(1, "rbx")}
  jnz traced
  and dword [rsp + 56], 0xfffffeff
traced:
  mov eax, ${cell(2, "rbx")}
  or [rsp + 56], eax
back:
  pop rdi
  pop rbx
  pop rax
  add rsp, 16
  iretq
interrupt:
  cmp eax, 46
  je supervisor
  cmp eax, 47
  je back
  mov al, 0x20
  out 0x20, al
  inc dword ${cell(3, "rbx")}
  jmp back
; what level 3 leaves by
supervisor:
  mov rsp, 0x18000
  jmp timed
service:
  inc dword ${cell(4)}
  nop
  db 0x48
  sysret
align 16
stubs:
${
  Array.from(
    { length: 48 },
    (_, n) => `${n === 14 ? "" : "  push 0\n"}  push ${n}\n  jmp handler\n  align 16`,
  ).join("\n")
}
`;

const arm = (address: string, dr7: number, flags = 0) => `
  mov dword ${cell(2)}, ${flags}
  mov eax, ${address}
  mov dr0, rax
  mov eax, ${0x400 | dr7}
  mov dr7, rax`;
const DISARM = "  xor eax, eax\n  mov dr7, rax\n  mov dword [r8 + 8], 0";
const EXECUTE = 1, WRITE8 = 0x9_0001, ACCESS4 = 0xf_0001, PORT = 0x2_0001, RF = 0x1_0000;

const trace = (traps: number) => `
  mov dword ${cell(1)}, ${traps}
  pushfq
  or dword [rsp], 0x100
  popfq`;

const LONG = `
long:
  mov eax, 16
  mov ss, eax
  mov ds, eax
  mov es, eax
  mov rsp, 0x18000
  mov eax, 48
  ltr ax
  mov r8d, ${CELLS}
  mov r9d, 0xfee00000
  mov r10d, 0x104000
  mov ecx, 0xc0000081
  xor eax, eax
  mov edx, 0x180008
  wrmsr
  mov ecx, 0xc0000082
  mov eax, 0xf0000 + service
  xor edx, edx
  wrmsr
  mov ecx, 0xc0000084
  mov eax, 0x200
  wrmsr
mmio:
  mov eax, [r9 + 0x20]
  mov dword [r9 + 0x80], 0x20
  xor dword [r9 + 0x80], 0x10
  lea rsi, [r9 + 0x80]
  mov edi, 0x40000
  movsd
  mov dword [r9 + 0x80], 0
  mov al, 0x0d
  out 0x70, al
  mov dx, 0x71
  mov edi, 0x41000
  mov ecx, 5
ins:
  rep insb
  mov esi, 0xf0000 + text
  mov dx, 0x3f8
  mov ecx, 12
outs:
  rep outsb
tables:
  mov dword [r10 + 0x280], 0x51007
  mov edi, 0x50000
  invlpg [rdi]
  mov dword [rdi], 0x1234
  add qword [r10 + 0x280], 0x1000
  invlpg [rdi]
  mov [rdi], rax
  lea rsi, [r9 + 0x80]
  mov edi, 0x60000
missing:
  movsd
  mov edi, 0x42000
${arm("0x42000", WRITE8)}
  mov [rdi], rax
  add dword [rdi + 4], 2
${arm("0xfee00080", ACCESS4)}
  mov eax, [r9 + 0x80]
  mov [r9 + 0x80], eax
${arm("0x104290", WRITE8)}
  mov dword [r10 + 0x290], 0x54007
  mov dword [r10 + 0x298], 0x55007
${arm("0x80", PORT)}
  out 0x80, al
  mov dx, 0x80
  mov esi, 0x41000
  mov ecx, 2
  rep outsb
${arm("0xf0000 + x1", EXECUTE, RF)}
  nop
x1:
  mov eax, [r9 + 0x20]
${arm("0xf0000 + x2", EXECUTE, RF)}
  mov eax, 0x55007
x2:
  mov [r10 + 0x290], eax
${DISARM}
${trace(26)}
  nop
  cpuid
  in al, 0x61
  mov eax, [r9 + 0x20]
  mov [r10 + 0x298], eax
  mov eax, 16
  mov ss, eax
  nop
  mov ss, eax
  cpuid
  mov ecx, 0xc0000080
  rdmsr
  wrmsr
  rdtsc
  xor eax, eax
  mov rcx, cr4
  mov cr4, rcx
  mov rcx, cr3
  mov cr3, rcx
  mov rcx, cr0
  mov cr0, rcx
  pushfq
  popfq
  int 47
  int3
  db 0xf1
  sti
  nop
  cli
  nop
  nop
  nop
  nop
  nop
; a trace of branches only
  mov dword ${cell(5)}, 2
  mov ecx, 0x1d9
  mov eax, 2
  xor edx, edx
  wrmsr
${trace(7)}
  nop
  cpuid
  in al, 0x61
  mov eax, [r9 + 0x20]
  jmp b1
  nop
b1:
  xor eax, eax
  jnz b2
  jz b2
  nop
b2:
  mov ecx, 2
b3:
  loop b3
  mov esi, 0x41000
  mov edi, 0x41800
  mov ecx, 3
  rep movsb
  mov dx, 0x80
  mov ecx, 2
  rep outsb
  call b4
b5:
  mov eax, 16
  mov ss, eax
  jmp b6
b4:
  cpuid
  ret
b6:
  int 47
  out 0x80, al
  jmp b7
  nop
b7:
  nop
  mov dword ${cell(5)}, 0
  mov ecx, 0x1d9
  xor eax, eax
  xor edx, edx
  wrmsr
; level 3, with ports and a trace
  push 0x23
  push 0x17800
  push 0x3202
  push 0x2b
  push 0xf0000 + user
  iretq
user:
  mov edi, 0x43000
  mov ecx, 4
  rep stosq
  syscall
  in al, 0x61
${trace(14)}
  nop
  syscall
  cpuid
  mov eax, [r9 + 0x20]
  mov [rdi], rax
  int 47
  int3
  mov eax, 0x61
  xor eax, eax
  nop
  nop
  nop
  nop
  nop
  nop
  nop
  nop
  int 46
`;

/** Interrupts, in the midst of strings too. */
const TIMED = `
timed:
${pic(0xfe)}
${timer(3)}
${arm("0xf0000 + x3", EXECUTE, RF)}
  sti
  mov r12d, 3
copies:
  mov esi, 0x41000
  mov edi, 0x44000
  mov ecx, 3000
x3:
  rep movsb
  mov eax, [r9 + 0x20]
  mov [r10 + 0x2a0], rax
  hlt
  dec r12d
  jnz copies
  cli
${DISARM}
done:
  mov al, 'L'
  mov dx, 0x3f8
  out dx, al
  mov al, 0
  out 0xf4, al
  hlt
`;

/** The ROM, and its labels as linear addresses. */
export const longRom = (): Rom => romOf(START + LONG + TIMED);
