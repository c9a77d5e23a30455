/** A processor's memory 0, and the registers in it by their names. */
import { FLOAT_RESET } from "../abi/x86/float.ts";
import { CR0, DR6, DR7, RFLAGS } from "../abi/x86/cr.ts";
import {
  ARCHITECTURAL_END,
  ARCHITECTURAL_START,
  architecturalFields,
  CPU,
  CPU_MEMORY_PAGES,
  type CpuCell,
  GPRS,
  type LargeCell,
  SEGMENT,
  segment,
  SEGMENTS,
} from "./state.ts";
import type { Cell } from "./wasm/cells.ts";

/** A segment register: what of it is visible, and what the descriptor left in it. */
export interface SegmentCells {
  readonly selector: number;
  readonly base: bigint;
  readonly limit: number;
  readonly attributes: number;
}

const CODE_OR_DATA = 0x93, LDT = 0x82, TSS32_BUSY = 0x8b;

/** Registers that RESET does not clear (SDM 3 table 10-1); segments and the x87 apart. */
const RESET: readonly (readonly [LargeCell, bigint])[] = [
  ["rip", 0xfff0n],
  ["rflags", BigInt(RFLAGS.fixed)],
  // Family 6.
  ["rdx", 0x600n],
  ["cr0", BigInt(CR0.CD | CR0.NW | CR0.ET)],
  ["gdtr.limit", 0xffffn],
  ["idtr.limit", 0xffffn],
  ["dr6", BigInt(DR6.fixed)],
  ["dr7", BigInt(DR7.fixed)],
  ["xcr0", 1n],
  ["pat", 0x0007_0406_0007_0406n],
  // At FEE0_0000h, enabled, of the bootstrap processor.
  ["apicBase", 0xfee0_0900n],
  ["miscEnable", 1n],
  ["vmcsPointer", -1n],
  ["vmxonPointer", -1n],
  ["tscRatio", 1n << 32n],
];

const placeOf = (name: LargeCell): Cell<8 | 16> => CPU[name];

/** What INIT sets, too; other registers keep what they have, CR0 its CD and NW (SDM 3 table 10-1). */
const INIT: readonly CpuCell[] = [
  ...GPRS,
  ...(["rip", "rflags", "flagOp", "flagCarry", "cr2", "cr3", "cr4", "cr8", "efer"] as const),
  ...(["dr0", "dr1", "dr2", "dr3", "dr6", "dr7", "debugctl"] as const),
  ...(["gdtr.base", "gdtr.limit", "idtr.base", "idtr.limit"] as const),
  ...(["pdpte0", "pdpte1", "pdpte2", "pdpte3"] as const),
  ...(["activity", "interruptibility", "pendingDebug", "pendingNmi", "pendingInit"] as const),
];
const WIDTHS = new Map(architecturalFields.map(({ name, width }) => [name, width]));

export class CpuRegisters {
  readonly memory: WebAssembly.Memory;
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly i32: Int32Array;
  readonly i64: BigInt64Array;
  readonly u64: BigUint64Array;

  constructor() {
    this.memory = new WebAssembly.Memory({ initial: CPU_MEMORY_PAGES, maximum: CPU_MEMORY_PAGES });
    const buffer = this.memory.buffer as ArrayBuffer;
    this.u8 = new Uint8Array(buffer);
    this.u16 = new Uint16Array(buffer);
    this.i32 = new Int32Array(buffer);
    this.i64 = new BigInt64Array(buffer);
    this.u64 = new BigUint64Array(buffer);
  }

  /** A register by its name in state.ts: 64 bits, or the low ones of more. */
  get(name: LargeCell): bigint {
    return this.u64[placeOf(name) >> 3];
  }
  set(name: LargeCell, value: bigint): void {
    this.i64[placeOf(name) >> 3] = BigInt.asIntN(64, value);
  }
  setAll(values: Readonly<Partial<Record<LargeCell, bigint>>>): void {
    for (const name in values) this.set(name as LargeCell, values[name as LargeCell]!);
  }
  getSegment(n: number): SegmentCells {
    const place = segment(n);
    return {
      selector: this.i32[(place + SEGMENT.selector) >> 2],
      base: this.u64[place >> 3],
      limit: this.i32[(place + SEGMENT.limit) >> 2] >>> 0,
      attributes: this.i32[(place + SEGMENT.attributes) >> 2],
    };
  }
  setSegment(n: number, s: SegmentCells): void {
    const place = segment(n);
    this.i32[(place + SEGMENT.selector) >> 2] = s.selector;
    this.u64[place >> 3] = s.base;
    this.i32[(place + SEGMENT.limit) >> 2] = s.limit;
    this.i32[(place + SEGMENT.attributes) >> 2] = s.attributes;
  }
  /** Control and tag words of x87, and MXCSR. */
  setFloat({ fcw, ftw, mxcsr }: { fcw: number; ftw: number; mxcsr: number }): void {
    this.i32[CPU.fcw >> 2] = fcw;
    this.i32[CPU.ftw >> 2] = ftw;
    this.i32[CPU.mxcsr >> 2] = mxcsr;
  }

  /** All registers as after power-up or RESET (SDM 3 table 10-1). */
  protected resetRegisters(): void {
    this.u8.fill(0, ARCHITECTURAL_START, ARCHITECTURAL_END);
    for (const [name, value] of RESET) this.set(name, value);
    this.#resetSegments();
    this.i32[CPU.a20Mask >> 2] = -1;
    this.i32[CPU.gif >> 2] = 1;
    this.setFloat(FLOAT_RESET);
  }
  /** Those that INIT resets (SDM 3 table 10-1, APM 2 table 14-1). */
  protected initRegisters(): void {
    const cr0 = this.get("cr0") & BigInt(CR0.CD | CR0.NW) | BigInt(CR0.ET);
    for (const name of INIT) this.u8.fill(0, CPU[name], CPU[name] + WIDTHS.get(name)!);
    for (const [name, value] of RESET) if (INIT.includes(name)) this.set(name, value);
    this.set("cr0", cr0);
    this.#resetSegments();
  }
  #resetSegments(): void {
    const attributes = { ldtr: LDT, tr: TSS32_BUSY } as Readonly<Record<string, number>>;
    SEGMENTS.forEach((name, n) =>
      this.setSegment(n, {
        selector: name === "cs" ? 0xf000 : 0,
        base: name === "cs" ? 0xffff_0000n : 0n,
        limit: 0xffff,
        attributes: attributes[name] ?? CODE_OR_DATA,
      })
    );
  }
}
