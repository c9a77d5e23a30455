/**
 * Expressions of generated code: typed values that know their own instructions, and the operators on them.
 *
 * @module
 */
import type { Bytes } from "./bytes.ts";

/** The value types the builder uses. */
export type ValType = "i32" | "i64" | "f32" | "f64" | "v128";

export const VAL_TYPE_CODE: Record<ValType, number> = {
  i32: 0x7f,
  i64: 0x7e,
  f32: 0x7d,
  f64: 0x7c,
  v128: 0x7b,
};

/** What arithmetic methods take: an expression, or a constant of the receiver's type. */
export type Operand = Expr | number | bigint;

type Binary = { i32: number; i64: number; result?: "i32" };

/** Opcodes of the binary operators; comparisons give an i32. */
const BINARY = {
  eq: { i32: 0x46, i64: 0x51, result: "i32" },
  ne: { i32: 0x47, i64: 0x52, result: "i32" },
  ltS: { i32: 0x48, i64: 0x53, result: "i32" },
  ltU: { i32: 0x49, i64: 0x54, result: "i32" },
  gtS: { i32: 0x4a, i64: 0x55, result: "i32" },
  gtU: { i32: 0x4b, i64: 0x56, result: "i32" },
  leS: { i32: 0x4c, i64: 0x57, result: "i32" },
  leU: { i32: 0x4d, i64: 0x58, result: "i32" },
  geS: { i32: 0x4e, i64: 0x59, result: "i32" },
  geU: { i32: 0x4f, i64: 0x5a, result: "i32" },
  add: { i32: 0x6a, i64: 0x7c },
  sub: { i32: 0x6b, i64: 0x7d },
  mul: { i32: 0x6c, i64: 0x7e },
  divS: { i32: 0x6d, i64: 0x7f },
  divU: { i32: 0x6e, i64: 0x80 },
  remS: { i32: 0x6f, i64: 0x81 },
  remU: { i32: 0x70, i64: 0x82 },
  and: { i32: 0x71, i64: 0x83 },
  or: { i32: 0x72, i64: 0x84 },
  xor: { i32: 0x73, i64: 0x85 },
  shl: { i32: 0x74, i64: 0x86 },
  shrS: { i32: 0x75, i64: 0x87 },
  shrU: { i32: 0x76, i64: 0x88 },
  rotl: { i32: 0x77, i64: 0x89 },
  rotr: { i32: 0x78, i64: 0x8a },
} as const satisfies Record<string, Binary>;

/**
 * An expression: a tree of WebAssembly operators that leaves one value.
 * Trees are pure but for loads; whatever has an effect is a statement of `Func`, which emits at once.
 */
export class Expr {
  constructor(
    readonly type: ValType,
    /** Bytes of the operator itself, written after its operands. */
    readonly code: readonly number[],
    readonly operands: readonly Expr[] = [],
    /** The value of a constant, else undefined. */
    readonly constant?: number | bigint,
  ) {}

  emit(out: Bytes): void {
    for (const operand of this.operands) operand.emit(out);
    if (this.constant === undefined) out.raw(this.code);
    else if (this.type === "i32") {
      out.u8(0x41);
      out.s32(this.constant as number);
    } else {
      out.u8(0x42);
      out.s64(this.constant as bigint);
    }
  }

