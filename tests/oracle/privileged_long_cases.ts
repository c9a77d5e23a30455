/**
 * Short privileged sequences in long mode, generated from a seed: a preamble from real mode to 64-bit
 * mode, then a few of: segment and table loads, far transfers and 64-bit call gates, INT with and
 * without IST, IRETQ across rings and to compatibility mode, SYSCALL and SYSRET, SWAPGS and segment
 * bases, control registers, page-table changes, addresses that are not canonical.
 */
import { assemble } from "../../src/machine/isa/encode.ts";
import { Random } from "../fuzz/random.ts";
import type { Sequence } from "./privileged_cases.ts";

/** Physical addresses; linear ones are the same. */
export const PLACE = {
  gdt: 0x1000,
  idt: 0x2000,
  ldt: 0x2800,
  tss: 0x3000,
  otherTss: 0x3100,
  stubs: 0x4000,
  ist2: 0x5800,
  stack3: 0x6000,
  ist1: 0x6800,
  stack0: 0x7000,
  start: 0x7c00,
  code: 0x8000,
  service: 0x9000,
  pml4: 0x10000,
  pdpt: 0x11000,
  directory: 0x12000,
  table: 0x13000,
  data: 0x20000,
} as const;

const HOLE = "0x800000000000";
const descriptor = (base: number, limit: number, access: number, flags = 0): bigint =>
  BigInt(limit & 0xffff) | BigInt(base & 0xff_ffff) << 16n | BigInt(access) << 40n |
  BigInt(limit >>> 16) << 48n | BigInt(flags) << 52n | BigInt(base >>> 24) << 56n;
const gate = (selector: number, offset: bigint, access: number, ist = 0): [bigint, bigint] => [
  (offset & 0xffffn) | BigInt(selector) << 16n | BigInt(ist) << 32n | BigInt(access) << 40n |
  (offset >> 16n & 0xffffn) << 48n,
  offset >> 32n,
];
const system = (base: number, limit: number, access: number, upper = 0n): [bigint, bigint] => [
  descriptor(base, limit, access),
  upper,
];

/** With accessed bits: QEMU does not set those of code. */
const GDT: readonly bigint[] = [
  0n,
  descriptor(0, 0xfffff, 0x9b, 0xa), // 08 code
  descriptor(0, 0xfffff, 0x93, 0xc), // 10 data
  descriptor(0, 0xfffff, 0xfb, 0xc), // 18 32-bit code, DPL 3
  descriptor(0, 0xfffff, 0xf3, 0xc), // 20 data, DPL 3
  descriptor(0, 0xfffff, 0xfb, 0xa), // 28 code, DPL 3
  ...system(PLACE.tss, 0x67, 0x89), // 30 task state
  ...system(PLACE.ldt, 0x17, 0x82), // 40 LDT
  descriptor(0, 0xfffff, 0x9b, 0xc), // 50 32-bit code
  descriptor(0, 0xfffff, 0x13, 0xc), // 58 data, absent
  descriptor(0, 0xfffff, 0x9f, 0xa), // 60 code, conforming
  descriptor(0, 0xfffff, 0x99, 0xa), // 68 code, execute-only
  descriptor(0, 0xfffff, 0x91, 0xc), // 70 data, read-only
  ...gate(0x08, BigInt(PLACE.service), 0xec), // 78 call gate, DPL 3
  ...gate(0x08, BigInt(PLACE.service), 0x6c), // 88 call gate, absent
  ...system(PLACE.ldt, 0x17, 0x82, 0x8000n), // 98 LDT, base not canonical
  ...system(PLACE.tss, 0x67, 0x89, 0x8000n), // a8 task state, base not canonical
  ...system(PLACE.tss, 0x67, 0x89, 0x100_0000_0000n), // b8 task state, upper type
  ...system(PLACE.otherTss, 0x67, 0x89), // c8 task state
  descriptor(0, 0xfffff, 0x9b, 0xe), // d8 code with L and D
  descriptor(0, 0xfffff, 0xbb, 0xa), // e0 code, DPL 1
  ...gate(0x50, BigInt(PLACE.service), 0xec), // e8 call gate to 32-bit code
  ...gate(0x08, 0x8000_0000_0000n, 0xec), // f8 call gate out of the address space
];
const SELECTORS = GDT.length * 8;
const words = (values: ArrayLike<bigint>) =>
  new Uint8Array(BigUint64Array.from(values as bigint[]).buffer);

