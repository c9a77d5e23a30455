/**
 * The simulated computer: machine memory, its frame table, the processor, and the buses to devices.
 * It knows no hypervisor.
 */
import type { MachineBus } from "./bus.ts";
import { MACHINE_MEMORY_MAX } from "../abi/limits.ts";
import { Cpu } from "./cpu.ts";
import { registerProcessor } from "./cpu_state.ts";
import { list, tuple, u32, whole } from "./shape.ts";
import { FRAME, FRAME_FLAG, PROCESSORS } from "./state.ts";
import { refuse, type StateRegister } from "./state_block.ts";
import type { CpuModel } from "./vendors.ts";

export interface MachineOptions {
  /** Bytes of machine memory: a multiple of 4 KiB, at most {@linkcode MACHINE_MEMORY_MAX}. */
  readonly memory: number;
  readonly cpu?: CpuModel;
  /** Number of processors, 1 to {@linkcode PROCESSORS}; 1 if not given. */
  readonly cpus?: number;
}

/** What frames keep for ever: ROM, and holes where devices answer. */
const KEPT = FRAME_FLAG.rom | FRAME_FLAG.mmio;

export class Machine {
  readonly memory: WebAssembly.Memory;
  readonly frames: WebAssembly.Memory;
  /**
   * Bytes of machine memory. Ask for it here: V8's optimized code takes the `length` of an array, and a
   * DataView's `byteLength`, for signed beyond 2 GiB; an array's `byteLength` is right.
   */
  readonly size: number;
  /** Machine memory. Read as you like; write through {@linkcode Machine.write}. */
  readonly ram: Uint8Array;
  /** The same as 32-bit words, for what is hot. */
  readonly words: Int32Array;
  readonly frameTable: Int32Array;
  readonly cpus: readonly Cpu[];
  /**
   * The host wants its thread back: processors return as soon as an instruction is done. It is asked
   * wherever running code comes through TypeScript. When it says so is host time: nothing that a
   * guest can see may depend on it.
   */
  due: () => boolean = () => false;

  constructor(options: MachineOptions) {
    const { memory } = options;
    if (
      !Number.isInteger(memory) || memory < 4096 || memory % 4096 || memory > MACHINE_MEMORY_MAX
    ) {
      throw new RangeError(
        `memory: a multiple of 4 KiB up to 4 GiB was expected, ${memory} bytes were given`,
      );
    }
    const { cpu = "intel", cpus = 1 } = options;
    if (!Number.isInteger(cpus) || cpus < 1 || cpus > PROCESSORS) {
      throw new RangeError(
        `cpus: a whole number from 1 to ${PROCESSORS} was expected, ${cpus} was given`,
      );
    }
    this.size = memory;
    const pages = Math.ceil(memory / 65536);
    this.memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    this.ram = new Uint8Array(this.memory.buffer, 0, memory);
    this.words = new Int32Array(this.memory.buffer, 0, memory / 4);
    const framePages = Math.ceil(pages * 16 * FRAME.size / 65536);
    this.frames = new WebAssembly.Memory({ initial: framePages, maximum: framePages });
    this.frameTable = new Int32Array(this.frames.buffer);
    this.cpus = Array.from({ length: cpus }, (_, n) => new Cpu(this, cpu, n));
  }

  /** Registers the machine's state: what its frames are, and the processor. */
  register(blocks: StateRegister): void {
    const { frameTable } = this, frames = this.size / 4096;
    const kept = (frame: number) => frameTable[frame * (FRAME.size / 4)] & KEPT;
    blocks.register<[frame: number, flags: number][]>({
      name: "memory map",
      version: 1,
      shape: list(tuple(whole(0, frames - 1), u32)),
      save: () => {
        const saved: [number, number][] = [];
        for (let n = 0; n < frames; n++) if (kept(n)) saved.push([n, kept(n)]);
        return saved;
      },
      check: (saved) =>
        saved.forEach(([frame, flags], n) => {
          if ((n === 0 || frame > saved[n - 1][0]) && flags && !(flags & ~KEPT)) return;
          refuse(
            `memory map: entry ${n} (frame ${frame}, flags ${flags}) is none, or out of order`,
          );
        }),
      load: (saved) => {
        for (let n = 0; n < frames; n++) frameTable[n * (FRAME.size / 4)] &= ~KEPT;
        for (const [frame, flags] of saved) frameTable[frame * (FRAME.size / 4)] |= flags;
      },
    });
    for (const cpu of this.cpus) registerProcessor(cpu, blocks);
  }

  /** Instructions that its processors have retired. */
  get count(): number {
    return this.cpus.reduce((sum, { count }) => sum + count, 0);
  }

  /** What answers on the buses, of all processors. */
  get bus(): MachineBus {
    return this.cpu.bus;
  }
  set bus(bus: MachineBus) {
    for (const cpu of this.cpus) cpu.bus = bus;
  }

  get cpu(): Cpu {
    return this.cpus[0];
  }

