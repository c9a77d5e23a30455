/**
 * The registers that entry and exit leave alone: a vCPU's stand in the processor while it is loaded,
 * and in its save area while another is. Which they are is the vendor's affair.
 *
 * x87, MMX and SSE go with every switch, not when the next guest first uses them: their 432 bytes
 * cost 60 to 70 ns of a switch of about 2 us, and the exit that a lazy switch takes (#NM, twice with
 * the change of CR0.TS and its intercept) costs 500 ns or more. Nearly all that runs today uses them.
 */
import type { Cpu } from "../machine/cpu.ts";
import { CPU, FRAME, FRAME_FLAG } from "../machine/state.ts";
import { AREA } from "./ops.ts";

/** x87, MMX and SSE state: one block of memory 0. */
const FLOAT = { start: CPU.fpr0, end: CPU.xmm15 + 16 } as const;

export class Switched {
  /** Words of the registers in memory 0, two each. */
  readonly #places: Int32Array;
  readonly #words: Int32Array;
  readonly #float: Uint8Array;
  readonly #saved: Uint8Array;
  readonly #flags: number;

  /** @param names fields of state.ts, 8 bytes each; @param area machine address of the save area */
  constructor(readonly cpu: Cpu, area: number, names: readonly string[]) {
    const { buffer } = cpu.machine.ram;
    this.#places = Int32Array.from(names.flatMap((n) => [CPU[n] >> 2, (CPU[n] >> 2) + 1]));
    this.#words = new Int32Array(buffer, area + AREA.switched, 2 * names.length);
    this.#float = cpu.u8.subarray(FLOAT.start, FLOAT.end);
    const at = area + AREA.switched + 8 * names.length;
    this.#saved = new Uint8Array(buffer, at, FLOAT.end - FLOAT.start);
    this.#flags = (area >>> 12) * (FRAME.size / 4);
  }

  /** To the processor. */
  load(): void {
    const { i32 } = this.cpu, places = this.#places, words = this.#words;
    for (let n = 0; n < places.length; n++) i32[places[n]] = words[n];
    this.#float.set(this.#saved);
  }

  /** To the save area. */
  save(): void {
    const { i32, machine } = this.cpu, places = this.#places, words = this.#words;
    for (let n = 0; n < places.length; n++) words[n] = i32[places[n]];
    this.#saved.set(this.#float);
    machine.frameTable[this.#flags] |= FRAME_FLAG.dirty;
  }
}

/** x87 and SSE as RESET leaves them, in the processor. */
export function resetFloat(cpu: Cpu): void {
  cpu.u8.fill(0, CPU.fpr0, CPU.xmm15 + 16);
  cpu.i32[CPU.fcw >> 2] = 0x40;
  cpu.i32[CPU.ftw >> 2] = 0x5555;
  cpu.i32[CPU.mxcsr >> 2] = 0x1f80;
}
