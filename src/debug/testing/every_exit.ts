/**
 * A guest that leaves in every way there is, round after round: for the tests of what is to hold at
 * every kind of stop. It has paging, timer interrupts every 20 us, NMIs, task switches and faults,
 * port and memory-mapped devices, strings, and a console.
 */
import { CR4 } from "../../abi/x86/cr.ts";
import { assembleKernel } from "./hosts.ts";
import { flat, gates, oneToOne, pagingOn, pic, timer } from "./prologue.ts";

const STACK = 0x28_0000, TASK_STACK = 0x29_0000, IDT = 0x2a_0000, BUFFER = 0x2b_0000;
const PD = 0x30_0000, PT = 0x30_1000;

let labels = 0;
/** An instruction that may fault: the handler goes on behind it. */
const may = (code: string): string => {
  const label = `behind${labels++}`;
  return `  mov ebp, ${label}\n  ${code}\n${label}:`;
};

const source = (cpu: "intel" | "amd"): string => `
  cli
  mov esp, ${STACK}
${flat()}
  ; gates of 64 vectors
${gates(IDT, "stubs", 64, 16)}
  lidt [idtr]
  ; 4 MB to themselves in small pages; the APICs and a device in large ones
${oneToOne(PT, 3)}
  mov dword [${PD}], ${PT + 3}
  mov dword [${PD + 4 * 0x3fb}], 0xfec00083
  mov dword [${PD + 4 * 0x340}], 0xd0000083
${pagingOn(PD, CR4.PSE)}
  ; task states
  mov eax, first
  mov [gdt+24+2], ax
  shr eax, 16
  mov [gdt+24+4], al
  mov eax, second
  mov [gdt+32+2], ax
  shr eax, 16
  mov [gdt+32+4], al
  mov ax, 24
  ltr ax
  ; the 8259s at 20h and 28h, all but the timer masked; the timer every 20 us
${pic(0xfe)}
${timer(24)}
round:
  mov al, 0x2e
  mov dx, 0x3f8
  out dx, al
  xor eax, eax
  cpuid
${may("mov ecx, 0x1b\n  rdmsr")}
${may("mov ecx, 0x277\n  rdmsr\n  wrmsr")}
  sti
  nop
strings:
  ; strings, into and out of memory, and to a device
  cld
  mov edi, ${BUFFER}
  mov ecx, 20
  mov dx, 0x3fd
  rep insb
  mov esi, ${BUFFER}
  mov ecx, 9
  mov dx, 0x80
  rep outsb
  mov esi, ${BUFFER}
  mov edi, ${BUFFER + 0x800}
  mov ecx, 300
  rep movsb
  mov eax, [0xfee00020]
  add dword [0xd0000010], 1
  push dword [0xfee00030]
  pop eax
registers:
  ; control and debug registers
  mov eax, cr0
  mov cr0, eax
  xor eax, 8
  mov cr0, eax
  clts
  smsw eax
  lmsw ax
  mov eax, cr3
  mov cr3, eax
  mov eax, cr4
  xor eax, 4
  mov cr4, eax
  mov eax, dr0
  mov dr0, eax
  invlpg [${BUFFER}]
  sgdt [${BUFFER}]
  sidt [${BUFFER}]
  str ax
  sldt ax
  rdtsc
  pause
  wbinvd
  invd
${may("rdpmc")}
${may("rdrand eax")}
${may("rdseed eax")}
${may("monitor")}
${may("mwait")}
${may("mov eax, cr4\n  or eax, 0x40000\n  mov cr4, eax\n  xor ecx, ecx\n  xgetbv\n  xsetbv")}
${may(`mov dword [${BUFFER}], 0\n  mov eax, 2\n  invpcid eax, [${BUFFER}]`)}
${may(cpu === "intel" ? "vmcall" : "vmmcall")}
${may(cpu === "intel" ? "vmxoff" : "clgi")}
${may("ud2")}
${may("mov eax, [0xc0000000]")}
${may("int3")}
${may("db 0xf1")}
${may("xor edx, edx\n  xor ecx, ecx\n  div ecx")}
  int 0x30
  pushfd
  popfd
  call 32:0
  ; a page-table entry
  mov eax, [${PT + 4 * 700}]
  mov [${PT + 4 * 700}], eax
  mov eax, [${700 * 4096}]
  ; an NMI, and another one while it is handled
  mov dword [0xfee00310], 0
  mov dword [0xfee00300], 0x4400
  nop
  ; traced
  pushfd
  or dword [esp], 0x100
${may("popfd\n  nop\n  nop")}
  mov esp, ${STACK}
  ; interrupts wait
  cli
  mov ecx, 24000
wait:
  loop wait
  sti
  mov ax, 16
  mov ss, ax
  nop
  hlt
  jmp round
task:
  iretd
  jmp task
exception:
  mov esp, ${STACK}
  jmp ebp
nmi:
  add esp, 4
  xor byte [nested], 1
  jz again
  mov dword [0xfee00300], 0x4400
again:
  iretd
interrupt:
  push eax
  mov al, 0x20
  out 0x20, al
  pop eax
  add esp, 4
  iretd
software:
  add esp, 4
  iretd
nested: dd 0
align 8
gdt:
  dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x0000890000000067, 0x0000890000000067
gdtr:
  dw 39
  dd gdt
idtr:
  dw 511
  dd ${IDT}
align 16
first:
  dd 0, 0, 0, 0, 0, 0, 0
  dd ${PD}
  ${"dd 0\n  ".repeat(18)}
second:
  dd 0, 0, 0, 0, 0, 0, 0
  dd ${PD}
  dd task, 2, 0, 0, 0, 0, ${TASK_STACK}, 0, 0, 0
  dd 16, 8, 16, 16, 16, 16, 0, 0
align 16
stubs:
${
  Array.from({ length: 64 }, (_, n) => {
    const to = n === 2 ? "nmi" : n < 32 ? "exception" : n === 48 ? "software" : "interrupt";
    return `  push dword ${n}\n  jmp ${to}\n  align 16`;
  }).join("\n")
}
`;

/** Its image, for a vendor's processor. */
export const everyExit = (cpu: "intel" | "amd"): Uint8Array => everyExitKernel(cpu).bytes;
/** And where its labels are. */
export const everyExitKernel = (cpu: "intel" | "amd") => assembleKernel(source(cpu));
