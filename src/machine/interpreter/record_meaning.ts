/**
 * What an interpreter's {@linkcode Meaning} knows of its instruction: a predecoded record has it
 * (REC in state.ts).
 */
import { PREFIX, REC, TLB, V } from "../state.ts";
import { cell, cell64, setCell } from "../linkage.ts";
import { type Expr, i64, load } from "../wasm/expr.ts";
import type { Func, Local } from "../wasm/module.ts";
import { type Form, Meaning } from "../isa/semantics/meaning.ts";
import { tlbIndex } from "../mmu/access.ts";
import { wrapIp } from "../mode.ts";

export abstract class RecordMeaning extends Meaning {
  constructor(f: Func, form: Form, protected readonly rec: Expr) {
    super(f, form);
  }

  /** A 16-bit field of the record. */
  protected field(offset: number): Expr {
    return load("i32", 16, "u", this.rec, offset);
  }
  get #prefixes(): Expr {
    return this.field(REC.prefixes);
  }
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
  get secondImmediate(): Expr {
    return this.field(REC.link);
  }
  get farOffset(): Expr {
    return load("i64", 32, "u", this.rec, REC.immediate);
  }
  get x87Opcode(): Expr {
    return load("i32", 32, "u", this.rec, REC.immediate);
  }
  get ip(): Expr {
    return cell64(V.ipBase).add(this.field(REC.offset).zext());
  }
  get nextIp(): Expr {
    return wrapIp(this.ip.add(load("i64", 8, "u", this.rec, REC.length)));
  }
  get length(): Expr {
    return load("i32", 8, "u", this.rec, REC.length);
  }
  addressMask(): Local {
    const prefixes = this.f.let(this.#prefixes);
    return this.f.let(
      i64(-1).when(
        prefixes.and(PREFIX.address64),
        i64(0xffff).when(prefixes.and(PREFIX.address16), i64(0xffff_ffffn)),
      ),
    );
  }
  get segment(): Expr {
    return this.field(REC.segment);
  }
  segmentOffset(): Local {
    return this.f.call("offsetOf", this.rec);
  }
  protected place(i: number): Expr {
    const earlier = this.form.operands.slice(0, i).filter((o) => o === "r" || o === "n").length;
    return this.field([REC.a, REC.b, REC.base][earlier]);
  }

  noteInstruction(): void {
    setCell(this.f, V.length, this.length);
    setCell(this.f, V.record, this.rec);
  }
  /**
   * The code TLB and the index behind it must lead to this record: what changes code or its mapping
   * empties one or the other.
   */
  ifFetchedAgain(body: () => void): void {
    const { f } = this;
    const linear = f.let(this.ip.add(cell64(V.codeBase)));
    const entry = f.let(cell(V.tlb).add(tlbIndex(linear)));
    const page = linear.and(-4096n).or(cell64(V.codeMode));
    f.if(load("i64", 64, "u", entry, TLB.code).eq(page), () => {
      const index = load("i32", 32, "u", entry, TLB.code + 8);
      const record = load("i32", 32, "u", index.add(linear.wrap().and(4095).shl(2)));
      f.if(record.eq(this.rec), body);
    });
  }
}
