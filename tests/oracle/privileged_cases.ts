/**
 * Short privileged sequences, generated from a seed: a preamble from real mode to protected mode (some
 * with paging), then a few of: segment loads, table loads, far transfers, gates, INT and IRET across
 * rings, task switches, control registers, page-table changes, virtual-8086 mode.
 */
import { assemble } from "../../src/machine/isa/encode.ts";
import { Random } from "../fuzz/random.ts";

/** Physical addresses; linear ones are the same. */
export const PLACE = {
  gdt: 0x1000,
  idt: 0x2000,
  ldt: 0x2800,
  tss: 0x3000,
  otherTss: 0x3100,
  tss16: 0x3200,
  stubs: 0x4000,
  stack3: 0x6000,
  stack1: 0x6800,
  stack0: 0x7000,
  start: 0x7c00,
  code: 0x8000,
  service: 0x9000,
  directory: 0x10000,
  table: 0x11000,
  pointers: 0x12000,
  wideDirectory: 0x13000,
  wideTable: 0x14000,
  data: 0x20000,
} as const;

const descriptor = (base: number, limit: number, access: number, flags = 0): bigint =>
  BigInt(limit & 0xffff) | BigInt(base & 0xff_ffff) << 16n | BigInt(access) << 40n |
  BigInt(limit >>> 16) << 48n | BigInt(flags) << 52n | BigInt(base >>> 24) << 56n;
const gate = (selector: number, offset: number, access: number, count = 0): bigint =>
  BigInt(offset & 0xffff) | BigInt(selector) << 16n | BigInt(count) << 32n |
  BigInt(access) << 40n | BigInt(offset >>> 16) << 48n;

/** With accessed bits: QEMU does not set those of code. */
const GDT: readonly bigint[] = [
  0n,
  descriptor(0, 0xfffff, 0x9b, 0xc), // 08 code
  descriptor(0, 0xfffff, 0x93, 0xc), // 10 data
  descriptor(0, 0xfffff, 0xfb, 0xc), // 18 code, DPL 3
  descriptor(0, 0xfffff, 0xf3, 0xc), // 20 data, DPL 3
  descriptor(PLACE.tss, 0x67, 0x89), // 28 task state
  descriptor(PLACE.otherTss, 0x67, 0x89), // 30 task state
  descriptor(PLACE.ldt, 0x17, 0x82), // 38 LDT
  descriptor(0, 0xfffff, 0x13, 0xc), // 40 data, absent
  descriptor(0, 0xfffff, 0x99, 0xc), // 48 code, execute-only
  descriptor(0, 0xfffff, 0x9f, 0xc), // 50 code, conforming
  descriptor(0, 0xfffff, 0x91, 0xc), // 58 data, read-only
  gate(0x08, PLACE.service, 0xec, 2), // 60 call gate, DPL 3
  descriptor(0, 0xffff, 0x9b), // 68 code, 16 bits
  descriptor(0, 0xffff, 0x93), // 70 data, 16 bits
  gate(0x30, 0, 0xe5), // 78 task gate, DPL 3
  descriptor(PLACE.tss16, 0x2b, 0x81), // 80 task state, 16 bits
  descriptor(0, 0xfff, 0x97, 0x4), // 88 data, expand-down
  descriptor(0, 0xfffff, 0xbb, 0xc), // 90 code, DPL 1
  descriptor(0, 0xfffff, 0xb3, 0xc), // 98 data, DPL 1
  gate(0x08, PLACE.service, 0xe4, 1), // a0 call gate, 16 bits, DPL 3
  gate(0x08, PLACE.service, 0x6c, 0), // a8 call gate, absent
  gate(0x90, PLACE.service, 0xec, 0), // b0 call gate to DPL 1
  descriptor(PLACE.tss, 0x20, 0x89), // b8 task state, too small
];
const SELECTORS = GDT.length * 8;

/** One sequence. */
export interface Sequence {
  readonly source: string;
  /** What is written where before it starts. */
  readonly memory: readonly (readonly [number, Uint8Array])[];
}

const words = (values: ArrayLike<bigint>) =>
  new Uint8Array(BigUint64Array.from(values as bigint[]).buffer);

