/**
 * A 64-bit guest that sets every piece of architectural state it can, once, and then reads it back
 * for ever: for the tests of what a switch between domains has to keep apart.
 */
import { assemble } from "../../machine/isa/encode.ts";

/** Where the guest keeps what it reads, and finds what it is to set; guest-physical. */
export const PLACE = {
  load: 0x10_0000,
  /** Rounds done. */
  rounds: 0x20_0000,
  /** MSRs: number, value, value read: 24 bytes each, ended by number 0. */
  msrs: 0x20_1000,
  /** Values to set, 8 bytes each, in the order of `registers`. */
  values: 0x20_2000,
  /** What was read, in the same order. */
  read: 0x20_3000,
  /** An FXSAVE image to load, and the one read. */
  floatIn: 0x20_4000,
  floatOut: 0x20_5000,
  /** Page tables; another top table for the other domain. */
  tables: 0x21_0000,
  otherTop: 0x21_3000,
} as const;

/** Registers in the order of PLACE.values. */
export const registers = [
  ..."cr0 cr2 cr3 cr4 cr8 dr0 dr1 dr2 dr3 dr6 dr7 xcr0".split(" "),
  ..."rax rbx rcx rdx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15".split(" "),
  "rflags",
] as const;

const at = (name: (typeof registers)[number]) => 8 * registers.indexOf(name);
/** General registers that hold their value from round to round. */
const KEPT = ["rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"] as const;
const [CR, DR] = [["cr0", "cr2", "cr3", "cr4", "cr8"], [0, 1, 2, 3, 6, 7].map((n) => `dr${n}`)];

const SOURCE = `
bits 32
org ${PLACE.load}
header:
  dd 0x1badb002, 0x10000, ${-(0x1badb002 + 0x10000) >>> 0}
  dd header, header, 0, 0, start
start:
  ; One gigabyte, mapped to itself by pages of 2 MB, under two top tables.
  mov eax, ${PLACE.tables + 0x1000 + 3}
  mov [${PLACE.tables}], eax
  mov [${PLACE.otherTop}], eax
  mov eax, ${PLACE.tables + 0x2000 + 3}
  mov [${PLACE.tables + 0x1000}], eax
  mov edi, ${PLACE.tables + 0x2000}
  mov eax, 0x83
fill:
  mov [edi], eax
  add edi, 8
  add eax, 0x200000
  cmp eax, 0x40000000
  jb fill
  mov eax, cr4
  or eax, 0x620
  mov cr4, eax
  mov eax, ${PLACE.tables}
  mov cr3, eax
  mov ecx, 0xc0000080
  xor edx, edx
  mov eax, 0x100
  wrmsr
  mov eax, cr0
  or eax, 0x80000000
  mov cr0, eax
  lgdt [descriptor]
  jmp 8:long
align 8
gdt:
  dq 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf93000000ffff
descriptor:
  dw 31
  dd gdt
bits 64
long:
  mov eax, 16
  mov ss, ax
  mov ds, ax
  mov es, ax
  mov fs, ax
  mov gs, ax
  ; What is to be set.
  mov rsi, ${PLACE.msrs}
set_msr:
  mov ecx, [rsi]
  test ecx, ecx
  jz set_registers
  mov eax, [rsi+8]
  mov edx, [rsi+12]
  wrmsr
  add rsi, 24
  jmp set_msr
set_registers:
  mov rsi, ${PLACE.values}
${[...DR, ...CR].map((r) => `mov rax, [rsi+${at(r)}]\nmov ${r}, rax`).join("\n")}
  mov rax, cr4
  test eax, 0x40000
  jz no_xsave
  xor ecx, ecx
  mov eax, [rsi+${at("xcr0")}]
  xor edx, edx
  xsetbv
no_xsave:
  mov rax, ${PLACE.floatIn}
  fxrstor64 [rax]
${KEPT.map((r) => `mov ${r}, [rsi+${at(r)}]`).join("\n")}
round:
  mov rsi, ${PLACE.msrs}
read_msr:
  mov ecx, [rsi]
  test ecx, ecx
  jz read_registers
  rdmsr
  mov [rsi+16], eax
  mov [rsi+20], edx
  add rsi, 24
  jmp read_msr
read_registers:
  mov rdi, ${PLACE.read}
${[...CR, ...DR].map((r) => `mov rax, ${r}\nmov [rdi+${at(r)}], rax`).join("\n")}
  mov rax, cr4
  test eax, 0x40000
  jz no_xgetbv
  xor ecx, ecx
  xgetbv
  mov [rdi+${at("xcr0")}], eax
no_xgetbv:
${KEPT.map((r) => `mov [rdi+${at(r)}], ${r}`).join("\n")}
  mov rax, ${PLACE.floatOut}
  fxsave64 [rax]
  ; The rest of the general registers and the flags hold their values through a wait.
  mov rsi, ${PLACE.values}
  mov rsp, ${PLACE.floatOut + 0x800}
  push qword [rsi+${at("rflags")}]
  popfq
  mov rsp, [rsi+${at("rsp")}]
${["rax", "rbx", "rcx", "rdx", "rdi", "rsi"].map((r) => `mov ${r}, [rsi+${at(r)}]`).join("\n")}
${"nop\n".repeat(200)}
  mov [${PLACE.read + at("rsi")}], rsi
  mov rsi, ${PLACE.read}
${["rax", "rbx", "rcx", "rdx", "rdi"].map((r) => `mov [rsi+${at(r)}], ${r}`).join("\n")}
  mov rsp, ${PLACE.floatOut + 0x800}
  pushfq
  pop qword [rsi+${at("rflags")}]
  mov rsp, [rsi+${PLACE.values - PLACE.read + at("rsp")}]
  inc qword [${PLACE.rounds}]
  jmp round
`;

export const switchGuest = (): Uint8Array => assemble(SOURCE, { mode: 32 }).bytes;
