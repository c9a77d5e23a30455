/**
 * Predecoding: from code bytes to records. Records lie in runs, one per instruction, in an arena in
 * memory 0; per code frame and mode, an index of 4096 words finds the record of an offset. Records
 * depend on the frame and the mode alone, not on where the page is mapped.
 */
import { decode, DecodeStatus, Instruction, isHighByte } from "../isa/decode.ts";
import { FLAG_KIND, type FlagKind } from "../isa/flags.ts";
import type { Form } from "../isa/semantics/meaning.ts";
import {
  CODE_MODE,
  CPU,
  FRAME,
  FRAME_FLAG,
  gpr,
  PREFIX,
  REC,
  RECORD_SIZE,
  RECORDS_SIZE,
  RECORDS_START,
  segment,
  TLB,
  TLB_LIST,
  V,
} from "../state.ts";
import { formOf, hasCopy } from "./forms.ts";
import { PSEUDO } from "./hot_forms.ts";
import { hotHandler } from "./hot_lookup.ts";

/** Code modes that need records of their own. */
const MODE = CODE_MODE;
export type Mode = (typeof MODE)[keyof typeof MODE];

const NOT_FUSED: readonly number[] = [];
const MAX_RUN = 48;
const CS = 1;

/** What predecoding needs of its processor. */
export interface PredecodeHost {
  /** Frame of the code at a linear address, -1 if it is no memory; sets V.abort on a fault. */
  fetchFrame(low: number, high: number): number;
  /** Bytes of code that is not in memory (a device, a hole). */
  fetchDevice(low: number, high: number): number;
  /** No processor's TLB may have an entry by which this frame is written. */
  dropWrites(frame: number): void;
  /** Another processor has predecoded code of this frame. */
  elsewhere(frame: number): boolean;
  flushCodeTlb(): void;
  /** Table index of the cold function of a form. */
  cold(form: Form): number;
  coldSpecial(name: "undefined" | "tooLong"): number;
  /** Is there an execution breakpoint at this linear address? */
  hasBreakpoint(low: number, high: number): boolean;
  /** Bits of DECODE_AS. */
  readonly decodeAs: number;
}

const isX87 = ({ encoding }: Instruction) =>
  encoding.map === 0 && encoding.byte >= 0xd8 && encoding.byte <= 0xdf;

export class Predecoder {
  readonly #u8: Uint8Array;
  readonly #u16: Uint16Array;
  readonly #i32: Int32Array;
  readonly #frames: Int32Array;
  /** Per mode, the index of each frame (an address in memory 0), 0 for none. */
  readonly #index: Int32Array[];
  /** Records of each frame with code, and the slots elsewhere that lead to crossing instructions. */
  readonly #runs = new Map<number, number[]>();
  readonly #crossings = new Map<number, { record: number; slot: number }[]>();
  readonly #indices = new Map<number, number[]>();
  #next = RECORDS_START;
  #x = new Instruction();
  readonly #window = new Uint8Array(32);
  mode: Mode = MODE.code16;
  /** Number of instructions predecoded, and of frames whose code was dropped by a store. */
  readonly counters = { instructions: 0, invalidations: 0, flushes: 0 };

  constructor(
    cpu: ArrayBuffer,
    readonly ram: Uint8Array,
    frames: ArrayBuffer,
    private readonly host: PredecodeHost,
  ) {
    this.#u8 = new Uint8Array(cpu);
    this.#u16 = new Uint16Array(cpu);
    this.#i32 = new Int32Array(cpu);
    this.#frames = new Int32Array(frames);
    const count = frames.byteLength / FRAME.size;
    this.#index = Object.values(MODE).map(() => new Int32Array(count));
  }

  /** Encodings, by number, that this processor does not have: they are undefined. */
  set absent(encodings: Uint8Array) {
    this.#absent = encodings;
    this.reset();
  }
  #absent: Uint8Array = new Uint8Array();

