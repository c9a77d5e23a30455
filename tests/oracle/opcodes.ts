/**
 * The opcode rules of the random generator, from the opcode maps of SDM vol 2, appendix A.
 * A rule knows only what is needed to make the instruction do something: it has no lengths.
 */
import type { Mode } from "./state.ts";
import type { Random } from "./values.ts";

/** What a rule exercises. */
export type Kind = "integer" | "system" | "x87" | "mmx" | "sse";

/** One opcode or a row of them. */
export interface Rule {
  /** One byte, or 0x100 | second byte for the 0F map. */
  opcode: number;
  /** So many opcodes from `opcode` on. */
  span?: number;
  /** Modes in which it exists; all if absent. */
  modes?: readonly Mode[];
  modrm?: "any" | "mem" | "reg";
  /** Values for ModRM.reg, and for ModRM.rm in register forms. */
  reg?: readonly number[];
  rm?: readonly number[];
  /** Mandatory prefix. */
  prefix?: number;
  /** LOCK is allowed with a memory operand. */
  lock?: boolean;
  string?: boolean;
  divide?: boolean;
  /** BT and its like: the register is a bit offset into memory. */
  bits?: boolean;
  /** Compares memory with the accumulator. */
  compare?: boolean;
  /** No immediate bytes may follow (the instruction behind it runs too). */
  bare?: boolean;
  moffs?: boolean;
  /** Takes CS from the stack. */
  far?: boolean;
  loadSegment?: "register" | "far" | "stack";
  /** Pops a value of interest. */
  stackValue?: boolean;
  /** The memory operand is an x87 or FXSAVE image. */
  image?: boolean;
  /** MMX or SSE: no random 66. */
  vector?: boolean;
  immediate?: (random: Random, operand16: boolean, selector: number) => number[];
}

const LEGACY: readonly Mode[] = [16, 32];
const LONG: readonly Mode[] = [64];

/** Offset and selector of a far pointer. */
function farPointer(random: Random, operand16: boolean, selector: number): number[] {
  const offset = [random.below(256), random.below(16), 0, 0].slice(0, operand16 ? 2 : 4);
  return [...offset, selector & 0xff, selector >> 8];
}

/** ENTER: a small frame and any nesting level. */
function enterFrame(random: Random): number[] {
  return [random.below(256), random.chance(0.9) ? 0 : random.below(256), random.below(40)];
}

/** INT n: vectors with and without a user gate, never 0x80. */
function vector(random: Random): number[] {
  return [random.pick([0, 1, 3, 4, 5, 13, 14, 0x20, 0x7f, 0x81, 0xff])];
}

