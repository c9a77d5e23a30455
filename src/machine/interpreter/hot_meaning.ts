/**
 * Semantics inlined in the interpreters of flat code: {@linkcode Flat32} for 32-bit code with flat
 * segments, {@linkcode Flat64} for 64-bit code.
 */
import { flagBits, RSP } from "../../abi/x86/registers.ts";
import { CPU, gpr, REC, RECORD_SIZE, SEGMENT, segment, TLB, V } from "../state.ts";
import { cell, MEMORY, setCell, setCell64 } from "../linkage.ts";
import { type Expr, i32, i64, load } from "../wasm/expr.ts";
import type { Func, Label, Local } from "../wasm/module.ts";
import { RFLAGS } from "../../abi/x86/cr.ts";
import { condition, FLAG_KIND } from "../isa/flags.ts";
import { type Form, formName } from "../isa/semantics/meaning.ts";
import { tlbIndex } from "../mmu/access.ts";
import { isCanonical } from "../mode.ts";
import { hasCopy, hasDisplacementCopy } from "./forms.ts";
import { RecordMeaning } from "./record_meaning.ts";

/** Variables and labels of the interpreter's loop. */
export interface Loop {
  readonly next: Label;
  readonly resolve: Label;
  readonly abort: Label;
  readonly rec: Local;
  /** The first eight bytes of the record. */
  readonly word: Local;
  /** Where the budget ends: the running record's address plus one record for each instruction left. */
  readonly limit: Local;
  /** Instructions left, for `resolve`. */
  readonly left: Local;
  /** EIP (i32) or RIP (i64), for `resolve`. */
  readonly ip: Local;
  readonly tlb: Local;
}

export const RECORD_SHIFT: number = Math.log2(RECORD_SIZE);

/** Instructions left at the running record, itself included. */
export const leftHere = (x: Loop): Expr => x.limit.sub(x.rec).shrU(RECORD_SHIFT);
/** The same after it. */
export const leftBehind = (x: Loop): Expr => leftHere(x).sub(1);
/** After a call that may have used up or taken away some of the budget. */
export function reloadLeft(f: Func, x: Loop): void {
  f.set(x.limit, x.rec.add(cell(V.left).shl(RECORD_SHIFT)).add(RECORD_SIZE));
}
/** Goes on at another record; `counted` if the running one is an instruction. */
export function goOn(f: Func, x: Loop, target: Local, counted: boolean): void {
  f.set(x.limit, x.limit.add(target).sub(x.rec).sub(counted ? RECORD_SIZE : 0));
  f.set(x.rec, target);
  f.br(x.next);
}

const SS = segment(2), DS = segment(3);

const typeOf = (bits: number) => bits === 64 ? "i64" : "i32";

abstract class HotMeaning extends RecordMeaning {
  /** Machine address of the operand an `update` found in the TLB, 0 if it took the slow way. */
  #host: Local | undefined;
  /** The access is one of the stack. */
  protected onStack = false;

  constructor(f: Func, form: Form, protected readonly loop: Loop) {
    super(f, form, loop.rec);
  }

  /** The effective address of memory operand `i`, as wide as addresses are. */
  protected abstract effective(i: number): Expr;
  /** Tests the TLB: `hit` gets the machine address, otherwise `miss` runs. */
  protected abstract probeTlb(
    table: number,
    bits: number,
    linear: Expr,
    hit: (at: Expr) => void,
    miss: () => void,
  ): void;
  /** Before an access that is not in the TLB: faults that come before those of paging. */
  protected abstract checkLinear(bits: number, linear: Expr, write: boolean): void;
  /** Target of a direct branch that is not linked. */
  protected abstract directTarget(): Expr;

