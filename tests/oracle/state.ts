/**
 * The records that the host-CPU oracle, the generator, the comparer and a machine under test share.
 * They name nothing of the product: the machine is plugged in by `subject.ts`.
 *
 * One case is one instruction (or `steps` of them) in user mode, CPL 3, on this fixed ground:
 * CR0 = PE, MP, ET, NE, WP, AM, PG; CR4 = PAE, OSFXSR, OSXMMEXCPT, TSD clear; EFER.NXE; IOPL 0; no
 * I/O bitmap; IDT gates of DPL 3 for #BP and #OF only; flat segments, and the windows of {@linkcode WINDOWS} as the only memory below 4 GB.
 * Every case starts from the same memory (the background) and its own patches, so it can be
 * repeated alone.
 */

/** Width of the code segment: 16 (LDT, D=0), 32 (CS=0x23, compatibility mode) or 64 (CS=0x33). */
export type Mode = 16 | 32 | 64;

/** Names of {@linkcode CpuState.gpr}, in the order of the register numbers of ModRM. */
export const GPR_NAMES = [
  "rax",
  "rcx",
  "rdx",
  "rbx",
  "rsp",
  "rbp",
  "rsi",
  "rdi",
  "r8",
  "r9",
  "r10",
  "r11",
  "r12",
  "r13",
  "r14",
  "r15",
] as const;

/** Names of {@linkcode CpuState.selectors}, in the order of the segment register numbers. */
export const SEGMENT_NAMES = ["es", "cs", "ss", "ds", "fs", "gs"] as const;

/** Index of each segment register in {@linkcode CpuState.selectors}. */
export const ES = 0, CS = 1, SS = 2, DS = 3, FS = 4, GS = 5;

/** What a program in user mode can see of a processor. */
export interface CpuState {
  /** General registers, 16 of 64 bits; in 32-bit modes the upper halves and R8 to R15 are zero. */
  gpr: BigUint64Array;
  /** Offset of the next instruction in the code segment. */
  rip: bigint;
  /** RFLAGS without RF and TF (bits 16 and 8); bit 1 is set, as is IF. */
  rflags: number;
  /** ES, CS, SS, DS, FS, GS. */
  selectors: Uint16Array;
  /** Base of FS and of GS, 64 bits. */
  fsBase: bigint;
  gsBase: bigint;
  /**
   * The FXSAVE64 image, 512 bytes (SDM vol 1, 10.5.1.1): FCW, FSW, abridged FTW, FOP, FIP, FDP,
   * MXCSR, eight 80-bit ST registers in stack order, sixteen XMM. FXSAVE64 has no FCS and FDS.
   */
  fx: Uint8Array;
}

/** Offsets in the FXSAVE64 image, in bytes. */
export const FX = {
  fcw: 0,
  fsw: 2,
  ftw: 4,
  fop: 6,
  fip: 8,
  fdp: 16,
  mxcsr: 24,
  st: 32,
  xmm: 160,
  end: 416,
  size: 512,
} as const;

/** Bytes at a linear address. */
export interface Patch {
  address: number;
  bytes: Uint8Array;
}

/** One aligned 8-byte word of memory that is not as in the background. */
export interface Word {
  /** Linear address, a multiple of 8. */
  address: number;
  low: number;
  high: number;
}

/** One test: a state, what memory holds besides the background, and the instruction at CS:RIP. */
export interface Case {
  mode: Mode;
  state: CpuState;
  /** The instruction's bytes, 1 to 15; NOPs follow. */
  bytes: Uint8Array;
  /** Names the case in reports: "seed:index". */
  id?: string;
  /** Memory that is not background; the instruction itself is not repeated here. */
  patches: Patch[];
  /** Instructions to run; 1 if absent. A REP string instruction counts one for each iteration. */
  steps?: number;
}

/** An exception that the processor delivered, as its handler would see it. */
export interface Exception {
  /** Vector, 0 to 31 (SDM vol 3, table 6-1). */
  vector: number;
  /** Error code; 0 for vectors that push none. */
  error: number;
  /** CR2, for page faults only. */
  address?: bigint;
}

/** What came of a case. */
export interface Result {
  /** Absent when all steps completed. */
  exception?: Exception;
  /** The state after the last step, or as the exception handler sees it. */
  state: CpuState;
  /** Every word that differs from the background, ascending; patches not overwritten included. */
  memory: Word[];
}

/**
 * A machine under test. `run` must leave no trace in the next run: it sets up the whole state and
 * memory itself. {@linkcode Ground} does the memory part.
 */