/** What is the same for all: tables, task states, handlers, page tables. */
function common(): [number, Uint8Array][] {
  const idt: bigint[] = [], stubs = new Uint8Array(64 * 8).fill(0xf4);
  for (let v = 0; v < 64; v++) idt.push(gate(0x08, PLACE.stubs + 8 * v, 0x8e));
  // 30h to 38h come back: IRETD behind a gate of each kind.
  const kinds: [number, number, number][] = [
    [0x08, PLACE.stubs + 0x180, 0xee],
    [0x08, PLACE.stubs + 0x180, 0xef],
    [0x50, PLACE.stubs + 0x180, 0xee],
    [0x30, 0, 0xe5],
    [0x08, PLACE.stubs + 0x188, 0xe6],
    [0x08, PLACE.stubs + 0x180, 0x8e],
    [0x90, PLACE.stubs + 0x180, 0xee],
    [0x10, PLACE.stubs + 0x180, 0xee],
    [0x08, PLACE.stubs + 0x180, 0x6e],
  ];
  kinds.forEach(([s, o, a], n) => idt[0x30 + n] = gate(s, o, a));
  stubs.set([0xcf], 0x180);
  stubs.set([0x66, 0xcf], 0x188);
  const task = (eip: number, cr3: number) => {
    const t = new Uint32Array(26);
    t.set([0, PLACE.stack0, 0x10, PLACE.stack1, 0x99, 0, 0, cr3, eip, 2, 1, 2, 3, 4]);
    t.set([PLACE.stack0 - 0x100, 5, 6, 7, 0x10, 0x08, 0x10, 0x10, 0x10, 0x10, 0x38], 14);
    t[25] = 0x68 << 16;
    return new Uint8Array(t.buffer);
  };
  const small = new Uint16Array(22);
  small.set([0, PLACE.stack0, 0x10, PLACE.stack1, 0x99, 0, 0, PLACE.service + 0x20, 2]);
  small.set([1, 2, 3, 4, PLACE.stack0 - 0x200, 5, 6, 7, 0x10, 0x08, 0x10, 0x10, 0], 9);
  const pages = new Uint32Array(1024), directory = new Uint32Array(1024);
  for (let n = 0; n < 1024; n++) pages[n] = n * 4096 | 7;
  directory[0] = PLACE.table | 7;
  directory[1] = 0x87;
  const wide = new BigUint64Array(512), wideDirectory = new BigUint64Array(512);
  for (let n = 0; n < 512; n++) wide[n] = BigInt(n * 4096 | 7);
  wideDirectory[0] = BigInt(PLACE.wideTable | 7);
  wideDirectory[2] = 0x87n;
  return [
    [PLACE.gdt, words(GDT)],
    [PLACE.ldt, words([0n, descriptor(0x10000, 0xffff, 0x93, 0x4), 0n])],
    [PLACE.idt, words(idt)],
    [PLACE.stubs, stubs],
    [PLACE.tss, task(PLACE.service + 0x20, PLACE.directory)],
    [PLACE.otherTss, task(PLACE.service + 0x20, PLACE.directory)],
    [PLACE.tss16, new Uint8Array(small.buffer)],
    [PLACE.directory, new Uint8Array(directory.buffer)],
    [PLACE.table, new Uint8Array(pages.buffer)],
    [PLACE.pointers, words([BigInt(PLACE.wideDirectory | 1), 0n, 0n, 0n])],
    [PLACE.wideDirectory, new Uint8Array(wideDirectory.buffer)],
    [PLACE.wideTable, new Uint8Array(wide.buffer)],
    // A service behind call gates (RETF), and where other tasks begin (IRETD).
    [PLACE.service, Uint8Array.of(0x40, 0xcb)],
    [PLACE.service + 0x20, Uint8Array.of(0x43, 0xcf, 0xf4)],
  ];
}

