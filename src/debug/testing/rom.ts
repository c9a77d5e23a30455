/**
 * A guest for tests of the debugger: 32-bit code with paging and a timer, all that an emulator is
 * needed for, and all that a guest can ask of its own debug registers. What its handlers find lies in
 * a log; it ends through the exit device.
 */

import { CR0, CR4 } from "../../abi/x86/cr.ts";
import { pic, type Rom, romOf, romStart, set, setCr3, timer } from "./prologue.ts";

/** Where the log begins: records of vector, EIP, EFLAGS and DR6. The pointer to its end is LOG - 4096. */
export const LOG = 0x30000;
const CELLS = LOG - 4096;

/** DR0 and DR7 for one breakpoint, and what the handler of #DB adds to EFLAGS. */
const arm = (address: string, dr7: number, flags = 0) => `
  mov dword [${CELLS + 8}], ${flags}
  mov eax, ${address}
  mov dr0, eax
  mov eax, ${0x400 | dr7}
  mov dr7, eax`;
const DISARM = "  xor eax, eax\n  mov dr7, eax";
const EXECUTE = 1, WRITE4 = 0xd_0001, WRITE1 = 0x1_0001, ACCESS4 = 0xf_0001, PORT = 0x2_0001;
const RF = 0x1_0000;

const START = `${romStart}
  mov dword [${CELLS}], ${LOG}
  mov edi, 0x21000
  xor ecx, ecx
gates:
  lea eax, [0xf0000 + ecx*8 + stubs]
  and eax, 0xffff
  or eax, 0x80000
  mov [edi], eax
  mov dword [edi + 4], 0xf8e00
  add edi, 8
  inc ecx
  cmp ecx, 48
  jb gates
  mov word [0x22000], 383
  mov dword [0x22002], 0x21000
  lidt [0x22000]
  ; a GDT that can be written: code, data, two tasks at 23000h and 24000h
  mov esi, 0xf0000 + descriptors
  mov edi, 0x22100
  mov ecx, 10
  rep movsd
  mov word [0x22000], 39
  mov dword [0x22002], 0x22100
  lgdt [0x22000]
  mov ax, 24
  ltr ax
  ; paging: the first 4 MBytes as they are, and the devices at the top
  mov dword [0x100000], 0x101003
  mov dword [0x100fec], 0xfec00083
  mov edi, 0x101000
  mov eax, 3
  mov ecx, 1024
table:
  mov [edi], eax
  add eax, 4096
  add edi, 4
  dec ecx
  jnz table
${setCr3(0x100000)}
${set("cr4", CR4.PSE | CR4.DE)}
${set("cr0", CR0.PG)}
  jmp main
handler:
  pushad
  cmp dword [esp + 32], 32
  jae interrupt
  mov edi, [${CELLS}]
  mov eax, [esp + 32]
  mov [edi], eax
  mov eax, [esp + 36]
  mov [edi + 4], eax
  mov eax, [esp + 44]
  mov [edi + 8], eax
  mov eax, dr6
  mov [edi + 12], eax
  mov eax, 0xffff0ff0
  mov dr6, eax
  add dword [${CELLS}], 16
  ; the last of so many traps ends a trace
  dec dword [${CELLS + 4}]
  jnz traced
  and dword [esp + 44], 0xfffffeff
traced:
  mov eax, [${CELLS + 8}]
  or [esp + 44], eax
  popad
  add esp, 4
  iretd
interrupt:
  mov al, 0x20
  out 0x20, al
  inc dword [${CELLS + 12}]
  popad
  add esp, 4
  iretd
align 8
gdt:
descriptors:
  dq 0, 0x00cf9a000000ffff, 0x00cf92000000ffff, 0x0000890230000067, 0x0000890240000067
gdtr:
  dw 23
  dd 0xf0000 + gdt
text:
  db "strings out "
align 8
stubs:
${Array.from({ length: 48 }, (_, n) => `  push ${n}\n  jmp handler\n  align 8`).join("\n")}
main:
`;

