/**
 * Operand specifications in the notation of the SDM's opcode maps (vol. 2D, appendix A.2).
 * @module
 */
import { segments } from "../../abi/x86/registers.ts";

/**
 * Where an operand is found.
 *
 * `E` ModRM.rm register or memory, `G` ModRM.reg, `Z` opcode bits 2:0, `gpr` a fixed general
 * register, `I` immediate, `one` the constant 1, `J` relative branch, `A` far pointer in the
 * instruction, `M` memory only, `R` ModRM.rm as a register, `S` segment register in ModRM.reg,
 * `seg` a fixed segment register, `C` and `D` control and debug registers in ModRM.reg, `O` memory
 * at an absolute offset, `X` [DS:rSI], `Y` [ES:rDI], `B` [DS:rBX+AL], `P`/`Q`/`N` MMX in reg / in
 * rm or memory / in rm, `V`/`W`/`U` the same for XMM, `xmm` a fixed XMM register, `st` ST(0),
 * `sti` ST(ModRM.rm).
 */
export type OperandKind =
  | "E"
  | "G"
  | "Z"
  | "gpr"
  | "I"
  | "one"
  | "J"
  | "A"
  | "M"
  | "R"
  | "S"
  | "seg"
  | "C"
  | "D"
  | "O"
  | "X"
  | "Y"
  | "B"
  | "P"
  | "Q"
  | "N"
  | "V"
  | "W"
  | "U"
  | "xmm"
  | "st"
  | "sti";

/**
 * Width codes: b 1 byte, w 2, d 4, q 8, t 10, x 16, v by operand size, z 2 or 4, y 4 or 8,
 * p far pointer (2 + operand size), s pseudo-descriptor (6 or 10), a pair of operand size (BOUND),
 * e x87 environment (14 or 28), f x87 state (94 or 108), F FXSAVE area (512), "" no width.
 */
export type SizeCode =
  | "b"
  | "w"
  | "d"
  | "q"
  | "t"
  | "x"
  | "v"
  | "z"
  | "y"
  | "p"
  | "s"
  | "a"
  | "e"
  | "f"
  | "F"
  | "";

/** One operand of an encoding. */
export interface OperandSpec {
  /** As written in the table, for example "Ev" or "Rv/Mw". */
  readonly text: string;
  readonly kind: OperandKind;
  /** Width of the operand; of its register form where memory differs. */
  readonly size: SizeCode;
  /** Width of the memory form (the same as `size` unless written "Rv/Mw"; for P, Q, V, W too). */
  readonly memorySize: SizeCode;
  /** Immediates: sign-extended to the operand size. */
  readonly signed: boolean;
  /** Fixed registers: the number. */
  readonly register: number;
}

const fixed: Record<string, [OperandKind, SizeCode, number]> = {
  AL: ["gpr", "b", 0],
  CL: ["gpr", "b", 1],
  AX: ["gpr", "w", 0],
  DX: ["gpr", "w", 2],
  eAX: ["gpr", "z", 0],
  rAX: ["gpr", "v", 0],
  "1": ["one", "b", 0],
  ST0: ["st", "t", 0],
  STi: ["sti", "t", 0],
  XMM0: ["xmm", "x", 0],
};
segments.forEach((name, i) => fixed[name.toUpperCase()] = ["seg", "w", i]);

const registerSize: Partial<Record<OperandKind, SizeCode>> = {
  P: "q",
  Q: "q",
  N: "q",
  V: "x",
  W: "x",
  U: "x",
  S: "w",
};

const cache = new Map<string, OperandSpec>();

/** The operand that `text` describes. Throws on a text that is not in the notation. */
export function operandSpec(text: string): OperandSpec {
  let spec = cache.get(text);
  if (spec === undefined) cache.set(text, spec = parse(text));
  return spec;
}

function parse(text: string): OperandSpec {
  const f = fixed[text];
  if (f) {
    return { text, kind: f[0], size: f[1], memorySize: f[1], signed: false, register: f[2] };
  }
  const two = /^R([bwdqvy])\/M([bwdqx])$/.exec(text);
  if (two) {
    return {
      text,
      kind: "E",
      size: two[1] as SizeCode,
      memorySize: two[2] as SizeCode,
      signed: false,
      register: -1,
    };
  }
  const m = /^([EGZIJAMRSCDOXYBPQNVWU])([bwdqtxvzypsaefF]?)(s?)$/.exec(text);
  if (!m) throw new Error(`encoding table: operand "${text}" is not in SDM appendix A notation`);
  const kind = m[1] as OperandKind, size = m[2] as SizeCode;
  return {
    text,
    kind,
    size: registerSize[kind] ?? size,
    memorySize: size,
    signed: m[3] === "s" || kind === "J" || (kind === "I" && (size === "z" || size === "v")),
    register: -1,
  };
}

/**
 * Bytes that a width code stands for.
 * @param operandSize 16, 32 or 64 bits
 * @param mode 16, 32 or 64; only the pseudo-descriptor depends on it
 */
export function sizeBytes(size: SizeCode, operandSize: number, mode = 32): number {
  switch (size) {
    case "b":
      return 1;
    case "w":
      return 2;
    case "d":
      return 4;
    case "q":
      return 8;
    case "t":
      return 10;
    case "x":
      return 16;
    case "v":
      return operandSize >> 3;
    case "z":
      return operandSize === 16 ? 2 : 4;
    case "y":
      return operandSize === 64 ? 8 : 4;
    case "p":
      return 2 + (operandSize >> 3);
    case "s":
      return mode === 64 ? 10 : 6;
    case "a":
      return operandSize >> 2;
    case "e":
      return operandSize === 16 ? 14 : 28;
    case "f":
      return operandSize === 16 ? 94 : 108;
    case "F":
      return 512;
    case "":
      return 0;
  }
}