export interface Subject {
  /** For messages, such as "xvm tier 0". */
  readonly name: string;
  /** Modes it can run; cases of other modes are not given to it. */
  readonly modes: readonly Mode[];
  /** Runs one case. It throws only for a bug of the subject, which counts as a difference. */
  run(test: Case): Result;
  /** Releases what the subject holds. */
  close?(): void;
}

/** A piece of linear memory that a case can reach. */
export interface Window {
  name: "code" | "data" | "readonly" | "stack" | "low";
  /** Linear address, a multiple of 4096. */
  address: number;
  /** Bytes, a multiple of 4096. */
  size: number;
  /** Where it lies in the background image. */
  offset: number;
  access: "rx" | "rw" | "r";
}

/** All memory below 4 GB. What is not here is not present; every window has a guard on each side. */
export const WINDOWS: readonly Window[] = [
  { name: "code", address: 0x0040_0000, size: 0x1000, offset: 0x0000, access: "rx" },
  { name: "data", address: 0x1000_0000, size: 0x2000, offset: 0x1000, access: "rw" },
  { name: "readonly", address: 0x1000_2000, size: 0x1000, offset: 0x3000, access: "r" },
  { name: "stack", address: 0x2000_0000, size: 0x1000, offset: 0x4000, access: "rw" },
  { name: "low", address: 0x0000_8000, size: 0x1000, offset: 0x5000, access: "rw" },
];

/** Bytes of all windows together. */
export const GROUND_SIZE = 0x6000;

/** A segment descriptor of the LDT that cases may use; the byte-wise layout is SDM vol 3, 3.4.5. */
export interface Segment {
  selector: number;
  base: number;
  /** Limit in bytes, after granularity. */
  limit: number;
  /** 0 data, 1 data expand-down, 2 code (nonconforming). */
  kind: 0 | 1 | 2;
  /** D/B bit: true for 32 bits. */
  big: boolean;
  /** W of a data segment, R of a code segment. */
  writable: boolean;
  present: boolean;
}

/** The LDT (Linux makes every descriptor DPL 3, accessed). Selectors have TI=1, RPL=3. */
export const LDT: readonly Segment[] = [
  segment(0, 0x0040_0000, 0x0fff, 2, false, true), // 16-bit code
  segment(1, 0x1000_0000, 0x2fff, 0, false, true), // 16-bit data: data and readonly windows
  segment(2, 0x2000_0000, 0x0fff, 0, false, true), // 16-bit stack
  segment(3, 0x1000_0100, 0x06ff, 0, true, true), // 32-bit data, limit not at a page's end
  segment(4, 0x1000_0000, 0x0fff, 0, true, false), // read-only data
  segment(5, 0x1000_0000, 0x0fff, 1, true, true), // expand-down: offsets from 0x1000 up
  segment(6, 0x1000_0000, 0x1fff, 0, true, true, false), // not present
  segment(7, 0x0040_0000, 0x0fff, 2, true, false), // 32-bit code, execute-only
];

function segment(
  index: number,
  base: number,
  limit: number,
  kind: 0 | 1 | 2,
  big: boolean,
  writable: boolean,
  present = true,
): Segment {
  return { selector: (index << 3) | 7, base, limit, kind, big, writable, present };
}

/**
 * The GDT of x86-64 Linux as far as user mode can tell it apart (LAR, LSL, VERR, loads that fault):
 * null, kernel code 32 and 64, kernel data, user code 32, user data, user code 64. Indices 8 to 11
 * hold the TSS and LDT descriptors with DPL 0, 12 to 14 are null, 15 depends on the processor and
 * is not used by the generator. The limit is 0x7f.
 */
export const GDT: readonly bigint[] = [
  0n,
  0x00cf9b000000ffffn,
  0x00af9b000000ffffn,
  0x00cf93000000ffffn,
  0x00cffb000000ffffn,
  0x00cff3000000ffffn,
  0x00affb000000ffffn,
];

/** The eight bytes of an LDT descriptor as Linux writes them (SDM vol 3, figure 3-8). */
export function descriptor(s: Segment): bigint {
  const type = 1 | (Number(s.writable) << 1) | (s.kind << 2);
  const access = type | 0x70 | (Number(s.present) << 7);
  const base = BigInt(s.base), limit = BigInt(s.limit);
  return (limit & 0xffffn) | (base & 0xffffffn) << 16n | BigInt(access) << 40n |
    (limit >> 16n & 0xfn) << 48n | BigInt(s.big) << 54n | base >> 24n << 56n;
}

