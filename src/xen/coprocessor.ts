/**
 * x87 exceptions of a guest whose CR0.NE is clear: IRQ 13 of its PC, whatever engine runs it. While
 * FERR# is known to be asserted the processor tells when no exception is pending any more.
 */
import type { Cpu } from "../machine/cpu.ts";
import { CPU, V } from "../machine/state.ts";
import type { Platform } from "./platform.ts";

const ES = 0x80, BUSY = 0x8000, FLAGS = 0x3f;

/** Has the processor say when FERR# goes, if it is asserted. */
export function watchQuiet(cpu: Cpu, platform: Platform): void {
  cpu.i32[V.ferr >> 2] = platform.coprocessorPending ? 1 : 0;
}

/** The processor says so. */
export function noteQuiet(cpu: Cpu, platform: Platform): void {
  platform.coprocessorQuiet();
  watchQuiet(cpu, platform);
}

/** Runs `instruction` as if no exception were pending: IGNNE# is asserted. */
export function ignoring<T>(cpu: Cpu, instruction: () => T): T {
  const { i32 } = cpu, fsw = CPU.fsw >> 2, fcw = CPU.fcw >> 2;
  i32[fsw] &= ~(ES | BUSY);
  try {
    return instruction();
  } finally {
    if (i32[fsw] & ~i32[fcw] & FLAGS) i32[fsw] |= ES | BUSY;
  }
}
