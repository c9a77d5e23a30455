/** The only door of semantics to flags: each of its ways says to the instruction table what it does. */
import { CPU } from "../../state.ts";
import { cell, setCell, setCell64 } from "../../linkage.ts";
import { type Expr, i32, i64 } from "../../wasm/expr.ts";
import type { Local } from "../../wasm/module.ts";
import { flagBits, flagLetters } from "../../../abi/x86/registers.ts";
import { conditionReads } from "../encodings.ts";
import { carryFlag, FLAG_KIND, type FlagKind } from "../flags.ts";
import { ALL_FLAGS, RegistersDoor } from "./registers.ts";
import { ARITHMETIC, RFLAGS } from "../../../abi/x86/cr.ts";

export abstract class FlagsDoor extends RegistersDoor {
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
      setCell(this.f, CPU.flagCarry, cell(CPU.rflags).and(RFLAGS.CF));
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
      () => setCell(this.f, CPU.rflags, cell(CPU.rflags).and(~RFLAGS.CF).or(value)),
    );
  }
  /** Sets CF and OF, given as 0 or 1, and leaves the other flags. */
  setCarryOverflow(carry: Expr, overflow: Expr): void {
    this.uses({ written: "co" });
    this.commit();
    this.storeCarryOverflow(carry, overflow);
  }
  protected storeCarryOverflow(carry: Expr, overflow: Expr): void {
    this.f.call("setCarryOverflow", carry.or(overflow.shl(flagBits.o)));
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
}
