/** Operands that are reached in parts: vectors of 16 bytes, images of x87 and SSE state. */
import { ACCESS, V } from "../../state.ts";
import { cell } from "../../linkage.ts";
import type { Expr } from "../../wasm/expr.ts";
import type { Module } from "../../wasm/module.ts";
import { longMode } from "../../mode.ts";

/** Access class of the parts, whose alignment is checked as a whole. */
export const partAccess = (): Expr => cell(V.access).and(~ACCESS.align);

/** `partAt(linear, bytes)`: a place behind a linear address; it wraps at 4 GB outside long mode. */
export function buildPartAt(m: Module): void {
  m.func("partAt", ["i64", "i32"], ["i64"], (f, linear, bytes) => {
    const at = f.let(linear.add(bytes.zext()));
    f.result(at.when(longMode(), at.and(0xffff_ffffn)));
  }, false);
}
