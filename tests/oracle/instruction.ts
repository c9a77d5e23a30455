/**
 * The least that the oracle must know of an instruction: prefixes, opcode, ModRM. It has nothing in
 * common with the product's decoder, and knows no lengths.
 */
import type { Case, Mode } from "./state.ts";

/** What the bytes begin with. */
export interface Instruction {
  mode: Mode;
  /** Legacy prefixes present. */
  prefixes: Set<number>;
  /** REX byte or 0. */
  rex: number;
  /** One byte, or 0x100 | second byte of the 0F map. */
  opcode: number;
  /** The byte after the opcode, and its fields as ModRM. */
  modrm: number;
  mod: number;
  reg: number;
  rm: number;
  /** Effective operand size, 16, 32 or 64; byte forms have {@linkcode byte} set besides. */
  size: 16 | 32 | 64;
  /** The low bit of the opcode is clear: the byte form, where an opcode has one. */
  byte: boolean;
  /** The byte after ModRM in register forms (an immediate, if the instruction has one). */
  next: number;
}

const PREFIXES = new Set([0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3]);

/** Reads prefixes, opcode and ModRM. */
export function identify({ bytes, mode }: Pick<Case, "bytes" | "mode">): Instruction {
  const prefixes = new Set<number>();
  let at = 0, rex = 0;
  while (PREFIXES.has(bytes[at])) prefixes.add(bytes[at++]);
  if (mode === 64 && (bytes[at] & 0xf0) === 0x40) rex = bytes[at++];
  let opcode = bytes[at++];
  if (opcode === 0x0f) opcode = 0x100 | bytes[at++];
  const modrm = bytes[at] ?? 0x90;
  const wide = (mode === 16) === prefixes.has(0x66);
  return {
    mode,
    prefixes,
    rex,
    opcode,
    modrm,
    mod: modrm >> 6,
    reg: (modrm >> 3) & 7,
    rm: modrm & 7,
    size: rex & 8 ? 64 : wide ? 32 : 16,
    byte: (opcode & 1) === 0,
    next: bytes[immediateAt(bytes, at, modrm, mode, prefixes.has(0x67))] ?? 0x90,
  };
}

/** Index of the byte after ModRM, SIB and displacement. */
function immediateAt(
  bytes: Uint8Array,
  at: number,
  modrm: number,
  mode: Mode,
  other: boolean,
): number {
  const mod = modrm >> 6, rm = modrm & 7;
  if (mod === 3) return at + 1;
  const narrow = mode === 16 ? !other : mode === 32 && other;
  if (narrow) return at + 1 + (mod === 1 ? 1 : mod === 2 || rm === 6 ? 2 : 0);
  const sib = rm === 4 ? 1 : 0;
  const absolute = mod === 0 && (rm === 5 || (sib && (bytes[at + 1] & 7) === 5));
  return at + 1 + sib + (mod === 1 ? 1 : mod === 2 || absolute ? 4 : 0);
}

/** True for the x87 instructions, D8 to DF. */
export function isX87(i: Instruction): boolean {
  return i.opcode >= 0xd8 && i.opcode <= 0xdf;
}
