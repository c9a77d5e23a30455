/**
 * An unmasked x87 exception that is pending at a waiting instruction (SDM 1 8.7, 9.6; APM 2 8.2.17):
 * #MF with CR0.NE; without it FERR#, as on the 386 and the 8087: the platform turns it into IRQ 13, and
 * the processor waits before the instruction until an interrupt comes, unless IGNNE# is asserted.
 */
import { CR0 } from "../../../abi/x86/cr.ts";
import { VECTOR } from "../../../abi/x86/vectors.ts";
import { check } from "../../checks.ts";
import { INTERCEPT } from "../intercepts.ts";
import { ABORT, CPU, V } from "../../state.ts";
import { cell, noteFault, SERVICE, setCell } from "../../linkage.ts";
import { i32, i64, load } from "../../wasm/expr.ts";
import type { Func, Module } from "../../wasm/module.ts";

const PENDING = check(
  "x87.mf",
  "an unmasked x87 exception is pending: FSW = {a}, FCW = {b}",
  "SDM 1 8.7",
);
const ES = 0x80;

/** `x87Pending()`: what a waiting x87 or MMX instruction does first. */
export function buildCoprocessor(m: Module): void {
  m.func("x87Pending", [], [], (f) => {
    f.if(cell(CPU.fsw).and(ES).eqz(), () => f.return());
    f.if(load("i32", 32, "u", 0, CPU.cr0).and(CR0.NE), () => {
      noteFault(f, VECTOR.MF, undefined, PENDING, cell(CPU.fsw), cell(CPU.fcw));
      f.return();
    });
    f.if(cell(V.nonRoot), () => {
      f.call("intercept", i32(INTERCEPT["coprocessor-error"]), i64(0));
      f.if(cell(V.abort), () => f.return());
    });
    f.if(f.call("service", SERVICE.coprocessorError, 0), () => setCell(f, V.abort, ABORT.frozen));
  });
}

/** No unmasked exception is pending any more: whoever saw FERR# is told. */
export function coprocessorQuiet(f: Func): void {
  f.if(cell(V.ferr), () => f.call("service", SERVICE.coprocessorQuiet, 0));
}
