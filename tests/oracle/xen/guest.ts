/**
 * The guest of the Xen oracle: a PVH kernel of a few hundred instructions that runs a program of
 * steps (see program.ts), which it finds as its first module, and says on the console what came of
 * each. It is assembled in two widths: 32 bits without paging, 64 bits with pages one to one.
 *
 * Each step that answers prints a line `=SSSSxx..`: the number of the step and bytes, in
 * hexadecimal. A step that faults prints `!SSSSvv`, the vector. The last line is a dot.
 *
 * @module
 */
import { offsetOf } from "../../../src/abi/layout.ts";
import { XEN_ELFNOTE } from "../../../src/abi/xen/elfnote.ts";
import { HVM_START_INFO } from "../../../src/abi/xen/hvm/start_info.ts";
import { VCPU_TIME_INFO } from "../../../src/abi/xen/xen.ts";
import { CR0, CR4 } from "../../../src/abi/x86/cr.ts";
import { le32, note, tinyElf } from "../../../src/builder/testing.ts";
import { assemble } from "../../../src/machine/isa/encode.ts";

/** Where the guest prints: Xen shows what a domain of hardware kind writes to this port. */
export const DEBUG_PORT = 0xe9;

/** Width of the guest's code, and so of its hypercalls. */
export type Width = 32 | 64;

/** Where the guest is loaded and entered. */
const LOAD = 0x10_0000;
/** Its second vCPU can begin here: 32 bits, flat, no paging. */
export const SECOND_ENTRY = LOAD + 0x10;
/** The hypercall page. */
export const HYPERCALL_PAGE = 0x10_f000;
/** The arena: memory that programs use, {@linkcode ARENA_SIZE} bytes, zero at first. */
export const ARENA = 0x40_0000;
export const ARENA_SIZE = 0x20_0000;

/** Words of the arena's first page that the guest itself uses; programs begin after them. */
export const OWN = {
  /** The domain's number, as CPUID says it. */
  domid: 0x00,
  /** First of Xen's CPUID leaves. */
  leaf: 0x04,
  /** How often the second vCPU was entered. */
  entered: 0x10,
  /** While this is not 0 the second vCPU yields in a loop; then it halts for good. */
  run: 0x14,
  /** Address of the byte that an interrupt clears (evtchn_upcall_pending), or 0. */
  upcall: 0x20,
  /** Not 0: an interrupt ends with a write to the local APIC's EOI register. */
  eoi: 0x24,
  /** Interrupts by vector, 4 bytes each. */
  interrupts: 0x400,
  /** Free for programs from here on. */
  free: 0x1000,
} as const;

/** Steps by name: the first byte of each. Operands are in program.ts. */
export const STEP = {
  end: 0,
  set: 1,
  copy: 2,
  fill: 3,
  call: 4,
  dump: 5,
  cpuid: 6,
  rdmsr: 7,
  wrmsr: 8,
  wait: 9,
  interrupts: 10,
  later: 11,
} as const;

/** How an argument of a hypercall is found: as it is, in the arena, read there (4 or all bytes). */
export const ARGUMENT = { plain: 0, arena: 1, word: 2, natural: 3 } as const;

const CODE32 = 8, DATA = 16, CODE64 = 24;

/** Code that both widths share is written with these names; 64-bit code has no push of 32 bits. */
function names(width: Width) {
  const r = width === 64 ? "r" : "e";
  return {
    r,
    bytes: width / 8,
    word: width === 64 ? "dq" : "dd",
    args: width === 64 ? ["rdi", "rsi", "rdx", "r10", "r8"] : ["ebx", "ecx", "edx", "esi", "edi"],
    iret: width === 64 ? "iretq" : "iretd",
  };
}

/** From the PVH entry (32 bits, flat, unpaged) to the width of the guest. */
function enter(width: Width): string {
  if (width === 32) {
    return `
  lgdt [gdtr]
  jmp ${CODE32}:.flat
.flat:
${segments}`;
  }
  return `
  mov edi, pages
  mov dword [edi], pages + 0x1003
  mov ecx, 4
  lea esi, [edi + 0x1000]
  mov eax, pages + 0x2003
.pointer:
  mov [esi], eax
  add esi, 8
  add eax, 0x1000
  loop .pointer
  lea esi, [edi + 0x2000]
  mov eax, 0x83
  mov ecx, 2048
.page:
  mov [esi], eax
  add esi, 8
  add eax, 0x200000
  loop .page
  mov eax, cr4
  or eax, ${CR4.PAE}
  mov cr4, eax
  mov cr3, edi
  mov ecx, 0xc0000080
  rdmsr
  or eax, 0x100
  wrmsr
  mov eax, cr0
  or eax, ${CR0.PG >>> 0}
  mov cr0, eax
  lgdt [gdtr]
  jmp ${CODE64}:.long
bits 64
.long:
${segments}`;
}