  #decode(bytes: Uint8Array, at: number, limit: number): DecodeStatus {
    const status = decode(bytes, at, limit, this.#bits, this.#x, this.host.decodeAs);
    return status === DecodeStatus.Ok && this.#absent[this.#x.encoding.id]
      ? DecodeStatus.Undefined
      : status;
  }

  /** Forgets everything: the arena is full, or memory was replaced. */
  reset(): void {
    for (const frame of this.#runs.keys()) {
      if (!this.host.elsewhere(frame)) this.#clearMarks(frame);
    }
    for (const index of this.#index) index.fill(0);
    this.#runs.clear();
    this.#crossings.clear();
    this.#indices.clear();
    this.#next = RECORDS_START;
    this.host.flushCodeTlb();
    this.counters.flushes++;
  }

  /** Whether code of the frame is predecoded here. */
  has(frame: number): boolean {
    return this.#runs.has(frame);
  }

  #clearMarks(frame: number): void {
    const at = frame * (FRAME.size / 4);
    this.#frames[at] &= ~FRAME_FLAG.code;
    this.#frames[at + 2] = 0;
    this.#frames[at + 3] = 0;
  }

  /** A store reached predecoded bytes of `frame`: nothing of it stands any more. */
  invalidate(frame: number): void {
    const i32 = this.#i32;
    for (const record of this.#runs.get(frame) ?? []) this.#u16[record >> 1] = PSEUDO.refetch;
    for (const { record, slot } of this.#crossings.get(frame) ?? []) {
      this.#u16[record >> 1] = PSEUDO.refetch;
      i32[slot >> 2] = 0;
    }
    for (const index of this.#indices.get(frame) ?? []) {
      i32.fill(0, index >> 2, (index >> 2) + 4096);
    }
    this.#runs.delete(frame);
    this.#crossings.delete(frame);
    this.#clearMarks(frame);
    this.counters.invalidations++;
  }

  /** Record of the instruction at EIP/RIP, 0 if it cannot be fetched (V.abort says why). */
  predecode(low: number, high: number): number {
    const i32 = this.#i32;
    if (this.#next > RECORDS_START + RECORDS_SIZE - (64 << 10)) this.reset();
    if (this.#long) {
      // Fetch limits are those of canonical addresses, checked by the branch.
    } else if (low >>> 0 > i32[V.codeLimit >> 2] >>> 0) {
      return this.#pastLimit(low);
    }
    const baseLow = i32[V.codeBase >> 2];
    const linearLow = this.#long ? low : (low + baseLow) | 0;
    const linearHigh = this.#long ? high : 0;
    const frame = this.host.fetchFrame(linearLow, linearHigh);
    if (i32[V.abort >> 2]) return 0;
    const inPage = linearLow & 4095;
    i32[V.ipBase >> 2] = low - inPage;
    // Below zero where the segment begins inside the page.
    i32[(V.ipBase >> 2) + 1] = (this.#long ? high : 0) - +(low >>> 0 < inPage);
    if (frame < 0) return this.#uncached(linearLow, linearHigh, inPage);
    const index = this.#index[this.mode][frame] || this.#newIndex(frame);
    this.#fillCodeTlb(linearLow, linearHigh, index);
    return i32[(index >> 2) + inPage] || this.#run(frame, index, inPage, linearLow, linearHigh);
  }

  /** A direct jump within a page, or the end of a run: gives its record a link to the target's. */
  link(record: number, low: number, high: number): number {
    const resets = this.counters.flushes;
    const target = this.predecode(low, high);
    if (!target) {
      // The loop resolves again and reports the fault with the right instruction pointer.
      this.#i32[V.abort >> 2] = 0;
      return 0;
    }
    if (resets === this.counters.flushes && this.#u16[record >> 1] !== PSEUDO.refetch) {
      this.#i32[(record + REC.target) >> 2] = target;
      if (this.#u16[record >> 1] === PSEUDO.more) this.#u16[record >> 1] = PSEUDO.goto;
    }
    return target;
  }

  #newIndex(frame: number): number {
    const index = this.#next;
    this.#next += 4096 * 4;
    this.#i32.fill(0, index >> 2, this.#next >> 2);
    this.#index[this.mode][frame] = index;
    const list = this.#indices.get(frame);
    if (list) list.push(index);
    else this.#indices.set(frame, [index]);
    return index;
  }

  #fillCodeTlb(low: number, high: number, index: number): void {
    const i32 = this.#i32;
    const entry = i32[V.tlb >> 2] + TLB.code + ((low >>> 8) & ((TLB.entries - 1) * 16));
    // The same page may hold code of several modes.
    i32[entry >> 2] = low & ~4095 | this.mode;
    i32[(entry >> 2) + 1] = high;
    i32[(entry >> 2) + 2] = index;
    const fills = i32[V.fills >> 2];
    if (fills < TLB_LIST.maxFills) {
      i32[(TLB_LIST.fills >> 2) + fills] = entry;
      i32[V.fills >> 2] = fills + 1;
    }
  }

  /** Notes that bytes [from, to) of a frame are predecoded, so that stores to them are seen. */
  #mark(frame: number, from: number, to: number): void {
    const at = frame * (FRAME.size / 4);
    const frames = this.#frames;
    for (let granule = from >> 6; granule <= (to - 1) >> 6; granule++) {
      frames[at + 2 + (granule >> 5)] |= 1 << (granule & 31);
    }
    if (!(frames[at] & FRAME_FLAG.code)) {
      if (frames[at] & FRAME_FLAG.inWriteTlb) this.host.dropWrites(frame);
      frames[at] |= FRAME_FLAG.code;
    }
  }

  /** 64-bit code, which has no base and no limit. */
  get #long(): boolean {
    return this.mode >= MODE.code64;
  }
  get #bits(): 16 | 32 | 64 {
    return this.mode === MODE.code16 ? 16 : this.#long ? 64 : 32;
  }

  #allocate(frame: number): number {
    const record = this.#next;
    this.#next += RECORD_SIZE;
    let list = this.#runs.get(frame);
    if (!list) this.#runs.set(frame, list = []);
    list.push(record);
    this.#i32.fill(0, record >> 2, (record + RECORD_SIZE) >> 2);
    return record;
  }

  #pseudo(frame: number, handler: number, offset: number, link = 0): number {
    const record = this.#allocate(frame);
    this.#u16[record >> 1] = handler;
    this.#u16[(record + REC.offset) >> 1] = offset;
    this.#i32[(record + REC.target) >> 2] = link;
    return record;
  }

  /** Predecodes from `start` on; gives the first record. */
  #run(frame: number, index: number, start: number, low: number, high: number): number {
    const i32 = this.#i32, x = this.#x;
    const page = frame * 4096;
    const limit = page + 4096;
    let offset = start, first = 0, producer: FlagKind = 0;
    /** Places in the index since the producer: a condition bound to it must not be entered there. */
    const behind: number[] = [];
    for (let n = 0;; n++) {
      if (offset === 4096) {
        const end = this.#pseudo(frame, PSEUDO.pageEnd, 4096);
        return first || end;
      }
      const slot = (index >> 2) + offset;
      if (n > 0 && (i32[slot] || n >= MAX_RUN)) {
        // Join what is there, or stop and look up again when execution gets here.
        if (i32[slot]) this.#pseudo(frame, PSEUDO.goto, offset, i32[slot]);
        else this.#pseudo(frame, PSEUDO.more, offset);
        return first;
      }
      let breakpoint = 0;
      if (this.host.hasBreakpoint((low & ~4095) + offset | 0, high)) {
        breakpoint = this.#pseudo(frame, PSEUDO.breakpoint, offset);
      }
      const status = this.#decode(this.ram, page + offset, limit);
      if (status === DecodeStatus.NeedMoreBytes) {
        // Reading ahead must not touch the next page: only when execution gets here.
        if (n > 0) this.#pseudo(frame, PSEUDO.more, offset);
        return first || this.#crossing(frame, offset, slot, low, high, breakpoint);
      }
      const before = this.#next - RECORD_SIZE, fused = this.#fused;
      const record = this.#record(frame, offset, status, producer);
      const entry = breakpoint || record;
      first ||= entry;
      const { key, cc, attributes } = x.encoding;
      const specialized = producer !== 0 && cc >= 0 && status === DecodeStatus.Ok;
      if (specialized) {
        const both = fused[cc];
        const follows = n > 0 && !breakpoint && key === "jcc";
        // Only right behind its producer: nothing else came in between.
        if (both && follows && this.#isHot(record)) this.#u16[before >> 1] = both;
        for (const place of behind) i32[place] = 0;
        behind.length = 0;
      } else {
        i32[slot] = entry;
        if (producer) behind.push(slot);
      }
      this.#mark(frame, offset, Math.min(offset + x.length, 4096));
      offset += x.length;
      const { flow } = attributes;
      if (status !== DecodeStatus.Ok || flow === "jump" || flow === "return") return first;
      if (attributes.written !== "" || attributes.undefined !== "") {
        producer = FLAG_KIND[attributes.lazy || "explicit"];
        behind.length = 0;
      }
    }
  }

  #isHot(record: number): boolean {
    return this.#u16[record >> 1] !== PSEUDO.cold;
  }

  /** Writes the record of the instruction just decoded. */
  #record(frame: number, offset: number, status: number, producer: FlagKind): number {
    const record = this.#allocate(frame);
    this.counters.instructions++;
    this.#fill(record, offset, status, producer);
    return record;
  }

  #fill(record: number, offset: number, status: number, producer: FlagKind): void {
    const u16 = this.#u16, x = this.#x;
    u16[(record + REC.offset) >> 1] = offset;
    this.#u8[record + REC.length] = x.length;
    if (status !== DecodeStatus.Ok) {
      u16[record >> 1] = PSEUDO.cold;
      u16[(record + REC.cold) >> 1] = this.host.coldSpecial(
        status === DecodeStatus.TooLong ? "tooLong" : "undefined",
      );
      return;
    }
    const form = formOf(x, this.#bits);
    this.#operands(record, form, offset);
    const handler = this.#hotHandler(record, form, producer);
    u16[record >> 1] = handler || PSEUDO.cold;
    if (!handler) u16[(record + REC.cold) >> 1] = this.host.cold(form);
  }

  /** For the record written last: its handlers that do a jump as well. */
  #fused: readonly number[] = NOT_FUSED;

  /** Number of the hot handler for the instruction just decoded, 0 if there is none. */
  #hotHandler(record: number, form: Form, producer: FlagKind): number {
    this.#fused = NOT_FUSED;
    const x = this.#x;
    const long = this.mode === MODE.flat64;
    if (!long && this.mode !== MODE.flat32 || x.lock) return 0;
    if (x.memory && x.addressSize !== (long ? 64 : 32)) return 0;
    // What does not fit the 32 bits that hot handlers read.
    if (long && (x.displacementHigh !== x.displacement >> 31)) return 0;
    if (long && (x.immediateHigh !== x.immediate >> 31) && form.operands.includes("i")) return 0;
    // ES, SS and DS are flat and writable; FS and GS are not known to be.
    const flat = x.segment < 4 && (long || x.segment !== CS);
    if (x.memory && !flat && x.index >= 0) return 0;
    const letter = x.index >= 0 ? "x" : x.memory && !flat ? "s" : "b";
    const { plain, fixed, names, fused } = hotHandler(form, letter, producer, long);
    this.#fused = fused;
    if (!fixed) return plain;
    const number = (field: number) => {
      const place = this.#u16[(record + field) >> 1];
      return place === V.zero ? 8 : (place - gpr(0)) >> 3;
    };
    const other = names[1] === undefined ? 0 : number(names[1] === "b" ? REC.b : REC.base);
    const handler = fixed[number(REC.a) + 16 * other];
    if (handler && names[1] === "base") {
      this.#i32[(record + REC.copy) >> 2] = this.#i32[(record + REC.displacement) >> 2];
    }
    return handler || plain;
  }

  #operands(record: number, form: Form, offset: number): void {
    const u16 = this.#u16, i32 = this.#i32, x = this.#x;
    let prefixes = (x.lock ? PREFIX.lock : 0) | (x.memory ? PREFIX.memory : 0) |
      (x.rep === 0xf3 ? PREFIX.rep : x.rep === 0xf2 ? PREFIX.repne : 0) |
      (x.operandSize === 16 ? PREFIX.operand16 : x.operandSize === 64 ? PREFIX.operand64 : 0) |
      (x.addressSize === 16 ? PREFIX.address16 : x.addressSize === 64 ? PREFIX.address64 : 0) |
      (x.rex ? PREFIX.rex : 0);
    u16[(record + REC.segment) >> 1] = segment(x.segment);
    u16[(record + REC.base) >> 1] = x.base === 16 ? V.ipBase : x.base < 0 ? V.zero : gpr(x.base);
    u16[(record + REC.index) >> 1] = x.index < 0 ? V.zero : gpr(x.index);
    this.#u8[record + REC.scale] = x.scale;
    i32[(record + REC.displacement) >> 2] = x.base === 16
      ? x.displacement + offset + x.length
      : x.displacement;
    i32[(record + REC.immediate) >> 2] = x.immediate;
    i32[(record + REC.link) >> 2] = x.immediate2 || x.immediateHigh;
    if (x.displacementHigh !== x.displacement >> 31 && x.addressSize === 64) {
      prefixes |= PREFIX.wideOffset;
      i32[(record + REC.immediate) >> 2] = x.displacementHigh;
    }
    let slot = 0;
    form.operands.forEach((letter, i) => {
      if (letter === "j") {
        // Relative to the page; in 64-bit code, where that sum may not fit, to the next instruction.
        const target = offset + x.length + x.immediate;
        i32[(record + REC.immediate) >> 2] = x.operandSize === 64 ? x.immediate : target;
        i32[(record + REC.target) >> 2] = 0;
        this.#u8[record + REC.scale] = target >= 0 && target < 4096 ? 1 : 0;
      }
      if (letter !== "r" && letter !== "n") return;
      const field = [REC.a, REC.b, REC.base][slot++];
      u16[(record + field) >> 1] = this.#place(i, form.sizes[i]);
    });
    u16[(record + REC.prefixes) >> 1] = prefixes;
    if (hasCopy(form)) i32[(record + REC.copy) >> 2] = x.immediate;
    // The opcode as FOP has it: 11 bits of its two bytes (SDM 1 8.1.9).
    if (isX87(x)) i32[(record + REC.immediate) >> 2] = (x.encoding.byte & 7) << 8 | x.modrm;
  }

  /** Address of a register operand in memory 0, or its number where semantics want that. */
  #place(i: number, bits: number): number {
    const x = this.#x, spec = x.encoding.operands[i];
    const general = (n: number) => bits === 8 && isHighByte(x, n) ? gpr(n - 4) + 1 : gpr(n);
    switch (spec.kind) {
      case "E":
      case "R":
        return general(x.rm);
      case "G":
        return general(x.reg);
      case "Z":
        return general(x.opreg);
      case "gpr":
        return gpr(spec.register);
      case "S":
        return segment(x.reg & 7);
      case "seg":
        return segment(spec.register);
      case "C":
      case "D":
        return x.reg;
      case "sti":
      case "Q":
      case "N":
        return x.rm & 7;
      case "P":
        return x.reg & 7;
      case "V":
        return CPU.xmm0 + 16 * x.reg;
      case "W":
      case "U":
        return CPU.xmm0 + 16 * x.rm;
      case "xmm":
        return CPU.xmm0;
      default:
        return 0;
    }
  }

  /** An instruction that reaches into the next page. */
  #crossing(
    frame: number,
    offset: number,
    slot: number,
    low: number,
    high: number,
    before: number,
  ) {
    const x = this.#x, window = this.#window;
    const here = 4096 - offset;
    const pageLow = ((low & ~4095) + 4096) | 0;
    const pageHigh = pageLow === 0 && this.#long ? high + 1 : high;
    const i32 = this.#i32;
    if (!this.#long) {
      const ip = (pageLow - i32[V.codeBase >> 2]) >>> 0, limit = i32[V.codeLimit >> 2] >>> 0;
      if (ip > limit && limit !== 0xffff_ffff) return this.#pastLimit(ip - here);
    }
    const second = this.host.fetchFrame(pageLow, pageHigh);
    if (i32[V.abort >> 2]) return 0;
    window.fill(0);
    window.set(this.ram.subarray(frame * 4096 + offset, frame * 4096 + 4096));
    if (second >= 0) window.set(this.ram.subarray(second * 4096, second * 4096 + 15), here);
    else window.fill(0xff, here, here + 15);
    const status = this.#decode(window, 0, here + 15);
    const guard = this.#pseudo(frame, PSEUDO.crossing, offset, second);
    this.#record(frame, offset, status, 0);
    this.#pseudo(frame, PSEUDO.pageEnd, offset + x.length);
    const entry = before || guard;
    i32[slot] = entry;
    this.#mark(frame, offset, 4096);
    if (second >= 0) {
      this.#mark(second, 0, Math.max(1, x.length - here));
      if (!this.#runs.has(second)) this.#runs.set(second, []);
      const list = this.#crossings.get(second);
      const crossing = { record: guard, slot: slot << 2 };
      if (list) list.push(crossing);
      else this.#crossings.set(second, [crossing]);
    }
    return entry;
  }

  /** Executed before a crossing instruction: is its second page still the same? */
  crossing(record: number): number {
    const i32 = this.#i32;
    const offset = this.#u16[(record + REC.offset) >> 1];
    const ipLow = (i32[V.ipBase >> 2] + offset) | 0;
    const linear = this.#long ? ipLow : (ipLow + i32[V.codeBase >> 2]) | 0;
    const high = this.#long ? i32[(V.ipBase >> 2) + 1] : 0;
    const pageLow = ((linear & ~4095) + 4096) | 0;
    const second = this.host.fetchFrame(pageLow, pageLow === 0 ? high + 1 : high);
    if (i32[V.abort >> 2]) return 0;
    // No memory there (-1): all ones, as before.
    if (second === i32[(record + REC.target) >> 2]) return record;
    // Another page stands there now: decode anew, outside the index if the first page stays.
    const frame = this.host.fetchFrame(linear, high);
    if (i32[V.abort >> 2]) return 0;
    if (frame < 0) return this.#uncached(linear, high, linear & 4095);
    const index = this.#index[this.mode][frame] || this.#newIndex(frame);
    return this.#crossing(frame, offset, (index >> 2) + offset, linear, high, 0);
  }

  /** Code outside memory, or past a limit: one record, decoded each time. */
  #uncached(low: number, high: number, offset: number): number {
    const window = this.#window, i32 = this.#i32;
    // The device is told the time at the end of the instruction, as with its other accesses.
    i32[V.left >> 2]--;
    for (let i = 0; i < 15; i++) window[i] = this.host.fetchDevice((low + i) | 0, high);
    i32[V.left >> 2]++;
    const status = this.#decode(window, 0, 15);
    const record = this.#allocate(-1);
    this.#fill(record, offset, status, 0);
    // Its jumps are not linked: that would read the device once more.
    if (this.#x.encoding.operands[0]?.kind === "J") this.#u8[record + REC.scale] = 0;
    this.#pseudo(-1, PSEUDO.refetch, offset + this.#x.length);
    return record;
  }

  /** A record whose length runs past the code segment's limit: the loop raises the fault. */
  #pastLimit(low: number): number {
    const i32 = this.#i32;
    const inPage = (low + i32[V.codeBase >> 2]) & 4095;
    i32[V.ipBase >> 2] = low - inPage;
    i32[(V.ipBase >> 2) + 1] = -(low >>> 0 < inPage);
    const record = this.#pseudo(-1, PSEUDO.refetch, inPage);
    this.#u8[record + REC.length] = 15;
    return record;
  }
}
