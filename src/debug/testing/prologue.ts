/**
 * What small guests of 32-bit code begin with: a multiboot header, and in assembly flat segments, an
 * interrupt table, pages one to one, the interrupt controllers and the timer.
 *
 * @module
 */
import { CR0 } from "../../abi/x86/cr.ts";
import { assemble } from "../../machine/isa/encode.ts";
import { TO_FLAT } from "../../machine/testing.ts";

/** Where {@linkcode kernel} is loaded. */
export const LOAD = 0x10_0000;

/** A multiboot kernel of 32-bit code, entered flat and unpaged at `start`. */
export const kernel = (code: string): Uint8Array => assembleKernel(code).bytes;

/** The same with its labels. */
export function assembleKernel(code: string): ReturnType<typeof assemble> {
  return assemble(
    `bits 32
    org ${LOAD}
    header: dd 0x1badb002, 0x10000, ${-(0x1badb002 + 0x10000) >>> 0}
    dd header, header, 0, 0, start
    start: ${code}`,
    { mode: 32 },
  );
}

/** Where a further processor begins, in real mode: over the GDT of the pointer to flat 32-bit code. */
export const startUpCode = (pointer: number, entry: number): Uint8Array =>
  assemble(
    `xor ax, ax
    mov ds, ax
    lgdt [${pointer}]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    db 0x66, 0xea
    dd ${entry}
    dw 8`,
    { mode: 16 },
  ).bytes;

/** A ROM, and its labels as linear addresses. */
export interface Rom {
  readonly image: Uint8Array;
  readonly labels: ReadonlyMap<string, bigint>;
}

/** A ROM of 64 KB that begins with 16-bit code, and is entered there. */
export function romOf(code: string): Rom {
  const { bytes, symbols } = assemble(code, { mode: 16 });
  const image = new Uint8Array(0x10000);
  image.set(bytes);
  image.set([0xea, 0, 0, 0, 0xf0], 0xfff0);
  const labels = [...symbols].map(([name, at]) => [name, BigInt(at) + 0xf0000n] as const);
  return { image, labels: new Map(labels) };
}

/** The first code of a ROM: real mode to flat 32-bit code, by what the label `gdtr` names; a stack. */
export const romStart = `
bits 16
org 0
  cli
${TO_FLAT}
  mov esp, 0x18000
  cld`;

let labels = 0;
const label = (): string => `prologue${labels++}`;

/** Flat segments: code 8 and data 16 of the table that the label `gdtr` names. */
export function flat(): string {
  const here = label();
  return `  lgdt [gdtr]
  jmp 8:${here}
${here}:
  mov ax, 16
  mov ds, ax
  mov es, ax
  mov ss, ax
  mov fs, ax
  mov gs, ax`;
}

/**
 * Interrupt gates for `count` vectors, the first of them at `place`: to `handler`, and so many bytes
 * further on for each vector after it.
 */
export function gates(place: number, handler: string, count = 1, apart = 0): string {
  const next = label();
  return `  mov edi, ${place}
  mov eax, ${handler}
  mov ecx, ${count}
${next}:
  mov edx, eax
  and edx, 0xffff
  or edx, 0x80000
  mov [edi], edx
  mov edx, eax
  and edx, 0xffff0000
  or edx, 0x8e00
  mov [edi+4], edx
  add edi, 8
  add eax, ${apart}
  dec ecx
  jnz ${next}`;
}

/** A page table that maps 4 MBytes from 0 on to themselves; `flags` of an entry, 3 or 7. */
export function oneToOne(table: number, flags: 3 | 7): string {
  const next = label();
  return `  mov edi, ${table}
  mov eax, ${flags}
  mov ecx, 1024
${next}:
  mov [edi], eax
  add edi, 4
  add eax, 4096
  dec ecx
  jnz ${next}`;
}

/** Sets bits of a control register. */
export const set = (cr: "cr0" | "cr4", bits: number): string =>
  `  mov eax, ${cr}\n  or eax, ${bits}\n  mov ${cr}, eax`;
export const setCr3 = (table: number): string => `  mov eax, ${table}\n  mov cr3, eax`;

/** Paging by a directory, with these bits of CR4. */
export const pagingOn = (directory: number, cr4: number): string =>
  [set("cr4", cr4), setCr3(directory), set("cr0", CR0.PG)].join("\n");

/** The 8259s with these masks, at vectors 20h and 28h; the second one stays as it is if it has none. */
export const pic = (first: number, second?: number): string =>
  [
    [0x20, 0x11],
    [0x21, 0x20],
    [0x21, 4],
    [0x21, 1],
    [0x21, first],
    ...second === undefined
      ? []
      : [[0xa0, 0x11], [0xa1, 0x28], [0xa1, 2], [0xa1, 1], [0xa1, second]],
  ].map(out).join("\n");

/** The timer's channel 0 as a rate generator, by a divisor. */
export const timer = (divisor: number): string =>
  [[0x43, 0x34], [0x40, divisor & 0xff], [0x40, divisor >> 8]].map(out).join("\n");

const out = ([port, value]: readonly number[]): string => `  mov al, ${value}\n  out ${port}, al`;
