/**
 * Access to the VMCB in machine memory, and the cells that SVM keeps besides the processor's state.
 * Nothing of a VMCB is kept in the processor: it reads and writes memory at its true offsets, so the
 * clean bits may say what they like (APM 2 15.15.1 allows a processor to ignore them).
 */
import { VMCB, VMCB_SEGMENT, vmcbField } from "../../abi/x86/vmcb.ts";
import { CPU, EXTENSION_AREA, SEGMENT, segment, type SegmentName } from "../state.ts";
import { cells, span } from "../wasm/cells.ts";
import { cell, cell64, MEMORY, setCell } from "../linkage.ts";
import { type Expr, i32, load, type Operand, toExpr } from "../wasm/expr.ts";
import type { Func } from "../wasm/module.ts";

/** Cells of memory 0; all can be made anew. */
export const SVMC = cells(EXTENSION_AREA.svm, {
  /** The next event delivered is the one that VMRUN injects. */
  injecting: 4,
  /** Length of the instruction that leaves, 0 if it was none. */
  length: 4,
  /** Not zero: the exit in the making reports the bytes of the instruction. */
  bytes: 4,
  /** EXITINFO1 and EXITINFO2 of the exit in the making, i64. */
  info1: 8,
  info2: 8,
  /** What the TLBs hold translations of: valid, nested root, CR3, mode bits, PDPTEs. */
  contextValid: 4,
  contextRoot: 8,
  contextCr3: 8,
  contextMode: 8,
  contextPdptes: 32,
  /** Number of VMRUNs, for tests. */
  entries: 4,
  /** PAUSE filter: what is left of the count, and the time of the last PAUSE, i64. */
  pauseCount: 4,
  pauseLast: 8,
  /** What `leaveGuest` has read for the root: see STUB. */
  stub: 32,
  /** Entries of a running nested walk: address and value of each. */
  nestedEntries: 5 * 16,
});

/** Exit fields that the root's stub reads at once: 32-bit words from SVMC.stub. */
export const STUB = {
  /** EXITCODE, low half; -1 for VMEXIT_INVALID. */
  code: 0,
  /** Bytes of the instruction that left (nRIP - RIP), 0 where there is no nRIP. */
  length: 4,
  /** EXITINTINFO: low half (bit 31 valid) and error code. */
  vectoring: 8,
  vectoringError: 12,
  /** Low and high halves. */
  info1: 16,
  info2: 24,
} as const;

/**
 * What V.eptp holds while a guest has nested paging: nCR3, whose low bits have no meaning, with the
 * host's paging mode at VMRUN; `fetch`: error codes tell fetches (NXE or SMEP). 0: no nested paging.
 * A 64-bit host with NXE: root | 0x1f.
 */
export const NESTED_ROOT = { inUse: 1, kindShift: 1, nxe: 8, fetch: 0x10, flags: 0x1f } as const;
/** Kinds of paging structures. */
export const NESTED_KIND = { legacy: 0, pse: 1, pae: 2, long: 3 } as const;

/** Values of CPU.svmMode. */
export const MODE = { host: 0, guest: 1 } as const;

/**
 * Where VMRUN keeps the host in the page of VM_HSAVE_PA (its format is the processor's own): ES, CS,
 * SS, DS and the descriptor tables as they lie in the processor's state, then single registers.
 */
export const HOST_SAVE = {
  segments: 0x400,
  segmentsSize: 4 * (segment(1) - segment(0)),
  tables: 0x480,
  tablesSize: span(CPU, "gdtr.base", "idtr.limit").size,
  registers: 0x4c0,
} as const;

/** Registers of the host that VMRUN saves and #VMEXIT loads, each in 8 bytes. */
export const HOST_REGISTERS = [
  "rip",
  "rsp",
  "rax",
  "rflags",
  "cr0",
  "cr3",
  "cr4",
  "efer",
  "pat",
  "cr8",
  "debugctl",
  "branchFrom",
  "branchTo",
  "lastExceptionFrom",
  "lastExceptionTo",
] as const;

