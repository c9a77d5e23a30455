/**
 * The least that the oracle must know of an instruction: prefixes, opcode, ModRM. It has nothing in
 * common with the product's decoder, and knows no lengths.
 */
import { type Case, type CpuState, DS, ES, FS, GS, LDT, type Mode, SS } from "./state.ts";

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
  /** Index of ModRM in the bytes. */
  at: number;
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
    at,
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

const OVERRIDES: Record<number, number> = { 0x26: ES, 0x36: SS, 0x3e: DS, 0x64: FS, 0x65: GS };

/**
 * The linear address of the memory operand that ModRM names, in 32 bits; undefined for register
 * forms and for what an allowance does not need (64-bit mode, CS override).
 */
export function operandAddress(i: Instruction, { bytes, state }: Case): number | undefined {
  if (i.mod === 3 || i.mode === 64 || i.prefixes.has(0x2e)) return undefined;
  const narrow = (i.mode === 16) !== i.prefixes.has(0x67);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const at = immediateAt(bytes, i.at, i.modrm, i.mode, i.prefixes.has(0x67));
  if (at > bytes.length) return undefined;
  const { offset, stack } = narrow ? offset16(i, view, at, state) : offset32(i, view, at, state);
  const override = [...i.prefixes].reverse().find((p) => p in OVERRIDES);
  const selector =
    state.selectors[override === undefined ? (stack ? SS : DS) : OVERRIDES[override]];
  return ((LDT.find((s) => s.selector === selector)?.base ?? 0) + offset) >>> 0;
}

interface Offset {
  offset: number;
  /** The default segment is SS. */
  stack: boolean;
}

function offset16(i: Instruction, view: DataView, end: number, { gpr }: CpuState): Offset {
  const pairs = [[3, 6], [3, 7], [5, 6], [5, 7], [6], [7], [5], [3]];
  const direct = i.mod === 0 && i.rm === 6;
  let offset = i.mod === 1 ? view.getInt8(end - 1) : 0;
  if (i.mod === 2 || direct) offset = view.getInt16(end - 2, true);
  for (const n of direct ? [] : pairs[i.rm]) offset += Number(gpr[n] & 0xffffn);
  return { offset: offset & 0xffff, stack: !direct && pairs[i.rm][0] === 5 };
}

function offset32(i: Instruction, view: DataView, end: number, { gpr }: CpuState): Offset {
  const sib = i.rm === 4 ? view.getUint8(i.at + 1) : -1;
  const base = sib < 0 ? i.rm : sib & 7, index = sib < 0 ? 4 : (sib >> 3) & 7;
  const direct = i.mod === 0 && base === 5;
  let offset = i.mod === 1 ? view.getInt8(end - 1) : 0;
  if (i.mod === 2 || direct) offset = view.getInt32(end - 4, true);
  if (!direct) offset += Number(gpr[base] & 0xffff_ffffn);
  if (index !== 4) offset += Number(gpr[index] & 0xffff_ffffn) * (1 << (sib >> 6));
  return { offset: offset >>> 0, stack: !direct && (base === 4 || base === 5) };
}