  protected giveUp(): void {
    this.f.br(this.loop.abort);
  }
  branch(ip: Expr): void {
    const { f, loop } = this;
    f.set(loop.ip, loop.ip.type === "i32" ? ip.wrap() : ip);
    this.#resolve();
  }
  #resolve(): void {
    this.f.set(this.loop.left, leftBehind(this.loop));
    this.f.br(this.loop.resolve);
  }
  branchDirect(): void {
    const { f, loop } = this;
    const target = f.let(loop.word.shrU(32).wrap());
    f.if(target, () => goOn(f, loop, target, true));
    f.set(loop.ip, this.directTarget());
    // A target in the same page can be linked once it has a record.
    f.if(this.inPage(), () => {
      const high = loop.ip.type === "i32" ? i32(0) : loop.ip.shrU(32).wrap();
      f.call("link", loop.rec, loop.ip.wrap(), high);
    });
    this.#resolve();
  }
  /** Not zero: the target of this direct branch lies in its page. */
  protected inPage(): Expr {
    return load("i32", 8, "u", this.rec, REC.scale);
  }
  serialize(): void {
    throw new Error(`${formName(this.form)}: a hot handler cannot serialize`);
  }
  protected override field(offset: number): Expr {
    const { word } = this.loop, { fixed } = this.form;
    if (fixed && offset === REC.a) return i32(gpr(fixed.a));
    if (fixed?.b !== undefined && offset === REC.b) return i32(gpr(fixed.b));
    if (fixed?.base !== undefined && offset === REC.base) {
      return i32(fixed.base === 8 ? V.zero : gpr(fixed.base));
    }
    if (offset === REC.a) return word.wrap().shrU(16);
    if (offset === REC.b) return word.shrU(32).wrap().and(0xffff);
    if (offset === REC.base) return word.shrU(48).wrap();
    return super.field(offset);
  }
  override immediate(i: number): Expr {
    const wide = this.form.sizes[i] === 64, { word } = this.loop;
    if (hasCopy(this.form)) return wide ? word.shrS(32) : word.shrU(32).wrap();
    return load(wide ? "i64" : "i32", 32, "s", this.rec, REC.immediate);
  }

  loadLinear(bits: number, linear: Expr, forWrite = false): Local {
    const { f } = this, type = typeOf(bits);
    const value = f.local(type);
    if (forWrite) this.#host = f.local("i32");
    const host = forWrite ? this.#host : undefined;
    this.probeTlb(
      forWrite ? TLB.write : TLB.read,
      bits,
      linear,
      (at) => {
        if (host) f.set(host, at);
        f.set(value, load(type, bits, "u", host ?? at, 0, MEMORY.ram));
      },
      () => {
        if (host) f.set(host, 0);
        this.checkLinear(bits, linear, forWrite);
        const load = `${forWrite ? "ldw" : "ld"}${bits}`;
        this.#slowly(() => f.set(value, this.slow(load, linear)));
      },
    );
    return value;
  }
  storeLinear(bits: number, linear: Expr, value: Expr): void {
    const { f } = this;
    this.probeTlb(
      TLB.write,
      bits,
      linear,
      (at) => f.store(bits, at, value, 0, MEMORY.ram),
      () => {
        this.checkLinear(bits, linear, true);
        this.#storeSlow(bits, linear, value);
      },
    );
    this.commit();
  }
  /** A push's store and a pop's load, at a linear address. */
  protected stored(bits: number, linear: Expr, value: Expr): void {
    this.onStack = true;
    this.storeLinear(bits, linear, value);
    this.onStack = false;
  }
  override loadStack(bits: number, linear: Expr): Local {
    this.onStack = true;
    const value = this.loadLinear(bits, linear);
    this.onStack = false;
    return value;
  }
  #storeSlow(bits: number, linear: Expr, value: Expr): void {
    this.#slowly(() => this.slow(`st${bits}`, linear, value));
  }
  /** An access that may reach a device or a watch, which may ask for the time or end the slice. */
  #slowly(access: () => void): void {
    setCell(this.f, V.left, leftBehind(this.loop));
    access();
    reloadLeft(this.f, this.loop);
    this.abortIfSet();
  }
  /** An access that is not in the TLB: a function of module S. */
  protected slow(name: string, linear: Expr, ...values: Expr[]): Local {
    return this.f.call(name, linear.zext(), cell(V.access), ...values);
  }
  protected override writeBack(
    i: number,
    bits: number,
    linear: Expr,
    value: Expr,
    probed: boolean,
  ) {
    const host = this.#host;
    if (!probed || !host) return super.writeBack(i, bits, linear, value, probed);
    const { f } = this;
    f.if(
      host,
      () => f.store(bits, host, value, 0, MEMORY.ram),
      () => this.#storeSlow(bits, linear, value),
    );
  }

  /** The common case in place: the flags are those of a shift or a logical instruction. */
  protected override storeCarryOverflow(carry: Expr, overflow: Expr): void {
    const { f } = this;
    const op = f.let(cell(CPU.flagOp));
    const isLogic = op.shrU(8).eq(FLAG_KIND.logic);
    f.if(isLogic.or(op.shrU(8).eq(FLAG_KIND.result)), () => {
      const adjust = i32(0).when(isLogic, cell(CPU.flagX).and(RFLAGS.AF));
      setCell64(f, CPU.flagX, adjust.or(overflow.shl(flagBits.o)).zext());
      setCell(f, CPU.flagCarry, carry);
      setCell(f, CPU.flagOp, op.and(0xff).or(FLAG_KIND.result << 8));
    }, () => {
      super.storeCarryOverflow(carry, overflow);
    });
  }

  protected override testCondition(cc: number): Expr {
    const known = this.form.producer && condition(this.form.producer, cc);
    return known || super.testCondition(cc);
  }
}