const INTEGER: Rule[] = [
  ...[0, 1, 2, 3, 4, 5, 6, 7].flatMap((op): Rule[] => [
    { opcode: op * 8, span: 2, modrm: "any", lock: op < 7 },
    { opcode: op * 8 + 2, span: 2, modrm: "any" },
    { opcode: op * 8 + 4, span: 2 },
  ]),
  { opcode: 0x27, modes: LEGACY },
  { opcode: 0x2f, modes: LEGACY },
  { opcode: 0x37, modes: LEGACY },
  { opcode: 0x3f, modes: LEGACY },
  { opcode: 0x06, modes: LEGACY },
  { opcode: 0x0e, modes: LEGACY },
  { opcode: 0x16, modes: LEGACY },
  { opcode: 0x1e, modes: LEGACY },
  { opcode: 0x07, modes: LEGACY, loadSegment: "stack" },
  { opcode: 0x1f, modes: LEGACY, loadSegment: "stack" },
  { opcode: 0x40, span: 16, modes: LEGACY },
  { opcode: 0x50, span: 8 },
  { opcode: 0x58, span: 8, stackValue: true },
  { opcode: 0x60, modes: LEGACY },
  { opcode: 0x61, modes: LEGACY, stackValue: true },
  { opcode: 0x62, modes: LEGACY, modrm: "mem" },
  { opcode: 0x63, modrm: "any" },
  { opcode: 0x68 },
  { opcode: 0x69, modrm: "any" },
  { opcode: 0x6a },
  { opcode: 0x6b, modrm: "any" },
  { opcode: 0x70, span: 16 },
  { opcode: 0x80, span: 2, modrm: "any", lock: true },
  { opcode: 0x82, modes: LEGACY, modrm: "any", lock: true },
  { opcode: 0x83, modrm: "any", lock: true },
  { opcode: 0x84, span: 2, modrm: "any" },
  { opcode: 0x86, span: 2, modrm: "any", lock: true },
  { opcode: 0x88, span: 4, modrm: "any" },
  { opcode: 0x8c, modrm: "any" },
  { opcode: 0x8d, modrm: "any" },
  { opcode: 0x8e, modrm: "any", reg: [0, 3, 4, 5], loadSegment: "register", modes: LEGACY },
  { opcode: 0x8e, modrm: "any", reg: [2], bare: true, modes: LEGACY },
  { opcode: 0x8f, modrm: "any", reg: [0], stackValue: true },
  { opcode: 0x90, span: 8 },
  { opcode: 0x98, span: 2 },
  { opcode: 0x9a, modes: LEGACY, immediate: farPointer },
  { opcode: 0x9b },
  { opcode: 0x9c },
  { opcode: 0x9d, stackValue: true },
  { opcode: 0x9e, span: 2 },
  { opcode: 0xa0, span: 4, moffs: true },
  { opcode: 0xa4, span: 4, string: true },
  { opcode: 0xa8, span: 2 },
  { opcode: 0xaa, span: 6, string: true },
  { opcode: 0xb0, span: 16 },
  { opcode: 0xc0, span: 2, modrm: "any" },
  { opcode: 0xc2, span: 2, stackValue: true },
  { opcode: 0xc4, span: 2, modes: LEGACY, modrm: "mem", loadSegment: "far" },
  { opcode: 0xc6, span: 2, modrm: "any", reg: [0] },
  { opcode: 0xc8, immediate: enterFrame },
  { opcode: 0xc9 },
  { opcode: 0xca, span: 2, far: true },
  { opcode: 0xcf, far: true, modes: LEGACY },
  { opcode: 0xd0, span: 4, modrm: "any" },
  { opcode: 0xd4, span: 2, modes: LEGACY },
  { opcode: 0xd6, modes: LEGACY },
  { opcode: 0xd7 },
  { opcode: 0xe0, span: 4 },
  { opcode: 0xe8, span: 2 },
  { opcode: 0xea, modes: LEGACY, immediate: farPointer },
  { opcode: 0xeb },
  { opcode: 0xf5 },
  { opcode: 0xf6, span: 2, modrm: "any", reg: [0, 1, 4, 5] },
  { opcode: 0xf6, span: 2, modrm: "any", reg: [2, 3], lock: true },
  { opcode: 0xf6, span: 2, modrm: "any", reg: [6, 7], divide: true },
  { opcode: 0xf8, span: 2 },
  { opcode: 0xfc, span: 2 },
  { opcode: 0xfe, span: 2, modrm: "any", reg: [0, 1], lock: true },
  { opcode: 0xff, modrm: "any", reg: [2, 4, 6] },
  { opcode: 0xff, modrm: "mem", reg: [3, 5], loadSegment: "far", modes: LEGACY },
  { opcode: 0x102, span: 2, modrm: "any", loadSegment: "register" },
  { opcode: 0x11f, modrm: "any" },
  { opcode: 0x140, span: 16, modrm: "any" },
  { opcode: 0x180, span: 16 },
  { opcode: 0x190, span: 16, modrm: "any" },
  { opcode: 0x1a0 },
  { opcode: 0x1a1, loadSegment: "stack", modes: LEGACY },
  { opcode: 0x1a8 },
  { opcode: 0x1a9, loadSegment: "stack", modes: LEGACY },
  { opcode: 0x1a3, modrm: "any", bits: true },
  { opcode: 0x1a4, span: 2, modrm: "any" },
  { opcode: 0x1ab, modrm: "any", bits: true, lock: true },
  { opcode: 0x1ac, span: 2, modrm: "any" },
  { opcode: 0x1af, modrm: "any" },
  { opcode: 0x1b0, span: 2, modrm: "any", lock: true, compare: true },
  { opcode: 0x1b2, modes: LEGACY, modrm: "mem", loadSegment: "far" },
  { opcode: 0x1b3, modrm: "any", bits: true, lock: true },
  { opcode: 0x1b4, span: 2, modes: LEGACY, modrm: "mem", loadSegment: "far" },
  { opcode: 0x1b6, span: 2, modrm: "any" },
  { opcode: 0x1ba, modrm: "any", reg: [4, 5, 6, 7], lock: true },
  { opcode: 0x1bb, modrm: "any", bits: true, lock: true },
  { opcode: 0x1bc, span: 2, modrm: "any" },
  { opcode: 0x1be, span: 2, modrm: "any" },
  { opcode: 0x1c0, span: 2, modrm: "any", lock: true },
  { opcode: 0x1c7, modrm: "mem", reg: [1], lock: true, compare: true },
  { opcode: 0x1c8, span: 8 },
];