  /** Marks frames: ROM (writes are ignored) or a hole where devices answer. */
  setFrames(from: number, to: number, flag: "rom" | "mmio"): void {
    for (let frame = from >>> 12; frame < to / 4096; frame++) {
      this.frameTable[frame * (FRAME.size / 4)] |= FRAME_FLAG[flag];
    }
    for (const cpu of this.cpus) cpu.flushTlb();
  }

  /**
   * Told of every write to a frame marked by {@linkcode Machine.markDerived}, when it is done: by an
   * instruction or from outside. Accessed and dirty bits that a walk sets are not told.
   */
  readonly onWrite: Set<(address: number, length: number) => void> = new Set();

  /** A frame was written. */
  tellWrite(address: number, length: number): void {
    for (const told of this.onWrite) told(address, length);
  }

  /** A frame that holds code was written: no processor runs what it made of that. */
  dropCode(frame: number): void {
    for (const cpu of this.cpus) cpu.predecoder.invalidate(frame);
  }
  /** Whether another processor has predecoded code of a frame. */
  codeElsewhere(frame: number, but: Cpu): boolean {
    return this.cpus.some((cpu) => cpu !== but && cpu.predecoder.has(frame));
  }

  /** Somebody has derived something from a frame's contents, or has not any more. */
  markDerived(frame: number, on: boolean): void {
    const at = frame * (FRAME.size / 4), flags = this.frameTable[at];
    if (!on) this.frameTable[at] = flags & ~FRAME_FLAG.derived;
    else {
      this.frameTable[at] = flags | FRAME_FLAG.derived;
      if (flags & FRAME_FLAG.inWriteTlb) this.dropWrites(frame);
    }
  }

  /** No TLB may have an entry any more by which a frame is written: of all processors, or all others. */
  dropWrites(frame: number, but?: Cpu): void {
    const at = frame * (FRAME.size / 4);
    for (const cpu of this.cpus) {
      if (cpu === but || !(this.frameTable[at] & cpu.marks.write)) continue;
      cpu.system.dropWrites();
      this.frameTable[at] &= ~cpu.marks.write;
    }
  }
  /** A paging structure has changed: what the other processors have derived from it goes. */
  shootdown(frame: number, by: Cpu): void {
    const flags = this.frameTable[frame * (FRAME.size / 4)];
    for (const cpu of this.cpus) if (cpu !== by && flags & cpu.marks.table) cpu.flushTlb();
  }

  /**
   * Writes a paging entry of 8 bytes. What was derived from the old one goes, if there was one and it
   * allowed what the new one does not; translations that were not there need not be dropped.
   */
  writeEntry(address: number, low: number, high: number): void {
    const at = address >>> 2, { words } = this;
    const oldLow = words[at], oldHigh = words[at + 1];
    words[at] = low;
    words[at + 1] = high;
    const entry = (address >>> 12) * (FRAME.size / 4), flags = this.frameTable[entry];
    this.frameTable[entry] = flags | FRAME_FLAG.dirty;
    if (!(flags & FRAME_FLAG.table)) return;
    // Bit 1 is the right to write in all formats: gaining it makes nothing stale.
    const widened = oldHigh === high && (oldLow | 2) === low;
    if ((oldLow | oldHigh) && !widened) { for (const cpu of this.cpus) cpu.flushTlb(); }
  }

  /** The one door for writes to machine memory from outside the processors. */
  write(address: number, bytes: Uint8Array): void {
    if (address < 0 || address + bytes.length > this.size) {
      throw new RangeError(
        `write of ${bytes.length} bytes at 0x${address.toString(16)}: machine memory ends at 0x${
          this.size.toString(16)
        }`,
      );
    }
    if (bytes.length === 0) return;
    let flush = false, derived = false;
    for (let frame = address >>> 12; frame <= (address + bytes.length - 1) >>> 12; frame++) {
      const at = frame * (FRAME.size / 4);
      const flags = this.frameTable[at];
      if (flags & FRAME_FLAG.code) {
        this.dropCode(frame);
        // By a device, in the middle of an instruction that a handler does together with the next.
        for (const cpu of this.cpus) cpu.endSlice();
      }
      if (flags & FRAME_FLAG.table) flush ||= this.#staleBy(frame, address, bytes);
      if (flags & FRAME_FLAG.derived) derived = true;
      this.frameTable[at] |= FRAME_FLAG.dirty;
    }
    this.ram.set(bytes, address);
    if (flush) { for (const cpu of this.cpus) cpu.flushTlb(); }
    if (derived) this.tellWrite(address, bytes.length);
  }

  /** The bytes change an entry of this frame that is not all zero: something may be derived from it. */
  #staleBy(frame: number, address: number, bytes: Uint8Array): boolean {
    const { ram, words } = this, end = address + bytes.length;
    const from = Math.max(address, frame * 4096), to = Math.min(end, frame * 4096 + 4096);
    for (let at = from; at < to; at++) {
      if (ram[at] === bytes[at - address]) continue;
      if (words[at >>> 3 << 1] | words[(at >>> 3 << 1) + 1]) return true;
    }
    return false;
  }
}
