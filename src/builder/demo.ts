/**
 * The built-in demo guest: a small 32-bit kernel, assembled here with the project's own encoder. It
 * runs in the upper gigabyte with paging, takes timer and serial interrupts, switches between two
 * address spaces, and asks for CPUID, MSRs and ports when a key on COM1 says so: something to break
 * on, walk, step and watch without any image.
 */
import { ACPI_PORT, ACPI_S5_TYPE } from "../abi/boot/acpi.ts";
import { MULTIBOOT_ADDRESSES, MULTIBOOT_HEADER_MAGIC } from "../abi/boot/multiboot.ts";
import { assemble } from "../machine/isa/encode.ts";
import type { NamedAddress } from "./symbols.ts";

/** The kernel's virtual base; it lies at 1 MB above it. */
const BASE = 0xc000_0000;
const LOAD = 0x10_0000;

const POWER_OFF = ACPI_S5_TYPE << 10 | 1 << 13;

/** How to read it: `start` sets up, `main` sleeps and answers keys, `timer` and `serial` interrupt it. */
const SOURCE = `
bits 32
org ${BASE + LOAD}
BASE equ ${BASE}
COM1 equ 0x3f8

header:
  dd ${MULTIBOOT_HEADER_MAGIC}, ${MULTIBOOT_ADDRESSES}, ${
  -(MULTIBOOT_HEADER_MAGIC + MULTIBOOT_ADDRESSES) >>> 0
}
  dd header - BASE, header - BASE, 0, end - BASE, start - BASE

; Entered by a multiboot loader: 32 bits, flat, no paging. Addresses are virtual, so BASE comes off.
start:
  mov esp, stack - BASE
  ; First directory: the lower 4 MB at 0 and at BASE, the same page table for both.
  mov edi, directory_a - BASE
  call clear_page
  mov edi, directory_b - BASE
  call clear_page
  mov edi, table - BASE
  mov eax, 3
.fill:
  mov [edi], eax
  add edi, 4
  add eax, 0x1000
  cmp eax, 0x400003
  jb .fill
  mov eax, table - BASE + 3
  mov [directory_a - BASE], eax
  mov [directory_a - BASE + 0xc00], eax
  mov [directory_b - BASE + 0xc00], eax
  mov eax, directory_a - BASE
  mov cr3, eax
  mov eax, cr0
  or eax, 0x80010000
  mov cr0, eax
  mov eax, high
  jmp eax

clear_page:
  xor eax, eax
  mov ecx, 1024
  rep stosd
  ret

high:
  mov esp, stack
  lgdt [gdt_pointer]
  jmp 0x8:.segments
.segments:
  mov eax, 0x10
  mov ds, eax
  mov es, eax
  mov ss, eax
  call make_idt
  lidt [idt_pointer]
  call set_up_devices
  mov esi, hello
  call print
  call show_cpu
  mov esi, prompt
  call print
  sti

; Sleeps, and answers one key after each interrupt.
main:
  hlt
  mov al, [key]
  test al, al
  jz main
  mov byte [key], 0
  call answer
  mov esi, prompt
  call print
  jmp main

; AL: the key.
answer:
  cmp al, 'c'
  je show_cpu
  cmp al, 'm'
  je use_msr
  cmp al, 'f'
  je touch_page
  cmp al, 't'
  je show_ticks
  cmp al, 'd'
  je divide
  cmp al, 'q'
  je power_off
  mov esi, help
  jmp print

; CPUID leaf 0: the vendor's name.
show_cpu:
  xor eax, eax
  xor ecx, ecx
  cpuid
  mov [vendor], ebx
  mov [vendor + 4], edx
  mov [vendor + 8], ecx
  mov esi, cpu_text
  jmp print

; A model-specific register, written and read back.
use_msr:
  mov ecx, 0x175
  mov eax, [ticks]
  xor edx, edx
  wrmsr
  rdmsr
  mov esi, msr_text
  call print
  call print_hex
  jmp newline

; A page that nobody has mapped: the page-fault handler maps one.
touch_page:
  mov ebx, [next_page]
  add dword [next_page], 0x1000
  mov dword [ebx], 0x12345678
  mov esi, page_text
  call print
  mov eax, ebx
  call print_hex
  jmp newline

show_ticks:
  mov esi, ticks_text
  call print
  mov eax, [ticks]
  call print_hex
  jmp newline

; A division by zero; its handler passes over the instruction.
divide:
  xor edx, edx
  xor ecx, ecx
  mov eax, 1
  div ecx
  mov esi, divide_text
  jmp print

power_off:
  mov esi, bye
  call print
  mov dx, ${ACPI_PORT.pm1aControl}
  mov ax, ${POWER_OFF}
  out dx, ax
  cli
  hlt

; ESI: text that ends with a zero byte.
print:
  lodsb
  test al, al
  jz .done
  call put_char
  jmp print
.done:
  ret

; AL to COM1, when its transmitter is empty.
put_char:
  push edx
  push eax
  mov dx, COM1 + 5
.wait:
  in al, dx
  test al, 0x20
  jz .wait
  pop eax
  mov dx, COM1
  out dx, al
  pop edx
  ret

; EAX as eight hexadecimal digits.
print_hex:
  push ecx
  push ebx
  mov ecx, 8
  mov ebx, eax
.digit:
  rol ebx, 4
  mov al, bl
  and al, 15
  cmp al, 10
  jb .decimal
  add al, 39
.decimal:
  add al, '0'
  call put_char
  loop .digit
  pop ebx
  pop ecx
  ret

newline:
  mov al, 10
  jmp put_char

; Interrupt gates for the vectors in use; the others all lead to unexpected.
make_idt:
  mov edi, idt
  mov ecx, 48
.next:
  mov eax, unexpected
  call set_gate
  loop .next
  mov edi, idt
  mov eax, divide_error
  call set_gate
  mov edi, idt + 14 * 8
  mov eax, page_fault
  call set_gate
  mov edi, idt + 32 * 8
  mov eax, timer
  call set_gate
  mov edi, idt + 36 * 8
  mov eax, serial
  call set_gate
  ret

; EAX: handler, EDI: its gate.
set_gate:
  mov [edi], ax
  mov word [edi + 2], 8
  mov word [edi + 4], 0x8e00
  shr eax, 16
  mov [edi + 6], ax
  add edi, 8
  ret

set_up_devices:
  ; Interrupt controllers: vectors 32 and 40, IRQ 0 and 4 open.
  mov al, 0x11
  out 0x20, al
  out 0xa0, al
  mov al, 32
  out 0x21, al
  mov al, 40
  out 0xa1, al
  mov al, 4
  out 0x21, al
  mov al, 2
  out 0xa1, al
  mov al, 1
  out 0x21, al
  out 0xa1, al
  mov al, 0xee
  out 0x21, al
  mov al, 0xff
  out 0xa1, al
  ; Timer: 100 times a second.
  mov al, 0x34
  out 0x43, al
  mov al, 0x9c
  out 0x40, al
  mov al, 0x2e
  out 0x40, al
  ; COM1: 8 bits, interrupt on input.
  mov dx, COM1 + 3
  mov al, 3
  out dx, al
  mov dx, COM1 + 1
  mov al, 1
  out dx, al
  mov dx, COM1 + 4
  mov al, 0xb
  out dx, al
  ; The screen.
  mov esi, screen_text
  mov edi, BASE + 0xb8000
  mov ah, 7
.screen:
  lodsb
  test al, al
  jz .shown
  stosw
  jmp .screen
.shown:
  ret

; IRQ 0. Every second time the other address space is taken.
timer:
  push eax
  push edx
  inc dword [ticks]
  mov eax, [ticks]
  xor edx, edx
  push ecx
  mov ecx, 2
  div ecx
  pop ecx
  test edx, edx
  jnz .done
  call switch_space
.done:
  mov al, 0x20
  out 0x20, al
  pop edx
  pop eax
  iretd

switch_space:
  mov eax, cr3
  cmp eax, directory_a - BASE
  mov eax, directory_a - BASE
  jne .switch
  mov eax, directory_b - BASE
.switch:
  mov cr3, eax
  ret

; IRQ 4: a key was typed.
serial:
  push eax
  push edx
  mov dx, COM1
  in al, dx
  mov [key], al
  mov al, 0x20
  out 0x20, al
  pop edx
  pop eax
  iretd

; Maps a fresh page at CR2, in both spaces: their entries of that 4 MB lead to one table.
page_fault:
  pushad
  mov eax, cr2
  shr eax, 22
  mov ebx, extra_table - BASE + 3
  mov [directory_a + eax * 4], ebx
  mov [directory_b + eax * 4], ebx
  mov eax, cr2
  shr eax, 12
  and eax, 0x3ff
  mov ebx, [next_frame]
  add dword [next_frame], 0x1000
  or ebx, 3
  mov [extra_table + eax * 4], ebx
  inc dword [faults]
  popad
  add esp, 4
  iretd

; Passes over the division, two bytes long.
divide_error:
  add dword [esp], 2
  iretd

unexpected:
  mov esi, unexpected_text
  call print
  cli
  hlt

hello: db "xvm demo guest: 32 bits, paging, timer and serial interrupts", 10, 0
help: db "keys: c cpuid, m msr, f page fault, d divide error, t ticks, q power off", 10, 0
prompt: db "demo> ", 0
cpu_text: db "processor: "
vendor: db "............", 10, 0
msr_text: db "msr: ", 0
page_text: db "mapped: ", 0
ticks_text: db "ticks: ", 0
divide_text: db "divided by zero, and went on", 10, 0
unexpected_text: db "unexpected exception", 10, 0
bye: db "power off", 10, 0
screen_text: db "xvm demo guest", 0

align 8
gdt:
  dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
  dw 23
  dd gdt
idt_pointer:
  dw 383
  dd idt
align 4
ticks: dd 0
faults: dd 0
next_page: dd 0xd0000000
next_frame: dd 0x200000
key: db 0

align 4096
idt: times 4096 db 0
directory_a: times 4096 db 0
directory_b: times 4096 db 0
table: times 4096 db 0
extra_table: times 4096 db 0
  times 4096 db 0
stack:
end:
`;

/** The demo guest: a multiboot image, and its symbols. */
export function demoGuest(): { image: Uint8Array; symbols: NamedAddress[] } {
  const { bytes, symbols } = assemble(SOURCE, { mode: 32 });
  return {
    image: bytes,
    symbols: [...symbols].filter(([name, value]) => !name.includes(".") && value >= BigInt(BASE))
      .filter(([name]) => name !== "BASE" && name !== "end")
      .map(([name, address]) => ({ name, address })),
  };
}
