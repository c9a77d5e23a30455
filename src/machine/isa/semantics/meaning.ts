/**
 * What semantics functions are written in. One `Meaning` stands for one instruction form: operand
 * widths and places are known, registers and immediates come from the predecoded record.
 *
 * Probe, compute, commit: an instruction may fault only before its first change of state. The
 * builder keeps count and refuses a faulting operation after a commit, unless the semantics says
 * `mayFaultLate` (REP iterations, PUSHA and the like order their own commits).
 */
import { CPU, gpr, PREFIX, REC, V } from "../../state.ts";
import { cell, cell64, noteFault, setCell, setCell64 } from "../../system.ts";
import { type Expr, i32, i64, load, type Operand } from "../../wasm/expr.ts";
import type { Func, Local } from "../../wasm/module.ts";
import { CR4 } from "../../../abi/x86/cr.ts";
import { flagBits, flagLetters } from "../../../abi/x86/registers.ts";
import { check } from "../../checks.ts";
import { iopl, protectedMode, SS, virtual8086 } from "../../segmentation/descriptor.ts";
import { columnsOf, conditionReads, type InterceptKind, type KeyColumns } from "../encodings.ts";
import { ARITHMETIC, carryFlag, CF, FLAG_KIND, type FlagKind } from "../flags.ts";
import { ABSENT, INTERCEPT } from "../intercepts.ts";
import { is64, wrapIp } from "../../segmentation/linear.ts";

/**
 * Where an operand is: "r" a general register (part), "b" memory at base + displacement, "x" with
 * an index too (both flat), "s" the same as "b" in FS, GS or CS, "M" any memory, "i" an immediate, "1" the constant one, "n" a numbered
 * register (segment, control, debug, x87, MMX, XMM) whose number or address is in the record,
 * "j" a branch target, "-" implied.
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

/** Numbers of general registers that stand in a handler instead of the record. */
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

const CHECK = {
  cpl: check("privilege.cpl", "the instruction needs CPL 0, CPL is {a}", "SDM 3 5.9"),
  mode: check(
    "mode.protected",
    "the instruction is not recognized in real and virtual-8086 mode",
    "SDM 2",
  ),
  umip: check("umip", "CR4.UMIP is set and CPL is {a}", "SDM 3 2.5"),
  tsd: check("cr4.tsd", "RDTSC with CR4.TSD set and CPL {a}", "SDM 2 RDTSC"),
  pce: check("cr4.pce", "RDPMC with CR4.PCE clear and CPL {a}", "SDM 2 RDPMC"),
};

const masked = (value: Expr, mask: Expr) => mask.constant === -1n ? value : value.and(mask);

/** 2 in 64-bit mode, 1 for a 32-bit stack, 0 for a 16-bit one. */
function stackWide(): Expr {
  const long = is64();
  return long.shl(1).or(cell(CPU["ss.attributes"]).shrU(14).and(1).and(long.xor(1)));
}

export abstract class Meaning {
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

  /** Leaves the instruction: V.abort says why, nothing was changed. */
  abort(): void {
    this.#undo?.();
    this.giveUp();
  }
  protected abstract giveUp(): void;
  #undo: (() => void) | undefined;
  /** Where `body` leaves the instruction, `undo` takes back first what was changed before. */
  undoing(undo: () => void, body: () => void): void {
    this.#undo = undo;
    body();
    this.#undo = undefined;
  }
  /** Ends the instruction; execution goes on at `ip` (an EIP/RIP of this mode) in the same mode. */
  abstract branch(ip: Expr): void;
  /** Ends a direct branch whose target is operand 0. */
  abstract branchDirect(): void;
  /** #GP(0) unless `ip` lies in the code segment; what `before` does comes before the fault. */
  abstract checkIp(ip: Expr, before?: () => void): void;
  /** The same for the target of a direct branch. */
  abstract checkTarget(before?: () => void): void;
  /** Ends the instruction; state the loop depends on has changed, RIP is set. */
  abstract serialize(): void;
  /** Sets RIP, for what ends with `serialize`. */
  resumeAt(ip: Expr): void {
    setCell64(this.f, CPU.rip, ip);
  }
  /** Sets RIP to the next instruction; a function of module S may set another. */
  advance(): void {
    this.resumeAt(this.nextIp);
  }
  /** Ends an instruction after which the loop must look at the state again. */
  finish(): void {
    this.commit();
    this.advance();
    this.serialize();
  }
  /** The same only if `condition` holds; else the next instruction follows at once. */
  finishIf(condition: Expr): void {
    this.f.if(condition, () => this.finish());
  }
  /** Linear address of memory operand `i`, checked for `bytes` and a read (0) or write (1). */
  protected abstract linear(i: number, bytes: number, write: number): Local;
  abstract loadLinear(bits: number, linear: Expr, forWrite?: boolean): Local;
  abstract storeLinear(bits: number, linear: Expr, value: Expr): void;
  /** A load of the stack. */
  loadStack(bits: number, linear: Expr): Local {
    return this.loadLinear(bits, linear);
  }
  /** Address type of linear addresses in this context. */
  abstract readonly address: "i32" | "i64";

