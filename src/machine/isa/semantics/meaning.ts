/**
 * What semantics functions are written in. One `Meaning` stands for one instruction form: operand
 * widths and places are known, registers and immediates are asked for by the operand's number.
 *
 * Probe, compute, commit: an instruction may fault only before its first change of state. The
 * builder keeps count and refuses a faulting operation after a commit, unless the semantics says
 * `mayFaultLate` (REP iterations, PUSHA and the like order their own commits).
 */
import { VECTOR } from "../../../abi/x86/vectors.ts";
import { CPU, V } from "../../state.ts";
import { cell, noteFault, setCell64 } from "../../linkage.ts";
import { type Expr, i32, i64, type Operand } from "../../wasm/expr.ts";
import type { Local } from "../../wasm/module.ts";
import { CR4 } from "../../../abi/x86/cr.ts";
import { check } from "../../checks.ts";
import { SS } from "../../system/segmentation/descriptor.ts";
import { ABSENT, INTERCEPT, type InterceptKind } from "../../system/intercepts.ts";
import { FlagsDoor } from "./flags_door.ts";
import { formName } from "./form.ts";

export { type FixedRegisters, type Form, formName, NEXT, type OperandForm } from "./form.ts";
export { ALL_FLAGS, type Uses } from "./registers.ts";
import { iopl, is64, protectedMode, virtual8086 } from "../../mode.ts";

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

/** 2 in 64-bit mode, 1 for a 32-bit stack, 0 for a 16-bit one. */
function stackWide(): Expr {
  const long = is64();
  return long.shl(1).or(cell(CPU["ss.attributes"]).shrU(14).and(1).and(long.xor(1)));
}

export abstract class Meaning extends FlagsDoor {
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

  // --- operands ---

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

  /**
   * The memory operand, of 16 bytes: a move demands a multiple of 16 ("Aligned") or does not, other
   * instructions do as MXCSR.MM says ("Operand").
   */
  readVector(where: "Aligned" | "Anywhere" | "Operand"): Local {
    return this.callChecked(`sseLoad${where}`, this.segment, this.segmentOffset());
  }
  /** Writes the memory operand, of 16 bytes. */
  writeVector(where: "Aligned" | "Anywhere", value: Expr): void {
    this.callChecked(`sseStore${where}`, this.segment, this.segmentOffset(), value);
    this.commit();
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
    this.uses({ in: ["rsp"], out: ["rsp"] });
    this.probe("a push");
    this.f.call(`push${bits}`, value);
    this.abortIfSet();
    this.commit();
  }
  /** The faults of a push. */
  probePush(bits: number): void {
    this.uses({ in: ["rsp"] });
    this.callChecked(`probePush${bits}`);
  }
  /** The value at the top of the stack plus `skip` bytes, zero-extended. */
  stackRead(bits: number, skip = 0): Local {
    this.uses({ in: ["rsp"] });
    this.probe("a pop");
    const value = this.f.call(`stackLoad${bits}`, i32(skip));
    this.abortIfSet();
    return value;
  }
  /** Adds `bytes` to the stack pointer, in the width of the stack segment. */
  dropStack(bytes: Operand): void {
    this.uses({ in: ["rsp"], out: ["rsp"] });
    this.commit();
    this.f.call("addToStack", typeof bytes === "number" ? i32(bytes) : bytes);
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
  abstract noteInstruction(): void;
  /** Does `body` if a fetch at this instruction would still find it. */
  abstract ifFetchedAgain(body: () => void): void;

  /** #UD before all else where a guest's host has taken the instruction away. */
  mayBeAbsent(instruction: keyof typeof ABSENT): void {
    this.intercept("absent", i64(ABSENT[instruction]));
  }

  /** #GP(0) or #UD, as the table says, unless CPL is 0. */
  requirePrivilege(id: number = CHECK.cpl): void {
    this.uses({ privilege: true });
    if (this.columns?.privilege === "ud") this.faultIf(cell(V.cpl).nez(), VECTOR.UD, undefined, id);
    else this.faultIf(cell(V.cpl).nez(), VECTOR.GP, 0, id, cell(V.cpl));
  }
  /** #GP(0) above CPL 0 where a bit of CR4 says so. */
  requireGuard(): void {
    const guard = this.columns?.guard || "umip";
    this.uses({ guard });
    const bit = { umip: CR4.UMIP, tsd: CR4.TSD, pce: CR4.PCE }[guard];
    const wanted = cell(CPU.cr4).and(bit);
    const hidden = (guard === "pce" ? wanted.eqz() : wanted.nez()).and(cell(V.cpl).nez());
    this.faultIf(hidden, VECTOR.GP, 0, CHECK[guard], cell(V.cpl));
  }
  /** #UD or #GP(0), as the table says, in real and virtual-8086 mode, or where else it is `absent`. */
  requireProtected(
    absent: Expr = protectedMode().eqz().or(virtual8086()),
    id: number = CHECK.mode,
  ): void {
    this.uses({ pm: true });
    if (this.columns?.pm === "gp") this.faultIf(absent, VECTOR.GP, 0, id);
    else this.faultIf(absent, VECTOR.UD, undefined, id);
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

/** The meaning of an instruction: writes its steps into `m`. */
export type Semantics = (m: Meaning) => void;