/** What is the same for all: tables, task states, handlers, page tables. */
function common(): [number, Uint8Array][] {
  const idt: [bigint, bigint][] = [], stubs = new Uint8Array(64 * 8).fill(0xf4);
  for (let v = 0; v < 64; v++) idt.push(gate(0x08, BigInt(PLACE.stubs + 8 * v), 0x8e));
  // 30h to 39h come back: IRETQ behind a gate of each kind.
  const back = BigInt(PLACE.stubs + 0x180);
  idt.splice(
    0x30,
    10,
    gate(0x08, back, 0xee),
    gate(0x08, back, 0xef),
    gate(0x08, back, 0xee, 1),
    gate(0x08, back, 0xee, 2),
    gate(0x60, back, 0xee),
    gate(0x08, back, 0x8e),
    gate(0x50, back, 0xee),
    gate(0x10, back, 0xee),
    gate(0x08, back, 0x6e),
    gate(0x08, 0x8000_0000_0000n, 0xee),
  );
  stubs.set([0x48, 0xcf], 0x180);
  const task = new DataView(new ArrayBuffer(0x68));
  task.setBigUint64(4, BigInt(PLACE.stack0), true);
  task.setBigUint64(12, BigInt(PLACE.stack0 - 0x100), true);
  task.setBigUint64(0x24, BigInt(PLACE.ist1), true);
  // Not aligned: the processor does that.
  task.setBigUint64(0x2c, BigInt(PLACE.ist2 - 5), true);
  task.setUint16(0x66, 0x68, true);
  const table = new BigUint64Array(512), directory = new BigUint64Array(512);
  const pdpt = new BigUint64Array(512), pml4 = new BigUint64Array(512);
  for (let n = 0; n < 512; n++) table[n] = BigInt(n * 4096 | 7);
  for (let n = 0; n < 8; n++) directory[n] = BigInt(n * 0x20_0000 | 0x87);
  directory[0] = BigInt(PLACE.table | 7);
  pdpt[0] = BigInt(PLACE.directory | 7);
  pdpt[1] = 0x87n;
  pml4[0] = BigInt(PLACE.pdpt | 7);
  return [
    [PLACE.gdt, words(GDT)],
    [PLACE.ldt, words([0n, descriptor(0x10000, 0xffff, 0x93, 0x4), 0n])],
    [PLACE.idt, words(idt.flat())],
    [PLACE.stubs, stubs],
    [PLACE.tss, new Uint8Array(task.buffer)],
    [PLACE.otherTss, new Uint8Array(task.buffer)],
    [PLACE.pml4, words(pml4)],
    [PLACE.pdpt, words(pdpt)],
    [PLACE.directory, words(directory)],
    [PLACE.table, words(table)],
    // A service behind call gates (INC EAX; RETFQ).
    [PLACE.service, Uint8Array.of(0xff, 0xc0, 0x48, 0xcb)],
  ];
}

/** PAE PGE OSFXSR OSXMMEXCPT FSGSBASE OSXSAVE. */
const CR4 = 0x506a0;
const PREAMBLE = `
bits 16
org ${PLACE.start}
  cli
  lgdt [gdtr]
  lidt [idtr]
  mov eax, ${CR4}
  mov cr4, eax
  mov eax, ${PLACE.pml4}
  mov cr3, eax
  mov ecx, 0xc0000080
  mov eax, 0x901
  xor edx, edx
  wrmsr
  mov eax, 0x80000033
  mov cr0, eax
  db 0xea
  dw flat, 8
gdtr:
  dw ${SELECTORS - 1}
  dd ${PLACE.gdt}
idtr:
  dw ${64 * 16 - 1}
  dd ${PLACE.idt}
bits 64
flat:
  mov eax, 16
  mov ds, ax
  mov es, ax
  mov fs, ax
  mov gs, ax
  mov ss, ax
  mov rsp, ${PLACE.stack0}
  mov eax, 0x40
  lldt ax
  mov eax, 0x30
  ltr ax
  mov eax, ${PLACE.code}
  jmp rax
`;

/** The sequence of a seed. */
export function sequence(seed: number): Sequence {
  const r = new Random(seed);
  let body = "";
  const items = 2 + r.below(6);
  for (let n = 0; n < items; n++) body += r.pick(ITEMS)(r, n);
  const bytes = (text: string, origin: number, mode: 16 | 64) =>
    assemble(text, { mode, origin }).bytes;
  return {
    source: body,
    memory: [
      ...common(),
      [PLACE.start, bytes(PREAMBLE, PLACE.start, 16)],
      [PLACE.code, bytes(`bits 64\norg ${PLACE.code}\n${body}\n  hlt\n`, PLACE.code, 64)],
    ],
  };
}

