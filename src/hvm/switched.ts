/**
 * What neither vendor's entry and exit switch: some registers, by name, and x87, MMX and SSE state.
 * The vCPU's stand in the processor while it is loaded, else in its save area. Forgetting one hands a
 * domain the other's.
 *
 * x87, MMX and SSE go with every switch, not when the next guest first uses them; see
 * tests/bench/exits.ts for what that was measured to cost.
 */
import type { Cpu } from "../machine/cpu.ts";
import { CPU, FRAME, FRAME_FLAG } from "../machine/state.ts";
import { AREA } from "./ops.ts";

/** x87, MMX and SSE state: one block of memory 0. */
const FLOAT = { start: CPU.fpr0, end: CPU.xmm15 + 16 } as const;

export class Switched {
  /** Bytes of the save area, from AREA.switched on. */
  readonly size: number;
  /** Place in memory 0 of each 32-bit word, in the order of the save area. */
  readonly #places: Int32Array;

  constructor(readonly names: readonly string[]) {
    const places = names.flatMap((name) => [CPU[name] >> 2, (CPU[name] >> 2) + 1]);
    for (let at = FLOAT.start; at < FLOAT.end; at += 4) places.push(at >> 2);
    this.#places = Int32Array.from(places);
    this.size = 4 * places.length;
  }

  /** From the save area at a machine address to the processor. */
  load(cpu: Cpu, area: number): void {
    const { i32, machine: { words } } = cpu, places = this.#places;
    const start = (area + AREA.switched) / 4;
    for (let n = 0; n < places.length; n++) i32[places[n]] = words[start + n];
  }

  store(cpu: Cpu, area: number): void {
    const { i32, machine: { words, frameTable } } = cpu, places = this.#places;
    const start = (area + AREA.switched) / 4;
    for (let n = 0; n < places.length; n++) words[start + n] = i32[places[n]];
    // The frame is the hypervisor's own: no code and no paging structure lies in it.
    frameTable[Math.floor(area / 4096) * (FRAME.size / 4)] |= FRAME_FLAG.dirty;
  }
}

/** x87 and SSE as RESET leaves them, in the processor. */
export function resetFloat(cpu: Cpu): void {
  cpu.u8.fill(0, CPU.fpr0, CPU.xmm15 + 16);
  cpu.i32[CPU.fcw >> 2] = 0x40;
  cpu.i32[CPU.ftw >> 2] = 0x5555;
  cpu.i32[CPU.mxcsr >> 2] = 0x1f80;
}
