/**
 * The base of {@linkcode Meaning}: the instruction that it stands for, and the registers. What is
 * asked of the instruction an interpreter answers from its record; a translator, to which all of it
 * is known, has other answers.
 */
import { CPU, gpr } from "../../state.ts";
import { setCell64 } from "../../linkage.ts";
import { type Expr, i32, i64, load, load128 } from "../../wasm/expr.ts";
import type { Func, Local } from "../../wasm/module.ts";
import { flagBits, gpr64 } from "../../../abi/x86/registers.ts";
import { columnsOf, type Implied, type KeyColumns } from "../encodings.ts";
import { type Form, formName } from "./form.ts";
import type { InterceptKind } from "../../system/intercepts.ts";

/** What a semantics function does that the instruction table has a column for. */
export interface Uses {
  readonly privilege?: true;
  readonly guard?: KeyColumns["guard"];
  readonly iopl?: true;
  readonly pm?: true;
  readonly exit?: InterceptKind;
  /** Flags by their letters. */
  readonly read?: string;
  readonly written?: string;
  /** State beside operands and flags. */
  readonly in?: readonly Implied[];
  readonly out?: readonly Implied[];
}

/** Letters of all flags of the table. */
export const ALL_FLAGS: string = Object.keys(flagBits).join("");
const includes = (all: string, letters: string) => [...letters].every((l) => all.includes(l));

const masked = (value: Expr, mask: Expr) => mask.constant === -1n ? value : value.and(mask);

export abstract class RegistersDoor {
  #committed = false;
  mayFaultLate = false;
  /** What the instruction table says of the instruction; undefined for bytes that are none. */
  readonly columns: KeyColumns | undefined;

  constructor(
    readonly f: Func,
    readonly form: Form,
  ) {
    this.columns = columnsOf(form.key, form.cc);
  }

  /**
   * Notes what the semantics does here, also through functions of module S.
   *
   * @throws if the instruction table says otherwise
   */
  uses(what: Uses): void {
    const row = this.columns;
    if (!row) return;
    const wrong = Object.entries(what).find(([column, value]) => {
      if (column === "read") return !includes(row.read, value);
      if (column === "written") return !includes(row.written + row.undefined, value);
      if (column === "exit") return !row.exit.includes(value);
      if (column === "in" || column === "out") {
        return !value.every((x: Implied) => row[column].includes(x));
      }
      if (column === "guard") return row.guard !== value;
      return !row[column as "privilege"];
    });
    if (!wrong) return;
    throw new Error(
      `${formName(this.form)}: its semantics has "${wrong[0]}" (${wrong[1]}), ` +
        "its row in the instruction table has not",
    );
  }

  /** Bits of operand 0. */
  get size(): number {
    return this.form.sizes[0];
  }
  /** The type operand `i` travels in. */
  type(i = 0): "i32" | "i64" {
    return this.form.sizes[i] === 64 ? "i64" : "i32";
  }
  isMemory(i: number): boolean {
    return "bxsM".includes(this.form.operands[i]);
  }
  constant(value: number, i = 0): Expr {
    return this.type(i) === "i64" ? i64(value) : i32(value);
  }

  /** Notes that state changes from here on. */
  commit(): void {
    this.#committed = true;
  }
  /** Notes that what follows may fault. */
  probe(what: string): void {
    if (this.#committed && !this.mayFaultLate) {
      throw new Error(`${formName(this.form)}: ${what} may fault after state was changed`);
    }
  }

  // --- the instruction ---

  /** Not zero: it has a repeat prefix, it has F2. */
  abstract get hasRep(): Expr;
  abstract get hasRepne(): Expr;
  /** Immediate operand `i`, as its type. */
  abstract immediate(i: number): Expr;
  /** The second immediate: level of ENTER, selector of a far pointer. */
  abstract get secondImmediate(): Expr;
  /** The offset of a far pointer in the instruction, as i64. */
  abstract get farOffset(): Expr;
  /** The opcode of an x87 instruction, as FOP has it (SDM 1 8.1.9). */
  abstract get x87Opcode(): Expr;
  /** EIP or RIP of this instruction and of the one behind it, as i64. */
  abstract get ip(): Expr;
  abstract get nextIp(): Expr;
  /** Bytes of the instruction. */
  abstract get length(): Expr;
  /** All ones in the width of addresses, as i64. */
  abstract addressMask(): Local;
  /** Address of the memory operand's segment register. */
  abstract get segment(): Expr;
  /** The effective address of the memory operand, without its segment, as i64. */
  abstract segmentOffset(): Local;

