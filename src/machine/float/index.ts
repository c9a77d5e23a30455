/**
 * Soft float in Wasm: 80-bit arithmetic of the x87 (names `x...`) on format-independent parts
 * (names `f...`) that SSE shares. Results and environment: cells.ts.
 */
import type { Module } from "../wasm/module.ts";
import { buildConvert } from "./convert.ts";
import { buildExtended } from "./extended.ts";
import { buildRemainders } from "./remainder.ts";
import { buildRounding } from "./round.ts";
import { buildWide } from "./wide.ts";

/** The parts that know formats but no NaNs: wide integers, rounding, add, mul, div, sqrt. */
export function buildFloatCore(m: Module): void {
  buildWide(m);
  buildRounding(m);
}

/** The core and the 80-bit operations. */
export function buildFloat(m: Module): void {
  buildFloatCore(m);
  buildExtended(m);
  buildConvert(m);
  buildRemainders(m);
}

export { buildTranscendental } from "./transcendental.ts";
