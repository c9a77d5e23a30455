/**
 * The base of {@linkcode Meaning}: the instruction that it stands for, its record, and the registers.
 * Only here records are read; a translator, to which all of it is known, has other answers.
 */
import { CPU, gpr, PREFIX, REC, V } from "../../state.ts";
import { cell64, setCell64 } from "../../linkage.ts";
import { type Expr, i32, i64, load, load128 } from "../../wasm/expr.ts";
import type { Func, Local } from "../../wasm/module.ts";
import { flagBits } from "../../../abi/x86/registers.ts";
import { columnsOf, type InterceptKind, type KeyColumns } from "../encodings.ts";
import { wrapIp } from "../../system/segmentation/linear.ts";
import { type Form, formName } from "./form.ts";

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
}

/** Letters of all flags of the table. */
export const ALL_FLAGS: string = Object.keys(flagBits).join("");
const includes = (all: string, letters: string) => [...letters].every((l) => all.includes(l));

const masked = (value: Expr, mask: Expr) => mask.constant === -1n ? value : value.and(mask);

export abstract class Registers {
  #committed = false;
  mayFaultLate = false;
  /** What the instruction table says of the instruction; undefined for bytes that are none. */
  readonly columns: KeyColumns | undefined;

  constructor(
    readonly f: Func,
    readonly form: Form,
    /** The predecoded record. */
    readonly rec: Expr,
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

  // --- the record ---

  /** A 16-bit field of the record. */
  protected field(offset: number): Expr {
    return load("i32", 16, "u", this.rec, offset);
  }
  get #prefixes(): Expr {
    return this.field(REC.prefixes);
  }
  /** Not zero: it has a repeat prefix, it has F2. */
  get hasRep(): Expr {
    return this.#prefixes.and(PREFIX.rep | PREFIX.repne);
  }
  get hasRepne(): Expr {
    return this.#prefixes.and(PREFIX.repne);
  }
  immediate(i: number): Expr {
    const value = load("i32", 32, "u", this.rec, REC.immediate);
    if (this.form.sizes[i] < 64) return value;
    return value.zext().or(load("i64", 32, "u", this.rec, REC.link).shl(32));
  }
  /** EIP or RIP of this instruction and of the one behind it, as i64. */
  get ip(): Expr {
    return cell64(V.ipBase).add(this.field(REC.offset).zext());
  }
  get nextIp(): Expr {
    return wrapIp(this.ip.add(load("i64", 8, "u", this.rec, REC.length)));
  }
  /** Bytes of the instruction. */
  get length(): Expr {
    return load("i32", 8, "u", this.rec, REC.length);
  }
  /** The second immediate: level of ENTER, selector of a far pointer. */
  get secondImmediate(): Expr {
    return this.field(REC.link);
  }
  /** The offset of a far pointer in the instruction, as i64. */
  get farOffset(): Expr {
    return load("i64", 32, "u", this.rec, REC.immediate);
  }
  /** All ones in the width of addresses, as i64. */
  addressMask(): Local {
    const prefixes = this.f.let(this.#prefixes);
    return this.f.let(
      i64(-1).when(
        prefixes.and(PREFIX.address64),
        i64(0xffff).when(prefixes.and(PREFIX.address16), i64(0xffff_ffffn)),
      ),
    );
  }
  /** Address of the memory operand's segment register. */
  get segment(): Expr {
    return this.field(REC.segment);
  }
  /** The effective address of the memory operand, without its segment, as i64. */
  segmentOffset(): Local {
    return this.f.call("offsetOf", this.rec);
  }

  /** Where a register operand's address stands in the record. */
  #slot(i: number): number {
    const earlier = this.form.operands.slice(0, i).filter((o) => o === "r" || o === "n").length;
    return [REC.a, REC.b, REC.base][earlier];
  }
  /** Address in memory 0 of register operand `i`, or the number of an "n" operand. */
  protected place(i: number): Expr {
    return this.field(this.#slot(i));
  }
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
    return load(bits === 64 ? "i64" : "i32", bits, "s", i32(0), gpr(n));
  }
  gprU(n: number, bits: number): Expr {
    return load(bits === 64 ? "i64" : "i32", bits, "u", i32(0), gpr(n));
  }
  setGpr(n: number, bits: number, value: Expr): void {
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
    return this.f.let(load("i32", 8, "u", i32(0), gpr(n) + 1));
  }
  setHighByte(n: number, value: Expr): void {
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

  #vectorPlace(i: number): Expr {
    return this.form.sizes[i] === 64 ? this.place(i).shl(4).add(CPU.fpr0) : this.place(i);
  }
  /** All of an XMM register. */
  vector(i: number): Expr {
    return load128(this.#vectorPlace(i));
  }
  setVector(i: number, value: Expr): void {
    this.commit();
    this.f.store128(this.#vectorPlace(i), value);
  }
  /** The low `bits` as i64. */
  vectorLow(i: number, bits = 64): Expr {
    return load("i64", bits, "u", this.#vectorPlace(i));
  }
  /** Writes the low `bits` and leaves the rest. */
  setVectorLow(i: number, bits: number, value: Expr): void {
    this.commit();
    this.f.store(bits, this.#vectorPlace(i), value);
  }
  /** Writes an MMX register: as an x87 register it is no number. */
  setMmx(i: number, value: Expr): void {
    this.commit();
    const place = this.f.let(this.#vectorPlace(i));
    this.f.store(64, place, value);
    this.f.store(16, place, i32(0xffff), 8);
  }
  #element(i: number, n: Expr, bits: number): Expr {
    return this.f.let(this.#vectorPlace(i).add(n.shl(Math.log2(bits / 8))));
  }
  /** Element `n` of 8 or 16 bits, as i32. */
  vectorElement(i: number, n: Expr, bits: 8 | 16): Expr {
    return load("i32", bits, "u", this.#element(i, n, bits));
  }
  setVectorElement(i: number, n: Expr, bits: number, value: Expr): void {
    this.commit();
    this.f.store(bits, this.#element(i, n, bits), value);
  }
}
