/**
 * Names and numbers of the x86 register files, as ModRM, REX and opcode bits encode them
 * (Intel SDM vol. 2A, 2.1.5 and table 3-1).
 * @module
 */

/** 64-bit general registers by number, 0 to 15. */
export const gpr64 = [
  "rax",
  "rcx",
  "rdx",
  "rbx",
  "rsp",
  "rbp",
  "rsi",
  "rdi",
  "r8",
  "r9",
  "r10",
  "r11",
  "r12",
  "r13",
  "r14",
  "r15",
] as const;

/** A 64-bit general register's name. */
export type GprName = typeof gpr64[number];

/** 32-bit general registers by number, 0 to 15. */
export const gpr32 = [
  "eax",
  "ecx",
  "edx",
  "ebx",
  "esp",
  "ebp",
  "esi",
  "edi",
  "r8d",
  "r9d",
  "r10d",
  "r11d",
  "r12d",
  "r13d",
  "r14d",
  "r15d",
] as const;

/** 16-bit general registers by number, 0 to 15. */
export const gpr16 = [
  "ax",
  "cx",
  "dx",
  "bx",
  "sp",
  "bp",
  "si",
  "di",
  "r8w",
  "r9w",
  "r10w",
  "r11w",
  "r12w",
  "r13w",
  "r14w",
  "r15w",
] as const;

/** Byte registers by number when the instruction has a REX prefix. */
export const gpr8rex = [
  "al",
  "cl",
  "dl",
  "bl",
  "spl",
  "bpl",
  "sil",
  "dil",
  "r8b",
  "r9b",
  "r10b",
  "r11b",
  "r12b",
  "r13b",
  "r14b",
  "r15b",
] as const;

/** Byte registers by number without a REX prefix: 4 to 7 are bits 15:8 of the first four. */
export const gpr8 = ["al", "cl", "dl", "bl", "ah", "ch", "dh", "bh"] as const;

/** Segment registers by number, 0 to 5. */
export const segments = ["es", "cs", "ss", "ds", "fs", "gs"] as const;

/** Numbers of the general registers. */
export const RAX = 0, RCX = 1, RDX = 2, RBX = 3, RSP = 4, RBP = 5, RSI = 6, RDI = 7;
/** Numbers of the segment registers. */
export const ES = 0, CS = 1, SS = 2, DS = 3, FS = 4, GS = 5;

/** Condition suffixes by number (SDM vol. 2, appendix B, table B-10), as binutils spells them. */
export const conditions = [
  "o",
  "no",
  "b",
  "ae",
  "e",
  "ne",
  "be",
  "a",
  "s",
  "ns",
  "p",
  "np",
  "l",
  "ge",
  "le",
  "g",
] as const;

/** Other spellings of the conditions, to their number. */
export const conditionAliases: Readonly<Record<string, number>> = {
  c: 2,
  nae: 2,
  nb: 3,
  nc: 3,
  z: 4,
  nz: 5,
  na: 6,
  nbe: 7,
  pe: 10,
  po: 11,
  nge: 12,
  nl: 13,
  ng: 14,
  nle: 15,
};

/** Flags by letter, AC as `k`: bit number in (E/R)FLAGS (SDM vol. 1, 3.4.3). */
export const flagBits = {
  c: 0,
  p: 2,
  a: 4,
  z: 6,
  s: 7,
  i: 9,
  d: 10,
  o: 11,
  k: 18,
} as const;

/** Letters of the flags in a mask. */
export const flagLetters = (mask: number): string =>
  Object.entries(flagBits).filter(([, bit]) => mask >> bit & 1).map(([letter]) => letter).join("");
