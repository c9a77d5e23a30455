/** Small multiboot guests for tests, and every way to run them. */
import { MULTIBOOT_ADDRESSES, MULTIBOOT_HEADER_MAGIC } from "../../abi/boot/multiboot.ts";
import { assemble } from "../../machine/isa/encode.ts";
import type { GuestDomain } from "../domain.ts";
import { Hypervisor } from "../hypervisor.ts";

/** Processor, type and paging: every way there is. */
export const WAYS = [
  ["intel", "bare", "hap"],
  ["amd", "bare", "hap"],
  ["intel", "hvm", "hap"],
  ["intel", "hvm", "shadow"],
  ["amd", "hvm", "hap"],
  ["amd", "hvm", "shadow"],
] as const;

/** A multiboot image from 32-bit code, at 1 MB if nothing else is asked for. */
export function multibootImage(code: string, origin = 0x100000): Uint8Array {
  const flags = MULTIBOOT_ADDRESSES;
  return assemble(
    `
    bits 32
    org ${origin}
    header:
      dd ${MULTIBOOT_HEADER_MAGIC}, ${flags}, ${-(MULTIBOOT_HEADER_MAGIC + flags) >>> 0}
      dd header, header, 0, 0, start
    start:
      ${code}`,
    { mode: 32 },
  ).bytes;
}

/**
 * A multiboot image that goes on in real mode, at 8000h with DS and SS at 0, the stack below 7000h and
 * the vectors at 0. Labels of `code` are at `0x8000 + label - real`.
 *
 * @param before 32-bit code that runs first
 * @param cr0 what it does to CR0's low byte in AL besides leaving protected mode
 */
export function realModeImage(code: string, { before = "", cr0 = "" } = {}): Uint8Array {
  return multibootImage(`
    ${before}
    mov esi, real
    mov edi, 0x8000
    mov ecx, end - real
    rep movsb
    lgdt [gdtr]
    jmp 8:0x8000
  align 8
  gdt:
    dq 0, 0x00009b000000ffff, 0x000093000000ffff
  gdtr:
    dw 23
    dd gdt
  real:
    bits 16
    mov ax, 0x10
    mov ds, ax
    mov ss, ax
    mov eax, cr0
    and al, 0xfe
    ${cr0}
    mov cr0, eax
    jmp 0:(0x8000 + flat - real)
  flat:
    xor ax, ax
    mov ds, ax
    mov ss, ax
    mov sp, 0x7000
    lidt [0x8000 + idtr - real]
    ${code}
  idtr:
    dw 0x3ff
    dd 0
  end:`);
}

/** Runs an image to its end, with a clock that begins at 10:00. */
export async function runImage(
  kernel: Uint8Array,
  [cpu, type, paging]: typeof WAYS[number],
): Promise<{ dom: GuestDomain; end: string }> {
  const hv = await Hypervisor.start({ cpu, memory: "64M", unixTime: 3600 * 10 });
  const dom = await hv.createDomain({ type, paging, kernel, memory: "8M" });
  await dom.unpause();
  const { reason, detail } = await dom.ended;
  return { dom, end: `${reason} (${detail})` };
}

/** A ROM of 64 KB that begins with 16-bit code. */
export function romImage(code: string): Uint8Array {
  const rom = new Uint8Array(0x10000);
  rom.set(assemble(code, { mode: 16 }).bytes);
  rom.set([0xea, 0, 0, 0, 0xf0], 0xfff0);
  return rom;
}