const selector = (r: Random): number => {
  if (r.chance(0.05)) return r.below(0x120) & ~4;
  return r.below(GDT.length) * 8 | (r.chance(0.3) ? r.below(4) : 0) | (r.chance(0.05) ? 4 : 0);
};
/** Mostly one that works. */
const dataSelector = (r: Random): number =>
  r.chance(0.5) ? r.pick([0x10, 0x23, 0x0c, 0, 0x70]) : selector(r);
const address = (r: Random): string =>
  r.chance(0.6)
    ? String(r.pick([PLACE.data, 0x2000]))
    : r.pick([HOLE, "0x7fffffffffff", "0xffff800000000000", "0xaaaaaaaaaaaaaaaa", "0x40000010"]);
/** WRMSR of a number, or of a label in the lowest 4 GB. */
const msr = (number: number, value: string): string => {
  const high = /^\d/.test(value) ? BigInt(value) >> 32n : 0n;
  const low = /^\d/.test(value) ? String(BigInt(value) & 0xffff_ffffn) : value;
  return `  mov eax, ${low}\n  mov edx, ${high}\n  mov ecx, ${number}\n  wrmsr\n`;
};

type Item = (r: Random, n: number) => string;

/** By IRETQ, going on behind. */
const iretTo = (ss: number, stack: number, flags: number, cs: number): Item => (_, n) => `
  push ${ss}
  push ${stack}
  push ${flags}
  push ${cs}
  push to${n}
  iretq
to${n}:
`;
const USER = iretTo(0x23, PLACE.stack3, 0x3002, 0x2b);