/** 32-bit code: ES, CS, SS and DS are flat, addresses and the stack have 32 bits. */
export class Flat32 extends HotMeaning {
  readonly address = "i32";

  checkTarget(): void {}
  checkIp(): void {}
  protected checkLinear(): void {}
  /** What wraps at 4 GiB is looked at again; with a segment base `linear` has done that. */
  protected override slow(name: string, linear: Expr, ...values: Expr[]): Local {
    if (!this.onStack && this.form.operands.includes("s")) {
      return super.slow(name, linear, ...values);
    }
    return this.f.call(`flat.${name}`, this.onStack ? i32(0) : this.rec, linear, ...values);
  }
  /** Outside 64-bit mode the upper halves are zero. */
  override losesUpper(): boolean {
    return false;
  }
  override get ip(): Expr {
    return cell(V.ipBase).add(this.field(REC.offset)).zext();
  }
  override get nextIp(): Expr {
    return cell(V.ipBase).add(this.field(REC.offset)).add(load("i32", 8, "u", this.rec, REC.length))
      .zext();
  }
  protected directTarget(): Expr {
    return cell(V.ipBase).add(load("i32", 32, "u", this.rec, REC.immediate));
  }
  protected effective(i: number): Expr {
    const base = load("i32", 32, "u", this.field(REC.base));
    if (hasDisplacementCopy(this.form)) return base.add(this.loop.word.shrU(32).wrap());
    if (this.form.operands[i] !== "x") {
      return base.add(load("i32", 32, "u", this.rec, REC.displacement));
    }
    // Index, scale and displacement in one.
    const word = this.f.let(load("i64", 64, "u", this.rec, REC.index));
    const index = load("i32", 32, "u", word.wrap().and(0xffff));
    return base.add(word.shrU(32).wrap()).add(index.shl(word.wrap().shrU(16)));
  }
  offset(i: number): Expr {
    return this.effective(i);
  }
  protected linear(i: number, bytes: number, write: number): Local {
    const { f } = this;
    if (this.form.operands[i] !== "s") return f.let(this.effective(i));
    // A writable expand-up segment of 4 GiB needs no checks.
    const linear = f.local("i32"), place = f.let(this.field(REC.segment));
    const attributes = load("i32", 32, "u", place, SEGMENT.attributes);
    const whole = load("i32", 32, "u", place, SEGMENT.limit).eq(-1);
    const offset = f.let(this.effective(i)), inside = offset.leU(-bytes);
    f.if(attributes.and(0x1_000e).eq(2).and(whole).and(inside), () => {
      f.set(linear, offset.add(load("i32", 32, "u", place, SEGMENT.base)));
    }, () => {
      f.set(linear, f.call("effective", this.rec, i32(bytes), i32(write)).wrap());
      this.abortIfSet();
    });
    return linear;
  }
  protected probeTlb(
    table: number,
    bits: number,
    linear: Expr,
    hit: (at: Expr) => void,
    miss: () => void,
  ): void {
    const { f, loop } = this;
    // What to add to the address, and the low half of the page in one.
    const entry = f.let(load("i64", 64, "u", loop.tlb.add(tlbIndex(linear)), table + 8));
    f.if(
      entry.shrU(32).wrap().eq(linear.add(bits / 8 - 1).and(-4096)),
      () => hit(linear.add(entry.wrap())),
      miss,
    );
  }