/** Accesses to devices and to page tables, and strings. */
const EMULATED = `
mmio:
  mov eax, [0xfee00020]
  mov dword [0xfee00080], 0x20
  push dword [0xfee00080]
  pop dword [0x40000]
  mov esi, 0xfee00080
  mov edi, 0x40004
  movsd
  xor dword [0xfee00080], 0x10
  mov dword [0xfec00000], 1
  mov eax, [0xfec00010]
  mov dword [0xfee00080], 0
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
  mov dword [0x101140], 0x51003
  invlpg [0x50000]
  mov dword [0x50000], 0x1234
  mov eax, [0x51000]
  add dword [0x101140], 0x1000
  invlpg [0x50000]
  mov [0x50000], eax
  mov esi, 0x101140
  mov edi, 0x101180
  mov ecx, 3
  rep movsd
  mov eax, [0x60000]
`;

/** The guest's own breakpoints and traces. */
const DEBUGGED = `
${arm("0x42000", WRITE4)}
  mov eax, [0x42000]
  mov [0x42000], eax
  add dword [0x42000], 2
  mov esp, 0x42004
  push eax
  mov esp, 0x18000
${arm("0xfee00080", ACCESS4)}
  mov eax, [0xfee00080]
  mov [0xfee00080], eax
  push dword [0xfee00080]
  pop eax
${arm("0x101150", WRITE4)}
  mov dword [0x101150], 0x54003
  mov dword [0x101154], 0x55003
${arm("0x41002", WRITE1)}
  mov edi, 0x41000
  mov dx, 0x71
  mov ecx, 5
  rep insb
  mov esi, 0xf0000 + text
  mov edi, 0x41000
  mov ecx, 5
  rep movsb
${arm("0x80", PORT)}
  out 0x80, al
  in al, 0x80
  mov dx, 0x80
  mov esi, 0x41000
  mov ecx, 2
  rep outsb
  out 0x81, al
${arm("0xf0000 + x1", EXECUTE, RF)}
  nop
x1:
  mov eax, [0xfee00020]
${arm("0xf0000 + x2", EXECUTE, RF)}
  xor eax, eax
x2:
  cpuid
${arm("0xf0000 + x3", EXECUTE, RF)}
  mov esi, 0x41000
  mov edi, 0x41800
  mov ecx, 300
x3:
  rep movsb
${arm("0xf0000 + x4", EXECUTE, RF)}
  mov esi, 0x41000
  mov dx, 0x80
  mov ecx, 4
x4:
  rep outsb
${arm("0xf0000 + x5", EXECUTE, RF)}
  mov ecx, 3
x5:
  dec ecx
  jnz x5
${arm("0xf0000 + x6", EXECUTE, RF)}
  mov eax, 0x55003
x6:
  mov [0x101150], eax
${DISARM}
  mov dword [${CELLS + 8}], 0
trace:
  mov dword [${CELLS + 4}], 26
  pushfd
  or dword [esp], 0x100
  popfd
  nop
  cpuid
  in al, 0x61
  out 0x80, al
  mov eax, [0xfee00020]
  mov [0x101150], eax
  mov bp, 16
  mov ss, bp
  nop
  mov ss, bp
  cpuid
  mov ss, bp
  mov eax, [0xfee00020]
  push ss
  pop ss
  in al, 0x61
  mov esi, 0x41000
  mov edi, 0x41800
  mov ecx, 3
  rep movsb
  mov esi, 0x41000
  mov dx, 0x80
  mov ecx, 2
  rep outsb
  sti
  nop
  cli
  int3
  nop
  db 0xf1
  nop
  nop
  nop
  nop
  nop
  nop
tasks:
  mov dword [0x24020], 0xf0000 + task
  mov dword [0x2401c], 0x100000
  mov dword [0x24024], 2
  mov dword [0x24038], 0x17000
  mov dword [0x24048], 16
  mov dword [0x2404c], 8
  mov dword [0x24050], 16
  mov dword [0x24054], 16
  mov dword [0x24064], 0x680001
  mov dword [0x2301c], 0x100000
  mov dword [0x23064], 0x680000
  db 0xea
  dd 0
  dw 32
back:
  jmp timed
task:
  nop
  mov dword [0x43000], 7
  db 0xea
  dd 0
  dw 24
`;