  #binary(name: keyof typeof BINARY, value: Operand): Expr {
    if (this.type !== "i32" && this.type !== "i64") {
      throw new TypeError(`${name}: an integer was expected, ${this.type} was given`);
    }
    const right = toExpr(this.type, value);
    const row: Binary = BINARY[name];
    return fold(name, this, right) ??
      new Expr(row.result ?? this.type, [row[this.type]], [this, right]);
  }

  eq(b: Operand): Expr {
    return this.#binary("eq", b);
  }
  ne(b: Operand): Expr {
    return this.#binary("ne", b);
  }
  ltS(b: Operand): Expr {
    return this.#binary("ltS", b);
  }
  ltU(b: Operand): Expr {
    return this.#binary("ltU", b);
  }
  gtS(b: Operand): Expr {
    return this.#binary("gtS", b);
  }
  gtU(b: Operand): Expr {
    return this.#binary("gtU", b);
  }
  leS(b: Operand): Expr {
    return this.#binary("leS", b);
  }
  leU(b: Operand): Expr {
    return this.#binary("leU", b);
  }
  geS(b: Operand): Expr {
    return this.#binary("geS", b);
  }
  geU(b: Operand): Expr {
    return this.#binary("geU", b);
  }
  add(b: Operand): Expr {
    return this.#binary("add", b);
  }
  sub(b: Operand): Expr {
    return this.#binary("sub", b);
  }
  mul(b: Operand): Expr {
    return this.#binary("mul", b);
  }
  divS(b: Operand): Expr {
    return this.#binary("divS", b);
  }
  divU(b: Operand): Expr {
    return this.#binary("divU", b);
  }
  remS(b: Operand): Expr {
    return this.#binary("remS", b);
  }
  remU(b: Operand): Expr {
    return this.#binary("remU", b);
  }
  and(b: Operand): Expr {
    return this.#binary("and", b);
  }
  or(b: Operand): Expr {
    return this.#binary("or", b);
  }
  xor(b: Operand): Expr {
    return this.#binary("xor", b);
  }
  shl(b: Operand): Expr {
    return this.#binary("shl", b);
  }
  shrS(b: Operand): Expr {
    return this.#binary("shrS", b);
  }
  shrU(b: Operand): Expr {
    return this.#binary("shrU", b);
  }
  rotl(b: Operand): Expr {
    return this.#binary("rotl", b);
  }
  rotr(b: Operand): Expr {
    return this.#binary("rotr", b);
  }

  #unary(i32: number, i64: number, result: ValType = this.type): Expr {
    return new Expr(result, [this.type === "i64" ? i64 : i32], [this]);
  }

  /** 1 if the value is zero. */
  eqz(): Expr {
    return this.#unary(0x45, 0x50, "i32");
  }
  /** 1 if the value is not zero. */
  nez(): Expr {
    return this.ne(0);
  }
  not(): Expr {
    return this.xor(-1);
  }
  neg(): Expr {
    return toExpr(this.type, 0).sub(this);
  }
  clz(): Expr {
    return this.#unary(0x67, 0x79);
  }
  ctz(): Expr {
    return this.#unary(0x68, 0x7a);
  }
  popcnt(): Expr {
    return this.#unary(0x69, 0x7b);
  }

  /** i64 -> i32; an i32 stays as it is. */
  wrap(): Expr {
    if (this.type === "i32") return this;
    if (this.constant !== undefined) return i32(Number(BigInt.asIntN(32, this.constant as bigint)));
    return new Expr("i32", [0xa7], [this]);
  }
  /** i32 -> i64 with zeros; an i64 stays as it is. */
  zext(): Expr {
    if (this.type === "i64") return this;
    if (this.constant !== undefined) return i64(BigInt((this.constant as number) >>> 0));
    return new Expr("i64", [0xad], [this]);
  }
  /** i32 -> i64 with the sign; an i64 stays as it is. */
  sext(): Expr {
    if (this.type === "i64") return this;
    if (this.constant !== undefined) return i64(BigInt(this.constant as number));
    return new Expr("i64", [0xac], [this]);
  }
  /** The low `bits` with their sign, in the same type. */
  signed(bits: number): Expr {
    if (bits === 8) return this.#unary(0xc0, 0xc2);
    if (bits === 16) return this.#unary(0xc1, 0xc3);
    if (bits === 32 && this.type === "i64") return new Expr("i64", [0xc4], [this]);
    return this;
  }
  /** The low `bits` with zeros above, in the same type. */
  unsigned(bits: number): Expr {
    if (bits === 8) return this.and(0xff);
    if (bits === 16) return this.and(0xffff);
    if (bits === 32 && this.type === "i64") return this.and(0xffff_ffffn);
    return this;
  }
  /** `this` if `condition` (an i32) is not zero, else `other`; both are evaluated. */
  when(condition: Expr, other: Operand): Expr {
    return new Expr(this.type, [0x1b], [this, toExpr(this.type, other), toExpr("i32", condition)]);
  }
}

