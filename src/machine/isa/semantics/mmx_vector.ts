/** WebAssembly's vector operators as expressions, as far as packed integers need them. */
import { Expr, i64, type Operand, toExpr } from "../../wasm/expr.ts";

const opcode = (op: number): number[] => op < 0x80 ? [0xfd, op] : [0xfd, op & 0x7f | 0x80, 1];

/** A v128 operator of v128 operands. */
export const vector = (op: number, ...operands: Expr[]): Expr =>
  new Expr("v128", opcode(op), operands);

/** A shift of all lanes; `count` (i32) is taken modulo the lane's width. */
export const shifted = (op: number, value: Expr, count: Expr): Expr =>
  new Expr("v128", opcode(op), [value, count]);

/** Both 64-bit lanes the same. */
export const splat64 = (value: Operand): Expr =>
  new Expr("v128", opcode(0x12), [toExpr("i64", value)]);
export const splat8 = (value: Expr): Expr => new Expr("v128", opcode(0x0f), [value]);

/** 64-bit lane `lane`. */
export const lane64 = (value: Expr, lane: 0 | 1): Expr =>
  new Expr("i64", [...opcode(0x1d), lane], [value]);
/** `value` with 64-bit lane `lane` replaced. */
export const withLane64 = (value: Expr, lane: 0 | 1, part: Expr): Expr =>
  new Expr("v128", [...opcode(0x1e), lane], [value, part]);
/** A vector of two halves. */
export const join = (low: Expr, high: Expr): Expr => withLane64(splat64(low), 1, high);

/** The signs of 16 bytes as an i32. */
export const byteMask = (value: Expr): Expr => new Expr("i32", opcode(0x64), [value]);

/** 16 bytes chosen from `a` (0 to 15) and `b` (16 to 31). */
export const shuffle = (a: Expr, b: Expr, lanes: readonly number[]): Expr =>
  new Expr("v128", [...opcode(0x0d), ...lanes], [a, b]);

/** A constant of 16 bytes. */
export const bytes = (values: readonly number[]): Expr => {
  const word = (from: number) =>
    values.slice(from, from + 8).reduceRight((sum, b) => sum << 8n | BigInt(b & 0xff), 0n);
  return join(i64(word(0)), i64(word(8)));
};

/** Operators by name, as WebAssembly has them: `8` is i8x16 and so on. */
export const V = {
  swizzle: 0x0e,
  and: 0x4e,
  andNot: 0x4f,
  or: 0x50,
  xor: 0x51,
  eq: { 8: 0x23, 16: 0x2d, 32: 0x37 },
  gtS: { 8: 0x27, 16: 0x31, 32: 0x3b },
  abs: { 8: 0x60, 16: 0x80, 32: 0xa0 },
  shl: { 16: 0x8b, 32: 0xab, 64: 0xcb },
  shrS: { 16: 0x8c, 32: 0xac },
  shrU: { 16: 0x8d, 32: 0xad, 64: 0xcd },
  add: { 8: 0x6e, 16: 0x8e, 32: 0xae, 64: 0xce },
  sub: { 8: 0x71, 16: 0x91, 32: 0xb1, 64: 0xd1 },
  addSatS: { 8: 0x6f, 16: 0x8f },
  addSatU: { 8: 0x70, 16: 0x90 },
  subSatS: { 8: 0x72, 16: 0x92 },
  subSatU: { 8: 0x73, 16: 0x93 },
  mul: { 16: 0x95, 64: 0xd5 },
  minS: { 16: 0x96 },
  minU: { 8: 0x77 },
  maxS: { 16: 0x98 },
  maxU: { 8: 0x79 },
  average: { 8: 0x7b, 16: 0x9b },
  narrowS: { 16: 0x65, 32: 0x85 },
  narrowU: { 16: 0x66, 32: 0x86 },
  q15Multiply: 0x82,
  dot: 0xba,
  extmulLowS: 0xbc,
  extmulHighS: 0xbd,
  extmulLowU: 0xbe,
  extmulHighU: 0xbf,
  pairsU: { 8: 0x7d, 16: 0x7f },
} as const;