const ITEMS: readonly Item[] = [
  (r) => `  mov eax, ${dataSelector(r)}\n  mov ${r.pick(["ds", "es", "fs", "gs", "ss"])}, ax\n`,
  (r) => `  mov eax, ${selector(r)}\n  mov ${r.pick(["ds", "es", "fs", "gs", "ss"])}, ax\n`,
  (r) => `  push ${dataSelector(r)}\n  pop ${r.pick(["fs", "gs"])}\n`,
  (r) => `  mov eax, ${selector(r)}\n  ${r.pick(["lar", "lsl"])} ecx, eax\n`,
  (r) => `  mov eax, ${selector(r)}\n  ${r.pick(["verr", "verw"])} ax\n`,
  (r) => `  mov eax, ${r.pick([0x40, 0, 0x98, selector(r)])}\n  lldt ax\n`,
  (r) => `  mov eax, ${r.pick([0xc8, 0x30, 0xa8, 0xb8, selector(r)])}\n  ltr ax\n`,
  (r) => `
  mov dword [${PLACE.data}], ${PLACE.service}
  mov dword [${PLACE.data + 4}], ${r.chance(0.6) ? r.pick([0x08, 0x78, 0x60, 0x7b]) : selector(r)}
  call far [${PLACE.data}]
`,
  (r, n) => `
  mov eax, far${n}
  mov [${PLACE.data}], eax
  mov dword [${PLACE.data + 4}], ${r.chance(0.6) ? r.pick([8, 0x60, 0x68]) : selector(r)}
  jmp far [${PLACE.data}]
far${n}:
`,
  (r) => `  int ${0x30 + r.below(10)}\n`,
  (r) => `  int ${0x30 + r.below(4)}\n`,
  (r) => `  int ${r.below(48)}\n`,
  () => `  int3\n`,
  USER,
  USER,
  iretTo(0, PLACE.stack0, 2, 8),
  iretTo(0x23, PLACE.stack3, 0x3002, 0x1b),
  (r, n) =>
    iretTo(
      r.chance(0.5) ? 0x10 : selector(r),
      PLACE.stack0,
      r.pick([2, 2, 0x4002, 0x10002]),
      r.chance(0.5) ? 8 : selector(r),
    )(r, n),
  (r, n) => `
  push ${r.chance(0.6) ? 8 : selector(r)}
  push ret${n}
  db 0x48
  retf
ret${n}:
`,
  (r, n) =>
    msr(0xc000_0081, r.pick(["0x001b000800000000", "0x0018001000000000"])) +
    msr(0xc000_0082, `sys${n}`) +
    msr(0xc000_0084, r.pick(["0", "0x300", "0x47700"])) + `  syscall\nsys${n}:\n`,
  (r, n) =>
    `${msr(0xc000_0081, "0x001b000800000000")}
  mov rcx, ${r.chance(0.8) ? `user${n}` : HOLE}
  mov r11, ${r.pick([0x202, 0x3002, 0x14202])}
  mov rsp, ${PLACE.stack3}
  ${r.chance(0.8) ? "db 0x48\n  sysret" : "sysret"}
user${n}:
`,
  (r, n) =>
    msr(0x174, String(r.pick([8, 8, 0]))) + msr(0x175, String(PLACE.stack0)) +
    msr(0x176, `enter${n}`) + `  sysenter\nenter${n}:\n`,
  () => `  swapgs\n`,
  (r) =>
    msr(r.pick([0xc000_0100, 0xc000_0101, 0xc000_0102, 0xc000_0082, 0x175, 0x176]), address(r)),
  (r) =>
    `  mov rax, ${address(r)}\n  ${r.pick(["wrfsbase", "wrgsbase"])} rax\n  ${
      r.pick(["rdfsbase", "rdgsbase"])
    } rbx\n`,
  (r) => `  mov rax, ${address(r)}\n  mov rbx, [rax]\n`,
  (r) => `  mov rax, ${address(r)}\n  mov [rax + ${r.pick([0, 8])}], rbx\n`,
  (r) => `  mov rbp, ${address(r)}\n  mov rbx, [rbp]\n`,
  (r) => `  mov rsp, ${address(r)}\n  push rax\n`,
  (r) => `  mov rax, ${r.pick([HOLE, "0x7fffffffffff", String(PLACE.service)])}\n  jmp rax\n`,
  (r) => `  mov rax, ${r.pick([HOLE, "0xffff7fffffffffff"])}\n  push rax\n  ret\n`,
  (r) => `  mov rax, ${address(r)}\n  invlpg [rax]\n`,
  (r) =>
    `  mov rax, cr0\n  xor eax, ${
      r.pick([0x10000, 0x40000, 8, 2, 4, 0x20, 0x8000_0000, 1])
    }\n  mov cr0, rax\n`,
  (r) => `  mov rax, cr4\n  xor eax, ${r.pick([4, 0x80, 0x20, 8, 0x100000])}\n  mov cr4, rax\n`,
  (r) => `  mov rax, ${r.pick(["0x10000", "0x10018", "0x1000010000"])}\n  mov cr3, rax\n`,
  (r) => `  mov eax, ${r.below(20)}\n  mov cr8, rax\n  mov rbx, cr8\n`,
  (r) => msr(0xc000_0080, String(r.pick([0xd01, 0x501, 0x900, 0x801, 0x1d01, 0xd03]))),
  (r) => {
    const page = r.pick([0x20, 0x21, 0x30]);
    const flags = r.pick([7, 5, 3, 1, 0, 0x67, 0x107]);
    const high = r.pick([0, 0, 0x8000_0000, 0x0010_0000, 0x0400_0000]);
    return `
  mov dword [${PLACE.table + page * 8}], ${page * 4096 | flags}
  mov dword [${PLACE.table + page * 8 + 4}], ${high}
  invlpg [${page * 4096}]
  mov eax, [${page * 4096 + 8}]
  mov [${page * 4096 + 16}], eax
`;
  },
  () => `
  mov dword [${PLACE.table + 0x21 * 8 + 4}], 0x80000000
  invlpg [0x21000]
  mov eax, 0x21000
  jmp rax
`,
  (r) => `  mov eax, ${r.pick([0x40000010, 0x40020000])}\n  mov ebx, [rax]\n`,
  (r) => `  push ${r.u32() & 0x3fed7}\n  popfq\n  pushfq\n`,
  (r) => `  ${r.pick(["cli", "sti", "pushfq", "nop", "clts", "stac", "clac"])}\n`,
  (r) => `  ${r.pick(["sldt", "str", "smsw"])} ax\n`,
  (r) => `  ${r.pick(["sgdt", "sidt"])} [${PLACE.data}]\n`,
  (r) => `
  mov word [${PLACE.data}], ${r.pick([SELECTORS - 1, 0x5f])}
  mov rax, ${r.chance(0.7) ? PLACE.gdt : HOLE}
  mov [${PLACE.data + 2}], rax
  lgdt [${PLACE.data}]
`,
  (r) => `
  mov dword [${PLACE.data}], 0x1234
  mov dword [${PLACE.data + 4}], ${selector(r)}
  ${r.pick(["lss", "lfs", "lgs"])} ebx, [${PLACE.data}]
`,
  (r) => `  lea rsi, [${PLACE.data + r.pick([0, 8])}]\n  cmpxchg16b [rsi]\n`,
  () => `  xor ecx, ecx\n  xgetbv\n  xor edx, edx\n  mov eax, 3\n  xsetbv\n`,
  (r) => `  xor ecx, ecx\n  xor edx, edx\n  mov eax, ${r.pick([0, 2, 1])}\n  xsetbv\n`,
  () => `  out 0x80, al\n`,
];
