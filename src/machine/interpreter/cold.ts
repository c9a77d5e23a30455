/**
 * Cold handlers: one Wasm function per instruction form, called through a table. They serve every
 * mode: addresses, widths and limits come from the record and the processor state.
 */
import { VECTOR } from "../../abi/x86/vectors.ts";
import { ABORT, CPU, REC, V } from "../state.ts";
import { cell, cell64, setCell } from "../linkage.ts";
import { check } from "../checks.ts";
import { type Expr, i32, load } from "../wasm/expr.ts";
import type { Func, Local, Module } from "../wasm/module.ts";
import { type Form, formName, NEXT, type Semantics } from "../isa/semantics/meaning.ts";
import { RecordMeaning } from "./record_meaning.ts";
import { is64, isCanonical } from "../mode.ts";

const CHECK = {
  limit: check("branch.limit", "branch to {a}, outside the code segment's limit {b}", "SDM 2 JMP"),
  canonical: check("branch.canonical", "branch to {a}, which is not canonical", "SDM 2 JMP"),
};

/** `checkIp(ip)`: #GP(0) unless the code segment holds it. */
export function buildCheckIp(m: Module, noteFault: typeof import("../linkage.ts").noteFault): void {
  m.func("checkIp", ["i64"], [], (f, ip) => {
    f.if(is64(), () => {
      f.if(isCanonical(ip).eqz(), () => noteFault(f, VECTOR.GP, 0, CHECK.canonical, ip));
      f.return();
    });
    const limit = f.let(load("i64", 32, "u", i32(0), CPU["cs.limit"]));
    f.if(ip.gtU(limit), () => noteFault(f, VECTOR.GP, 0, CHECK.limit, ip, limit));
  });
}

export class ColdMeaning extends RecordMeaning {
  readonly address = "i64";

  protected giveUp(): void {
    this.f.return(i32(NEXT.abort));
  }
  branch(ip: Expr): void {
    this.f.store(64, i32(0), ip, CPU.rip);
    this.f.return(i32(NEXT.branch));
  }
  /** The target of a direct branch; see the predecoder for what REC.immediate is relative to. */
  #target(): Expr {
    const offset = load("i64", 32, "s", this.rec, REC.immediate);
    if (this.form.operandSize === 64) return this.nextIp.add(offset);
    const mask = this.form.operandSize === 16 ? 0xffff : 0xffff_ffffn;
    return cell64(V.ipBase).add(offset).and(mask);
  }
  branchDirect(): void {
    const target = this.f.let(this.#target());
    this.f.call("checkIp", target);
    this.abortIfSet();
    this.branch(target);
  }
  checkTarget(before?: () => void): void {
    this.checkIp(this.#target(), before);
  }
  checkIp(ip: Expr, before?: () => void): void {
    this.probe("a branch");
    this.f.call("checkIp", ip);
    this.f.if(cell(V.abort), () => {
      if (before) {
        setCell(this.f, V.abort, ABORT.none);
        before();
        this.f.call("checkIp", ip);
      }
      this.abort();
    });
  }
  serialize(): void {
    this.f.return(i32(NEXT.serialize));
  }
  protected linear(_i: number, bytes: number, write: number): Local {
    return this.callChecked("effective", this.rec, i32(bytes), i32(write));
  }
  offset(i: number): Expr {
    const offset = this.f.call("offsetOf", this.rec);
    return this.form.sizes[i === 1 ? 0 : i] === 64 ? offset : offset.wrap();
  }
  loadLinear(bits: number, linear: Expr, forWrite = false): Local {
    return this.callChecked(`${forWrite ? "ldw" : "ld"}${bits}`, linear, cell(V.access));
  }
  storeLinear(bits: number, linear: Expr, value: Expr): void {
    this.f.call(`st${bits}`, linear, cell(V.access), value);
    this.abortIfSet();
    this.commit();
  }
}

/** Adds the function of a form to a module; its type is (record) -> NEXT. */
export function buildCold(m: Module, form: Form, semantics: Semantics): void {
  m.func(formName(form), ["i32"], ["i32"], (f: Func, rec) => {
    semantics(new ColdMeaning(f, form, rec));
    f.result(i32(NEXT.next));
  });
}