  override push(bits: number, value: Expr): void {
    const { f } = this;
    const kept = f.let(value);
    const to = f.let(this.gpr(RSP, 32).sub(bits / 8));
    this.probe("a push");
    this.stored(bits, to, kept);
    this.setGpr(RSP, 32, to);
  }
  override stackRead(bits: number, skip = 0): Local {
    this.probe("a pop");
    return this.loadStack(bits, this.f.let(this.gpr(RSP, 32).add(skip)));
  }
  override dropStack(bytes: number | Expr): void {
    this.setGpr(RSP, 32, this.gpr(RSP, 32).add(bytes));
  }
  override stackMask(): Expr {
    return i64(0xffff_ffffn);
  }
  override stackLinear(offset: Expr): Local {
    return this.f.let(offset.wrap());
  }
}

/** 64-bit code: no limits, addresses must be canonical. */
export class Flat64 extends HotMeaning {
  readonly address = "i64";

  checkTarget(before?: () => void): void {
    // In the page of the branch it is canonical.
    this.f.if(this.inPage().eqz(), () => this.checkIp(this.directTarget(), before));
  }
  checkIp(ip: Expr, before?: () => void): void {
    const { f } = this;
    this.probe("a branch");
    f.if(isCanonical(ip).eqz(), () => {
      before?.();
      f.call("checkIp", ip);
      this.abort();
    });
  }
  /** Non-canonical addresses are in no TLB. */
  protected checkLinear(bits: number, linear: Expr, write: boolean): void {
    const { f } = this;
    const ok = isCanonical(linear).and(isCanonical(linear.add(bits / 8 - 1)));
    f.if(ok.eqz(), () => {
      // The address is linear already: what this adds to it is the kind of fault.
      const stack = this.onStack ? i32(1) : load("i32", 16, "u", this.rec, REC.segment).eq(SS);
      f.call("segmentLinear", i32(SS).when(stack, DS), linear, i32(bits / 8), i32(write ? 1 : 0));
      this.abort();
    });
  }
  override get nextIp(): Expr {
    return this.ip.add(load("i64", 8, "u", this.rec, REC.length));
  }
  protected directTarget(): Expr {
    return this.nextIp.add(load("i64", 32, "s", this.rec, REC.immediate));
  }
  protected effective(i: number): Expr {
    const base = load("i64", 64, "u", this.field(REC.base));
    if (hasDisplacementCopy(this.form)) return base.add(this.loop.word.shrS(32));
    if (this.form.operands[i] !== "x") {
      return base.add(load("i64", 32, "s", this.rec, REC.displacement));
    }
    const word = this.f.let(load("i64", 64, "u", this.rec, REC.index));
    const index = load("i64", 64, "u", word.wrap().and(0xffff));
    return base.add(word.shrS(32)).add(index.shl(word.shrU(16).and(0xff)));
  }
  offset(i: number): Expr {
    // LEA is the only one that asks; its address is as wide as its register.
    return this.size === 64 ? this.effective(i) : this.effective(i).wrap();
  }
  protected linear(i: number): Local {
    const { f } = this, address = this.effective(i);
    if (this.form.operands[i] !== "s") return f.let(address);
    return f.let(address.add(load("i64", 64, "u", this.field(REC.segment), SEGMENT.base)));
  }
  protected probeTlb(
    table: number,
    bits: number,
    linear: Expr,
    hit: (at: Expr) => void,
    miss: () => void,
  ): void {
    const { f, loop } = this;
    const entry = f.let(loop.tlb.add(tlbIndex(linear)));
    f.if(
      load("i64", 64, "u", entry, table).eq(linear.add(bits / 8 - 1).and(-4096n)),
      () => hit(linear.wrap().add(load("i32", 32, "u", entry, table + 8))),
      miss,
    );
  }

  override push(bits: number, value: Expr): void {
    const { f } = this;
    const kept = f.let(value);
    const to = f.let(this.gpr(RSP, 64).sub(bits / 8));
    this.probe("a push");
    this.stored(bits, to, kept);
    this.setGpr(RSP, 64, to);
  }
  override stackRead(bits: number, skip = 0): Local {
    this.probe("a pop");
    return this.loadStack(bits, this.f.let(this.gpr(RSP, 64).add(skip)));
  }
  override dropStack(bytes: number | Expr): void {
    const by = typeof bytes === "number" ? bytes : bytes.sext();
    this.setGpr(RSP, 64, this.gpr(RSP, 64).add(by));
  }
  override stackMask(): Expr {
    return i64(-1);
  }
  override stackLinear(offset: Expr): Local {
    return this.f.let(offset);
  }
}
