/**
 * What neither vendor's entry and exit switch: some registers, by name, and x87, MMX and SSE state.
 * The vCPU's stand in the processor while it is loaded, else in its save area. Forgetting one hands a
 * domain the other's.
 */
import type { Cpu } from "../machine/cpu.ts";
import { CPU, V } from "../machine/state.ts";
import { AREA } from "./ops.ts";

/** x87, MMX and SSE state: one block of memory 0. */
const FLOAT = { start: CPU.fpr0, size: CPU.xmm15 + 16 - CPU.fpr0 };

export class Switched {
  /** Bytes of the save area, from AREA.switched on. */
  readonly size: number;

  constructor(readonly names: readonly string[]) {
    this.size = 8 * names.length + FLOAT.size;
  }

  /** From the save area at a machine address to the processor. */
  load(cpu: Cpu, area: number): void {
    const { ram } = cpu.machine;
    const words = new Int32Array(ram.buffer, area + AREA.switched, 2 * this.names.length);
    this.names.forEach((name, n) => {
      cpu.i32[CPU[name] >> 2] = words[2 * n];
      cpu.i32[(CPU[name] >> 2) + 1] = words[2 * n + 1];
    });
    const start = area + AREA.switched + 8 * this.names.length;
    cpu.u8.set(ram.subarray(start, start + FLOAT.size), FLOAT.start);
  }

  store(cpu: Cpu, area: number): void {
    const bytes = new Uint8Array(this.size);
    const words = new Int32Array(bytes.buffer, 0, 2 * this.names.length);
    this.names.forEach((name, n) => {
      words[2 * n] = cpu.i32[CPU[name] >> 2];
      words[2 * n + 1] = cpu.i32[(CPU[name] >> 2) + 1];
    });
    bytes.set(cpu.u8.subarray(FLOAT.start, FLOAT.start + FLOAT.size), 8 * this.names.length);
    cpu.machine.write(area + AREA.switched, bytes);
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
  cpu.i32[CPU.fcw >> 2] = 0x40;
  cpu.i32[CPU.ftw >> 2] = 0x5555;
  cpu.i32[CPU.mxcsr >> 2] = 0x1f80;
}
