/**
 * A program that lives in sixteen pages of physical memory wherever they lie, and uses them in every
 * way: what it leaves behind does not depend on the place.
 */
import { assemble } from "./isa/encode.ts";

/** Pages of the window, and the place where its program is entered. */
export const WINDOW = { pages: 16, size: 0x10000, entry: 0xf00 } as const;
/** First page of the paging structures, where there are any: up to four. */
const TABLES = 8;
const STACK = 5;
/** Pages that say where the window lies: the program, its stack, paging structures. */
const PLACED: ReadonlySet<number> = new Set([0, 1, STACK, 8, 9, 10, 11]);

/** What the program runs under; `segments`: those of the running mode begin at the window. */
export type WindowMode =
  | "segments16"
  | "segments32"
  | "flat32"
  | "2-level"
  | "PAE"
  | "flat64"
  | "4-level";
/** Where the window lies in linear memory under paging. */
export const WINDOW_LINEAR = 0x40_0000;

/** Bits of code and the linear (or segment's) address of the window, by mode. */
export function windowAddress(mode: WindowMode, base: number): number {
  if (mode.startsWith("segments")) return 0;
  return mode.startsWith("flat") ? base : WINDOW_LINEAR;
}
export const windowBits = (mode: WindowMode): 16 | 32 | 64 =>
  mode === "segments16" ? 16 : mode === "flat64" || mode === "4-level" ? 64 : 32;

/** Paging structures that map the window's linear addresses to it, in it; CR3 is their first page. */
export function windowTables(mode: WindowMode, base: number): { at: number; bytes: Uint8Array } {
  const at = base + TABLES * 4096,
    bytes = new Uint8Array(4 * 4096),
    view = new DataView(bytes.buffer);
  const put = (page: number, index: number, to: number, flags = 7) => {
    if (mode !== "2-level") view.setBigUint64(page * 4096 + index * 8, BigInt(to + flags), true);
    else view.setUint32(page * 4096 + index * 4, to + flags, true);
  };
  const upper = { "2-level": 1, PAE: 2, "4-level": 3 }[mode as string]!;
  for (let page = 0; page < upper - 1; page++) {
    put(page, 0, at + (page + 1) * 4096, mode === "PAE" ? 1 : 7);
  }
  put(upper - 1, mode === "2-level" ? 1 : 2, at + upper * 4096);
  for (let n = 0; n < WINDOW.pages; n++) put(upper, n, base + n * 4096);
  return { at, bytes };
}

/** Exchanges the pages 6 and 7, and maps page 2 again behind the window. */
function pagingProgram(mode: WindowMode, r: string): string {
  const wide = mode !== "2-level", size = wide ? 8 : 4;
  const table = (TABLES + { "2-level": 1, PAE: 2, "4-level": 3 }[mode as string]!) * 4096;
  const entry = (n: number) => `dword ptr [${r}bx + ${table + n * size}]`;
  return `
  mov eax, [${r}bx + 0x6ffe]
  mov ecx, [${r}bx + 0x10ffc - 0xe000]
  mov eax, ${entry(6)}
  xchg eax, ${entry(7)}
  mov ${entry(6)}, eax
  mov eax, ${entry(2)}
  mov ${entry(16)}, eax
  mov ecx, [${r}bx + 0x10ffc]
  add dword ptr [${r}bx + 0x6ffe], ecx
  mov eax, [${r}bx + 0x6ffe]`;
}

/** The program, to be loaded at WINDOW.entry of the window and entered there; it ends with HLT. */
export function windowProgram(mode: WindowMode, base: number): Uint8Array {
  const bits = windowBits(mode), address = windowAddress(mode, base);
  const r = { 16: "", 32: "e", 64: "r" }[bits];
  const paged = /level|PAE/.test(mode);
  const scaled = bits === 16 ? "" : `
  mov ecx, 3
  add [${r}bx + ${r}cx*4 + 0x3ff3], edx
  lea eax, [${r}cx + ${r}cx*8 + 5]
  add edx, eax`;
  return assemble(
    `
  jmp main
  times ${address + 0xffd - (bits === 16 ? 3 : 5)} - ${address + WINDOW.entry} nop
patch:                          ; its immediate lies in two pages
  mov eax, 0x12345678
  add edx, eax
  ret
main:
  mov ${r}bx, ${address}
  mov ${r}sp, ${address + (STACK + 1) * 4096}
  mov edx, 0x9e3779b1
  cld
  mov ${r}bp, ${r}sp
  fninit
  mov ecx, 40
outer:
  push ${r}cx
  mov eax, [${r}bx + 0x2ffe]
  add eax, ecx
  mov [${r}bx + 0x2ffe], eax
  add [${r}bx + 0x3ffd], eax
  adc word ptr [${r}bx + 0x4ffe], 3
  xadd [${r}bx + 0x2fff], eax
  imul edx, edx, 77
  add edx, eax
  xor [${r}bx + 0x1ffd], edx    ; beside code, and in the page behind
  rol dword ptr [${r}bx + 0x6ffe], 3
  sub [${r}bx + 0x7ffb], edx
  xchg edx, [${r}bx + 0xcffd]
  add edx, 7
  mov [${r}bx + 0xdffe], edx
  mov [${r}bx + 0xeffd], edx
  add [${r}bx + 0xfffc], edx    ; the last ones
  movups xmm0, [${r}bx + 0x2ff8]
  paddd xmm1, xmm0
  movups [${r}bx + 0x3ff8], xmm1
  lea ${r}si, [${r}bx + 0x2f80]
  lea ${r}di, [${r}bx + 0x3fc0]
  mov ${r}cx, 33
  rep movsd
  mov ${r}cx, 700
  mov al, dl
  rep stosb
  lea ${r}si, [${r}bx + 0xe010]
  lea ${r}di, [${r}bx + 0xf010]
  mov ${r}cx, 9
  std
  rep movsd
  cld
  lea ${r}di, [${r}bx + 0x3f00]
  mov ${r}cx, 0x400
  mov al, 0
  repne scasb
  add edx, ecx
  mov eax, -9
  bts [${r}bx + 0x3000], eax
  adc edx, 0
  mov eax, [${r}bx + 0x3ffc]
  cmpxchg8b [${r}bx + 0x3ffc]
  push ${r}dx
  pop ${r}ax
  enter 16, 1
  mov [${r}bp - 4], edx
  leave
  inc dword ptr [${r}bx + patch + ${bits === 16 ? 2 : 1} - ${address}]
  call patch
  ${scaled}
  pop ${r}cx
  dec ecx
  jnz outer
  fxsave [${r}bx + 0x6f00]
  ${paged ? pagingProgram(mode, r) : ""}
  sub ${r}si, ${r}bx
  sub ${r}di, ${r}bx
  sub ${r}sp, ${r}bx
  sub ${r}bp, ${r}bx
  xor ebx, ebx
  hlt`,
    { mode: bits, origin: address + WINDOW.entry },
  ).bytes;
}

/** What the program left in the window, as text: all pages but those that say where it lies. */
export function windowText(bytes: Uint8Array): string {
  const pages = Array.from({ length: WINDOW.pages }, (_, n) => n).filter((n) => !PLACED.has(n));
  return pages.map((n) => `${n}: ${bytes.subarray(n * 4096, n * 4096 + 4096).toHex()}`)
    .join("\n").replace(/(00){16,}/g, "…");
}