  abortIfSet(): void {
    this.f.if(cell(V.abort), () => this.abort());
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
  field(offset: number): Expr {
    return load("i32", 16, "u", this.rec, offset);
  }
  get prefixes(): Expr {
    return this.field(REC.prefixes);
  }
  get hasRep(): Expr {
    return this.prefixes.and(PREFIX.rep | PREFIX.repne);
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
    const prefixes = this.f.let(this.prefixes);
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

  // --- operands ---

  /** Where a register operand's address stands in the record. */
  #slot(i: number): number {
    const earlier = this.form.operands.slice(0, i).filter((o) => o === "r" || o === "n").length;
    return [REC.a, REC.b, REC.base][earlier];
  }
  /** Address in memory 0 of register operand `i`, or the number of an "n" operand. */
  place(i: number): Expr {
    return this.field(this.#slot(i));
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

  #linears: (Local | undefined)[] = [];

  #read(i: number, sign: "s" | "u", forWrite: boolean): Local {
    const bits = this.form.sizes[i], form = this.form.operands[i];
    if (form === "r") return this.f.let(this.loadRegister(i, sign));
    if (form === "i") {
      const value = this.immediate(i);
      return this.f.let(sign === "s" ? value.signed(bits) : value.unsigned(bits));
    }
    if (form === "1") return this.f.let(this.constant(1, i));
    if (!this.isMemory(i)) throw new Error(`${formName(this.form)}: operand ${i} cannot be read`);
    this.probe("a read");
    const linear = this.linear(i, bits / 8, forWrite ? 1 : 0);
    this.#linears[i] = linear;
    const value = this.loadLinear(bits, linear, forWrite);
    if (bits >= 32) return value;
    return this.f.let(sign === "s" ? value.signed(bits) : value.unsigned(bits));
  }

  /** Operand `i`, sign-extended to its type. */
  read(i: number): Local {
    return this.#read(i, "s", false);
  }
  /** Operand `i`, zero-extended to its type. */
  readU(i: number): Local {
    return this.#read(i, "u", false);
  }
  /** Operand `i` for an instruction that writes it too: a later `write(i)` does not fault. */
  update(i: number): Local {
    return this.#read(i, "s", true);
  }
  updateU(i: number): Local {
    return this.#read(i, "u", true);
  }

  /** Writes operand `i`. A 32-bit register write clears the upper half. */
  write(i: number, value: Expr): void {
    const bits = this.form.sizes[i];
    if (this.form.operands[i] === "r") {
      this.commit();
      return this.storeRegister(i, bits, value);
    }
    if (!this.isMemory(i)) {
      throw new Error(`${formName(this.form)}: operand ${i} cannot be written`);
    }
    const known = this.#linears[i];
    if (!known) this.probe("a write");
    this.writeBack(i, bits, known ?? this.linear(i, bits / 8, 1), value, known !== undefined);
    this.commit();
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

  /** Stores to memory operand `i`; `probed` if `update` has shown that it cannot fault. */
  protected writeBack(_i: number, bits: number, linear: Expr, value: Expr, _probed: boolean): void {
    this.storeLinear(bits, linear, value);
  }

  /** The effective address of memory operand `i`, without its segment, as the operand's type. */
  abstract offset(i: number): Expr;
  /** Linear address of memory operand `i` after checks for `bytes`; for operands no `read` knows. */
  addressOf(i: number, bytes: number, write: boolean): Local {
    this.probe("an address");
    return this.linear(i, bytes, write ? 1 : 0);
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

  // --- the stack ---

  /** All ones in the width of stack addresses, as i64. */
  stackMask(): Expr {
    const wide = this.f.let(stackWide());
    return this.f.let(i64(-1).when(wide.eq(2), i64(0xffff_ffffn).when(wide, i64(0xffff))));
  }
  /** Linear address of `offset` in the stack segment. */
  stackLinear(offset: Expr, bytes: number, write: boolean): Local {
    return this.callChecked("segmentLinear", i32(SS), offset, i32(bytes), i32(write ? 1 : 0));
  }

  /** Pushes `value` of `bits`; RSP changes only if the store succeeded. */
  push(bits: number, value: Expr): void {
    this.probe("a push");
    this.f.call(`push${bits}`, value);
    this.abortIfSet();
    this.commit();
  }
  /** The value at the top of the stack plus `skip` bytes, zero-extended. */
  stackRead(bits: number, skip = 0): Local {
    this.probe("a pop");
    const value = this.f.call(`stackLoad${bits}`, i32(skip));
    this.abortIfSet();
    return value;
  }
  /** Adds `bytes` to the stack pointer, in the width of the stack segment. */
  dropStack(bytes: Operand): void {
    this.commit();
    this.f.call("addToStack", typeof bytes === "number" ? i32(bytes) : bytes);
  }

  // --- flags: this is the only door to them ---

  /** Notes kind and values of lazy flags; `bits` is the width of the result. */
  #setFlags(
    kind: FlagKind,
    carry: Expr | undefined,
    x: Expr | undefined,
    y: Expr,
    bits = this.size,
  ) {
    this.uses({
      written: kind === FLAG_KIND.increment || kind === FLAG_KIND.decrement ? "oszap" : "oszapc",
    });
    this.commit();
    const op = (kind << 8) | bits;
    // The carry stands behind the kind: a clear one is the upper half of one store.
    if (carry?.constant === 0) this.f.store(64, i32(0), i64(op), CPU.flagOp);
    else {
      if (carry) setCell(this.f, CPU.flagCarry, carry);
      setCell(this.f, CPU.flagOp, op);
    }
    if (x) setCell64(this.f, CPU.flagX, x.sext());
    setCell64(this.f, CPU.flagY, y.sext());
  }
  /** `result` = `a` + something, both sign-extended. */
  flagsAdd(a: Expr, result: Expr, bits = this.size): void {
    this.#setFlags(FLAG_KIND.add, result.ltU(a), a, result, bits);
  }
  /** Flags of `a` - `b`, both sign-extended. */
  flagsSub(a: Expr, b: Expr): void {
    this.#setFlags(FLAG_KIND.sub, a.ltU(b), a, b);
  }
  /** SF, ZF, PF of a sign-extended result; CF, AF and OF are clear. */
  flagsLogic(result: Expr, bits = this.size): void {
    this.#setFlags(FLAG_KIND.logic, i32(0), undefined, result, bits);
  }
  /** SF, ZF, PF of a sign-extended result; CF is 0 or 1; AF and OF as in EFLAGS (i32). */
  flagsResult(result: Expr, carry: Expr, adjustOverflow: Expr, bits = this.size): void {
    this.#setFlags(FLAG_KIND.result, carry, adjustOverflow.zext(), result, bits);
  }
  /** Flags of INC (1) or DEC (-1) with its sign-extended result: all but CF. */
  flagsStep(by: 1 | -1, result: Expr): void {
    this.f.if(cell(CPU.flagOp).eqz(), () => {
      setCell(this.f, CPU.flagCarry, cell(CPU.rflags).and(CF));
    });
    const kind = by === 1 ? FLAG_KIND.increment : FLAG_KIND.decrement;
    this.#setFlags(kind, undefined, undefined, result);
  }
  /** Arithmetic flags as in EFLAGS; of those not in `mask` the instruction takes no notice. */
  arithmeticFlags(mask: number): Local {
    this.uses({ read: flagLetters(mask) });
    return this.f.call("arithmeticFlags");
  }
  /** Replaces arithmetic flags in `mask` by those of `value`. */
  setArithmeticFlags(mask: number, value: Expr): void {
    this.uses({ written: flagLetters(mask) });
    this.commit();
    const system = cell(CPU.rflags).and(~ARITHMETIC);
    const rest = mask === ARITHMETIC
      ? system
      : system.or(this.f.call("arithmeticFlags").and(~mask));
    setCell(this.f, CPU.rflags, rest.or(value.and(mask)));
    setCell(this.f, CPU.flagOp, 0);
  }
  /** CF as 0 or 1. */
  carry(): Local {
    this.uses({ read: "c" });
    return this.f.let(carryFlag());
  }
  /** Sets CF to 0 or 1 and leaves the other flags. */
  setCarry(value: Expr): void {
    this.uses({ written: "c" });
    this.commit();
    this.f.if(
      cell(CPU.flagOp),
      () => setCell(this.f, CPU.flagCarry, value),
      () => setCell(this.f, CPU.rflags, cell(CPU.rflags).and(~CF).or(value)),
    );
  }
  /** Sets CF and OF, given as 0 or 1, and leaves the other flags. */
  setCarryOverflow(carry: Expr, overflow: Expr): void {
    this.uses({ written: "co" });
    this.commit();
    this.storeCarryOverflow(carry, overflow);
  }
  protected storeCarryOverflow(carry: Expr, overflow: Expr): void {
    this.f.call("setCarryOverflow", carry.or(overflow.shl(11)));
  }
  /** Condition `cc` (0 to 15) as 0 or not 0. */
  condition(cc: number): Expr {
    this.uses({ read: conditionReads[cc >> 1] });
    return this.testCondition(cc);
  }
  protected testCondition(cc: number): Expr {
    const value = this.f.call(`cond${cc >> 1}`);
    return cc & 1 ? value.eqz() : value;
  }

  /** The flags of `mask`, none of them arithmetic, in their places. */
  systemFlags(mask: number): Expr {
    this.uses({ read: flagLetters(mask) });
    return cell(CPU.rflags).and(mask);
  }
  /** Sets and clears flags, none of them arithmetic. */
  setSystemFlags(set: number, clear: number): void {
    this.uses({ written: flagLetters(set | clear) });
    setCell(this.f, CPU.rflags, cell(CPU.rflags).and(~clear).or(set));
  }
  /** All flags, in their places; `read`: those that decide anything. */
  flagsImage(read = ALL_FLAGS): Expr {
    this.uses({ read });
    this.f.call("materialize");
    return cell(CPU.rflags);
  }
  /** Replaces all flags, arithmetic ones included; the image must have been read. */
  setFlagsImage(value: Expr): void {
    this.uses({ written: ALL_FLAGS });
    setCell(this.f, CPU.rflags, value);
  }

  // --- intercepts and faults ---

  /** In a guest: a VM exit if the control structure asks for one. Tested at run time, not baked in. */
  intercept(kind: InterceptKind, qualification: Expr = i64(0)): void {
    this.uses({ exit: kind });
    this.probe("an intercept");
    this.f.if(cell(V.nonRoot), () => {
      this.noteInstruction();
      this.f.call("intercept", i32(INTERCEPT[kind]), qualification);
      this.abortIfSet();
    });
  }

  /** Tells an exit in the making which instruction it is. */
  noteInstruction(): void {
    setCell(this.f, V.length, this.length);
    setCell(this.f, V.record, this.rec);
  }

  /** #UD before all else where a guest's host has taken the instruction away. */
  mayBeAbsent(instruction: keyof typeof ABSENT): void {
    this.intercept("absent", i64(ABSENT[instruction]));
  }

  /** #GP(0) or #UD, as the table says, unless CPL is 0. */
  requirePrivilege(id: number = CHECK.cpl): void {
    this.uses({ privilege: true });
    if (this.columns?.privilege === "ud") this.faultIf(cell(V.cpl).nez(), 6, undefined, id);
    else this.faultIf(cell(V.cpl).nez(), 13, 0, id, cell(V.cpl));
  }
  /** #GP(0) above CPL 0 where a bit of CR4 says so. */
  requireGuard(): void {
    const guard = this.columns?.guard || "umip";
    this.uses({ guard });
    const bit = { umip: CR4.UMIP, tsd: CR4.TSD, pce: CR4.PCE }[guard];
    const wanted = cell(CPU.cr4).and(bit);
    const hidden = (guard === "pce" ? wanted.eqz() : wanted.nez()).and(cell(V.cpl).nez());
    this.faultIf(hidden, 13, 0, CHECK[guard], cell(V.cpl));
  }
  /** #UD or #GP(0), as the table says, in real and virtual-8086 mode, or where else it is `absent`. */
  requireProtected(
    absent: Expr = protectedMode().eqz().or(virtual8086()),
    id: number = CHECK.mode,
  ): void {
    this.uses({ pm: true });
    if (this.columns?.pm === "gp") this.faultIf(absent, 13, 0, id);
    else this.faultIf(absent, 6, undefined, id);
  }
  /** 1 in virtual-8086 mode. */
  virtual8086(): Expr {
    return virtual8086();
  }
  /** IOPL, which decides about the instruction. */
  iopl(): Expr {
    this.uses({ iopl: true });
    return iopl();
  }

  /** Raises an exception and leaves the instruction. */
  fault(vector: number, errorCode: Operand | undefined, check: number, a?: Expr, b?: Expr): void {
    this.probe("a fault");
    noteFault(this.f, vector, errorCode, check, a, b);
    this.abort();
  }
  faultIf(
    condition: Expr,
    vector: number,
    errorCode: Operand | undefined,
    check: number,
    a?: Expr,
    b?: Expr,
  ): void {
    this.probe("a fault");
    this.f.if(condition, () => this.fault(vector, errorCode, check, a, b));
  }
  /** Calls a function that may set V.abort; leaves the instruction if it did. */
  callChecked(name: string, ...args: Operand[]): Local {
    this.probe(name);
    const result = this.f.call(name, ...args);
    this.abortIfSet();
    return result;
  }
}

export { CF };

/** The meaning of an instruction: writes its steps into `m`. */
export type Semantics = (m: Meaning) => void;
