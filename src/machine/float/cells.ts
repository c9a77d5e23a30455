/**
 * Where the float functions keep their environment and results (memory 0, valid within one
 * instruction). A function of the builder returns one value at most; the others lie here.
 */
import { V } from "../state.ts";
import { areaOf, cells } from "../wasm/cells.ts";
import { cell, cell64, setCell } from "../linkage.ts";
import type { Expr } from "../wasm/expr.ts";
import type { Func } from "../wasm/module.ts";

/** Byte offsets in memory 0. */
export const F = cells(areaOf(V, "float"), {
  // --- environment, set by the caller before the first operation of an instruction ---
  /** Exceptions raised so far, as in the low bits of FSW and MXCSR: {@linkcode EXC}. */
  flags: 4,
  /** Exceptions that are masked, in the same bits. */
  masks: 4,
  /** Rounding: 0 nearest even, 1 down, 2 up, 3 toward zero. */
  mode: 4,
  /** Format of x87 results by precision control: 0, 1 or 2 of {@linkcode FORMAT}. */
  format: 4,
  /** Not zero: tiny results become zero (MXCSR.FTZ with underflow masked). */
  flush: 4,
  /** 1 if the last rounding went away from zero (C1). */
  up: 4,
  /** 1 if the operand that was just widened was denormal in its own format. */
  denormal: 4,
  /** Result of the last rounding to a position: inexact, carry out of bit 63. */
  inexact: 4,
  carry: 4,
  // --- results ---
  /** Sign (0 or 1) and exponent (biased by 16383, any size) of an unpacked result. */
  sign: 4,
  exp: 4,
  /** Sign and exponent of a packed 80-bit result, bits 79:64. */
  se: 4,
  /** Second result (FXTRACT, FSINCOS, FPTAN): sign and exponent. */
  se2: 4,
  /** Quotient bits, condition codes and the like. */
  extra: 4,
  /** Significand of the result; upper half of a wide one. */
  hi: 8,
  /** Lower half of a wide significand: below the ulp, with a sticky lowest bit. */
  lo: 8,
  /** Significand of a packed 80-bit result. */
  sig: 8,
  sig2: 8,
  /** A widened memory operand. */
  memorySe: 4,
  memorySig: 8,
});

/** Exception flags of FSW and MXCSR (SDM 1 8.1.3.3, 10.2.3). */
export const EXC = {
  invalid: 1,
  denormal: 2,
  zeroDivide: 4,
  overflow: 8,
  underflow: 16,
  precision: 32,
  /** FSW.SF: the invalid operation was a stack fault. */
  stack: 64,
} as const;

/**
 * Formats a result is rounded to. The first three are x87 registers under precision control:
 * 64, 53 or 24 bits, with the exponent range of the 80-bit format.
 */
export const FORMAT = { extended: 0, extended53: 1, extended24: 2, double: 3, single: 4 } as const;

export const EXPONENT_BIAS = 16383;
/** Integer bit of an 80-bit significand. */
export const J = 1n << 63n;
/** The quiet bit of a NaN. */
export const QUIET = 1n << 62n;
/** QNaN indefinite, the answer to invalid operations: sign and exponent, significand. */
export const INDEFINITE = { se: 0xffff, sig: 3n << 62n } as const;

/** Raises exceptions. */
export function raise(f: Func, bits: number | Expr): void {
  setCell(f, F.flags, cell(F.flags).or(bits));
}

/** Not zero if one of `bits` is unmasked. */
export const unmasked = (bits: number): Expr => cell(F.masks).xor(-1).and(bits);

/** Not zero if an exception stands that leaves the operands untouched (SDM 1 8.5.1 to 8.5.3). */
export const stopped = (): Expr =>
  cell(F.flags).and(cell(F.masks).xor(-1)).and(EXC.invalid | EXC.denormal | EXC.zeroDivide);

/** The unpacked result: hi, lo as i64, exp and sign as i32. */
export const hi = (): Expr => cell64(F.hi);
export const lo = (): Expr => cell64(F.lo);
export const exp = (): Expr => cell(F.exp);
export const sign = (): Expr => cell(F.sign);
