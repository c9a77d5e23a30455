/** Forms of instructions: what a handler is generated for. */
import type { FlagKind } from "../flags.ts";

/**
 * Where an operand is: "r" a general register (part), "b" memory at base + displacement, "x" with
 * an index too (both flat), "s" the same as "b" in FS, GS or CS, "M" any memory, "i" an immediate,
 * "1" the constant one, "n" a numbered register (segment, control, debug, x87, MMX, XMM) whose number
 * or address the instruction gives, "j" a branch target, "-" implied.
 */
export type OperandForm = "r" | "b" | "x" | "s" | "M" | "i" | "1" | "n" | "j" | "-";

/** One form of an instruction: what a handler is generated for. */
export interface Form {
  readonly key: string;
  readonly cc: number;
  /** Bits of the effective operand size. */
  readonly operandSize: 16 | 32 | 64;
  readonly operands: readonly OperandForm[];
  /** Bits of each operand. */
  readonly sizes: readonly number[];
  /** What produced the flags, where predecoding knows it. */
  readonly producer?: FlagKind;
  /** Registers that the handler knows. */
  readonly fixed?: FixedRegisters;
}

/** Numbers of general registers that stand in a handler instead of the instruction. */
export interface FixedRegisters {
  /** The first register operand. */
  readonly a: number;
  /** The second one. */
  readonly b?: number;
  /** The base of the memory operand; 8 for none. */
  readonly base?: number;
}

export function formName(x: Form): string {
  const name = `${x.key}.${x.cc}.${x.operandSize}.${x.operands.join("")}.${x.sizes.join("_")}.${
    x.producer ?? 0
  }`;
  if (!x.fixed) return name;
  const { a, b, base } = x.fixed;
  return `${name}.${a}${b ?? "-"}${base ?? "-"}`;
}

/** What a handler tells the loop (cold handlers return it). */
export const NEXT = { next: 0, abort: 1, branch: 2, serialize: 3 } as const;
