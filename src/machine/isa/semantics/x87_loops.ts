/** Going over the registers of an x87 and SSE image. */
import { is64 } from "../../mode.ts";
import { type Expr, i32 } from "../../wasm/expr.ts";
import type { Func } from "../../wasm/module.ts";

/** Number of XMM registers the mode can reach: 8, or 16 in 64-bit mode. */
export const xmmCount = (): Expr => i32(16).when(is64(), i32(8));

/** `f` does `body` for i = 0 to count - 1. */
export function each(f: Func, count: Expr, body: (i: Expr) => void): void {
  const i = f.let(i32(0)), end = f.let(count);
  f.loop((again) => {
    body(i);
    f.set(i, i.add(1));
    f.brIf(again, i.ltU(end));
  });
}