const segments = ["ds", "es", "fs", "gs", "ss"]
  .reduce((text, s) => `${text}  mov ${s}, ax\n`, `  mov ax, ${DATA}\n`);

/** EAX: handler, EDI: its gate; EDI goes on to the next. */
function setGate(width: Width): string {
  return `
set_gate:
  mov [${names(width).r}di], ax
  mov word [${names(width).r}di + 2], ${width === 64 ? CODE64 : CODE32}
  mov word [${names(width).r}di + 4], 0x8e00
  shr eax, 16
  mov [${names(width).r}di + 6], ax
  add edi, ${width === 64 ? 16 : 8}
  ret`;
}

/** One entry for each vector: they push its number. Eight of the exceptions push a code as well. */
function stubs(): string {
  const lines = [];
  for (let vector = 0; vector < 256; vector++) {
    lines.push(
      `align 16\n  push ${vector < 128 ? vector : vector - 256}\n  jmp ${
        vector < 32 ? "fault" : "interrupt"
      }`,
    );
  }
  return lines.join("\n");
}

function source(width: Width): string {
  const { r, bytes, word, args, iret } = names(width);
  const [ax, bp, dx, si, di, sp] = ["ax", "bp", "dx", "si", "di", "sp"].map((name) => r + name);
  const time = (path: "tsc_timestamp" | "system_time" | "tsc_to_system_mul" | "tsc_shift") =>
    offsetOf(VCPU_TIME_INFO, path, width);
  return `
bits 32
org ${LOAD}
ARENA equ ${ARENA}
  jmp start
align 16
; The second vCPU: it counts itself, yields while it is told to, and goes down.
second:
  lock inc dword [ARENA + ${OWN.entered}]
.yield:
  cmp dword [ARENA + ${OWN.run}], 0
  je .down
  mov esp, second_stack
  mov ebx, 0
  mov eax, 29
  call ${HYPERCALL_PAGE} + 29 * 32
  jmp .yield
.down:
  cli
  hlt
  jmp .down

start:
  mov esp, stack
  mov ebp, ebx
${enter(width)}
  mov esp, stack
  call set_up
  mov esi, ebp
  mov esi, [${si} + ${offsetOf(HVM_START_INFO, "modlist_paddr", 64)}]
  mov eax, [${si}]
  mov [pc], eax

; Runs the next step. Every step reads its operands at ESI and saves it before it acts.
main:
  mov esp, stack
  mov esi, [pc]
  inc dword [step]
  lodsd
  movzx eax, al
  cmp eax, ${Object.keys(STEP).length}
  jae unknown
  jmp [table + ${ax} * ${bytes}]

unknown:
  mov al, '?'
  call begin
  call finish
  jmp stop

end_:
  dec dword [step]
  mov edi, line
  mov al, '.'
  stosb
  call finish
stop:
  mov ${args[0]}, 2
  mov ${args[1]}, reason
  call ${HYPERCALL_PAGE} + 29 * 32
  cli
  hlt
  jmp stop

; place, length, bytes padded to 4
set_:
  lodsd
  lea edi, [${ax} + ARENA]
  lodsd
  mov ecx, eax
  lea ebx, [${ax} + 3]
  and ebx, 0xfffffffc
  add ebx, esi
  mov [pc], ebx
  ; Words as words: a local APIC's registers are nothing less.
  shr ecx, 2
  rep movsd
  mov ecx, eax
  and ecx, 3
  rep movsb
  jmp main

; to, from, length
copy_:
  lodsd
  lea edi, [${ax} + ARENA]
  lodsd
  lea ebx, [${ax} + ARENA]
  lodsd
  mov ecx, eax
  mov [pc], esi
  mov esi, ebx
  rep movsb
  jmp main

; place, length, byte
fill_:
  lodsd
  lea edi, [${ax} + ARENA]
  lodsd
  mov ecx, eax
  lodsd
  mov [pc], esi
  rep stosb
  jmp main

; number, count | direct << 8, then of each argument: kind, low, high
call_:
  lodsd
  mov [number], eax
  lodsd
  movzx ecx, al
  mov [direct], ah
  mov edi, values
.argument:
  jecxz .ready
  lodsd
  mov ebx, eax
  lodsd
  mov edx, eax
  lodsd
  cmp ebx, ${ARGUMENT.plain}
  je .plain
  add edx, ARENA
  cmp ebx, ${ARGUMENT.arena}
  je .short
  cmp ebx, ${ARGUMENT.word}
  je .word
  mov ${dx}, [${dx}]
  jmp .store
.word:
  mov edx, [${dx}]
.short:
  xor eax, eax
.plain:
${width === 64 ? "  shl rax, 32\n  or rdx, rax" : ""}
.store:
  mov [${di}], ${dx}
  add edi, ${bytes}
  dec ecx
  jmp .argument
.ready:
  mov [pc], esi
  mov eax, [number]
  cmp byte [direct], 0
  jne .direct
  shl eax, 5
  add eax, ${HYPERCALL_PAGE}
  mov [target], eax
  jmp .load
.direct:
  mov dword [target], trap
.load:
${args.map((name, i) => `  mov ${name}, [values + ${i * bytes}]`).join("\n")}
  mov eax, [number]
  call [target]
  mov [values], ${ax}
  mov al, '='
  call begin
  mov esi, values
  mov ecx, ${bytes}
  call hex
  call finish
  jmp main

; place, length
dump_:
  lodsd
  lea ebx, [${ax} + ARENA]
  lodsd
  mov [pc], esi
  mov esi, ebx
  mov ebp, eax
.line:
  mov al, '='
  call begin
  mov ecx, 48
  cmp ebp, ecx
  jae .part
  mov ecx, ebp
.part:
  sub ebp, ecx
  call hex
  push ${si}
  call finish
  pop ${si}
  test ebp, ebp
  jnz .line
  jmp main

; leaf (plus 40000000h: plus Xen's first), subleaf
cpuid_:
  lodsd
  mov edi, eax
  lodsd
  mov ecx, eax
  mov [pc], esi
  mov eax, edi
  and eax, 0xffff0000
  cmp eax, 0x40000000
  mov eax, edi
  jne .ask
  sub eax, 0x40000000
  add eax, [ARENA + ${OWN.leaf}]
.ask:
  cpuid
  mov [values], eax
  mov [values + 4], ebx
  mov [values + 8], ecx
  mov [values + 12], edx
  mov ebx, 16
  jmp answer

; index
rdmsr_:
  lodsd
  mov ecx, eax
  mov [pc], esi
  rdmsr
  mov [values], eax
  mov [values + 4], edx
  mov ebx, 8
  jmp answer

; index, low, high, 1: the value is a place in the arena
wrmsr_:
  lodsd
  mov ecx, eax
  lodsd
  mov ebx, eax
  lodsd
  mov edx, eax
  lodsd
  mov [pc], esi
  test eax, eax
  jz .write
  add ebx, ARENA
.write:
  mov eax, ebx
  wrmsr
  xor ebx, ebx
  jmp answer

; place, mask, value, turns: until the word there is so
wait_:
  lodsd
  lea edi, [${ax} + ARENA]
  lodsd
  mov ebx, eax
  lodsd
  mov edx, eax
  lodsd
  mov ecx, eax
  mov [pc], esi
.turn:
  mov eax, [${di}]
  and eax, ebx
  cmp eax, edx
  je .met
  pause
  dec ecx
  jnz .turn
.met:
  cmp eax, edx
  sete [values]
  mov ebx, 1
  jmp answer

; to, place of a vcpu_time_info, nanoseconds: system time so much later
later_:
  lodsd
  lea edi, [${ax} + ARENA]
  lodsd
  lea ebp, [${ax} + ARENA]
  lodsd
  mov [pc], esi
  mov esi, eax
  rdtsc
  sub eax, [${bp} + ${time("tsc_timestamp")}]
  sbb edx, [${bp} + ${time("tsc_timestamp") + 4}]
  mov cl, [${bp} + ${time("tsc_shift")}]
  test cl, cl
  js .right
  shld edx, eax, cl
  shl eax, cl
  jmp .scaled
.right:
  neg cl
  shrd eax, edx, cl
  shr edx, cl
.scaled:
  mov ebx, [${bp} + ${time("tsc_to_system_mul")}]
  mov [values], edx
  mul ebx
  mov ecx, edx
  mov eax, [values]
  mul ebx
  add eax, ecx
  adc edx, 0
  add eax, [${bp} + ${time("system_time")}]
  adc edx, [${bp} + ${time("system_time") + 4}]
  add eax, esi
  adc edx, 0
  mov [${di}], eax
  mov [${di} + 4], edx
  jmp main

; 1: open, 0: closed
interrupts_:
  lodsd
  mov [pc], esi
  test eax, eax
  jz .closed
  sti
  jmp main
.closed:
  cli
  jmp main

; EBX: so many bytes of [values]
answer:
  mov al, '='
  call begin
  mov esi, values
  mov ecx, ebx
  call hex
  call finish
  jmp main

; AL: the line's mark. EDI goes on behind the step's number.
begin:
  mov edi, line
  stosb
  push ${si}
  mov esi, step + 1
  mov ecx, 1
  call hex
  mov esi, step
  mov ecx, 1
  call hex
  pop ${si}
  ret

; ECX bytes at ESI, as hexadecimal digits to EDI.
hex:
  jecxz .done
  lodsb
  mov ah, al
  shr al, 4
  call .digit
  mov al, ah
  and al, 15
  call .digit
  dec ecx
  jmp hex
.digit:
  cmp al, 10
  jb .decimal
  add al, 39
.decimal:
  add al, '0'
  stosb
.done:
  ret

; Ends the line at EDI and prints it.
finish:
  mov al, 10
  stosb
  mov ecx, edi
  mov esi, line
  sub ecx, esi
  mov edx, ${DEBUG_PORT}
  rep outsb
  ret

; An exception in a step: the step after it is next.
fault:
  pop ${ax}
  mov esp, stack
  mov [values], al
  mov al, '!'
  call begin
  mov esi, values
  mov ecx, 1
  call hex
  call finish
  jmp main

; An interrupt: counted, its upcall taken back, its end told.
interrupt:
  push ${dx}
  push ${ax}
  movzx eax, byte [${sp} + ${2 * bytes}]
  lock inc dword [${ax} * 4 + ARENA + ${OWN.interrupts}]
  mov edx, [ARENA + ${OWN.upcall}]
  test edx, edx
  jz .taken
  mov byte [${dx}], 0
.taken:
  cmp dword [ARENA + ${OWN.eoi}], 0
  je .ended
  mov edx, 0xfee000b0
  mov dword [${dx}], 0
.ended:
  pop ${ax}
  pop ${dx}
  add ${sp}, ${bytes}
  ${iret}

; Finds Xen, its hypercall page and its way to trap; the interrupt table. Where a PVH domain has
; interrupt controllers they are closed: their ticks would wake a vCPU that blocks.
set_up:
  mov al, 0xff
  out 0x21, al
  out 0xa1, al
  mov esi, 0x40000000
.find:
  mov eax, esi
  cpuid
  cmp ebx, 0x566e6558
  je .found
  add esi, 0x100
  cmp esi, 0x40010000
  jb .find
  hlt
.found:
  mov [ARENA + ${OWN.leaf}], esi
  lea eax, [${si} + 4]
  xor ecx, ecx
  cpuid
  mov [ARENA + ${OWN.domid}], ecx
  lea eax, [${si} + 2]
  xor ecx, ecx
  cpuid
  mov ecx, ebx
  mov eax, ${HYPERCALL_PAGE}
  xor edx, edx
  wrmsr
  ; B8 number, then VMCALL or VMMCALL and RET
  mov eax, [${HYPERCALL_PAGE} + 5]
  mov [trap], eax
  mov edi, idt
  mov ebx, first_stub
  mov ecx, 256
.gate:
  mov eax, ebx
  call set_gate
  add ebx, 16
  loop .gate
  lidt [idtr]
  ret
${setGate(width)}

align 16
first_stub:
${stubs()}

align 8
gdt:
  dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff
gdtr:
  dw 31
  ${word} gdt
idtr:
  dw ${width === 64 ? 4095 : 2047}
  ${word} idt
align 8
table:
  ${word} ${Object.keys(STEP).map((name) => `${name}_`).join(", ")}
values: times 8 dq 0
target: dq 0
trap: dd 0
pc: dd 0
number: dd 0
step: dd -1
reason: dd 0
direct: db 0
line: times 200 db 0
image_end:

; Not in the file: memory that is zero at first.
pages equ ${LOAD + 0x8000}
idt equ ${LOAD + 0xe000}
stack equ ${LOAD + 0x12000}
second_stack equ ${LOAD + 0x13000}
`;
}

/** The guest's ELF file, entered by its PVH note. */
export function oracleGuest(width: Width): Uint8Array {
  const { bytes } = assemble(source(width), { mode: 32 });
  if (bytes.length > 0x8000) throw new Error(`the guest has ${bytes.length} bytes; 32768 fit`);
  return tinyElf({
    entry: LOAD,
    segments: [{ paddr: LOAD, bytes, memsz: ARENA + ARENA_SIZE - LOAD }],
    notes: note("Xen", XEN_ELFNOTE.PHYS32_ENTRY, le32(LOAD)),
  });
}
