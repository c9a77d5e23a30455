import type { Module } from "../../wasm/module.ts";
export function buildX87Transcendental(m: Module): void {
  for (
    const [n, p] of [["x87Exp", 0], ["x87Log", 1], ["x87Tangent", 0], ["x87Arctangent", 0], [
      "x87Sine",
      1,
    ], ["x87SineCosine", 0]] as const
  ) {
    m.func(n, Array(p).fill("i32"), [], (f) => f.unreachable(), false);
  }
}