/** Interrupts, in the midst of strings too. */
const TIMED = `
timed:
${pic(0xfe)}
${timer(3)}
${arm("0xf0000 + x7", EXECUTE, RF)}
  sti
  mov ebx, 3
copies:
  mov esi, 0x41000
  mov edi, 0x44000
  mov ecx, 4000
x7:
  rep movsb
  mov eax, [0xfee00020]
  mov [0x101158], eax
  hlt
  dec ebx
  jnz copies
  cli
${DISARM}
done:
  mov al, 'D'
  mov dx, 0x3f8
  out dx, al
  mov al, 0
  out 0xf4, al
  hlt
`;

/** Where the log of the guest in real mode begins: IP and DR6 as words; its end is in the word at LOG16 - 16. */
export const LOG16 = 0x800;

const REAL = `
bits 16
org 0
  cli
  xor ax, ax
  mov ds, ax
  mov es, ax
  mov ss, ax
  mov sp, 0x7000
  cld
  mov word [4], trap
  mov word [6], 0xf000
  mov word [0x80], soft
  mov word [0x82], 0xf000
  mov word [${LOG16 - 16}], ${LOG16}
  jmp main
trap:
  push bp
  mov bp, sp
  push eax
  push bx
  mov bx, [${LOG16 - 16}]
  mov ax, [bp + 2]
  mov [bx], ax
  mov eax, dr6
  mov [bx + 2], ax
  mov eax, 0xffff0ff0
  mov dr6, eax
  add word [${LOG16 - 16}], 4
  dec word [${LOG16 - 14}]
  jnz traced
  and word [bp + 6], 0xfeff
traced:
  pop bx
  pop eax
  pop bp
  iret
soft:
  inc word [${LOG16 - 12}]
  iret
main:
  mov dx, 0x3f8
  mov al, 'R'
  out dx, al
  in al, 0x61
  pushf
  popf
software:
  int 0x20
  mov si, 0xf000
  mov ds, si
  mov si, main
  mov di, 0x600
  mov cx, 40
copy:
  rep movsb
  mov si, main
  mov dx, 0x80
  mov cx, 3
outs:
  rep outsb
  mov ds, cx
  mov dx, 0x71
  mov di, 0x610
  mov cx, 4
ins:
  rep insb
  mov bx, 0xb800
  mov es, bx
screen:
  mov word [es:0], 0x741
  mov ax, [es:0]
  sti
  cli
  mov eax, 0x620
  mov dr0, eax
  mov eax, 0xd0401
  mov dr7, eax
  mov [0x620], ax
  mov es, cx
  mov di, 0x61e
  mov dx, 0x71
  mov cx, 4
data:
  rep insb
  mov eax, 0x7ffe
  mov sp, 0x622
  push ax
  mov sp, 0x7000
  xor eax, eax
  mov dr7, eax
  mov word [${LOG16 - 14}], 15
  pushf
  pop ax
  or ax, 0x100
  push ax
  popf
traces:
  nop
  in al, 0x61
  out 0x80, al
  int 0x20
  mov ax, ss
  mov ss, ax
  nop
  mov ss, ax
  in al, 0x61
  mov si, 0x600
  mov dx, 0x80
  mov cx, 2
  rep outsb
  sti
  cli
  nop
  nop
  nop
  nop
  mov dx, 0x3f8
  mov al, 'E'
  out dx, al
  mov al, 0
  out 0xf4, al
  hlt
`;

/** A guest in real mode, which on some hardware is another mode or emulated. */
export const realRom = (): Rom => romOf(REAL);

/** The ROM, and its labels as linear addresses. */
export const debuggedRom = (): Rom => pagedRom(EMULATED + DEBUGGED + TIMED);

/** A ROM that runs a program in 32-bit code with paging, and its labels as linear addresses. */
export const pagedRom = (program: string): Rom => romOf(START + program);
