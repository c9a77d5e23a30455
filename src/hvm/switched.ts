/**
 * What neither vendor's entry and exit switch: some registers, by name, and x87, MMX and SSE state.
 * The vCPU's stand in the processor while it is loaded, else in its save area. Forgetting one hands a
 * domain the other's.
 *
 * x87, MMX and SSE go with every switch, not when the next guest first uses them. Measured: the block
 * out and in costs 180 ns of a switch of 2.6 us; a switch put off costs an exit at the first use (#NM,
 * 420 ns or more) and two changes of CR0.TS and its intercept. That pays only where fewer than two in
 * five turns use these registers, and leaves one domain's within reach of the other meanwhile.
 */
import { FLOAT_RESET } from "../abi/x86/float.ts";
import type { Cpu } from "../machine/cpu.ts";
import { FLOAT } from "../machine/interpreter/guest.ts";
import {
  architecturalFields,
  CPU,
  FRAME,
  FRAME_FLAG,
  GPRS,
  V,
  type WideCell,
} from "../machine/state.ts";
import type { CellField } from "../machine/wasm/cells.ts";
import { AREA } from "./ops.ts";

export class Switched {
  /** Bytes of the save area, from AREA.switched on. */
  readonly size: number;
  /** Place in memory 0 of each 32-bit word of the registers. */
  readonly #places: Int32Array;

  constructor(readonly names: readonly WideCell[]) {
    this.#places = Int32Array.from(
      names.flatMap((name) => [CPU[name] >> 2, (CPU[name] >> 2) + 1]),
    );
    this.size = 8 * names.length + FLOAT.size;
  }

  /** Of a save area, from its start. */
  get fields(): readonly CellField[] {
    const inFloat = (at: number) => at >= FLOAT.start && at < FLOAT.start + FLOAT.size;
    const float = AREA.switched + 8 * this.names.length - FLOAT.start;
    return [
      ...GPRS.map((name, n) => ({ name, at: AREA.gprs + 8 * n, width: 8 })),
      ...this.names.map((name, n) => ({ name, at: AREA.switched + 8 * n, width: 8 })),
      ...architecturalFields.filter(({ at }) => inFloat(at))
        .map((field) => ({ ...field, at: float + field.at })),
    ];
  }

  /** From the save area at a machine address to the processor. */
  load(cpu: Cpu, area: number): void {
    const { i32, machine: { words } } = cpu, places = this.#places;
    const start = area + AREA.switched >>> 2;
    for (let n = 0; n < places.length; n++) i32[places[n]] = words[start + n];
    cpu.system.loadFloat(area + AREA.switched + 4 * places.length);
  }

  store(cpu: Cpu, area: number): void {
    const { i32, machine: { words, frameTable } } = cpu, places = this.#places;
    const start = area + AREA.switched >>> 2;
    for (let n = 0; n < places.length; n++) words[start + n] = i32[places[n]];
    cpu.system.storeFloat(area + AREA.switched + 4 * places.length);
    // The frame is the hypervisor's own: no code and no paging structure lies in it.
    frameTable[(area >>> 12) * (FRAME.size / 4)] |= FRAME_FLAG.dirty;
  }
}

/** @throws if a guest is on the processor: its registers would be lost to those of another. */
export function refuseInGuest(cpu: Cpu): void {
  if (!cpu.i32[V.nonRoot >> 2]) return;
  throw new Error(
    "the processor is in the middle of a guest's instruction: another vCPU's registers can be " +
      "seen when it is done (from a device's read, after an await)",
  );
}

/** x87 and SSE as RESET leaves them, in the processor. */
export function resetFloat(cpu: Cpu): void {
  cpu.u8.fill(0, CPU.fpr0, CPU.xmm15 + 16);
  cpu.setFloat(FLOAT_RESET);
}