/** Instructions that fault at CPL 3, undefined opcodes, and software interrupts. */
const SYSTEM: Rule[] = [
  { opcode: 0x6c, span: 4, string: true },
  { opcode: 0xe4, span: 4 },
  { opcode: 0xec, span: 4 },
  { opcode: 0xcc },
  { opcode: 0xcd, immediate: vector },
  { opcode: 0xce, modes: LEGACY },
  { opcode: 0xf4 },
  { opcode: 0xfa, span: 2 },
  { opcode: 0x100, modrm: "any", reg: [2, 3] },
  { opcode: 0x100, modrm: "any", reg: [4, 5], loadSegment: "register" },
  { opcode: 0x101, modrm: "mem", reg: [2, 3, 6, 7] },
  { opcode: 0x106 },
  { opcode: 0x108, span: 2 },
  { opcode: 0x10b },
  { opcode: 0x120, span: 4, modrm: "reg" },
  { opcode: 0x130 },
  { opcode: 0x132 },
  { opcode: 0x135 },
  { opcode: 0x1aa },
  { opcode: 0x1b9, modrm: "any" },
  { opcode: 0x8e, modrm: "any", reg: [1, 6, 7] },
  { opcode: 0x8f, modrm: "any", reg: [0], stackValue: true },
  { opcode: 0xfe, modrm: "any", reg: [2, 3, 4, 5, 6, 7] },
  { opcode: 0xff, modrm: "any", reg: [7] },
  { opcode: 0x1c7, modrm: "reg", reg: [0, 1, 2] },
];

const X87: Rule[] = [
  { opcode: 0xd8, span: 8, modrm: "mem" },
  { opcode: 0xd8, span: 8, modrm: "reg" },
  { opcode: 0xd8, span: 8, modrm: "reg" },
  { opcode: 0xd9, modrm: "reg", reg: [4, 5, 6, 7] },
  { opcode: 0xd9, modrm: "mem", reg: [4, 6], image: true },
  { opcode: 0xdd, modrm: "mem", reg: [4, 6], image: true },
  { opcode: 0x9b },
];

const FXSAVE: Rule[] = [{ opcode: 0x1ae, modrm: "mem", reg: [0, 1], image: true, vector: true }];

/** The MMX of the Pentium, without what SSE and SSE2 added to it. */
const MMX_ROWS = [
  [0x160, 12],
  [0x16e, 2],
  [0x174, 4],
  [0x17e, 2],
  [0x1d1, 3],
  [0x1d5, 1],
  [0x1d8, 2],
  [0x1db, 3],
  [0x1df, 1],
  [0x1e1, 2],
  [0x1e5, 1],
  [0x1e8, 2],
  [0x1eb, 3],
  [0x1ef, 1],
  [0x1f1, 3],
  [0x1f5, 1],
  [0x1f8, 3],
  [0x1fc, 3],
];