const PREAMBLE = `
bits 16
org ${PLACE.start}
  cli
  lgdt [gdtr]
  lidt [idtr]
  mov eax, cr0
  or al, 1
  mov cr0, eax
  db 0xea
  dw flat, 8
gdtr:
  dw ${SELECTORS - 1}
  dd ${PLACE.gdt}
idtr:
  dw ${64 * 8 - 1}
  dd ${PLACE.idt}
bits 32
flat:
  mov eax, 16
  mov ds, ax
  mov es, ax
  mov fs, ax
  mov gs, ax
  mov ss, ax
  mov esp, ${PLACE.stack0}
  mov eax, 0x38
  lldt ax
  mov eax, 0x28
  ltr ax
`;

const PAGING: Readonly<Record<string, string>> = {
  none: "",
  two: `
  mov eax, cr4
  or eax, 0x10
  mov cr4, eax
  mov eax, ${PLACE.directory}
  mov cr3, eax
  mov eax, cr0
  or eax, 0x80000000
  mov cr0, eax
`,
  pae: `
  mov eax, 0x20
  mov cr4, eax
  mov eax, ${PLACE.pointers}
  mov cr3, eax
  mov eax, cr0
  or eax, 0x80000000
  mov cr0, eax
`,
};

/** The sequence of a seed. */
export function sequence(seed: number): Sequence {
  const r = new Random(seed);
  const paging = r.pick(["none", "two", "two", "pae"]);
  let body = "";
  const items = 2 + r.below(6);
  for (let n = 0; n < items; n++) body += r.pick(ITEMS)(r, n, paging);
  const source = `${PREAMBLE}${PAGING[paging]}
  mov eax, ${PLACE.code}
  jmp eax
`;
  const bytes = (text: string, origin: number, mode: 16 | 32) =>
    assemble(text, { mode, origin }).bytes;
  return {
    source: `paging ${paging}\n${body}`,
    memory: [
      ...common(),
      [PLACE.start, bytes(source, PLACE.start, 16)],
      [PLACE.code, bytes(`bits 32\norg ${PLACE.code}\n${body}\n  hlt\n`, PLACE.code, 32)],
    ],
  };
}

const selector = (r: Random): number => {
  if (r.chance(0.05)) return r.below(0x100) * 8 | r.below(8);
  return r.below(GDT.length) * 8 | (r.chance(0.3) ? r.below(4) : 0) | (r.chance(0.05) ? 4 : 0);
};
/** Mostly one that works. */
const dataSelector = (r: Random): number =>
  r.chance(0.5) ? r.pick([0x10, 0x23, 0x0c, 0, 0x58]) : selector(r);

type Item = (r: Random, n: number, paging: string) => string;

/** To ring 3, or to ring 1, going on behind. */
const toRing = (ring: 1 | 3): Item => (_, n) => `
  push ${ring === 3 ? 0x23 : 0x99}
  push ${ring === 3 ? PLACE.stack3 : PLACE.stack1}
  push ${ring === 3 ? 0x3002 : 2}
  push ${ring === 3 ? 0x1b : 0x91}
  push behind${n}
  iretd
behind${n}:
`;