/** Place of a host register in its save area. */
export const hostSave = (name: typeof HOST_REGISTERS[number]): number =>
  HOST_SAVE.registers + 8 * HOST_REGISTERS.indexOf(name);

/** Fields of the VMCB at `base` (an i32), by name, for functions under construction. */
export class Vmcb {
  constructor(readonly f: Func, readonly base: Expr) {}

  /** The VMCB of the running guest; its base is read now. */
  static current(f: Func): Vmcb {
    return new Vmcb(f, f.let(cell64(CPU.vmcb).wrap()));
  }
  /** A field in its own width: i32 up to 32 bits, i64 for 64. */
  get(name: string): Expr {
    const { bits, offset } = vmcbField(name);
    return load(bits === 64 ? "i64" : "i32", bits, "u", this.base, offset, MEMORY.ram);
  }
  /** The low half of a 64-bit field. */
  low(name: string): Expr {
    return load("i32", 32, "u", this.base, vmcbField(name).offset, MEMORY.ram);
  }
  set(name: string, value: Operand): void {
    const { bits, offset } = vmcbField(name);
    const type = bits === 64 ? "i64" : "i32";
    this.f.store(bits, this.base, toExpr(type, value), offset, MEMORY.ram);
  }
  /** The low half of a 64-bit field, the other stays. */
  setLow(name: string, value: Operand): void {
    this.f.store(32, this.base, toExpr("i32", value), vmcbField(name).offset, MEMORY.ram);
  }
}

/** Address in memory 0 of the segment register called `name`. */
const placeOf = (name: SegmentName): number => CPU[`${name}.base`];

/** Sign-extends from bit 47: what VMRUN and VMLOAD make of base addresses (APM 2 15.5.1). */
export const canonicalized = (address: Expr): Expr => address.shl(16).shrS(16);

/** Loads a segment register from its record; a segment that is not present is unusable. */
export function loadSegment(f: Func, vmcb: Vmcb, name: SegmentName): void {
  const record = VMCB[`${name}Selector`], place = placeOf(name);
  const word = f.let(load("i32", 32, "u", vmcb.base, record, MEMORY.ram));
  const a = word.shrU(16);
  const attributes = a.and(0xff).or(a.and(0xf00).shl(4)).or(a.shrU(7).and(1).xor(1).shl(16));
  setCell(f, place + SEGMENT.attributes, attributes);
  setCell(f, place + SEGMENT.selector, word.and(0xffff));
  setCell(
    f,
    place + SEGMENT.limit,
    load("i32", 32, "u", vmcb.base, record + VMCB_SEGMENT.limit, MEMORY.ram),
  );
  const base = load("i64", 64, "u", vmcb.base, record + VMCB_SEGMENT.base, MEMORY.ram);
  f.store(64, i32(0), canonicalized(base), place + SEGMENT.base);
}

/** Stores a segment register into its record; attributes of an unusable one are 0. */
export function storeSegment(f: Func, vmcb: Vmcb, name: SegmentName): void {
  const record = VMCB[`${name}Selector`], place = placeOf(name);
  const a = f.let(cell(place + SEGMENT.attributes));
  const attributes = i32(0).when(a.and(0x1_0000), a.and(0xff).or(a.shrU(4).and(0xf00)));
  const word = cell(place + SEGMENT.selector).and(0xffff).or(attributes.shl(16));
  f.store(32, vmcb.base, word, record, MEMORY.ram);
  const limit = cell(place + SEGMENT.limit);
  f.store(32, vmcb.base, limit, record + VMCB_SEGMENT.limit, MEMORY.ram);
  const base = cell64(place + SEGMENT.base);
  f.store(64, vmcb.base, base, record + VMCB_SEGMENT.base, MEMORY.ram);
}