const MMX: Rule[] = [
  ...MMX_ROWS.map(([opcode, span]): Rule => ({ opcode, span, modrm: "any", vector: true })),
  { opcode: 0x171, span: 2, modrm: "reg", reg: [2, 4, 6], vector: true },
  { opcode: 0x173, modrm: "reg", reg: [2, 6], vector: true },
];

/** Rows of the 0F map with their prefixes: SSE and SSE2, and the MMX forms they added. */
const SSE: Rule[] = [
  ...[0, 0x66, 0xf2, 0xf3].flatMap((prefix): Rule[] =>
    [
      [0x110, 2],
      [0x112, 1],
      [0x114, 2],
      [0x116, 1],
      [0x128, 1],
      [0x12a, 1],
      [0x12c, 4],
      [0x151, 1],
      [0x154, 4],
      [0x158, 8],
      [0x1c2, 1],
    ].map(([opcode, span]) => ({ opcode, span, modrm: "any", prefix, vector: true }))
  ),
  ...[0, 0x66].flatMap((prefix): Rule[] => [
    { opcode: 0x113, modrm: "mem", prefix, vector: true },
    { opcode: 0x117, modrm: "mem", prefix, vector: true },
    { opcode: 0x129, modrm: "any", prefix, vector: true },
    { opcode: 0x12b, modrm: "mem", prefix, vector: true },
    { opcode: 0x150, modrm: "reg", prefix, vector: true },
    { opcode: 0x1c4, modrm: "any", prefix, vector: true },
    { opcode: 0x1c5, modrm: "reg", prefix, vector: true },
    { opcode: 0x1c6, modrm: "any", prefix, vector: true },
    { opcode: 0x1d1, span: 6, modrm: "any", prefix, vector: true },
    { opcode: 0x1d7, modrm: "reg", prefix, vector: true },
    { opcode: 0x1d8, span: 15, modrm: "any", prefix, vector: true },
    { opcode: 0x1e7, modrm: "mem", prefix, vector: true },
    { opcode: 0x1e8, span: 8, modrm: "any", prefix, vector: true },
    { opcode: 0x1f1, span: 6, modrm: "any", prefix, vector: true },
    { opcode: 0x1f8, span: 7, modrm: "any", prefix, vector: true },
  ]),
  ...[0x66, 0xf2, 0xf3].map((prefix): Rule => (
    { opcode: 0x1e6, modrm: "any", prefix, vector: true }
  )),
  { opcode: 0x152, span: 2, modrm: "any", prefix: 0, vector: true },
  { opcode: 0x152, span: 2, modrm: "any", prefix: 0xf3, vector: true },
  { opcode: 0x160, span: 16, modrm: "any", prefix: 0x66, vector: true },
  { opcode: 0x16f, span: 2, modrm: "any", prefix: 0xf3, vector: true },
  { opcode: 0x170, modrm: "any", prefix: 0xf2, vector: true },
  { opcode: 0x170, modrm: "any", prefix: 0, vector: true },
  { opcode: 0x17e, span: 2, modrm: "any", prefix: 0x66, vector: true },
  { opcode: 0x17e, span: 2, modrm: "any", prefix: 0xf3, vector: true },
  { opcode: 0x1d6, modrm: "any", prefix: 0x66, vector: true },
  { opcode: 0x1ae, modrm: "mem", reg: [0, 1], image: true, vector: true },
  { opcode: 0x1ae, modrm: "mem", reg: [2, 3], vector: true },
  { opcode: 0x1ae, modrm: "reg", reg: [5, 6, 7], vector: true },
  { opcode: 0x1c3, modrm: "mem", vector: true },
  { opcode: 0x1c7, modrm: "mem", reg: [1], lock: true, compare: true, modes: LONG },
];

/** The rules of each kind. */
export const KINDS: Readonly<Record<Kind, readonly Rule[]>> = {
  integer: INTEGER,
  system: SYSTEM,
  x87: [...X87, ...X87, ...FXSAVE],
  mmx: MMX,
  sse: SSE,
};