const ITEMS: readonly Item[] = [
  (r) => `  mov eax, ${dataSelector(r)}\n  mov ${r.pick(["ds", "es", "fs", "gs", "ss"])}, ax\n`,
  (r) => `  mov eax, ${selector(r)}\n  mov ${r.pick(["ds", "es", "fs", "gs", "ss"])}, ax\n`,
  (r) => `  push ${dataSelector(r)}\n  pop ${r.pick(["ds", "es", "fs", "gs"])}\n`,
  (r) => `  mov eax, ${selector(r)}\n  ${r.pick(["lar", "lsl"])} ecx, eax\n`,
  (r) => `  mov eax, ${selector(r)}\n  ${r.pick(["verr", "verw"])} ax\n`,
  (r) => `  mov eax, ${selector(r)}\n  mov ebx, ${r.below(4)}\n  arpl ax, bx\n`,
  (r) => `  mov eax, ${r.pick([0x38, 0, selector(r)])}\n  lldt ax\n`,
  (r) => `  mov eax, ${r.pick([0x30, 0x28, selector(r)])}\n  ltr ax\n`,
  (r) =>
    `  db 0x9a\n  dd ${PLACE.service}\n  dw ${
      r.chance(0.5) ? r.pick([0x08, 0x60, 0x50, 0xb3]) : selector(r)
    }\n`,
  (r) => `  db 0x9a\n  dd 0\n  dw ${r.pick([0x30, 0x78, 0x80, 0x28, selector(r)])}\n`,
  (r, n) =>
    `  db 0xea\n  dd to${n}\n  dw ${
      r.chance(0.6) ? r.pick([8, 0x50, 0x48]) : selector(r)
    }\nto${n}:\n`,
  (r) => `  int ${0x30 + r.below(10)}\n`,
  (r) => `  int ${0x30 + r.below(3)}\n`,
  (r) => `  int ${r.below(48)}\n`,
  () => `  int3\n`,
  toRing(3),
  toRing(3),
  toRing(1),
  (r, n) => `
  push ${r.chance(0.7) ? 2 : 0x4002}
  push ${r.chance(0.6) ? 8 : selector(r)}
  push back${n}
  iretd
back${n}:
`,
  (r, n) => `
  push ${r.chance(0.6) ? 8 : selector(r)}
  push ret${n}
  retf
ret${n}:
`,
  (_, n) => `
  push 0x10
  push 0x20
  push 0x30
  push 0x40
  push 0
  push 0x5000
  push 0x23002
  push 0
  push v86_${n}
  iretd
v86_${n}:
`,
  (r) =>
    `  mov eax, cr0\n  xor eax, ${
      r.pick([0x10000, 0x40000, 8, 2, 4, 0x20, 0x40000000])
    }\n  mov cr0, eax\n`,
  (r) => `  mov eax, ${r.below(16)}\n  lmsw ax\n  smsw ebx\n`,
  () => `  clts\n`,
  (r) => `  mov eax, cr4\n  xor eax, ${r.pick([4, 0x80, 0x80, 8])}\n  mov cr4, eax\n`,
  () => `  mov eax, cr3\n  mov cr3, eax\n`,
  (r, _, paging) => {
    const page = r.pick([0x20, 0x21, 0x30]), flags = r.pick([7, 5, 3, 1, 0, 0x67, 0x107]);
    const [table, size] = paging === "pae" ? [PLACE.wideTable, 8] : [PLACE.table, 4];
    return `  mov dword [${table + page * size}], ${page * 4096 | flags}
  invlpg [${page * 4096}]
  mov eax, [${page * 4096 + 8}]
  mov [${page * 4096 + 16}], eax
`;
  },
  (r) => `  mov eax, [${r.pick([0x400010, 0x20000, 0x800010, 0x3000])}]\n`,
  (r) => `  push ${r.u32() & 0x3fed7}\n  popfd\n  pushfd\n`,
  (r) => `  ${r.pick(["cli", "sti", "pushfd", "nop"])}\n`,
  (r) => `  ${r.pick(["sldt", "str"])} ax\n`,
  (r) => `  ${r.pick(["sgdt", "sidt"])} [${PLACE.data}]\n`,
  (r) => `
  mov word [${PLACE.data}], ${r.pick([SELECTORS - 1, 0x27, 0x5f])}
  mov dword [${PLACE.data + 2}], ${PLACE.gdt}
  lgdt [${PLACE.data}]
`,
  () => `
  mov dword [${PLACE.data}], ${PLACE.stack0 - 0x40}
  mov dword [${PLACE.data + 4}], 0x10
  lss esp, [${PLACE.data}]
`,
  (r) => `
  mov dword [${PLACE.data}], 0x1234
  mov dword [${PLACE.data + 4}], ${selector(r)}
  ${r.pick(["lds", "les", "lfs", "lgs"])} ebx, [${PLACE.data}]
`,
  () => `  out 0x80, al\n`,
  () => `  mov ecx, 0x174\n  rdmsr\n`,
  (r, n) => `
  mov ecx, 0x174
  xor edx, edx
  mov eax, ${r.pick([8, 8, 0])}
  wrmsr
  inc ecx
  mov eax, ${PLACE.stack0}
  wrmsr
  inc ecx
  mov eax, sys${n}
  wrmsr
  sysenter
sys${n}:
`,
];