/** The few foldings that parametrised semantics give rise to. */
function fold(name: keyof typeof BINARY, left: Expr, right: Expr): Expr | undefined {
  const zero = right.constant === 0 || right.constant === 0n;
  if (
    zero &&
    (name === "add" || name === "sub" || name === "or" || name === "xor" || name === "shl" ||
      name === "shrU" || name === "shrS")
  ) return left;
  if (zero && name === "eq") return left.eqz();
  if (left.type !== "i32" || left.constant === undefined || right.constant === undefined) return;
  const a = left.constant as number, b = right.constant as number;
  if (name === "add") return i32(a + b);
  if (name === "sub") return i32(a - b);
  if (name === "and") return i32(a & b);
  if (name === "or") return i32(a | b);
  if (name === "shl") return i32(a << b);
}

export function i32(value: number): Expr {
  return new Expr("i32", [], [], value | 0);
}

export function i64(value: bigint | number): Expr {
  return new Expr("i64", [], [], BigInt.asIntN(64, BigInt(value)));
}

/** A constant of `type` from a number, or the expression itself after a check of its type. */
export function toExpr(type: ValType, value: Operand): Expr {
  if (value instanceof Expr) {
    if (value.type !== type) {
      throw new TypeError(`an ${type} expression was expected, ${value.type} was given`);
    }
    return value;
  }
  if (type === "i32") return i32(Number(value));
  if (type === "i64") return i64(value);
  throw new TypeError(`no constants of type ${type}`);
}

function leb(value: number): number[] {
  const out: number[] = [];
  value >>>= 0;
  while (value >= 0x80) {
    out.push((value & 0x7f) | 0x80);
    value >>>= 7;
  }
  out.push(value);
  return out;
}

/** Alignment hint, memory index and offset of a load or store. */
function memarg(memory: number, offset: number): number[] {
  return memory === 0 ? [0, ...leb(offset)] : [0x40, memory, ...leb(offset)];
}

const LOAD = {
  i32: { "8s": 0x2c, "8u": 0x2d, "16s": 0x2e, "16u": 0x2f, "32s": 0x28, "32u": 0x28 },
  i64: {
    "8s": 0x30,
    "8u": 0x31,
    "16s": 0x32,
    "16u": 0x33,
    "32s": 0x34,
    "32u": 0x35,
    "64s": 0x29,
    "64u": 0x29,
  },
} as const;

/** A load of `bits` from `address` + `offset` (bytes) in memory number `memory`. */
export function load(
  type: "i32" | "i64",
  bits: number,
  sign: "s" | "u",
  address: Operand,
  offset = 0,
  memory = 0,
): Expr {
  const code = (LOAD[type] as Record<string, number>)[`${bits}${sign}`];
  if (code === undefined) throw new TypeError(`no ${type} load of ${bits} bits`);
  return new Expr(type, [code, ...memarg(memory, offset)], [toExpr("i32", address)]);
}

const STORE = {
  i32: { 8: 0x3a, 16: 0x3b, 32: 0x36 },
  i64: { 8: 0x3c, 16: 0x3d, 32: 0x3e, 64: 0x37 },
};

/** Bytes of a store's operator; operands are the address and the value. */
export function storeCode(type: ValType, bits: number, offset: number, memory: number): number[] {
  const code = (STORE[type as "i32"] as Record<number, number>)?.[bits];
  if (code === undefined) throw new TypeError(`no ${type} store of ${bits} bits`);
  return [code, ...memarg(memory, offset)];
}

/** A 128-bit load (SIMD prefix 0xfd, opcode 0). */
export function load128(address: Operand, offset = 0, memory = 0): Expr {
  return new Expr("v128", [0xfd, 0, ...memarg(memory, offset)], [toExpr("i32", address)]);
}

/** Bytes of a 128-bit store's operator. */
export function store128Code(offset: number, memory: number): number[] {
  return [0xfd, 11, ...memarg(memory, offset)];
}