  /** Address in memory 0 of register operand `i`, or the number of an "n" operand. */
  protected abstract place(i: number): Expr;
  /** Number of the control, debug or x87 register of operand `i`. */
  number(i: number): Expr {
    return this.place(i);
  }
  /** Address of the segment register of operand `i`, for the functions of segmentation/. */
  segmentOperand(i: number): Expr {
    return this.place(i);
  }
  /** Number of general register operand `i`. */
  registerNumber(i: number): Expr {
    return this.place(i).sub(gpr(0)).shrU(3).and(15);
  }
  /** General register operand `i`. */
  protected loadRegister(i: number, sign: "s" | "u"): Expr {
    return load(this.type(i), this.form.sizes[i], sign, this.place(i));
  }
  protected storeRegister(i: number, bits: number, value: Expr): void {
    if (bits === 32) this.f.store(64, this.place(i), value.zext());
    else this.f.store(bits, this.place(i), value);
  }

  /** Is operand `i` a register whose upper half goes even if an instruction leaves it alone? */
  losesUpper(i: number): boolean {
    return this.form.operands[i] === "r" && this.form.sizes[i] === 32;
  }
  /** Clears that upper half. */
  clearUpper(i: number): void {
    this.commit();
    this.f.store(32, this.place(i), i32(0), 4);
  }

  // --- registers by number ---

  /** The low `bits` of general register `n` (0 rax ... 7 rdi), sign-extended. */
  gpr(n: number, bits: number): Expr {
    this.uses({ in: [gpr64[n]] });
    return load(bits === 64 ? "i64" : "i32", bits, "s", i32(0), gpr(n));
  }
  gprU(n: number, bits: number): Expr {
    this.uses({ in: [gpr64[n]] });
    return load(bits === 64 ? "i64" : "i32", bits, "u", i32(0), gpr(n));
  }
  setGpr(n: number, bits: number, value: Expr): void {
    this.uses({ out: [gpr64[n]] });
    this.commit();
    if (bits === 32) this.f.store(64, i32(0), value.zext(), gpr(n));
    else this.f.store(bits, i32(0), value, gpr(n));
  }

  /** Takes back a change of general register `n`, before a fault. */
  restoreGpr(n: number, value: Expr): void {
    setCell64(this.f, gpr(n), value);
  }
  /** Bits 8 to 15 of general register `n`: AH, CH, DH, BH. */
  highByte(n: number): Local {
    this.uses({ in: [gpr64[n]] });
    return this.f.let(load("i32", 8, "u", i32(0), gpr(n) + 1));
  }
  setHighByte(n: number, value: Expr): void {
    this.uses({ out: [gpr64[n]] });
    this.commit();
    this.f.store(8, i32(0), value, gpr(n) + 1);
  }
  /** General register `n` as an address under a mask, an i64. */
  pointer(n: number, mask: Expr): Expr {
    return masked(this.gpr(n, 64), mask);
  }
  /** Writes it: 16 bits, or all of the register. */
  setPointer(n: number, mask: Expr, value: Expr): void {
    if (mask.constant !== undefined) return this.setGpr(n, 64, masked(value, mask));
    this.f.if(mask.eq(0xffff), () => this.setGpr(n, 16, value), () => {
      this.setGpr(n, 64, value.and(mask));
    });
  }

  // --- vector registers: operand `i` is an XMM register, or an MMX one if it has 64 bits ---

  #vectorPlace(i: number, how: "in" | "out"): Expr {
    if (this.form.sizes[i] !== 64) return this.place(i);
    this.uses({ [how]: ["x87"] });
    return this.place(i).shl(4).add(CPU.fpr0);
  }
  /** All of an XMM register. */
  vector(i: number): Expr {
    return load128(this.#vectorPlace(i, "in"));
  }
  setVector(i: number, value: Expr): void {
    this.commit();
    this.f.store128(this.#vectorPlace(i, "out"), value);
  }
  /** The low `bits` as i64. */
  vectorLow(i: number, bits = 64): Expr {
    return load("i64", bits, "u", this.#vectorPlace(i, "in"));
  }
  /** Writes the low `bits` and leaves the rest. */
  setVectorLow(i: number, bits: number, value: Expr): void {
    this.commit();
    this.f.store(bits, this.#vectorPlace(i, "out"), value);
  }
  /** Writes an MMX register: as an x87 register it is no number. */
  setMmx(i: number, value: Expr): void {
    this.commit();
    const place = this.f.let(this.#vectorPlace(i, "out"));
    this.f.store(64, place, value);
    this.f.store(16, place, i32(0xffff), 8);
  }
  #element(i: number, n: Expr, bits: number, how: "in" | "out"): Expr {
    return this.f.let(this.#vectorPlace(i, how).add(n.shl(Math.log2(bits / 8))));
  }
  /** Element `n` of 8 or 16 bits, as i32. */
  vectorElement(i: number, n: Expr, bits: 8 | 16): Expr {
    return load("i32", bits, "u", this.#element(i, n, bits, "in"));
  }
  setVectorElement(i: number, n: Expr, bits: number, value: Expr): void {
    this.commit();
    this.f.store(bits, this.#element(i, n, bits, "out"), value);
  }
  /** XMM0, where no operand names it. */
  setXmm0(value: Expr): void {
    this.uses({ out: ["xmm"] });
    this.commit();
    this.f.store128(0, value, CPU.xmm0);
  }
}