/** Flat selectors of Linux: code of each mode, and data. */
export const SELECTORS = { code64: 0x33, code32: 0x23, code16: 0x07, data: 0x2b } as const;

/** The linear base of the code segment in a mode. */
export function codeBase(mode: Mode): number {
  return mode === 16 ? LDT[0].base : 0;
}

/** The window that holds a linear address, if one does. */
export function windowAt(address: number): Window | undefined {
  for (const w of WINDOWS) if (address >= w.address && address < w.address + w.size) return w;
}

/** The linear address of an offset into the background. */
export function addressOf(offset: number): number {
  for (const w of WINDOWS) {
    if (offset >= w.offset && offset < w.offset + w.size) return w.address + offset - w.offset;
  }
  throw new RangeError(`offset 0x${offset.toString(16)} is outside the ground of 0x6000 bytes`);
}

/** The background: NOPs in the code window, a fixed pattern of odd bytes elsewhere. */
export function background(): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(GROUND_SIZE);
  bytes.fill(0x90, 0, 0x1000);
  let x = 0x2545f491;
  for (let i = 0x1000; i < GROUND_SIZE; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    bytes[i] = x >>> 24;
  }
  return bytes;
}

/** A state with everything zero but the flat segments, IF, FNINIT's x87 and the reset MXCSR. */
export function emptyState(mode: Mode): CpuState {
  const fx = new Uint8Array(FX.size);
  const view = new DataView(fx.buffer);
  view.setUint16(FX.fcw, 0x37f, true);
  view.setUint32(FX.mxcsr, 0x1f80, true);
  const data = mode === 16 ? LDT[1].selector : SELECTORS.data;
  const code = { 16: SELECTORS.code16, 32: SELECTORS.code32, 64: SELECTORS.code64 }[mode];
  const stack = mode === 16 ? LDT[2].selector : SELECTORS.data;
  const extra = mode === 64 ? 0 : data;
  return {
    gpr: new BigUint64Array(16),
    rip: BigInt(WINDOWS[0].address - codeBase(mode)),
    rflags: 0x202,
    selectors: Uint16Array.of(data, code, stack, data, extra, extra),
    fsBase: 0n,
    gsBase: 0n,
    fx,
  };
}

/** A copy that shares nothing with its original. */
export function copyState(state: CpuState): CpuState {
  return {
    ...state,
    gpr: state.gpr.slice(),
    selectors: state.selectors.slice(),
    fx: state.fx.slice(),
  };
}

/**
 * The memory of a subject: {@linkcode Ground.apply} writes a case's patches and instruction into an
 * image of the background, {@linkcode Ground.collect} lists what differs afterwards and undoes it.
 * `image` may alias the subject's own memory if the windows lie there in the background's order.
 */
export class Ground {
  readonly #background = new Int32Array(background().buffer);
  readonly #words: Int32Array;

  constructor(readonly image: Uint8Array = background()) {
    if (image.length !== GROUND_SIZE || image.byteOffset % 4) {
      throw new RangeError(
        `image has ${image.length} bytes at ${image.byteOffset}, expected 24576`,
      );
    }
    this.#words = new Int32Array(image.buffer, image.byteOffset, GROUND_SIZE / 4);
    this.#words.set(this.#background);
  }

  /** Writes patches and the instruction; bytes outside the windows are refused. */
  apply(test: Case): void {
    for (const p of test.patches) this.write(p.address, p.bytes);
    this.write(codeBase(test.mode) + Number(test.state.rip), test.bytes, true);
  }

  /** Writes bytes at a linear address; `clip` drops what reaches past the window's end. */
  write(address: number, bytes: Uint8Array, clip = false): void {
    const w = windowAt(address);
    if (!w) throw new RangeError(`0x${address.toString(16)} lies in no window`);
    const room = w.address + w.size - address;
    if (bytes.length > room && !clip) {
      throw new RangeError(`${bytes.length} bytes at 0x${address.toString(16)}: room for ${room}`);
    }
    this.image.set(
      room < bytes.length ? bytes.subarray(0, room) : bytes,
      address - w.address + w.offset,
    );
  }

  /** Lists the words that differ from the background and restores them. */
  collect(): Word[] {
    const words = this.#words, clean = this.#background, found: Word[] = [];
    for (let i = 0; i < words.length; i += 2) {
      if (words[i] === clean[i] && words[i + 1] === clean[i + 1]) continue;
      found.push({ address: addressOf(i * 4), low: words[i] >>> 0, high: words[i + 1] >>> 0 });
      words[i] = clean[i];
      words[i + 1] = clean[i + 1];
    }
    return found.sort((a, b) => a.address - b.address);
  }
}
